//! Read-only views of our own immutable files. One of the two modules with `unsafe`; `transform::lanes` is the other.
//!
//! Measured to pay: a lookup in a mapped table of ten million ids costs two cache misses, opening it costs nothing
//! however large it is, and the pages are shared by all processes. Reading the table instead costs its size at each
//! start (4 GB/s at best here).

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};

use memmap2::{Mmap, MmapOptions, UncheckedAdvice};

/// Bytes that are mapped, or owned where a mapping is not possible.
#[derive(Debug)]
pub enum FileBytes {
    /// Pages of a file.
    Mapped(Mmap),
    /// A copy in memory.
    Owned(Vec<u8>),
}

impl FileBytes {
    /// What was read in this range is not needed soon: its pages leave the process' memory. They stay in the system's as long as
    /// it likes, and come back when they are read.
    pub fn pass(&self, range: Range<usize>) {
        let Self::Mapped(map) = self else { return };
        // Beyond the end is other memory.
        let end = range.end.min(map.len());
        let start = range.start.min(end);
        // SAFETY: the advice makes anonymous pages, and changed ones, lose what they hold. These are a file's and are never
        // written to, so whoever looks finds the same bytes; and the range is within them.
        #[expect(unsafe_code, reason = "the argument is above")]
        let advised = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        // A system that does not take the advice keeps the pages.
        let _ = advised;
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Maps `len` bytes of an immutable file of the repository from `offset`. The range is checked against the file first.
pub fn map(file: &File, offset: u64, len: usize) -> io::Result<FileBytes> {
    let end = offset.checked_add(len as u64).ok_or(io::ErrorKind::InvalidInput)?;
    if file.metadata()?.len() < end {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if len == 0 {
        return Ok(FileBytes::Owned(Vec::new()));
    }
    // SAFETY: the bytes must not change while they are mapped. Only files that digstore wrote under a temporary name and
    // renamed once complete are mapped; no code of ours writes to or truncates them afterwards, removal keeps the pages,
    // and the folder is private to its owner. Work tree files are never mapped.
    #[expect(unsafe_code, reason = "the argument is above")]
    let map = unsafe { MmapOptions::new().offset(offset).len(len).map(file)? };
    Ok(FileBytes::Mapped(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_can_be_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let bytes = map(&File::open(&path).unwrap(), 0, content.len()).unwrap();
        let owned = FileBytes::Owned(content.clone());
        for range in [0..0, 1..2, 4096..90_000, 0..100_000, 99_999..1 << 40, usize::MAX - 1..usize::MAX] {
            bytes.pass(range.clone());
            owned.pass(range);
            assert!(*bytes == *content && *owned == *content);
        }
    }
}
