//! Read-only views of our own immutable files. One of the two modules with `unsafe`; `transform::lanes` is the other.
//!
//! Measured to pay: a lookup in a mapped table of ten million ids costs two cache misses, opening it costs nothing
//! however large it is, and the pages are shared by all processes. Reading the table instead costs its size at each
//! start (4 GB/s at best here).

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::{Mmap, MmapOptions};

/// Bytes that are mapped, or owned where a mapping is not possible.
#[derive(Debug)]
pub enum FileBytes {
    /// Pages of a file.
    Mapped(Mmap),
    /// A copy in memory.
    Owned(Vec<u8>),
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
