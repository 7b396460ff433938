//! `Info.plist`: what a sparse bundle is. The format is Apple's; XML and binary lists are read, XML is written.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use plist::{Dictionary, Value};

use super::FormatError;
use crate::base::bytes::DecodeError;
use crate::model::bundle::Geometry;

/// Longest list that is read; those of macOS have 500 bytes.
pub const MAX_INFO_LEN: u64 = 64 << 10;

const TYPE_KEY: &str = "diskimage-bundle-type";
const TYPE: &str = "com.apple.diskimage.sparsebundle";
const BAND_LEN_KEY: &str = "band-size";
const IMAGE_LEN_KEY: &str = "size";
const STORE_VERSION_KEY: &str = "bundle-backingstore-version";
/// The only version that macOS ever wrote.
const STORE_VERSION: u64 = 1;
const LIST_VERSION_KEY: &str = "CFBundleInfoDictionaryVersion";
const LIST_VERSION: &str = "6.0";

/// Binary lists begin with this.
const BINARY_MAGIC: &[u8] = b"bplist0";

const WHAT: &str = "the property list of a bundle";

fn invalid(why: impl ToString) -> FormatError {
    DecodeError::Invalid { what: WHAT, why: why.to_string() }.into()
}

/// Bytes read of one list at most. A binary list may refer to the same values again and again, each time they are read.
const MAX_READ: u64 = 4 * MAX_INFO_LEN;

/// A list that can be read only for so long.
struct Bounded<'a> {
    bytes: Cursor<&'a [u8]>,
    left: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(into.len().max(1) as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.bytes.read(into)
    }
}

impl Seek for Bounded<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

/// Reads an `Info.plist`. [`FormatError::Foreign`]: it is a property list, and of something else.
pub fn decode_info(bytes: &[u8]) -> Result<Geometry, FormatError> {
    if bytes.len() as u64 > MAX_INFO_LEN {
        return Err(invalid(format!("it is longer than {MAX_INFO_LEN} bytes")));
    }
    // The library's own words are for programmers.
    let unreadable = |_| invalid("it is damaged, or no property list");
    let list = if bytes.starts_with(BINARY_MAGIC) {
        Value::from_reader(Bounded { bytes: Cursor::new(bytes), left: MAX_READ }).map_err(unreadable)?
    } else {
        Value::from_reader_xml(Cursor::new(bytes)).map_err(unreadable)?
    };
    let list = list.as_dictionary().ok_or(FormatError::Foreign("sparse bundle"))?;
    if list.get(TYPE_KEY).and_then(Value::as_string) != Some(TYPE) {
        return Err(FormatError::Foreign("sparse bundle"));
    }
    if let Some(found) = list.get(STORE_VERSION_KEY).and_then(Value::as_unsigned_integer)
        && found > STORE_VERSION
    {
        let found = u16::try_from(found).unwrap_or(u16::MAX);
        return Err(FormatError::Future { what: "sparse bundle", found, known: STORE_VERSION as u16 });
    }
    let number = |key: &str| {
        let value = list.get(key).and_then(Value::as_unsigned_integer);
        value.ok_or_else(|| invalid(format!("it has no number '{key}'")))
    };
    Geometry::new(number(IMAGE_LEN_KEY)?, number(BAND_LEN_KEY)?).map_err(invalid)
}

/// Writes an `Info.plist` as macOS does.
pub fn encode_info(geometry: &Geometry) -> Result<Vec<u8>, FormatError> {
    let mut list = Dictionary::new();
    list.insert(LIST_VERSION_KEY.to_owned(), Value::from(LIST_VERSION));
    list.insert(BAND_LEN_KEY.to_owned(), Value::from(geometry.band_len));
    list.insert(STORE_VERSION_KEY.to_owned(), Value::from(STORE_VERSION));
    list.insert(TYPE_KEY.to_owned(), Value::from(TYPE));
    list.insert(IMAGE_LEN_KEY.to_owned(), Value::from(geometry.image_len));
    let mut bytes = Vec::new();
    Value::from(list).to_writer_xml(&mut bytes).map_err(invalid)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OF_MACOS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>CFBundleInfoDictionaryVersion</key>
	<string>6.0</string>
	<key>band-size</key>
	<integer>8388608</integer>
	<key>bundle-backingstore-version</key>
	<integer>1</integer>
	<key>diskimage-bundle-type</key>
	<string>com.apple.diskimage.sparsebundle</string>
	<key>size</key>
	<integer>10737418240</integer>
</dict>
</plist>
"#;

    #[test]
    fn lists_of_macos_are_read_and_written_byte_by_byte() {
        let geometry = decode_info(OF_MACOS.as_bytes()).unwrap();
        assert_eq!(geometry, Geometry { image_len: 10 << 30, band_len: 8 << 20 });
        assert_eq!(String::from_utf8(encode_info(&geometry).unwrap()).unwrap(), OF_MACOS);
    }

    #[test]
    fn binary_lists_are_read() {
        let list = Value::from_reader_xml(OF_MACOS.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        list.to_writer_binary(&mut bytes).unwrap();
        assert_eq!(decode_info(&bytes).unwrap().band_len, 8 << 20);
    }

    #[test]
    fn what_is_something_else_or_impossible_is_said() {
        let with = |from: &str, to: &str| decode_info(OF_MACOS.replace(from, to).as_bytes());
        assert_eq!(with("diskimage.sparsebundle", "x"), Err(FormatError::Foreign("sparse bundle")));
        assert!(matches!(with("<integer>1</integer>", "<integer>2</integer>"), Err(FormatError::Future { .. })));
        for (from, to) in [
            ("8388608", "0"),
            ("8388608", "100"),
            ("8388608", "-512"),
            ("10737418240", "7"),
            ("10737418240", "99999999999999999999"),
            ("band-size", "band-sizes"),
            ("<dict>", ""),
        ] {
            assert!(matches!(with(from, to), Err(FormatError::Decode(_))), "{to}");
        }
        assert!(decode_info(&vec![b' '; MAX_INFO_LEN as usize + 1]).is_err());
    }

    #[test]
    fn a_deep_list_does_not_exhaust_the_stack() {
        let depth = MAX_INFO_LEN as usize / "<array>".len() - 10;
        let deep = format!("<plist>{}", "<array>".repeat(depth));
        let decode = move || decode_info(deep.as_bytes()).is_err();
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(decode).unwrap();
        assert!(thread.join().unwrap());
    }

    /// Arrays of references to the next array: a few kilobytes that stand for 200 to the power of eight values.
    #[test]
    fn a_list_that_unfolds_without_end_is_refused() {
        const WIDTH: usize = 200;
        const DEPTH: usize = 8;
        let mut bytes = b"bplist00".to_vec();
        let mut offsets = Vec::new();
        for level in 0..DEPTH {
            offsets.push(bytes.len() as u16);
            bytes.extend([0xaf, 0x10, WIDTH as u8]);
            bytes.extend(std::iter::repeat_n(level as u8 + 1, WIDTH));
        }
        offsets.push(bytes.len() as u16);
        bytes.push(0x09);
        let table = bytes.len() as u64;
        offsets.iter().for_each(|offset| bytes.extend(offset.to_be_bytes()));
        bytes.extend([0, 0, 0, 0, 0, 0, 2, 1]);
        [offsets.len() as u64, 0, table].iter().for_each(|number| bytes.extend(number.to_be_bytes()));
        assert!(matches!(decode_info(&bytes), Err(FormatError::Decode(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>, at in 0..600usize, byte: u8) {
            let _ = decode_info(&bytes);
            let _ = decode_info(&[b"bplist00", bytes.as_slice()].concat());
            let mut damaged = OF_MACOS.as_bytes().to_vec();
            if let Some(place) = damaged.get_mut(at) { *place = byte; }
            let _ = decode_info(&damaged);
        }
    }
}
