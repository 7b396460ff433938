//! How a repository is used: sizes, threads and durability, as plain values. Where they come from is the binary's affair.

use std::time::Duration;

use crate::base::size::{GIB, KIB, MIB};
use crate::store::journal::{Durability, SnapshotPolicy};
use crate::transform::chunker::ChunkParams;
use crate::transform::compress::DEFAULT_LEVEL;

/// File sizes at which the way of reading changes. Cut points do not depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeClasses {
    /// Below: read in batches of many files.
    pub tiny: u64,
    /// Up to here: several in one buffer, bounded in bytes. Files that are cut are never among them.
    pub small: u64,
    /// Up to here: each file in one buffer.
    pub medium: u64,
    /// Up to here: read in windows of `read_len`, cut while earlier ones are hashed. Above: of `large_read_len`.
    pub large: u64,
    /// Above: as large, and at most half of the bytes in flight belong to such files, so that the next ones can start.
    pub huge: u64,
}

/// What is chosen by the sizes of the files that are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auto {
    /// `batch_files`.
    pub batch: bool,
    /// `read_len` and `large_read_len`.
    pub windows: bool,
    /// How many threads read, unless `io_threads` says so.
    pub readers: bool,
}

/// How a repository is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How a new repository cuts files. An existing one has its own.
    pub chunking: ChunkParams,
    /// Sizes that decide how files are read.
    pub classes: SizeClasses,
    /// Tiny files read in one task.
    pub batch_files: usize,
    /// What is chosen by the files instead.
    pub auto: Auto,
    /// Of files above, the next window is asked for while one is worked on.
    pub read_ahead_from: u64,
    /// Tables of layers above are mapped, shorter ones are read.
    pub map_from: u64,
    /// A layer file is written in pieces of so many bytes, while the next one is gathered.
    pub write_len: usize,
    /// Bytes read at a time from a file that is neither read whole nor large.
    pub read_len: usize,
    /// Bytes read at a time from a large file.
    pub large_read_len: usize,
    /// Plain bytes of a block.
    pub block_len: usize,
    /// Level of zstd.
    pub level: i32,
    /// A version that would need this many blocks to be decoded before it is stored whole.
    pub snapshot_interval: u8,
    /// A layer is sealed when its objects have this many bytes.
    pub layer_len: u64,
    /// Decoded blocks kept in memory.
    pub cache_len: usize,
    /// Bytes of file content in flight between reading and storing.
    pub in_flight_len: usize,
    /// Changed paths that are recorded together; so many are in memory with all that is known of them.
    pub paths_at_once: usize,
    /// Threads that read; 0 for automatic.
    pub io_threads: usize,
    /// Threads that compute; 0 for automatic.
    pub cpu_threads: usize,
    /// When commits are durable.
    pub durability: Durability,
    /// When the journal's log is folded into a snapshot.
    pub snapshots: SnapshotPolicy,
    /// How long to wait for another writer.
    pub lock_patience: Duration,
    /// Merge small layers after commits and checkpoints.
    pub maintenance: bool,
    /// How long the files of layers that were replaced stay, for those who began to read before.
    pub grace: Duration,
}

/// A layer has so many objects for each path that may be in memory: an object takes some 100 bytes until it is sealed, a path
/// ten times as much while it is read.
const OBJECTS_PER_PATH: usize = 2;
/// But not fewer: whether an object is new is asked of each layer. They take 3 MB, and as much again while they are sealed.
const LEAST_OBJECTS: usize = 32 << 10;

impl Settings {
    /// A layer is sealed when it has this many objects.
    pub fn layer_objects(&self) -> usize {
        self.paths_at_once.saturating_mul(OBJECTS_PER_PATH).max(LEAST_OBJECTS)
    }

    /// Is a layer full that has objects with so many bytes, and so many of them?
    pub fn fill_layer(&self, bytes: u64, objects: usize) -> bool {
        bytes >= self.layer_len || objects >= self.layer_objects()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            chunking: ChunkParams::default(),
            classes: SizeClasses { tiny: 4 * KIB, small: 64 * KIB, medium: 10 * MIB, large: 100 * MIB, huge: GIB },
            // From 20 to 2,000, nothing makes a difference that can be told from chance (3 %), with 20,000, 100,000 and 1,000,000
            // files.
            batch_files: 200,
            auto: Auto { batch: true, windows: true, readers: true },
            // With nothing cached, 1 GiB of weights takes 3.1 s instead of 4.3, a wheel of 0.8 GB 3.7 instead of 4.3; with
            // everything cached it is all the same.
            read_ahead_from: MIB,
            // One small file out of the kernel's repository takes 11.3 ms instead of 17.6 with 10 MiB, 14.1 with 1 MiB.
            map_from: 256 * KIB,
            // 4 GiB of noise: 4 MiB 2.8 to 3.1 s, 8 MiB 2.9 to 3.0, 2 MiB 2.9 to 3.6, 1 MiB 3.5 to 4.0.
            write_len: 4 * MIB as usize,
            read_len: MIB as usize,
            large_read_len: MIB as usize,
            // The kernel tree: 256 KiB 213 MB, 1 MiB 204 MB; in between, small enough for reading single files.
            block_len: 512 * KIB as usize,
            level: DEFAULT_LEVEL,
            snapshot_interval: 8,
            // A layer is synced while the next one is written; smaller ones overlap better, larger ones are fewer.
            layer_len: 512 * MIB,
            cache_len: 500 * MIB as usize,
            in_flight_len: 48 * MIB as usize,
            paths_at_once: 1_000_000,
            io_threads: 0,
            cpu_threads: 0,
            durability: Durability::Strict,
            snapshots: SnapshotPolicy::default(),
            lock_patience: Duration::from_secs(10),
            maintenance: true,
            // A checkout of the kernel takes ten seconds, one of a terabyte longer than anybody would keep layers for.
            grace: Duration::from_secs(10 * 60),
        }
    }
}
