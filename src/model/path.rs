//! Names and paths inside a repository.
//!
//! A path is bytes: names need not be UTF-8. What can be built here is safe to join to a work tree: no component is
//! empty, `.` or `..`, none holds a slash or NUL, none is too long for a file system, and none is the repository's own
//! folder in any spelling that some file system would take for it.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// The repository's folder in a work tree.
pub const CONTROL_DIR: &str = ".digstore";
/// The longest name that Linux and most file systems take.
pub const MAX_NAME_LEN: usize = 255;
/// The longest path that system calls take, less the final NUL.
pub const MAX_PATH_LEN: usize = 4095;

/// Why a name cannot be part of a path in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// An empty name, as between two slashes.
    #[error("a name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("the name '{0}' leads out of its folder")]
    Dots(String),
    /// A slash or NUL inside a name.
    #[error("the name '{0}' contains a slash or a zero byte")]
    Separator(String),
    /// More than [`MAX_NAME_LEN`] bytes.
    #[error("a name of {0} bytes is longer than {MAX_NAME_LEN}")]
    TooLong(usize),
    /// More than [`MAX_PATH_LEN`] bytes in all.
    #[error("a path of {0} bytes is longer than {MAX_PATH_LEN}")]
    PathTooLong(usize),
    /// The repository's own folder, or what some file system takes for it.
    #[error("the name '{0}' is reserved for the repository")]
    Reserved(String),
}

/// How the short name begins that NTFS makes of the repository's folder: six letters, a tilde, then a number.
const SHORT_PREFIX: &[u8] = b"digsto~";

/// Checks one component.
pub fn check_name(name: &[u8]) -> Result<(), NameError> {
    match name {
        b"" => return Err(NameError::Empty),
        b"." | b".." => return Err(NameError::Dots(escape(name))),
        _ => {}
    }
    if name.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong(name.len()));
    }
    if name.iter().any(|&b| b == b'/' || b == 0) {
        return Err(NameError::Separator(escape(name)));
    }
    if is_control_name(name) {
        return Err(NameError::Reserved(escape(name)));
    }
    Ok(())
}

/// Is this `.digstore` in a spelling that a case-insensitive, HFS+, APFS or NTFS file system folds to it?
fn is_control_name(name: &[u8]) -> bool {
    // Nearly every name ends here: the first letter decides, unless a code point that is ignored may stand before it.
    if !matches!(name.first(), Some(b'.' | b'd' | b'D' | 0x80..)) {
        return false;
    }
    if name.is_ascii() {
        return is_ascii_control_name(name);
    }
    // In capitals the long s and the ligatures of it are plain letters, as they are where all cases are folded.
    let text = String::from_utf8_lossy(name);
    let folded: String = text.chars().filter(|c| !is_ignorable(*c)).flat_map(char::to_uppercase).collect();
    is_ascii_control_name(folded.as_bytes())
}

/// The same for plain names, which nearly all are, without making a folded copy.
fn is_ascii_control_name(name: &[u8]) -> bool {
    // NTFS opens `name::$INDEX_ALLOCATION`, and drops dots and spaces at the end.
    let stem = name.split(|&b| b == b':').next().unwrap_or_default();
    let end = stem.iter().rposition(|b| !matches!(b, b'.' | b' ')).map_or(0, |last| last + 1);
    let stem = stem.get(..end).unwrap_or_default();
    let short = stem.split_at_checked(SHORT_PREFIX.len()).is_some_and(|(prefix, number)| {
        prefix.eq_ignore_ascii_case(SHORT_PREFIX) && !number.is_empty() && number.iter().all(u8::is_ascii_digit)
    });
    stem.eq_ignore_ascii_case(CONTROL_DIR.as_bytes()) || short
}

/// Code points that file systems ignore in comparisons: all that Unicode (`Default_Ignorable_Code_Point`, version 16) lets
/// nobody see. Case-folding ext4 and APFS take these, HFS+ some of them.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Bytes for people: control characters, invalid UTF-8 and text-direction marks are escaped as `\xNN` or `\u{N}`.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            let hidden =
                matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
            if c.is_control() || hidden { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for byte in part.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// A path inside a repository, from its root; the root itself is the empty path.
///
/// The order is tree order: a folder's content directly follows it, names compare by bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct RepoPath(Vec<u8>);

impl RepoPath {
    /// The root of the work tree.
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads a path with `/` between its names; no slash at either end.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        if bytes.len() > MAX_PATH_LEN {
            return Err(NameError::PathTooLong(bytes.len()));
        }
        bytes.split(|&b| b == b'/').try_for_each(check_name)?;
        Ok(Self(bytes.to_vec()))
    }

    /// This path with one more name.
    pub fn join(&self, name: &[u8]) -> Result<Self, NameError> {
        check_name(name)?;
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !self.is_root() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        if bytes.len() > MAX_PATH_LEN {
            return Err(NameError::PathTooLong(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// Is this the root?
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, names separated by `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as the system takes it.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The names from the root down.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|name| !name.is_empty())
    }

    /// The last name; empty for the root.
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }

    /// The folder that this is in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0.get(..end).unwrap_or_default().to_vec()))
    }

    /// Is this `folder` itself or something in it?
    pub fn is_within(&self, folder: &RepoPath) -> bool {
        match self.0.strip_prefix(folder.0.as_slice()) {
            Some(rest) => rest.is_empty() || folder.is_root() || rest.first() == Some(&b'/'),
            None => false,
        }
    }

    /// Bytes that sort like the paths do: slashes become zero bytes, which no name contains.
    pub fn sort_key(&self) -> Vec<u8> {
        self.0.iter().map(|&b| if b == b'/' { 0 } else { b }).collect()
    }

    /// Compares with a path of which only the [`RepoPath::sort_key`] is at hand.
    pub fn cmp_sort_key(&self, key: &[u8]) -> Ordering {
        let sorted = |b: &u8| if *b == b'/' { 0 } else { *b };
        // Most are equal, and a loop that runs to the end compares many bytes at once.
        if self.0.len() == key.len() && self.0.iter().zip(key).fold(true, |same, (a, b)| same & (sorted(a) == *b)) {
            return Ordering::Equal;
        }
        self.0.iter().map(sorted).cmp(key.iter().copied())
    }

    /// Reads what [`RepoPath::sort_key`] made.
    pub fn from_sort_key(key: &[u8]) -> Result<Self, NameError> {
        if key.is_empty() {
            return Ok(Self::root());
        }
        if key.len() > MAX_PATH_LEN {
            return Err(NameError::PathTooLong(key.len()));
        }
        key.split(|&b| b == 0).try_for_each(check_name)?;
        Ok(Self(key.iter().map(|&b| if b == 0 { b'/' } else { b }).collect()))
    }
}

impl Ord for RepoPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // Lists are laid beside each other, so most comparisons are of equal paths.
        if self.0 == other.0 {
            return Ordering::Equal;
        }
        let key = |b: &u8| if *b == b'/' { 0 } else { *b };
        self.0.iter().map(key).cmp(other.0.iter().map(key))
    }
}

impl PartialOrd for RepoPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepoPath({self})")
    }
}

impl Serialize for RepoPath {
    /// UTF-8 paths are strings; others are `{"escaped": ..., "hex": ...}`, so that nothing is lost.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        if let Ok(text) = std::str::from_utf8(&self.0) {
            return serializer.serialize_str(text);
        }
        let mut object = serializer.serialize_struct("path", 2)?;
        object.serialize_field("escaped", &self.to_string())?;
        object.serialize_field("hex", &data_encoding::HEXLOWER.encode(&self.0))?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_would_escape_or_confuse_are_refused() {
        let long = vec![b'a'; 256];
        let bad: &[&[u8]] = &[
            b"",
            b".",
            b"..",
            b"a/b",
            b"a\0b",
            &long,
            b".digstore",
            b".DigStore",
            b".digstore.",
            b".digstore ",
            b".digstore::$INDEX_ALLOCATION",
            b"DIGSTO~1",
            b"digsto~12",
            "\u{200c}.digstore".as_bytes(),
            ".dig\u{feff}store".as_bytes(),
            ".dig\u{ad}store".as_bytes(),
            "\u{34f}.digstore\u{e0020}".as_bytes(),
            ".dig\u{17f}tore".as_bytes(),
            ".DIG\u{fb06}ore. ".as_bytes(),
            "digst\u{2060}o~1".as_bytes(),
        ];
        for name in bad {
            assert!(check_name(name).is_err(), "{}", escape(name));
        }
        for name in [
            &b"...x"[..],
            b".digstore2",
            b"digsto~x",
            b"\xff\xfe",
            &[b'a'; 255],
            b"con",
            b" ",
            b"-rf",
            "\u{445}".as_bytes(),
        ] {
            assert!(check_name(name).is_ok(), "{}", escape(name));
        }
    }

    #[test]
    fn bad_paths_are_refused() {
        for path in [&b"/abs"[..], b"a/../b", b"a//b", b"a/", b"./a", b"x/.digstore/y"] {
            assert!(RepoPath::parse(path).is_err(), "{}", escape(path));
        }
    }

    #[test]
    fn order_is_tree_order() {
        let paths = ["a", "a/b", "a/b/c", "a.b", "a0", "ab"].map(|p| RepoPath::parse(p.as_bytes()).unwrap());
        assert!(paths.is_sorted());
        assert!(paths[2].is_within(&paths[0]) && paths[2].is_within(&RepoPath::root()));
        assert!(!paths[3].is_within(&paths[0]) && !paths[5].is_within(&paths[0]));
        assert_eq!(paths[2].parent(), Some(paths[1].clone()));
        assert_eq!(paths[0].parent(), Some(RepoPath::root()));
    }

    #[test]
    fn names_print_escaped() {
        assert_eq!(escape(b"a\x1b[31m\n\xff"), "a\\u{1b}[31m\\n\\xff");
        assert_eq!(escape("x\u{202e}y".as_bytes()), "x\\u{202e}y");
    }

    proptest! {
        #[test]
        fn sort_keys_sort_like_paths(a in "[a-c./]{1,6}", b in "[a-c./]{1,6}") {
            if let (Ok(a), Ok(b)) = (RepoPath::parse(a.as_bytes()), RepoPath::parse(b.as_bytes())) {
                prop_assert_eq!(a.cmp(&b), a.sort_key().cmp(&b.sort_key()));
                prop_assert_eq!(a.cmp_sort_key(&b.sort_key()), a.cmp(&b));
                prop_assert_eq!(RepoPath::from_sort_key(&a.sort_key()).unwrap(), a);
            }
        }
    }
}
