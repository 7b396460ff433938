//! What a process does while it works: counted as it happens, read at any time.
//!
//! Counting costs an atomic addition and two readings of the clock for each batch of work, about 70 ns, so it is always on:
//! asking for what was counted makes no difference to the kernel's `add` that could be seen in seven rounds.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

/// From this part of their time on, the processors are what there is too little of.
const PROCESSORS_BUSY: f64 = 0.85;

/// A kind of work, timed on every thread that does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Looking at names in the work tree.
    Scan,
    /// Reading files of the work tree.
    Read,
    /// Cutting and hashing.
    Hash,
    /// Reading and decoding stored blocks.
    Decode,
    /// Compressing blocks.
    Compress,
    /// Writing layers, and waiting until they are durable.
    Store,
    /// Writing files of the work tree.
    Restore,
    /// Committing to the journal.
    Commit,
}

/// Who does a kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// One thread.
    One,
    /// The threads that read.
    Io,
    /// The threads that compute.
    Cpu,
}

const STAGES: [(Stage, &str, Lane); 8] = [
    (Stage::Scan, "scan", Lane::One),
    (Stage::Read, "read", Lane::Io),
    (Stage::Hash, "hash", Lane::Cpu),
    (Stage::Decode, "decode", Lane::Cpu),
    (Stage::Compress, "compress", Lane::Cpu),
    (Stage::Store, "store", Lane::One),
    (Stage::Restore, "restore", Lane::Cpu),
    (Stage::Commit, "commit", Lane::One),
];

/// Counters that only grow.
#[derive(Debug, Default)]
pub struct Meter {
    busy_ns: [AtomicU64; STAGES.len()],
    files: AtomicU64,
    bytes: AtomicU64,
    chunks_new: AtomicU64,
    chunks_known: AtomicU64,
    chunks_in_place: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    in_flight_peak: AtomicU64,
    in_flight_limit: AtomicU64,
}

/// Work that is going on; its time is counted when this is dropped.
#[derive(Debug)]
pub struct Busy<'a> {
    counter: &'a AtomicU64,
    start: Instant,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counter.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Meter {
    /// Starts timing work on this thread.
    pub fn time(&self, stage: Stage) -> Busy<'_> {
        // The stages are numbered in the order of the table.
        let [first, ..] = &self.busy_ns;
        Busy { counter: self.busy_ns.get(stage as usize).unwrap_or(first), start: Instant::now() }
    }

    /// Files that are done, and their bytes.
    pub fn add_files(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A chunk that was stored already, or was not.
    pub fn add_chunk(&self, is_new: bool) {
        let counter = if is_new { &self.chunks_new } else { &self.chunks_known };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Chunks of large files that were where an older version of the file has them.
    pub fn add_in_place(&self, chunks: u64) {
        self.chunks_in_place.fetch_add(chunks, Ordering::Relaxed);
    }

    /// A request to the cache of blocks.
    pub fn add_cache_request(&self, is_hit: bool) {
        let counter = if is_hit { &self.cache_hits } else { &self.cache_misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests to the cache that were answered, and those that were not.
    pub fn cache_requests(&self) -> (u64, u64) {
        (self.cache_hits.load(Ordering::Relaxed), self.cache_misses.load(Ordering::Relaxed))
    }

    /// The most bytes that were in flight in a pipeline, and the most that may be.
    pub fn add_in_flight(&self, peak: u64, limit: u64) {
        self.in_flight_peak.fetch_max(peak, Ordering::Relaxed);
        self.in_flight_limit.fetch_max(limit, Ordering::Relaxed);
    }

    /// What was counted so far, of work that has taken `wall` with so many threads.
    pub fn summary(&self, wall: Duration, io_threads: usize, cpu_threads: usize) -> Summary {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (files, bytes) = (get(&self.files), get(&self.bytes));
        let wall_secs = wall.as_secs_f64();
        let a_second = |count: u64| if wall_secs > 0.0 { count as f64 / wall_secs } else { 0.0 };
        let stages = STAGES.iter().zip(&self.busy_ns).filter(|(_, busy)| get(busy) > 0);
        let stages = stages.map(|((_, stage, lane), busy)| {
            let threads = match lane {
                Lane::One => 1,
                Lane::Io => io_threads,
                Lane::Cpu => cpu_threads,
            };
            let busy_secs = Duration::from_nanos(get(busy)).as_secs_f64();
            let share = if wall_secs > 0.0 { busy_secs / (wall_secs * threads as f64) } else { 0.0 };
            StageTime { stage, busy_secs, threads, share }
        });
        let memory = Memory::now();
        Summary {
            wall_secs,
            cpu_secs: cpu_time().as_secs_f64(),
            processors: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            files,
            bytes,
            files_per_second: a_second(files),
            bytes_per_second: a_second(bytes),
            chunks_new: get(&self.chunks_new),
            chunks_known: get(&self.chunks_known),
            chunks_in_place: get(&self.chunks_in_place),
            stages: stages.collect(),
            in_flight_peak: get(&self.in_flight_peak),
            in_flight_limit: get(&self.in_flight_limit),
            cache_hits: get(&self.cache_hits),
            cache_misses: get(&self.cache_misses),
            memory_bytes: memory.now,
            memory_peak_bytes: memory.peak,
        }
    }
}

/// The time of a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageTime {
    /// Its name.
    pub stage: &'static str,
    /// Seconds of all threads together.
    pub busy_secs: f64,
    /// Threads that there are for it.
    pub threads: usize,
    /// Of the time that these threads had, the part that they spent on it.
    pub share: f64,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Seconds since the start.
    pub wall_secs: f64,
    /// Seconds of processors, those for the system included, since the process started.
    pub cpu_secs: f64,
    /// Processors that there are.
    pub processors: usize,
    /// Files read or written.
    pub files: u64,
    /// Their bytes, holes included.
    pub bytes: u64,
    /// Files in each second.
    pub files_per_second: f64,
    /// Bytes in each second.
    pub bytes_per_second: f64,
    /// Chunks that were not stored before.
    pub chunks_new: u64,
    /// Chunks that were.
    pub chunks_known: u64,
    /// Chunks of large files that are where an older version has them, so that their ends need not be searched for.
    pub chunks_in_place: u64,
    /// The stages that took time.
    pub stages: Vec<StageTime>,
    /// The most bytes of files that were between reading and storing.
    pub in_flight_peak: u64,
    /// The most that may be.
    pub in_flight_limit: u64,
    /// Blocks that were found decoded.
    pub cache_hits: u64,
    /// Blocks that were not.
    pub cache_misses: u64,
    /// Memory of the process now; 0 where the system does not tell.
    pub memory_bytes: u64,
    /// The most memory that it had.
    pub memory_peak_bytes: u64,
}

/// What most of the time went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Looking at names.
    Scanning,
    /// Reading files.
    Reading,
    /// Hashing, decoding and compressing, or anything else if no processor has a rest.
    Computing,
    /// Writing layers or files.
    Writing,
}

impl Summary {
    /// The part of the processors' time that this process took.
    pub fn processors_busy(&self) -> f64 {
        let all = self.wall_secs * self.processors as f64;
        if all > 0.0 { self.cpu_secs / all } else { 0.0 }
    }

    /// What kept the work from going faster, and the part of the time that it took.
    pub fn limit(&self) -> Option<(Limit, f64)> {
        let share = |names: &[&str]| -> f64 {
            self.stages.iter().filter(|stage| names.contains(&stage.stage)).map(|stage| stage.share).sum()
        };
        let shares = [
            (Limit::Computing, share(&["hash", "decode", "compress"])),
            (Limit::Reading, share(&["read"])),
            (Limit::Writing, share(&["store", "restore", "commit"])),
            (Limit::Scanning, share(&["scan"])),
        ];
        let most = shares.into_iter().filter(|(_, share)| *share > 0.0).max_by(|a, b| a.1.total_cmp(&b.1))?;
        // Threads that wait for a processor look as if they waited for the disk.
        let busy = self.processors_busy();
        let is_waiting = busy >= PROCESSORS_BUSY && most.0 != Limit::Scanning;
        Some(if is_waiting { (Limit::Computing, busy) } else { most })
    }
}

/// Time of processors that this process has taken.
fn cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(spent).unwrap_or_default()
}

/// Resident memory of this process.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    now: u64,
    peak: u64,
}

impl Memory {
    /// From `/proc/self/status`, in kB there; zeros where there is none.
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let bytes = |name: &str| field(name).map_or(0, |kilobytes| kilobytes * 1024);
        Self { now: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_its_row() {
        for (at, (stage, ..)) in STAGES.iter().enumerate() {
            assert_eq!(*stage as usize, at);
        }
    }

    #[test]
    fn what_is_counted_is_summed_up() {
        let meter = Meter::default();
        meter.add_files(3, 300);
        meter.add_files(1, 100);
        [true, true, false].into_iter().for_each(|is_new| meter.add_chunk(is_new));
        [true, false, false].into_iter().for_each(|is_hit| meter.add_cache_request(is_hit));
        [2, 1].into_iter().for_each(|chunks| meter.add_in_place(chunks));
        meter.add_in_flight(5, 10);
        meter.add_in_flight(4, 10);
        drop(meter.time(Stage::Commit));
        meter.busy_ns[Stage::Compress as usize].store(3_000_000_000, Ordering::Relaxed);
        meter.busy_ns[Stage::Read as usize].store(1_000_000_000, Ordering::Relaxed);
        let found = meter.summary(Duration::from_secs(2), 4, 2);
        assert_eq!((found.files, found.bytes, found.files_per_second, found.bytes_per_second), (4, 400, 2.0, 200.0));
        assert_eq!((found.chunks_new, found.chunks_known, found.cache_hits, found.cache_misses), (2, 1, 1, 2));
        assert_eq!((found.chunks_in_place, found.in_flight_peak, found.in_flight_limit), (3, 5, 10));
        let names: Vec<_> = found.stages.iter().map(|stage| (stage.stage, stage.threads, stage.share)).collect();
        assert_eq!(names[..2], [("read", 4, 0.125), ("compress", 2, 0.75)]);
        let at_rest = Summary { cpu_secs: 0.0, processors: 2, ..found };
        assert_eq!(at_rest.limit(), Some((Limit::Computing, 0.75)));
        let reading = StageTime { stage: "read", busy_secs: 15.0, threads: 8, share: 0.94 };
        let reading = Summary { stages: vec![reading], ..at_rest };
        assert_eq!(reading.limit(), Some((Limit::Reading, 0.94)));
        let waiting_for_processors = Summary { cpu_secs: 3.6, ..reading };
        assert_eq!(waiting_for_processors.limit(), Some((Limit::Computing, 0.9)));
        let scanning = StageTime { stage: "scan", busy_secs: 1.9, threads: 1, share: 0.95 };
        let scanning = Summary { stages: vec![scanning], ..waiting_for_processors };
        assert_eq!(scanning.limit(), Some((Limit::Scanning, 0.95)));
        assert_eq!(Meter::default().summary(Duration::ZERO, 1, 1).limit(), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_known() {
        let memory = Memory::now();
        assert!(memory.now > 0 && memory.peak >= memory.now);
    }
}
