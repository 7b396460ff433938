//! Sequential writing through a buffer, with a checksum along the way.

use std::io;

use super::DiskFile;

/// Large enough that system calls do not show, small enough to stay in the cache.
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes a file from a position on.
#[derive(Debug)]
pub struct SeqWriter<'a> {
    file: &'a dyn DiskFile,
    offset: u64,
    buffer: Vec<u8>,
    crc: crc32fast::Hasher,
}

impl<'a> SeqWriter<'a> {
    /// Writes from `offset`.
    pub fn new(file: &'a dyn DiskFile, offset: u64) -> Self {
        Self { file, offset, buffer: Vec::with_capacity(BUFFER_BYTES), crc: crc32fast::Hasher::new() }
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// CRC32 of all bytes so far.
    pub fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }

    /// CRC32 of `before` and all bytes so far behind it.
    pub fn crc_after(&self, before: &[u8]) -> u32 {
        let mut all = crc32fast::Hasher::new();
        all.update(before);
        all.combine(&self.crc);
        all.finalize()
    }

    /// Hands what is buffered to the system and gives the position after it.
    pub fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        Ok(self.offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
