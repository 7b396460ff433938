//! Outcomes as text.

pub mod bundle;
pub mod changes;
pub mod checkpoint;
pub mod history;
pub mod session;
pub mod store;

use std::fmt::Display;

use digstore::base::clock::{NANOS_PER_SEC, UnixNanos};
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

pub use super::progress::grouped;

/// Colors, or none.
#[derive(Debug, Clone, Copy)]
pub struct Paint(pub bool);

impl Paint {
    fn with(self, code: &str, text: impl Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
    pub fn red(self, text: impl Display) -> String {
        self.with("31", text)
    }
    pub fn green(self, text: impl Display) -> String {
        self.with("32", text)
    }
    pub fn yellow(self, text: impl Display) -> String {
        self.with("33", text)
    }
    pub fn cyan(self, text: impl Display) -> String {
        self.with("36", text)
    }
    pub fn bold(self, text: impl Display) -> String {
        self.with("1", text)
    }
}

/// "1 file", "2 files".
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// A time where it was made.
pub fn time(time_ns: UnixNanos, utc_offset_minutes: i16) -> String {
    const SECONDS_PER_MINUTE: i32 = 60;
    let offset = Offset::from_seconds(i32::from(utc_offset_minutes) * SECONDS_PER_MINUTE).unwrap_or(Offset::UTC);
    match Timestamp::from_second(time_ns.div_euclid(NANOS_PER_SEC)) {
        Ok(time) => time.to_zoned(TimeZone::fixed(offset)).strftime("%a %b %-d %H:%M:%S %Y %z").to_string(),
        Err(_) => format!("{time_ns} ns after 1970"),
    }
}

/// A time on the user's clock, short enough for lists.
pub fn local_time(time_ns: UnixNanos) -> String {
    match Timestamp::from_second(time_ns.div_euclid(NANOS_PER_SEC)) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("{time_ns} ns after 1970"),
    }
}

/// Control characters out, line breaks left in: text from a repository must not drive the terminal.
pub fn printable(text: &str) -> String {
    text.split('\n')
        .map(|line| {
            line.split('\t').map(|part| digstore::model::path::escape(part.as_bytes())).collect::<Vec<_>>().join("\t")
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_where_they_were_made() {
        assert_eq!(time(1_600_000_000_123_456_789, 120), "Sun Sep 13 14:26:40 2020 +0200");
        assert_eq!(time(-1, 0), "Wed Dec 31 23:59:59 1969 +0000");
    }

    #[test]
    fn text_cannot_drive_the_terminal() {
        assert_eq!(printable("a\tb\n\x1b[31mc"), "a\tb\n\\u{1b}[31mc");
        assert_eq!((count(1, "file"), count(2000, "file")), ("1 file".into(), "2,000 files".into()));
    }
}
