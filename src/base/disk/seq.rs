//! Sequential writing through a buffer, with a checksum along the way.

use std::io;

use super::DiskFile;

/// Large enough that system calls do not show, small enough to stay in the cache.
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes a file from a position on, or the same bytes into memory.
#[derive(Debug)]
pub struct SeqWriter<'a> {
    file: Option<&'a dyn DiskFile>,
    offset: u64,
    buffer: Vec<u8>,
    crc: crc32fast::Hasher,
    /// What of the buffer is in the checksum: many small pieces cost far more than one large one.
    summed: usize,
}

impl<'a> SeqWriter<'a> {
    /// Writes from `offset`.
    pub fn new(file: &'a dyn DiskFile, offset: u64) -> Self {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Self { file: Some(file), offset, buffer, crc: crc32fast::Hasher::new(), summed: 0 }
    }

    /// Keeps what is written, behind `offset` zero bytes.
    pub fn in_memory(offset: usize) -> Self {
        Self { file: None, offset: 0, buffer: vec![0; offset], crc: crc32fast::Hasher::new(), summed: offset }
    }

    /// Everything, if it was kept.
    pub fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }

    /// The position after the last byte.
    pub fn position(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// Appends bytes. Many at once are not copied.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = self.file.filter(|_| bytes.len() >= BUFFER_BYTES) else {
            return self.write_with(|buffer| buffer.extend_from_slice(bytes));
        };
        self.hand_over()?;
        file.write_at(bytes, self.offset)?;
        self.crc.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Appends what `put` appends to the buffer.
    pub fn write_with(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        put(&mut self.buffer);
        if self.buffer.len() - self.summed >= BUFFER_BYTES { self.hand_over() } else { Ok(()) }
    }

    /// CRC32 of `before` and all bytes so far behind it.
    pub fn crc_after(&mut self, before: &[u8]) -> u32 {
        self.sum();
        let mut all = crc32fast::Hasher::new();
        all.update(before);
        all.combine(&self.crc);
        all.finalize()
    }

    /// Hands what is buffered to the system and gives the position after it.
    pub fn finish(mut self) -> io::Result<u64> {
        self.hand_over()?;
        Ok(self.offset)
    }

    fn sum(&mut self) {
        self.crc.update(self.buffer.get(self.summed..).unwrap_or_default());
        self.summed = self.buffer.len();
    }

    fn hand_over(&mut self) -> io::Result<()> {
        self.sum();
        let Some(file) = self.file.filter(|_| !self.buffer.is_empty()) else { return Ok(()) };
        file.write_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        self.summed = 0;
        Ok(())
    }
}

/// For libraries that write to streams.
impl io::Write for SeqWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SeqWriter::write(self, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::open_root;

    #[test]
    fn pieces_of_all_lengths_arrive_in_order_and_are_in_the_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open_root(folder.path()).unwrap();
        let file = dir.create("f".as_ref(), 0o600).unwrap();
        file.write_at(b"12345", 0).unwrap();
        let mut out = SeqWriter::new(file.as_ref(), 5);
        let mut expected = b"12345".to_vec();
        for (number, len) in
            [0, 3, BUFFER_BYTES - 1, 1, BUFFER_BYTES, 7, 3 * BUFFER_BYTES, 0, 2].into_iter().enumerate()
        {
            let piece = vec![number as u8; len];
            out.write(&piece).unwrap();
            expected.extend(piece);
            assert_eq!(out.position(), expected.len() as u64);
        }
        assert_eq!(out.crc_after(b"12345"), crc32fast::hash(&expected));
        assert_eq!(out.finish().unwrap(), expected.len() as u64);
        assert_eq!(std::fs::read(folder.path().join("f")).unwrap(), expected);
    }
}
