//! What the keys say, as fields, and what that means for the library.

use std::time::Duration;

use digstore::base::size::{GIB, KIB, MIB};
use digstore::repo::Settings;
use digstore::repo::settings::{Auto, SizeClasses};
use digstore::store::journal::{Durability, SnapshotPolicy};
use digstore::transform::chunker::{AVG_LENS, ChunkParams};
use digstore::transform::compress::{DEFAULT_LEVEL, LEVELS};

const STRICT: &str = "strict";
const BUFFERED: &str = "buffered";
/// Values of `core.durability`. In memory alone makes no sense for a process that ends after one verb.
pub const DURABILITIES: [&str; 2] = [STRICT, BUFFERED];

const FAST: &str = "zstd_fast";
const NORMAL: &str = "zstd";
const BEST: &str = "zstd_best";
/// Values of `performance.compression`.
pub const COMPRESSIONS: [&str; 3] = [FAST, NORMAL, BEST];
/// Source code in blocks of 512 KiB: 41 MB/s on a thread. Level 19 saves 7 % more at 2.6 MB/s.
const BEST_LEVEL: i32 = 12;

/// What the program itself takes, tables of layers that it looks into included.
const OWN: u64 = 32 * MIB;
/// Of what `max_memory_usage` leaves beside that, one part in this many is for decoded blocks: 8 MiB with 64 MB.
const CACHE_SHARE: u64 = 4;
/// Of the whole, one part in this many is for content in flight, which exists several times on its way.
const IN_FLIGHT_SHARE: u64 = 32;
/// Of the whole, one part in this many is a piece of a file that is being written: 128 KiB with 64 MB, 4 MiB with 2 GB. Two files
/// have three each.
const WRITE_SHARE: u64 = 512;
/// Beyond what everything else needs with a low limit, half is for changed paths until they are recorded. Each takes about 1 KiB:
/// 4,096 with 64 MB, a million with 2 GB.
const BESIDE_PATHS: u64 = 56 * MIB;
const PATH_SHARE: u64 = 2 * KIB;

/// Buffers of one part in this many are kept when they are freed, on several threads: with 64 MB those of 512 KiB, with 2 GB
/// those of 16 MiB.
pub const KEPT_SHARE: u64 = 128;
/// One heap for so many bytes: with 64 MB, two.
pub const HEAP_LEN: u64 = 32 * MIB;

/// Of `chunk_size`, with `deduplication_aggressive`.
const AGGRESSIVE_SHARE: u64 = 4;

/// One field a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    pub name: Option<String>,
    pub email: Option<String>,
    pub profile: Option<String>,
    pub durability: &'static str,
    pub sync_interval: Duration,
    pub sync_batches: u64,
    pub snapshot_log: u64,
    pub lock_timeout: Duration,
    pub gc_grace: Duration,
    pub auto_tune: bool,
    pub auto_batch: bool,
    pub monitoring: bool,
    pub streaming: bool,
    pub aggressive: bool,
    pub write_len: u64,
    pub read_ahead_from: u64,
    pub map_from: u64,
    pub progress_batch: u64,
    pub most_listed: u64,
    pub min_files: u64,
    pub min_megabytes: u64,
    pub max_alert_memory: u64,
    pub max_time: Duration,
    pub tiny: u64,
    pub small: u64,
    pub medium: u64,
    pub large: u64,
    pub huge: u64,
    pub batch_files: u64,
    pub read_len: u64,
    pub large_read_len: u64,
    pub cpu_threads: u64,
    pub io_threads: u64,
    pub max_memory: u64,
    pub in_flight: u64,
    pub cache: u64,
    pub chunk_avg: u64,
    pub chunk_min: Option<u64>,
    pub chunk_max: Option<u64>,
    pub whole_len: Option<u64>,
    pub block_len: u64,
    pub snapshot_interval: u64,
    pub layer_len: u64,
    pub compression: &'static str,
    pub level: Option<u64>,
    pub progress_interval: Duration,
}

impl Default for Values {
    /// The library's own defaults, and those of what only the binary knows.
    fn default() -> Self {
        let Settings { chunking, classes, batch_files, read_len, large_read_len, .. } = Settings::default();
        let Settings { block_len, layer_len, cache_len, in_flight_len, .. } = Settings::default();
        let Settings { io_threads, cpu_threads, snapshots, lock_patience, .. } = Settings::default();
        let Settings { snapshot_interval, grace, .. } = Settings::default();
        let Settings { write_len, read_ahead_from, map_from, .. } = Settings::default();
        let SizeClasses { tiny, small, medium, large, huge } = classes;
        Self {
            name: None,
            email: None,
            profile: None,
            durability: STRICT,
            // At worst, a power cut costs the last second.
            sync_interval: Duration::from_secs(1),
            sync_batches: 100,
            snapshot_log: snapshots.min_log_bytes,
            lock_timeout: lock_patience,
            gc_grace: grace,
            auto_tune: true,
            auto_batch: true,
            monitoring: true,
            streaming: false,
            aggressive: false,
            write_len: write_len as u64,
            read_ahead_from,
            map_from,
            progress_batch: 50,
            most_listed: 10_000,
            // What the first version had to reach with small files, and a twentieth of it with large ones.
            min_files: 300,
            min_megabytes: 25,
            max_alert_memory: 2 * GIB,
            max_time: Duration::ZERO,
            tiny,
            small,
            medium,
            large,
            huge,
            batch_files: batch_files as u64,
            read_len: read_len as u64,
            large_read_len: large_read_len as u64,
            cpu_threads: cpu_threads as u64,
            io_threads: io_threads as u64,
            max_memory: 2 * GIB,
            in_flight: in_flight_len as u64,
            cache: cache_len as u64,
            chunk_avg: u64::from(chunking.avg_len),
            chunk_min: None,
            chunk_max: None,
            whole_len: None,
            block_len: block_len as u64,
            snapshot_interval: u64::from(snapshot_interval),
            layer_len,
            compression: NORMAL,
            level: None,
            progress_interval: Duration::from_millis(100),
        }
    }
}

/// A length in memory. The ranges of the keys leave nothing to cut on 64 bits.
fn len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Values {
    /// What the library needs to know.
    pub fn settings(&self) -> Settings {
        let Self { tiny, small, large, huge, .. } = *self;
        let medium = if self.streaming { small } else { self.medium };
        // Whoever sets a size means it.
        let default = Self::default();
        let has_own_reads = (self.read_len, self.large_read_len) != (default.read_len, default.large_read_len);
        Settings {
            chunking: self.chunking(),
            classes: SizeClasses { tiny, small, medium, large, huge },
            batch_files: len(self.batch_files),
            auto: Auto {
                batch: self.auto_tune && self.auto_batch && self.batch_files == default.batch_files,
                windows: self.auto_tune && !has_own_reads,
                readers: self.auto_tune,
            },
            read_ahead_from: self.read_ahead_from,
            map_from: self.map_from,
            write_len: len(self.write_len.min(self.max_memory / WRITE_SHARE)),
            read_len: len(self.read_len),
            large_read_len: len(self.large_read_len),
            block_len: len(self.block_len),
            level: self.level(),
            snapshot_interval: u8::try_from(self.snapshot_interval).unwrap_or(u8::MAX),
            layer_len: self.layer_len,
            cache_len: len(self.cache.min(self.max_memory.saturating_sub(OWN) / CACHE_SHARE)),
            in_flight_len: len(self.in_flight.min(self.max_memory / IN_FLIGHT_SHARE)),
            paths_at_once: len(self.max_memory.saturating_sub(BESIDE_PATHS) / PATH_SHARE)
                .min(Settings::default().paths_at_once),
            io_threads: len(self.io_threads),
            cpu_threads: len(self.cpu_threads),
            durability: self.durability(),
            snapshots: SnapshotPolicy { min_log_bytes: self.snapshot_log },
            lock_patience: self.lock_timeout,
            maintenance: true,
            grace: self.gc_grace,
        }
    }

    /// How new repositories cut files.
    pub fn chunking(&self) -> ChunkParams {
        // The keys' ranges are those of the fields.
        let narrow = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let share = if self.aggressive { AGGRESSIVE_SHARE } else { 1 };
        let auto = ChunkParams::with_average(narrow(self.chunk_avg / share).max(*AVG_LENS.start()));
        ChunkParams {
            min_len: self.chunk_min.map_or(auto.min_len, narrow),
            avg_len: auto.avg_len,
            max_len: self.chunk_max.map_or(auto.max_len, narrow),
            whole_len: self.whole_len.map_or(auto.whole_len, narrow),
        }
    }

    fn level(&self) -> i32 {
        let named = match self.compression {
            FAST => *LEVELS.start(),
            BEST => BEST_LEVEL,
            _ => DEFAULT_LEVEL,
        };
        self.level.and_then(|level| i32::try_from(level).ok()).unwrap_or(named)
    }

    fn durability(&self) -> Durability {
        if self.durability == BUFFERED {
            let batches = u32::try_from(self.sync_batches).unwrap_or(u32::MAX);
            Durability::Buffered { interval: self.sync_interval, batches }
        } else {
            Durability::Strict
        }
    }

    /// Who commits: `Name <mail>`, or the one of the two that is known.
    pub fn author(&self) -> Option<String> {
        match (&self.name, &self.email) {
            (Some(name), Some(email)) => Some(format!("{name} <{email}>")),
            (Some(name), None) => Some(name.clone()),
            (None, Some(email)) => Some(format!("<{email}>")),
            (None, None) => None,
        }
    }

    /// What must hold between keys: names a key, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let classes = [
            ("performance.tiny_file_threshold", self.tiny),
            ("performance.small_file_threshold", self.small),
            ("performance.medium_file_threshold", self.medium),
            ("performance.large_file_threshold", self.large),
            ("performance.huge_file_threshold", self.huge),
        ];
        for ((below, low), (above, high)) in classes.iter().zip(classes.iter().skip(1)) {
            if low > high {
                let [low, high] = [*low, *high].map(|bytes| digstore::base::size::ByteSize(bytes).to_config());
                return Err((above, format!("{high} is less than {below}, which is {low}")));
            }
        }
        // The library's words for the lengths, and the keys that set them.
        let keys = "min_len is chunk_size_min, avg_len chunk_size, max_len chunk_size_max";
        self.chunking().check().map_err(|why| ("performance.chunk_size", format!("{why} ({keys})")))
    }
}
