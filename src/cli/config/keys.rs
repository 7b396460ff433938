//! The table of keys: what each is called, what it takes and which field it sets.
//!
//! A row gives one function to its field; reading, writing, defaults, the example file and the tests follow from it.

use std::ops::RangeInclusive;
use std::time::Duration;

use digstore::base::size::{ByteSize, GIB, KIB, MIB};
use digstore::format::layer::MAX_BLOCK_LEN;
use digstore::transform::chunker::{AVG_LENS, MAX_LENS, MIN_LENS};
use digstore::transform::compress::LEVELS;

use super::value::{AUTO, Raw, time_text};
use super::values::{COMPRESSIONS, DURABILITIES, Values};

/// Kind of a key and way to its field.
pub enum Field {
    /// Any text; an empty one is none.
    Text(fn(&mut Values) -> &mut Option<String>),
    /// Bytes.
    Size(fn(&mut Values) -> &mut u64, RangeInclusive<u64>),
    /// Bytes, or by itself.
    AutoSize(fn(&mut Values) -> &mut Option<u64>, RangeInclusive<u64>),
    /// A number.
    Count(fn(&mut Values) -> &mut u64, RangeInclusive<u64>),
    /// A number, or by itself.
    AutoCount(fn(&mut Values) -> &mut Option<u64>, RangeInclusive<u64>),
    /// A length of time.
    Time(fn(&mut Values) -> &mut Duration, RangeInclusive<Duration>),
    /// Yes or no.
    Flag(fn(&mut Values) -> &mut bool),
    /// One of a few words.
    Choice(fn(&mut Values) -> &mut &'static str, &'static [&'static str]),
}

/// A row of the table.
pub struct Key {
    /// The table in the file.
    pub section: &'static str,
    /// The key in it.
    pub name: &'static str,
    /// Another name for the same.
    pub alias: Option<&'static str>,
    /// One sentence.
    pub help: &'static str,
    /// What it takes and sets.
    pub field: Field,
}

impl Key {
    /// With its section, as it is named everywhere but inside the section.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Is this its name, or its other name?
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alias == Some(name)
    }

    /// Sets the field, or says what is wrong with the value.
    pub fn put(&self, values: &mut Values, raw: &Raw) -> Result<(), String> {
        match &self.field {
            Field::Text(field) => *field(values) = Some(raw.text()?.to_owned()).filter(|text| !text.is_empty()),
            Field::Size(field, within) => *field(values) = raw.size(within)?,
            Field::AutoSize(field, within) => {
                *field(values) = if raw.is_auto() { None } else { Some(raw.size(within)?) }
            }
            Field::Count(field, within) => *field(values) = raw.count(within)?,
            Field::AutoCount(field, within) => {
                *field(values) = if raw.is_auto() { None } else { Some(raw.count(within)?) };
            }
            Field::Time(field, within) => *field(values) = raw.time(within)?,
            Field::Flag(field) => *field(values) = raw.flag()?,
            Field::Choice(field, words) => *field(values) = raw.choice(words)?,
        }
        Ok(())
    }

    /// The value as it would stand in a file.
    pub fn get(&self, values: &Values) -> Raw {
        // The way to a field is one for reading and writing.
        let mut values = values.clone();
        let size = |bytes: u64| Raw::Text(ByteSize(bytes).to_config());
        let count = |number: u64| Raw::Number(i64::try_from(number).unwrap_or(i64::MAX));
        let auto = || Raw::Text(AUTO.to_owned());
        match &self.field {
            Field::Text(field) => Raw::Text(field(&mut values).clone().unwrap_or_default()),
            Field::Size(field, _) => size(*field(&mut values)),
            Field::AutoSize(field, _) => (*field(&mut values)).map_or_else(auto, size),
            Field::Count(field, _) => count(*field(&mut values)),
            Field::AutoCount(field, _) => (*field(&mut values)).map_or_else(auto, count),
            Field::Time(field, _) => Raw::Text(time_text(*field(&mut values))),
            Field::Flag(field) => Raw::Flag(*field(&mut values)),
            Field::Choice(field, _) => Raw::Text((*field(&mut values)).to_owned()),
        }
    }

    /// A value given on the command line, where nothing stands in quotes.
    pub fn raw(&self, text: &str) -> Raw {
        let parsed = match &self.field {
            Field::Count(..) | Field::AutoCount(..) => text.parse().ok().map(Raw::Number),
            Field::Flag(_) => text.parse().ok().map(Raw::Flag),
            _ => None,
        };
        parsed.unwrap_or_else(|| Raw::Text(text.to_owned()))
    }
}

/// The section of the keys that a profile may set.
pub const PERFORMANCE: &str = "performance";
const USER: &str = "user";
const CORE: &str = "core";
const ALERTS: &str = "alerts";

/// A threshold beyond any file; each is bounded by its neighbours.
const THRESHOLDS: RangeInclusive<u64> = 0..=1024 * GIB;
/// More than a batch's bytes can hold helps nothing.
const BATCHES: RangeInclusive<u64> = 1..=100_000;
/// A system refuses far more threads than this.
pub const THREADS: RangeInclusive<u64> = 0..=1024;
/// Reads shorter than a zero block would miss holes; longer than a block can be, they gain nothing.
const READS: RangeInclusive<u64> = 64 * KIB..=256 * MIB;
/// Below, threads and tables alone take more; above is unlimited in effect.
const MEMORY: RangeInclusive<u64> = 64 * MIB..=1024 * GIB;
/// Below, reading waits for hashing all the time.
const IN_FLIGHT: RangeInclusive<u64> = MIB..=64 * GIB;
const CACHES: RangeInclusive<u64> = 0..=1024 * GIB;
/// Smaller blocks hardly shrink; larger ones cannot be stored.
const BLOCKS: RangeInclusive<u64> = 4 * KIB..=MAX_BLOCK_LEN as u64;
/// Below, a repository would be all small files; above, an object storage refuses to take one.
const LAYERS: RangeInclusive<u64> = MIB..=1024 * GIB;
/// With one there are no chains; beyond, reading the last version takes longer than people wait.
const INTERVALS: RangeInclusive<u64> = 1..=64;
const LOCK_TIMES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24);
const SYNC_TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(1);
const SYNC_BATCHES: RangeInclusive<u64> = 1..=1_000_000;
/// Below, each large commit rewrites the snapshot; above, opening a repository takes seconds.
const SNAPSHOT_LOGS: RangeInclusive<u64> = 64 * KIB..=4 * GIB;
/// Drawing after every item costs a thousandth; after more items than this nothing would move.
const PROGRESS_BATCHES: RangeInclusive<u64> = 1..=1_000_000;
const LISTS: RangeInclusive<u64> = 0..=u32::MAX as u64;
const RATES: RangeInclusive<u64> = 0..=1_000_000_000;
const ALERT_TIMES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24 * 7);
/// From a page, which is the least that a disk takes, to where memory is all that is spent.
const WRITES: RangeInclusive<u64> = 4 * KIB..=64 * MIB;
/// The eye sees no more than a hundred pictures a second, and waits no longer than a minute for one.
const PROGRESS_TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

const fn wide(lens: &RangeInclusive<u32>) -> RangeInclusive<u64> {
    *lens.start() as u64..=*lens.end() as u64
}

const fn row(section: &'static str, name: &'static str, help: &'static str, field: Field) -> Key {
    Key { section, name, alias: None, help, field }
}

/// All keys, in the order of the example file.
pub static KEYS: [Key; 46] = [
    row(USER, "name", "Your name, recorded in commits.", Field::Text(|v| &mut v.name)),
    row(USER, "email", "Your mail address, recorded in commits.", Field::Text(|v| &mut v.email)),
    row(CORE, "profile", "The profile to start from; empty for none.", Field::Text(|v| &mut v.profile)),
    row(
        CORE,
        "durability",
        "Whether a commit is on the disk when it returns (strict) or a moment later (buffered).",
        Field::Choice(|v| &mut v.durability, &DURABILITIES),
    ),
    row(
        CORE,
        "sync_interval",
        "With buffered durability: how long a change may wait to be synced.",
        Field::Time(|v| &mut v.sync_interval, SYNC_TIMES),
    ),
    row(
        CORE,
        "sync_batches",
        "With buffered durability: how many changes may wait to be synced.",
        Field::Count(|v| &mut v.sync_batches, SYNC_BATCHES),
    ),
    row(
        CORE,
        "snapshot_log_size",
        "Changes of the journal are folded into a snapshot from this size on, and from an eighth of the snapshot's.",
        Field::Size(|v| &mut v.snapshot_log, SNAPSHOT_LOGS),
    ),
    row(
        CORE,
        "lock_timeout",
        "How long to wait while another process changes the repository.",
        Field::Time(|v| &mut v.lock_timeout, LOCK_TIMES),
    ),
    row(
        CORE,
        "gc_grace",
        "How long replaced layer files are kept for readers that began before they were replaced.",
        Field::Time(|v| &mut v.gc_grace, LOCK_TIMES),
    ),
    Key {
        section: PERFORMANCE,
        name: "auto_tune",
        alias: Some("adaptive_processing"),
        help: "Choose buffers and readers by the sizes of the files, unless they are set. Also called adaptive_processing.",
        field: Field::Flag(|v| &mut v.auto_tune),
    },
    row(
        PERFORMANCE,
        "auto_tune_batch_size",
        "Choose small_file_batch_size by the sizes of the files, unless it is set.",
        Field::Flag(|v| &mut v.auto_batch),
    ),
    row(
        PERFORMANCE,
        "performance_monitoring",
        "Sum up long operations, and say when one falls below what [alerts] asks for.",
        Field::Flag(|v| &mut v.monitoring),
    ),
    row(
        PERFORMANCE,
        "tiny_file_threshold",
        "Files below are read in batches that are bounded by small_file_batch_size.",
        Field::Size(|v| &mut v.tiny, THRESHOLDS),
    ),
    row(
        PERFORMANCE,
        "small_file_threshold",
        "Files up to here are read in batches, unless they are cut into chunks.",
        Field::Size(|v| &mut v.small, THRESHOLDS),
    ),
    row(
        PERFORMANCE,
        "medium_file_threshold",
        "Files up to here are read whole; longer ones are streamed, read_buffer_size at a time.",
        Field::Size(|v| &mut v.medium, THRESHOLDS),
    ),
    row(
        PERFORMANCE,
        "large_file_threshold",
        "Files above are streamed large_file_chunk_size at a time.",
        Field::Size(|v| &mut v.large, THRESHOLDS),
    ),
    row(
        PERFORMANCE,
        "huge_file_threshold",
        "Files above hold at most half of in_flight_size, so that the next ones can start.",
        Field::Size(|v| &mut v.huge, THRESHOLDS),
    ),
    row(
        PERFORMANCE,
        "large_file_streaming",
        "Stream every file above small_file_threshold, so that no longer one is in memory as a whole.",
        Field::Flag(|v| &mut v.streaming),
    ),
    row(
        PERFORMANCE,
        "small_file_batch_size",
        "How many tiny files are read in one task.",
        Field::Count(|v| &mut v.batch_files, BATCHES),
    ),
    row(
        PERFORMANCE,
        "read_buffer_size",
        "Bytes read at a time from a streamed file; at most an eighth of in_flight_size.",
        Field::Size(|v| &mut v.read_len, READS),
    ),
    row(
        PERFORMANCE,
        "large_file_chunk_size",
        "Bytes read at a time from a large file; at most an eighth of in_flight_size.",
        Field::Size(|v| &mut v.large_read_len, READS),
    ),
    row(
        PERFORMANCE,
        "write_buffer_size",
        "A layer is written in pieces of so many bytes while the next one is gathered; from 1MB on past the page cache.",
        Field::Size(|v| &mut v.write_len, WRITES),
    ),
    row(
        PERFORMANCE,
        "async_io_threshold",
        "Of files above, the system is asked to read the next window while one is worked on.",
        Field::Size(|v| &mut v.read_ahead_from, THRESHOLDS),
    ),
    row(
        PERFORMANCE,
        "memory_map_threshold",
        "Tables of layers above are mapped into memory, shorter ones are read as a whole.",
        Field::Size(|v| &mut v.map_from, THRESHOLDS),
    ),
    row(
        PERFORMANCE,
        "worker_thread_count",
        "Threads that cut, hash and compress; 0 for one a processor.",
        Field::Count(|v| &mut v.cpu_threads, THREADS),
    ),
    row(
        PERFORMANCE,
        "io_thread_count",
        "Threads that read files; 0 for as many as worker_thread_count, or with auto_tune at least 8 for many files.",
        Field::Count(|v| &mut v.io_threads, THREADS),
    ),
    Key {
        section: PERFORMANCE,
        name: "max_memory_usage",
        alias: Some("memory_limit"),
        help: "Bounds chunk_cache_size (a quarter, 32 MB left out), in_flight_size (a 32nd) and paths held. Or: memory_limit.",
        field: Field::Size(|v| &mut v.max_memory, MEMORY),
    },
    row(
        PERFORMANCE,
        "in_flight_size",
        "Bytes of files that may be between reading and storing.",
        Field::Size(|v| &mut v.in_flight, IN_FLIGHT),
    ),
    row(
        PERFORMANCE,
        "chunk_cache_size",
        "Bytes of decoded blocks kept for the next read.",
        Field::Size(|v| &mut v.cache, CACHES),
    ),
    row(
        PERFORMANCE,
        "chunk_size",
        "New repositories: the average length of a chunk. An existing repository keeps its own.",
        Field::Size(|v| &mut v.chunk_avg, wide(&AVG_LENS)),
    ),
    row(
        PERFORMANCE,
        "chunk_size_min",
        "New repositories: the least length of a chunk; auto for a quarter of chunk_size.",
        Field::AutoSize(|v| &mut v.chunk_min, wide(&MIN_LENS)),
    ),
    row(
        PERFORMANCE,
        "chunk_size_max",
        "New repositories: the greatest length of a chunk; auto for four times chunk_size.",
        Field::AutoSize(|v| &mut v.chunk_max, wide(&MAX_LENS)),
    ),
    row(
        PERFORMANCE,
        "chunking_threshold",
        "New repositories: files up to here are one chunk; auto for chunk_size.",
        Field::AutoSize(|v| &mut v.whole_len, 0..=*MAX_LENS.end() as u64),
    ),
    row(
        PERFORMANCE,
        "deduplication_aggressive",
        "New repositories: chunks of a quarter of chunk_size, so that an edit stores less again.",
        Field::Flag(|v| &mut v.aggressive),
    ),
    row(
        PERFORMANCE,
        "block_size",
        "Bytes compressed together: larger blocks shrink more, smaller ones make reading a single file faster.",
        Field::Size(|v| &mut v.block_len, BLOCKS),
    ),
    row(
        PERFORMANCE,
        "snapshot_interval",
        "A version is stored as what changed, until so many would have to be read for one; 1 stores each whole.",
        Field::Count(|v| &mut v.snapshot_interval, INTERVALS),
    ),
    row(
        PERFORMANCE,
        "layer_size",
        "Bytes of content after which a commit goes on in another layer file.",
        Field::Size(|v| &mut v.layer_len, LAYERS),
    ),
    row(
        PERFORMANCE,
        "compression",
        "How hard to compress: zstd_fast is level 1, zstd level 3, zstd_best level 12.",
        Field::Choice(|v| &mut v.compression, &COMPRESSIONS),
    ),
    row(
        PERFORMANCE,
        "compression_level",
        "The level of zstd from 1 to 19, instead of the one that compression names.",
        Field::AutoCount(|v| &mut v.level, *LEVELS.start() as u64..=*LEVELS.end() as u64),
    ),
    row(
        PERFORMANCE,
        "progress_update_interval",
        "How often progress is drawn.",
        Field::Time(|v| &mut v.progress_interval, PROGRESS_TIMES),
    ),
    row(
        PERFORMANCE,
        "batch_progress_threshold",
        "Files after which the numbers in the progress line move on.",
        Field::Count(|v| &mut v.progress_batch, PROGRESS_BATCHES),
    ),
    row(
        PERFORMANCE,
        "quiet_mode_file_threshold",
        "With more files than this, --verbose gives their number instead of listing each.",
        Field::Count(|v| &mut v.most_listed, LISTS),
    ),
    row(
        ALERTS,
        "min_files_per_second",
        "An operation of five seconds or more that is below this and below min_mb_per_second is reported; 0 for never.",
        Field::Count(|v| &mut v.min_files, RATES),
    ),
    row(
        ALERTS,
        "min_mb_per_second",
        "The same in megabytes (10^6 bytes); slow is what is below both.",
        Field::Count(|v| &mut v.min_megabytes, RATES),
    ),
    row(
        ALERTS,
        "max_memory",
        "An operation that takes more memory than this is reported; 0 for never.",
        Field::Size(|v| &mut v.max_alert_memory, THRESHOLDS),
    ),
    row(
        ALERTS,
        "max_operation_time",
        "An operation that takes longer than this is reported; 0ms for never.",
        Field::Time(|v| &mut v.max_time, ALERT_TIMES),
    ),
];

/// The sections of a file, those with keys first.
pub const SECTIONS: [&str; 5] = [USER, CORE, PERFORMANCE, ALERTS, PROFILES];
/// The section of the profiles.
pub const PROFILES: &str = "profiles";
/// What a profile may have beside keys.
pub const DESCRIPTION: &str = "description";

/// The row's number of a key in a section.
pub fn find(section: &str, name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.section == section && key.is_called(name))
}

/// The row's number of a key with its section.
pub fn find_full(name: &str) -> Option<usize> {
    name.split_once('.').and_then(|(section, name)| find(section, name))
}

/// The row's number of the key that chooses a profile.
pub fn profile_row() -> Option<usize> {
    find(CORE, "profile")
}

/// The known key or section that is most like `name`.
pub fn nearest(name: &str) -> String {
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    // A right key in the wrong section is as near as can be.
    let distance = |known: &String| {
        let whole = strsim::damerau_levenshtein(name, known);
        whole.min(strsim::damerau_levenshtein(&last(name), &last(known)))
    };
    let sections = SECTIONS.iter().map(|section| (*section).to_owned());
    KEYS.iter().map(Key::full_name).chain(sections).min_by_key(distance).unwrap_or_default()
}

/// The entry of profile `profile` that is most like `name`.
pub fn nearest_in_profile(profile: &str, name: &str) -> String {
    let known = KEYS.iter().filter(|key| key.section == PERFORMANCE).map(|key| key.name).chain([DESCRIPTION]);
    let nearest = known.min_by_key(|known| strsim::damerau_levenshtein(name, known)).unwrap_or_default();
    format!("{PROFILES}.{profile}.{nearest}")
}
