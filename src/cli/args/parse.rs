//! Words of the command line that stand for something: checkpoints, sessions, times, spans of time.

use std::time::Duration;

use digstore::base::clock::UnixNanos;
use digstore::model::session::SessionName;
use jiff::civil::{Date, DateTime};
use jiff::{Span, Timestamp, ToSpan, Zoned};

/// Thirty years: more is a mistake, and a clock counts no further than some of it.
const MAX_SECONDS: f64 = 1e9;

/// A number of seconds, such as 30 or 0.5.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "write a number of seconds, such as 30 or 0.5".to_owned())?;
    if number > MAX_SECONDS {
        return Err(format!("{MAX_SECONDS} seconds are the most"));
    }
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

/// A checkpoint: `@12` or `12`.
pub fn checkpoint(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix('@').unwrap_or(text).parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "write the number of a checkpoint, such as @12".to_owned())
}

/// A checkpoint where other words may stand, so with its `@`.
pub fn marked_checkpoint(text: &str) -> Option<u64> {
    text.starts_with('@').then(|| checkpoint(text).ok()).flatten()
}

/// The name of a session.
pub fn session(text: &str) -> Result<SessionName, String> {
    SessionName::parse(text).map_err(|error| error.why.to_owned())
}

/// The moment at which something begins: a day begins with its first hour.
pub fn since(text: &str) -> Result<UnixNanos, String> {
    moment(text, 0)
}

/// The moment at which something ends: a day is meant with all of its hours.
pub fn until(text: &str) -> Result<UnixNanos, String> {
    moment(text, 1)
}

fn moment(text: &str, days_after: i64) -> Result<UnixNanos, String> {
    let now = Zoned::now();
    let zone = || now.time_zone().clone();
    let is_date = text.len() <= "2026-01-31".len();
    let found = if let Ok(time) = text.parse::<Timestamp>() {
        Ok(time)
    } else if let Some(date) = text.parse::<Date>().ok().filter(|_| is_date) {
        let day = date.checked_add(days_after.days());
        day.and_then(|day| day.to_zoned(zone())).map(|time| time.timestamp())
    } else if let Ok(time) = text.parse::<DateTime>() {
        time.to_zoned(zone()).map(|time| time.timestamp())
    } else if let Ok(span) = text.parse::<Span>() {
        now.checked_sub(span.abs()).map(|time| time.timestamp())
    } else {
        let forms = "a date (2026-01-31), a time (2026-01-31T12:00:00Z) or how long ago (90m, 2h, 3d)";
        return Err(format!("write {forms}"));
    };
    let time = found.map_err(|error| error.to_string())?;
    UnixNanos::try_from(time.as_nanosecond()).map_err(|_| "that is too far away".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use digstore::base::clock::{NANOS_PER_SEC, now};

    #[test]
    fn times_are_understood_as_people_write_them() {
        const HOUR: i64 = 3600 * NANOS_PER_SEC;
        assert_eq!(since("1970-01-01T00:00:01Z"), Ok(NANOS_PER_SEC));
        assert_eq!(since("1970-01-01T02:00:00+02:00"), Ok(0));
        let (day, next) = (since("2026-01-31").unwrap(), until("2026-01-31").unwrap());
        assert_eq!(next - day, 24 * HOUR);
        assert_eq!(since("2026-01-31T05:00:00").unwrap() - day, 5 * HOUR);
        for (text, ago) in [("2h", 2 * HOUR), ("2h ago", 2 * HOUR), ("90m", HOUR * 3 / 2), ("1h 30m", HOUR * 3 / 2)] {
            let found = since(text).unwrap();
            let missed = now() - ago - found;
            assert!((0..HOUR).contains(&missed), "{text}: {missed}");
        }
        assert!(since("3d").unwrap() < since("2d").unwrap());
        for bad in ["", "yesterday", "2026-13-01", "12", "h"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn checkpoints_are_numbers_from_one() {
        assert_eq!((checkpoint("@12"), checkpoint("12")), (Ok(12), Ok(12)));
        for bad in ["", "@", "@0", "0", "-1", "@1x", "@@1", "1.5"] {
            assert!(checkpoint(bad).is_err(), "{bad}");
        }
        assert_eq!((marked_checkpoint("@3"), marked_checkpoint("3"), marked_checkpoint("@x")), (Some(3), None, None));
    }
}
