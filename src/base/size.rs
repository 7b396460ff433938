//! Byte sizes as people write and read them.
//!
//! Units are powers of 1024 whether spelt `KB` or `KiB`, as in the configuration this program documents.

use std::fmt;
use std::str::FromStr;

/// A number of bytes that parses from `64KB` and prints as `64.0 KiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct ByteSize(pub u64);

/// 1024 bytes.
pub const KIB: u64 = 1024;
/// 1024 KiB.
pub const MIB: u64 = 1024 * KIB;
/// 1024 MiB.
pub const GIB: u64 = 1024 * MIB;

const UNITS: [(&str, u64); 5] = [("T", 1024 * GIB), ("G", GIB), ("M", MIB), ("K", KIB), ("", 1)];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is not a size; write a number and a unit, such as 64KB, 10MB or 1GB");
        let upper = text.trim().to_ascii_uppercase();
        let digits = upper.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(upper.len());
        let (number, unit) = upper.split_at(digits);
        let unit = unit.trim().trim_end_matches("IB").trim_end_matches('B');
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(*factor).map(ByteSize).ok_or_else(bad);
        }
        let value = number.parse::<f64>().map_err(|_| bad())? * *factor as f64;
        if value.is_finite() && value < u64::MAX as f64 { Ok(ByteSize(value as u64)) } else { Err(bad()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(name, factor)| !name.is_empty() && self.0 >= *factor) {
            Some((name, factor)) => write!(f, "{:.1} {name}iB", self.0 as f64 / *factor as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl ByteSize {
    /// The shortest form that [`ByteSize::from_str`] reads back to the same number, such as `64KB`.
    pub fn to_config(self) -> String {
        let (name, factor) = UNITS
            .iter()
            .find(|(name, factor)| name.is_empty() || (self.0 >= *factor && self.0.is_multiple_of(*factor)))
            .unwrap_or(&("", 1));
        format!("{}{name}B", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_and_print() {
        for (text, bytes) in
            [("0", 0), ("4KB", 4096), ("64 KiB", 65536), ("1.5m", 1_572_864), ("2GB", 2 * GIB), ("7B", 7)]
        {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "KB", "1XB", "-1", "99999999999TB", "1..2K"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert_eq!(ByteSize(65536).to_string(), "64.0 KiB");
        assert_eq!(ByteSize(12).to_string(), "12 B");
    }

    #[test]
    fn the_config_form_reads_back() {
        for bytes in [0, 1, 1023, 1024, 1536, 64 * KIB, 10 * MIB, GIB, GIB + 1] {
            assert_eq!(ByteSize(bytes).to_config().parse::<ByteSize>().unwrap().0, bytes);
        }
    }
}
