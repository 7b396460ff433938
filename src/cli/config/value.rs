//! Single values: from what is written in a file to what a field holds, and back to the shortest text that reads so.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use digstore::base::size::ByteSize;

/// Stands for a value that follows from others.
pub const AUTO: &str = "auto";

/// A scalar as TOML has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// In quotes.
    Text(String),
    /// Without.
    Number(i64),
    /// `true` or `false`.
    Flag(bool),
}

impl Raw {
    /// What stands after the equals sign.
    pub fn to_toml(&self) -> toml_edit::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Flag(flag) => (*flag).into(),
        }
    }

    /// A text in quotes.
    pub fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Number(number) => Err(format!("{number} must stand in quotes")),
            Self::Flag(flag) => Err(format!("{flag} must stand in quotes")),
        }
    }

    pub fn is_auto(&self) -> bool {
        matches!(self, Self::Text(text) if text == AUTO)
    }

    /// A number without unit.
    pub fn count(&self, within: &RangeInclusive<u64>) -> Result<u64, String> {
        let bad = |what: &dyn Display| format!("{what} is not a number from {} to {}", within.start(), within.end());
        match self {
            Self::Number(number) => {
                u64::try_from(*number).ok().filter(|n| within.contains(n)).ok_or_else(|| bad(number))
            }
            Self::Text(text) => Err(bad(&format_args!("'{text}'"))),
            Self::Flag(flag) => Err(bad(flag)),
        }
    }

    /// A number of bytes, with or without unit.
    pub fn size(&self, within: &RangeInclusive<u64>) -> Result<u64, String> {
        let bytes = match self {
            Self::Number(number) => u64::try_from(*number).map_err(|_| format!("{number} is not a size"))?,
            Self::Text(text) => text.parse::<ByteSize>()?.0,
            Self::Flag(flag) => return Err(format!("{flag} is not a size")),
        };
        if within.contains(&bytes) {
            return Ok(bytes);
        }
        let [bytes, least, most] = [bytes, *within.start(), *within.end()].map(|bytes| ByteSize(bytes).to_config());
        Err(format!("{bytes} is out of range; it must be between {least} and {most}"))
    }

    /// A length of time with its unit.
    pub fn time(&self, within: &RangeInclusive<Duration>) -> Result<Duration, String> {
        let text = self.text().map_err(|why| format!("{why} and have a unit, such as \"100ms\" or \"10s\""))?;
        let time = parse_time(text).ok_or_else(|| format!("'{text}' is not a time; write 100ms, 10s or 2m"))?;
        if within.contains(&time) {
            return Ok(time);
        }
        let [least, most] = [within.start(), within.end()].map(|time| time_text(*time));
        Err(format!("{text} is out of range; it must be between {least} and {most}"))
    }

    /// Yes or no.
    pub fn flag(&self) -> Result<bool, String> {
        match self {
            Self::Flag(flag) => Ok(*flag),
            Self::Number(number) => Err(format!("{number} is neither true nor false")),
            Self::Text(text) => Err(format!("'{text}' is neither true nor false, which stand without quotes")),
        }
    }

    /// One of several words.
    pub fn choice(&self, words: &[&'static str]) -> Result<&'static str, String> {
        let text = self.text()?;
        let found = words.iter().find(|word| **word == text);
        found.copied().ok_or_else(|| format!("'{text}' is not one of {}", words.join(", ")))
    }
}

/// Units of time in milliseconds, long ones first.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

fn parse_time(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*factor)?))
}

/// The shortest form that reads back to the same time.
pub fn time_text(time: Duration) -> String {
    let millis = time.as_millis() as u64;
    let fits = |factor: &u64| millis >= *factor && millis.is_multiple_of(*factor);
    let (name, factor) = TIME_UNITS.iter().find(|(_, factor)| fits(factor)).unwrap_or(&("ms", 1));
    format!("{}{name}", millis / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back() {
        for text in ["0ms", "1ms", "100ms", "10s", "90s", "2m", "25h"] {
            assert_eq!(time_text(parse_time(text).unwrap()), text);
        }
        for text in ["", "10", "s", "-1s", "1.5s", "1d", "99999999999999999h"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
