//! Data without its holes and zeros.

use std::fs::File;
use std::io;
use std::ops::Range;

use crate::base::disk::DiskFile;
use crate::base::disk::real::next_data;
use crate::transform::chunker::{ZERO_BLOCK_LEN, is_zero};
use crate::world::read;

/// Bytes copied at a time; whole zero blocks.
const WINDOW_LEN: usize = 16 * ZERO_BLOCK_LEN;

/// Shows what a file has in a range, in windows, without its holes; until `visit` says that it is enough.
pub fn for_data(
    file: &File,
    range: Range<u64>,
    visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<bool>,
) -> io::Result<()> {
    let mut window = Vec::new();
    let mut at = range.start;
    while let Some((start, end)) = next_data(file, at, range.end)? {
        at = start;
        while at < end {
            window.clear();
            let len = (end - at).min(WINDOW_LEN as u64) as usize;
            read::append_range(file, at, len, &mut window)?;
            if !visit(at, &window)? {
                return Ok(());
            }
            at += len as u64;
        }
    }
    Ok(())
}

/// Writes what is not zeros.
pub fn write_blocks(file: &dyn DiskFile, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut offset = at;
    for block in bytes.chunks(ZERO_BLOCK_LEN) {
        if !is_zero(block) {
            file.write_at(block, offset)?;
        }
        offset += block.len() as u64;
    }
    Ok(())
}
