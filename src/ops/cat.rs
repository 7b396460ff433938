//! `cat`: the bytes of one stored file, or a range of them.

use std::io::Write;
use std::str::FromStr;

use serde::Serialize;

use super::content::ContentReader;
use super::{Error, Result};
use crate::base::disk::IoContext;
use crate::base::monitor::Monitor;
use crate::model::path::{RepoPath, escape};
use crate::model::tree::Node;
use crate::repo::Repository;
use crate::repo::trees::lookup;

/// How the place written to is called in messages.
const OUTPUT: &str = "the output";

/// What to print.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of which commit; HEAD if not given.
    pub revision: Option<String>,
    /// A file or link.
    pub path: RepoPath,
    /// Which bytes; all if not given.
    pub range: Option<ByteRange>,
}

/// What was printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Bytes written.
    pub bytes: u64,
    /// Blocks that had to be read from layers, those of trees and recipes included.
    pub blocks_read: u64,
}

/// A range of bytes as people write it: `0-99`, `100-` or `-100`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From a position to one before another, or to the end.
    From {
        /// The first byte.
        start: u64,
        /// The byte after the last.
        end: Option<u64>,
    },
    /// This many at the end, or all if there are fewer.
    Last(u64),
}

impl FromStr for ByteRange {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let bad = || {
            format!("'{}' is not a range of bytes; write 0-99 for the first hundred, 100- or -100", text.escape_debug())
        };
        let number = |digits: &str| -> std::result::Result<u64, String> {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if plain { digits.parse().map_err(|_| bad()) } else { Err(bad()) }
        };
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        match (first, last) {
            ("", last) => Ok(Self::Last(number(last)?)),
            (first, "") => Ok(Self::From { start: number(first)?, end: None }),
            (first, last) => {
                let (start, last) = (number(first)?, number(last)?);
                let end = last.checked_add(1).filter(|end| *end > start).ok_or_else(bad)?;
                Ok(Self::From { start, end: Some(end) })
            }
        }
    }
}

impl ByteRange {
    /// The positions in a file of `len` bytes; an end beyond the file's is the file's. `None` if it starts beyond.
    pub fn within(&self, len: u64) -> Option<std::ops::Range<u64>> {
        match *self {
            Self::From { start, .. } if start > 0 && start >= len => None,
            Self::From { start, end } => Some(start..end.unwrap_or(len).min(len)),
            Self::Last(count) => Some(len.saturating_sub(count)..len),
        }
    }
}

/// Writes a stored file to `out`. A link's bytes are its target.
pub fn cat(repo: &Repository, options: &Options, out: &mut dyn Write, monitor: &dyn Monitor) -> Result<Outcome> {
    let objects = repo.objects();
    let (_, misses_before) = repo.pools().meter().cache_requests();
    let revision = options.revision.as_deref().unwrap_or("HEAD");
    let point = repo.resolve_point(revision)?;
    let root = repo.tree_of(&point)?;
    let place = || format!("in {}", escape(revision.as_bytes()));
    let entry = lookup(&objects, &root, &options.path)?;
    let range = |len: u64| match &options.range {
        None => Ok(0..len),
        Some(range) => range.within(len).ok_or_else(|| Error::Refused {
            message: format!("the range starts beyond the end of '{}', which has {len} bytes", options.path),
            hint: "a range is FIRST-LAST, counted from 0; -100 stands for the last hundred bytes",
        }),
    };
    let bytes = match entry.map(|entry| entry.node) {
        Some(Node::File { len, content }) => {
            let mut reader = ContentReader::new(repo, &objects, &content, len, range(len)?)?;
            copy(&mut reader, out, monitor)?
        }
        Some(Node::Symlink { target }) => {
            let range = range(target.len() as u64)?;
            let bytes = target.get(range.start as usize..range.end as usize).unwrap_or_default();
            out.write_all(bytes).on("write", OUTPUT)?;
            bytes.len() as u64
        }
        Some(Node::Dir { .. }) => return Err(folder(&options.path)),
        None if options.path.is_root() => return Err(folder(&options.path)),
        None => return Err(Error::NoSuchPath { path: options.path.clone(), place: place() }),
    };
    out.flush().on("write", OUTPUT)?;
    let (_, misses) = repo.pools().meter().cache_requests();
    Ok(Outcome { bytes, blocks_read: misses.saturating_sub(misses_before) })
}

fn copy(reader: &mut ContentReader<'_>, out: &mut dyn Write, monitor: &dyn Monitor) -> Result<u64> {
    let mut bytes = 0;
    while let Some(part) = reader.next_part()? {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        part.write_to(out).on("write", OUTPUT)?;
        bytes += part.len();
    }
    Ok(bytes)
}

fn folder(path: &RepoPath) -> Error {
    let name = if path.is_root() { "the root".to_owned() } else { format!("'{path}'") };
    Error::Refused { message: format!("{name} is a folder"), hint: "list it with 'digstore ls REV:PATH'" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monitor::Silent;
    use crate::ops::testing::{TestRepo, What, file, path};
    use crate::transform::chunker::tests::noise;

    #[test]
    fn ranges_parse_as_in_http() {
        let of = |text: &str| text.parse::<ByteRange>().ok().and_then(|range| range.within(150));
        for (text, expected) in [
            ("0-99", 0..100),
            ("100-", 100..150),
            ("-100", 50..150),
            ("-500", 0..150),
            ("149-999", 149..150),
            ("7-7", 7..8),
        ] {
            assert_eq!(of(text), Some(expected), "{text}");
        }
        assert_eq!(of("150-"), None);
        for bad in ["", "-", "5", "a-b", "9-8", "+1-2", "0--1", " 1-2", "0-18446744073709551615", "1-2-3"] {
            assert!(bad.parse::<ByteRange>().is_err(), "{bad}");
        }
        assert_eq!(ByteRange::From { start: 0, end: Some(10) }.within(0), Some(0..0));
        assert_eq!(ByteRange::Last(5).within(0), Some(0..0));
    }

    #[test]
    fn bytes_ranges_and_links_are_printed() {
        let repo = TestRepo::in_memory();
        let big = noise(3, 100_000);
        repo.commit(&[("d/big", file(&big)), ("l", What::Link(b"d/big".to_vec())), ("e", file(""))], "one");
        let print = |at: &str, range: Option<&str>| {
            let mut out = Vec::new();
            let options = Options { revision: None, path: path(at), range: range.map(|r| r.parse().unwrap()) };
            cat(&repo, &options, &mut out, &Silent).map(|outcome| (out, outcome))
        };
        let (bytes, outcome) = print("d/big", Some("50000-50009")).unwrap();
        assert_eq!(bytes, big[50_000..50_010]);
        assert!(outcome.blocks_read <= 3, "one block of content, one or two of metadata; not {}", outcome.blocks_read);
        let (bytes, outcome) = print("d/big", None).unwrap();
        assert_eq!((bytes.len() as u64, bytes), (outcome.bytes, big));
        assert!(outcome.blocks_read >= 19, "100 kB in blocks of 5 kB");
        assert_eq!(print("l", Some("2-")).unwrap().0, b"big");
        assert_eq!(print("e", None).unwrap().0, b"");
        assert!(print("d/big", Some("100000-")).unwrap_err().to_string().contains("100000 bytes"));
        assert!(print("d", None).unwrap_err().hint().unwrap().contains("ls"));
        assert!(print("", None).unwrap_err().to_string().contains("folder"));
        assert_eq!(print("x", None).unwrap_err().to_string(), "'x' is not in HEAD");
    }
}
