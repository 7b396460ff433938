//! Buffer sizes that suit the files, chosen from their lengths before the first is read.

use crate::base::size::MIB;
use crate::repo::settings::Settings;

/// Bytes of tiny files that make a task worth its overhead, and are little enough that the last tasks end together.
const BATCH_BYTES: u64 = MIB / 2;
/// A task of more files than this gains nothing.
const MAX_BATCH_FILES: u64 = 2_000;
/// The window in which large files are read if they are most of what is read: 1 GiB of weights takes 2.37 s and 3.8 s of
/// processor time, with windows of 1 MiB 2.50 and 4.0.
const LARGE_WINDOW_LEN: usize = 4 * MIB as usize;

/// How files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Tiny files read in one task.
    pub batch_files: usize,
    /// Bytes read at a time from a file that is neither read whole nor large.
    pub read_len: usize,
    /// Bytes read at a time from a large file.
    pub large_read_len: usize,
}

/// Chooses for files of these lengths, where the settings leave it open.
pub fn reading(settings: &Settings, lens: impl Iterator<Item = u64>) -> Reading {
    let Settings { classes, batch_files, read_len, large_read_len, .. } = *settings;
    let (mut tiny, mut tiny_bytes, mut large_bytes, mut bytes) = (0u64, 0u64, 0u64, 0u64);
    for len in lens {
        bytes += len;
        if len < classes.tiny {
            (tiny, tiny_bytes) = (tiny + 1, tiny_bytes + len);
        } else if len > classes.large {
            large_bytes += len;
        }
    }
    let mut found = Reading { batch_files, read_len, large_read_len };
    if settings.auto_batch && tiny > 0 {
        let mean = (tiny_bytes / tiny).max(1);
        let fits = (BATCH_BYTES / mean).clamp(batch_files as u64, MAX_BATCH_FILES);
        found.batch_files = usize::try_from(fits).unwrap_or(batch_files);
    }
    if settings.auto_read && large_bytes * 2 > bytes {
        found.large_read_len = large_read_len.max(LARGE_WINDOW_LEN);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_files() {
        let auto = Settings::default();
        let of = |settings: &Settings, lens: &[u64]| reading(settings, lens.iter().copied());
        let unchanged = Reading { batch_files: 200, read_len: MIB as usize, large_read_len: MIB as usize };
        assert_eq!(of(&auto, &[]), unchanged);
        assert_eq!(of(&auto, &[4000; 10]), unchanged);
        assert_eq!(of(&auto, &[500; 10]).batch_files, 1_048);
        assert_eq!(of(&auto, &[0; 10]).batch_files, 2_000);
        assert_eq!(of(&auto, &[200 * MIB, 50 * MIB]).large_read_len, LARGE_WINDOW_LEN);
        assert_eq!(of(&auto, &[200 * MIB, 99 * MIB, 99 * MIB, 99 * MIB]), unchanged);
        let fixed = Settings { auto_batch: false, auto_read: false, ..auto };
        assert_eq!(of(&fixed, &[500, 500, 200 * MIB]), unchanged);
    }
}
