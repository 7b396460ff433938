//! The journal: what an operation costs, with how many threads, after a crash, and on the disk.
//!
//! `cargo bench --bench journal`. Each benchmark checks counts of its work before it is timed. The micro group also takes
//! percentiles of single operations and writes them to `target/journal-percentiles.json`. Compare figures of one run only.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark that cannot go on fails")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints")]
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use digstore::base::disk::open_root;
use digstore::format::journal::Op;
use digstore::store::journal::{Durability, Journal, SnapshotPolicy};
use hdrhistogram::Histogram;

const REPO: [u8; 16] = [7; 16];
const KEYS: u64 = 1_000_000;
const VALUE_LEN: usize = 100;
/// Values of counters, names and small records: what targets for a million keys are usually stated for.
const SMALL_VALUE_LEN: usize = 40;
/// Keys loaded in one batch.
const LOAD_BATCH: u64 = 10_000;
const BUFFERED: Durability = Durability::Buffered { interval: Duration::from_millis(100), batches: 1000 };
const MODES: [(&str, Durability); 3] =
    [("memory", Durability::Memory), ("buffered", BUFFERED), ("strict", Durability::Strict)];
/// Never by itself, where a benchmark wants the whole log.
const NEVER: SnapshotPolicy = SnapshotPolicy { min_log_bytes: u64::MAX };

/// Counts the bytes that are in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it hands every call on to the system's allocator.
#[expect(unsafe_code, reason = "the argument is above")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_len: usize) -> *mut u8 {
        IN_USE.fetch_add(new_len, Ordering::Relaxed);
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, new_len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A bijection on 64 bits that looks random: the n-th key, the same in every run.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn key(n: u64) -> [u8; 16] {
    let mut key = *b"k///////////////";
    key[8..].copy_from_slice(&mix(n).to_be_bytes());
    key
}

fn put(n: u64, value_len: usize) -> Op {
    Op::Put(key(n).to_vec(), vec![n as u8; value_len])
}

fn open(path: &Path, durability: Durability) -> Journal {
    let journal = Journal::open(Some(open_root(path).unwrap()), REPO, durability).unwrap();
    journal.refresh().unwrap();
    journal
}

fn create(path: &Path, durability: Durability) -> Journal {
    Journal::create(open_root(path).unwrap().as_ref(), &REPO).unwrap();
    open(path, durability)
}

fn load(journal: &Journal, keys: u64, value_len: usize) {
    for start in (0..keys).step_by(LOAD_BATCH as usize) {
        journal.commit((start..keys.min(start + LOAD_BATCH)).map(|n| put(n, value_len)).collect::<Vec<_>>()).unwrap();
    }
    assert_eq!(journal.read().get(&key(keys - 1)).unwrap().map(<[u8]>::len), Some(value_len));
    assert_eq!(journal.read().get(&key(keys)).unwrap(), None);
}

/// A journal of a million keys in its usual shape: nearly all in the snapshot, if there is one.
fn million(folder: &tempfile::TempDir, durability: Durability) -> Journal {
    let journal = match durability {
        Durability::Memory => Journal::open(None, REPO, durability).unwrap(),
        _ => create(folder.path(), durability),
    };
    load(&journal, KEYS, VALUE_LEN);
    journal.snapshot().unwrap();
    journal
}

/// Percentiles of single calls, in nanoseconds, as lines of JSON.
#[derive(Default)]
struct Percentiles(Vec<String>);

impl Percentiles {
    fn take(&mut self, name: &str, calls: u64, mut call: impl FnMut(u64)) {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for n in 0..calls {
            let start = Instant::now();
            call(n);
            histogram.record(start.elapsed().as_nanos() as u64).unwrap();
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        let (p50, p95, p99, p999) = (at(0.5), at(0.95), at(0.99), at(0.999));
        println!(
            "{name:<32} p50 {p50:>9} ns  p95 {p95:>9}  p99 {p99:>9}  p99.9 {p999:>9}  max {:>10}",
            histogram.max()
        );
        let mean = histogram.mean();
        self.0.push(format!(
            "{{\"name\":\"{name}\",\"calls\":{calls},\"mean_ns\":{mean:.0},\"p50_ns\":{p50},\"p95_ns\":{p95},\"p99_ns\":{p99},\"p999_ns\":{p999}}}"
        ));
    }

    fn write(&self) {
        let target = option_env!("CARGO_TARGET_TMPDIR").map_or(Path::new("target"), Path::new);
        let folder = target.ancestors().find(|folder| folder.ends_with("target")).unwrap_or(target);
        std::fs::create_dir_all(folder).unwrap();
        let path = folder.join("journal-percentiles.json");
        std::fs::write(&path, format!("[\n{}\n]\n", self.0.join(",\n"))).unwrap();
        println!("written: {}", path.display());
    }
}

fn micro_reads(c: &mut Criterion, percentiles: &mut Percentiles, name: &str, journal: &Journal) {
    let mut group = c.benchmark_group(format!("get/{name}"));
    group.throughput(Throughput::Elements(1));
    let patterns: [(&str, fn(u64) -> u64); 3] =
        [("hot", |_| 4711), ("uniform", |n| mix(n) % KEYS), ("miss", |n| KEYS + mix(n) % KEYS)];
    for (pattern, choose) in patterns {
        let found = |n| journal.read().get(&key(choose(n))).unwrap().map(<[u8]>::len);
        let expected = if pattern == "miss" { None } else { Some(VALUE_LEN) };
        assert!((0..1000).all(|n| found(n) == expected));
        let mut n = 0;
        group.bench_function(pattern, |b| {
            b.iter(|| {
                n += 1;
                black_box(found(n))
            });
        });
        percentiles.take(&format!("get/{name}/{pattern}"), 200_000, |n| {
            black_box(found(n));
        });
    }
    group.finish();
}

fn micro_writes(c: &mut Criterion, percentiles: &mut Percentiles, name: &str, journal: &Journal) {
    let mut group = c.benchmark_group(format!("write/{name}"));
    group.throughput(Throughput::Elements(1));
    let calls = if name == "strict" { 500 } else { 100_000 };
    let lsn = journal.read().lsn();
    let (mut n, mut e, mut s) = (0, 0, 0u64);
    let mut put_uniform = || {
        n += 1;
        journal.commit(vec![put(mix(n) % KEYS, VALUE_LEN)]).unwrap();
    };
    let mut put_hot = || journal.commit(vec![put(4711, VALUE_LEN)]).unwrap();
    let mut delete = || {
        e += 1;
        journal.commit(vec![Op::Delete(key(mix(e) % KEYS).to_vec())]).unwrap();
    };
    journal.commit(vec![Op::Put(b"swap".to_vec(), 0u64.to_le_bytes().to_vec())]).unwrap();
    let mut cas = || {
        let (old, new) = (s.to_le_bytes(), (s + 1).to_le_bytes());
        assert!(journal.compare_and_swap(b"swap", Some(&old), Some(new.to_vec())).unwrap());
        s += 1;
    };
    let mut append = || {
        journal.append(b"event/", &[1; VALUE_LEN]).unwrap();
    };
    let works: [(&str, &mut dyn FnMut()); 5] = [
        ("put-uniform", &mut put_uniform),
        ("put-hot", &mut put_hot),
        ("cas", &mut cas),
        ("append", &mut append),
        ("delete", &mut delete),
    ];
    for (work, call) in works {
        group.bench_function(work, |b| b.iter(&mut *call));
        percentiles.take(&format!("{work}/{name}"), calls, |_| call());
    }
    assert!(journal.read().lsn() >= lsn + 5 * calls);
    let last = journal.read().last_event(b"event/").unwrap();
    assert!(last >= calls);
    group.bench_function("scan-1000-events", |b| {
        b.iter(|| {
            let state = journal.read();
            let mut events = state.events(b"event/", last - 1000 + 1).unwrap();
            let mut bytes = 0;
            while let Some((_, payload)) = events.next().unwrap() {
                bytes += payload.len();
            }
            assert_eq!(bytes, 1000.min(last as usize) * VALUE_LEN);
        });
    });
    group.finish();
}

fn micro(c: &mut Criterion) {
    let mut percentiles = Percentiles::default();
    for (name, durability) in MODES {
        let folder = tempfile::tempdir().unwrap();
        let before = IN_USE.load(Ordering::Relaxed);
        let journal = million(&folder, durability);
        let held = IN_USE.load(Ordering::Relaxed) - before;
        println!("memory/{name}: {} bytes per key, besides mapped files", held as u64 / KEYS);
        micro_reads(c, &mut percentiles, name, &journal);
        micro_writes(c, &mut percentiles, name, &journal);
    }
    percentiles.write();
}

/// All threads at once; gives the time for the given number of calls of each.
fn together(threads: u64, calls: u64, call: impl Fn(u64, u64) + Sync) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let call = &call;
            scope.spawn(move || (0..calls).for_each(|n| call(thread, n)));
        }
    });
    start.elapsed()
}

fn concurrency(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let journal = million(&folder, BUFFERED);
    let mut group = c.benchmark_group("concurrency");
    let get = |thread: u64, n: u64| assert!(journal.read().get(&key(mix(n * 31 + thread) % KEYS)).unwrap().is_some());
    let put_one = |n: u64| journal.commit(vec![put(mix(n) % KEYS, VALUE_LEN)]).unwrap();
    for threads in [1, 2, 4] {
        group.throughput(Throughput::Elements(threads));
        group.bench_function(format!("get/{threads}"), |b| b.iter_custom(|calls| together(threads, calls, get)));
        group.bench_function(format!("put-same-key/{threads}"), |b| {
            b.iter_custom(|calls| together(threads, calls, |_, _| put_one(1)));
        });
        group.bench_function(format!("mixed-10-1/{threads}"), |b| {
            b.iter_custom(|calls| together(threads, calls, |t, n| if n % 11 == 10 { put_one(n) } else { get(t, n) }));
        });
    }
    // How often a swap is refused when two threads go for one counter.
    let (swaps, refused) = (20_000, AtomicUsize::new(0));
    let number = || journal.read().get(b"counter").unwrap().map_or(0, |v| u64::from_le_bytes(v.try_into().unwrap()));
    together(2, swaps, |_, _| {
        loop {
            let old = number();
            let expected = (old > 0).then(|| old.to_le_bytes());
            let new = (old + 1).to_le_bytes().to_vec();
            if journal.compare_and_swap(b"counter", expected.as_ref().map(|v| &v[..]), Some(new)).unwrap() {
                break;
            }
            refused.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(number(), 2 * swaps);
    println!("compare-and-swap, two threads: {} of {} refused", refused.into_inner(), 2 * swaps);
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let mut group = c.benchmark_group("recovery");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for (order, name_of) in [("ascending", (|n| n) as fn(u64) -> u64), ("random", mix)] {
        let folder = tempfile::tempdir().unwrap();
        let journal = create(folder.path(), BUFFERED).with_policy(NEVER);
        for n in 0..KEYS {
            let mut key = *b"k///////////////";
            key[8..].copy_from_slice(&name_of(n).to_be_bytes());
            journal.commit(vec![Op::Put(key.to_vec(), vec![1; SMALL_VALUE_LEN])]).unwrap();
        }
        drop(journal);
        let reopen = || Journal::open(Some(open_root(folder.path()).unwrap()), REPO, Durability::Strict).unwrap();
        assert_eq!(reopen().read().lsn(), KEYS);
        group.bench_function(format!("replay-1M-records-{order}"), |b| b.iter_with_large_drop(reopen));
    }
    for value_len in [SMALL_VALUE_LEN, VALUE_LEN] {
        let folder = tempfile::tempdir().unwrap();
        let journal = create(folder.path(), BUFFERED).with_policy(NEVER);
        load(&journal, KEYS, value_len);
        let mut n = 0;
        group.bench_function(format!("snapshot-write-1M-{value_len}-byte-values"), |b| {
            b.iter_batched(
                || {
                    n += 1;
                    journal.commit(vec![put(n, value_len)]).unwrap();
                },
                |()| journal.snapshot().unwrap(),
                BatchSize::PerIteration,
            );
        });
        drop(journal);
        let reopen = || Journal::open(Some(open_root(folder.path()).unwrap()), REPO, Durability::Strict).unwrap();
        assert!(reopen().read().get(&key(KEYS - 1)).unwrap().is_some());
        group.bench_function(format!("snapshot-load-1M-{value_len}-byte-values"), |b| b.iter_with_large_drop(reopen));
        let journal = open(folder.path(), BUFFERED).with_policy(NEVER);
        for n in 0..KEYS / 10 {
            journal.commit(vec![put(mix(n) % (2 * KEYS), value_len)]).unwrap();
        }
        drop(journal);
        group.bench_function(format!("snapshot-and-100k-records-{value_len}"), |b| b.iter_with_large_drop(reopen));
    }
    group.finish();
}

fn durability(c: &mut Criterion) {
    let mut group = c.benchmark_group("durability");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    let folder = tempfile::tempdir().unwrap();
    let journal = create(folder.path(), Durability::Strict);
    let mut n = 0;
    for batch in [1, 100, 1000] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("synced-batch-of-{batch}"), |b| {
            b.iter(|| {
                n += batch;
                journal.commit((n..n + batch).map(|n| put(n % KEYS, VALUE_LEN)).collect::<Vec<_>>()).unwrap();
            });
        });
    }
    // A log of some megabytes gives way to a snapshot of few keys: the cost is that of the files.
    let folder = tempfile::tempdir().unwrap();
    let journal = create(folder.path(), Durability::Strict).with_policy(NEVER);
    group.bench_function("log-truncation", |b| {
        b.iter_batched(
            || (0..100).for_each(|_| journal.commit((0..300).map(|n| put(n, VALUE_LEN)).collect::<Vec<_>>()).unwrap()),
            |()| journal.snapshot().unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn scenarios(c: &mut Criterion) {
    let mut group = c.benchmark_group("scenario");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for (name, durability) in [("memory", Durability::Memory), ("buffered", BUFFERED)] {
        let folder = tempfile::tempdir().unwrap();
        let journal = million(&folder, durability);
        let mut run = 0u64;
        // An agent's run: each step reads some of its state, notes what it did, and changes one thing.
        group.bench_function(format!("agent-run-1000-steps/{name}"), |b| {
            b.iter(|| {
                run += 1;
                let stream = format!("run/{run:016x}/");
                for step in 0..1000u64 {
                    for read in 0..5 {
                        black_box(journal.read().get(&key(mix(run + step + read) % KEYS)).unwrap().map(<[u8]>::len));
                    }
                    journal.append(stream.as_bytes(), &[2; 200]).unwrap();
                    journal.commit(vec![put(mix(step) % KEYS, VALUE_LEN)]).unwrap();
                }
                assert_eq!(journal.read().last_event(stream.as_bytes()).unwrap(), 1000);
            });
        });
        // A burst: many keys at once, then quiet.
        group.bench_function(format!("burst-of-10000-keys/{name}"), |b| {
            b.iter(|| {
                run += 1;
                journal.commit((0..10_000).map(|n| put(mix(run + n) % KEYS, VALUE_LEN)).collect::<Vec<_>>()).unwrap();
            });
        });
    }
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group!(name = benches; config = quick(); targets = micro, concurrency, recovery, durability, scenarios);
criterion_main!(benches);
