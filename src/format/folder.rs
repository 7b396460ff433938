//! What a folder of the work tree held when it was last listed.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::FormatError;
use crate::base::bytes::{ByteReader, put_bytes, put_varint};
use crate::base::disk::FileKind;
use crate::model::path::{MAX_NAME_LEN, RepoPath};
use crate::model::staging::SeenStat;

/// A name in a folder, and what it is.
pub type Name<'a> = (Cow<'a, OsStr>, FileKind);

/// Prefix of listings, by path.
pub const FOLDER_PREFIX: &[u8] = b"d";

const KIND_FILE: u8 = 1;
const KIND_DIR: u8 = 2;
const KIND_SYMLINK: u8 = 3;
const KIND_OTHER: u8 = 4;

/// The key of a folder's listing.
pub fn folder_key(path: &RepoPath) -> Vec<u8> {
    [FOLDER_PREFIX, &path.sort_key()].concat()
}

/// The value of a listing: what the folder looked like before it was listed, and what was in it.
pub fn encode_folder(seen: &SeenStat, items: &[Name<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + 16 * items.len());
    out.extend_from_slice(&seen.mtime_ns.to_le_bytes());
    out.extend_from_slice(&seen.ctime_ns.to_le_bytes());
    put_varint(&mut out, seen.ino);
    put_varint(&mut out, seen.len);
    for (name, kind) in items {
        out.push(match kind {
            FileKind::File => KIND_FILE,
            FileKind::Dir => KIND_DIR,
            FileKind::Symlink => KIND_SYMLINK,
            FileKind::Other => KIND_OTHER,
        });
        put_bytes(&mut out, name.as_bytes());
    }
    out
}

/// Reads a listing if the folder looks the same still; `None` if it does not.
pub fn decode_folder<'a>(value: &'a [u8], now: &SeenStat) -> Result<Option<Vec<Name<'a>>>, FormatError> {
    let mut reader = ByteReader::new("the listing of a folder", value);
    let (mtime_ns, ctime_ns) = (reader.i64()?, reader.i64()?);
    let seen = SeenStat { mtime_ns, ctime_ns, ino: reader.varint()?, len: reader.varint()? };
    if seen != *now {
        return Ok(None);
    }
    let mut items = Vec::new();
    while reader.remaining() > 0 {
        let kind = match reader.u8()? {
            KIND_FILE => FileKind::File,
            KIND_DIR => FileKind::Dir,
            KIND_SYMLINK => FileKind::Symlink,
            KIND_OTHER => FileKind::Other,
            other => return Err(reader.invalid(format!("unknown kind {other}")).into()),
        };
        let name = reader.bytes(MAX_NAME_LEN)?;
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
            return Err(reader.invalid("a name is impossible").into());
        }
        items.push((Cow::Borrowed(OsStr::from_bytes(name)), kind));
    }
    Ok(Some(items))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: u32 = 465261325;

    #[test]
    fn a_listing_holds_while_the_folder_looks_the_same() {
        let seen = SeenStat { len: 4096, mtime_ns: -1, ctime_ns: 1 << 60, ino: 300 };
        let item = |name: &'static [u8], kind| (Cow::Borrowed(OsStr::from_bytes(name)), kind);
        let items = vec![
            item(b"a", FileKind::File),
            item(b"b\xff", FileKind::Dir),
            item(b"c", FileKind::Symlink),
            item(b"d", FileKind::Other),
        ];
        let bytes = encode_folder(&seen, &items);
        assert_eq!(decode_folder(&bytes, &seen).unwrap(), Some(items));
        for other in [SeenStat { mtime_ns: 0, ..seen }, SeenStat { ino: 1, ..seen }, SeenStat { ctime_ns: 0, ..seen }] {
            assert_eq!(decode_folder(&bytes, &other).unwrap(), None);
        }
        assert_eq!(crc32fast::hash(&bytes), GOLDEN, "golden checksum of a listing");
        for bad in [&b"."[..], b"..", b"a/b", b"", b"a\0"] {
            assert!(decode_folder(&encode_folder(&seen, &[item(bad, FileKind::File)]), &seen).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
            let _ = decode_folder(&bytes, &SeenStat::default());
            let start = encode_folder(&SeenStat::default(), &[]);
            let _ = decode_folder(&[start, bytes].concat(), &SeenStat::default());
        }
    }
}
