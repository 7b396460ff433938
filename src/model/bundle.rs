//! A disk image kept as a folder of files of one size, its bands.

use serde::Serialize;

/// Name of the file that says what a bundle is.
pub const INFO_NAME: &str = "Info.plist";
/// Name of the copy of it that macOS keeps.
pub const INFO_COPY_NAME: &str = "Info.bckup";
/// Name of the folder of bands.
pub const BANDS_NAME: &str = "bands";
/// Name of the empty file that macOS puts beside them.
pub const TOKEN_NAME: &str = "token";

/// Sizes are counted in sectors of this many bytes.
pub const SECTOR_LEN: u64 = 512;
/// Smallest band of a bundle that is made here: smaller ones only mean more files.
pub const MIN_NEW_BAND_LEN: u64 = 1 << 20;
/// Greatest band of a bundle that is made here: a band is written anew as a whole when it is restored.
pub const MAX_NEW_BAND_LEN: u64 = 64 << 20;
/// Band of a bundle that is made here unless another is asked for.
pub const DEFAULT_BAND_LEN: u64 = 4 << 20;
/// Greatest band that is taken for one, of whatever program: far beyond any in use, and far from overflowing.
pub const MAX_BAND_LEN: u64 = 1 << 40;
/// Longest image: what file systems and their offsets can hold.
pub const MAX_IMAGE_LEN: u64 = i64::MAX as u64;

/// How an image is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Geometry {
    /// Length of the image in bytes; a multiple of [`SECTOR_LEN`].
    pub image_len: u64,
    /// Length of a band in bytes; a multiple of [`SECTOR_LEN`], never 0. Band `n` holds the image from `n` times this on.
    pub band_len: u64,
}

impl Geometry {
    /// Checks both lengths.
    pub fn new(image_len: u64, band_len: u64) -> Result<Self, String> {
        if band_len == 0 || !band_len.is_multiple_of(SECTOR_LEN) || band_len > MAX_BAND_LEN {
            return Err(format!("a band of {band_len} bytes is impossible"));
        }
        if !image_len.is_multiple_of(SECTOR_LEN) || image_len > MAX_IMAGE_LEN {
            return Err(format!("an image of {image_len} bytes is impossible"));
        }
        Ok(Self { image_len, band_len })
    }

    /// Number of bands that the image has room for; absent ones count.
    pub fn band_count(&self) -> u64 {
        self.image_len.div_ceil(self.band_len)
    }

    /// Bytes of the image that a band stands for: the last one may be shorter, those behind it stand for none.
    pub fn len_of(&self, band: u64) -> u64 {
        let start = band.saturating_mul(self.band_len);
        self.image_len.saturating_sub(start).min(self.band_len)
    }
}

/// The name of a band's file: its number in hexadecimal digits.
pub fn band_name(band: u64) -> String {
    format!("{band:x}")
}

/// The number of the band that has this name: lower-case digits without zeros in front. `None` for every other name.
pub fn parse_band_name(name: &[u8]) -> Option<u64> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let leading_zero = name.len() > 1 && name.first() == Some(&b'0');
    if leading_zero || !name.iter().all(is_digit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(name).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_bands() {
        for band in [0, 9, 10, 255, 256, u64::MAX] {
            assert_eq!(parse_band_name(band_name(band).as_bytes()), Some(band));
        }
        for name in ["", "00", "01", "A", "g", "-1", "+1", "1 ", "0x1", "10000000000000000", "..", "\u{661}"] {
            assert_eq!(parse_band_name(name.as_bytes()), None, "{name:?}");
        }
    }

    #[test]
    fn the_last_band_may_be_short() {
        let geometry = Geometry::new(5 * SECTOR_LEN, 2 * SECTOR_LEN).unwrap();
        assert_eq!(geometry.band_count(), 3);
        assert_eq!([0, 1, 2, 3, u64::MAX].map(|band| geometry.len_of(band)), [1024, 1024, 512, 0, 0]);
        for (image_len, band_len) in [(512, 0), (512, 100), (100, 512), (512, MAX_BAND_LEN * 2), (u64::MAX, 512)] {
            assert!(Geometry::new(image_len, band_len).is_err());
        }
        assert_eq!(Geometry::new(0, 512).unwrap().band_count(), 0);
    }
}
