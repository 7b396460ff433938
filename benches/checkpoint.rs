//! Checkpoints and sessions as a service: what one call costs in a process that keeps the repository open.
//!
//! `cargo bench --bench checkpoint`. The groups are those of the user's document on checkpoints: creation, batches, tags,
//! lists, restore, compaction, threads, export, the service, and memory beside disk. Checkpoints of these groups hold
//! what their maker says (message, tags, a state document of a few hundred bytes) and not the work tree, as there;
//! `restore` and `work_tree` are the ones with files. On disk, `buffered` is the mode that can be compared with a store
//! that does not sync; `strict` syncs each checkpoint. Each benchmark checks counts of its work before it is timed.
//! Percentiles of single calls go to `target/checkpoint-percentiles.json`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark that cannot go on fails")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints")]
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::ffi::OsStr;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use digstore::base::disk::open_root;
use digstore::base::monitor::Silent;
use digstore::model::path::CONTROL_DIR;
use digstore::model::session::SessionName;
use digstore::ops::checkpoint::{create, list, restore, retention, transfer};
use digstore::ops::session;
use digstore::repo::{Repository, Settings, init};
use digstore::store::journal::Durability;
use digstore::transform::chunker::ChunkParams;
use hdrhistogram::Histogram;
use tempfile::TempDir;

const BUFFERED: Durability = Durability::Buffered { interval: Duration::from_millis(100), batches: 1000 };

/// A repository and the folder that keeps its work tree.
struct Place {
    repo: Repository,
    folder: TempDir,
}

fn in_memory() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repository::in_memory(open_root(folder.path()).unwrap(), Settings::default()).unwrap();
    begin(Place { repo, folder })
}

fn on_disk(durability: Durability) -> Place {
    let folder = tempfile::tempdir_in(std::env::current_dir().unwrap().join("target")).unwrap();
    let work = open_root(folder.path()).unwrap();
    let (dir, _) = init::create(work.as_ref(), OsStr::new(CONTROL_DIR), ChunkParams::default()).unwrap();
    let settings = Settings { durability, ..Settings::default() };
    begin(Place { repo: Repository::open(dir, work, settings).unwrap(), folder })
}

fn begin(place: Place) -> Place {
    new_session(&place, "s");
    place
}

fn new_session(place: &Place, name: &str) {
    let options = session::BeginOptions { name: SessionName::parse(name).unwrap(), owner: None, resume: false };
    session::begin(&place.repo, &options, &Silent).unwrap();
}

/// What an agent says of a step: a message and a state of some 300 bytes.
fn words(tags: usize) -> create::Options {
    let state = serde_json::json!({
        "step": 17, "goal": "make the tests pass", "hypotheses": ["off by one", "wrong lock order", "stale index"],
        "metrics": { "tests": 412, "failed": 3, "seconds": 12.5 }, "files": ["src/lib.rs", "src/store/index.rs"],
        "notes": "the second hypothesis explains both failures; the third explains only one of them",
    });
    create::Options {
        session: Some(SessionName::parse("s").unwrap()),
        message: "after the tool call".into(),
        tags: (0..tags).map(|tag| format!("tag-{tag}")).collect(),
        state: Some(state.to_string()),
        area: None,
        ..create::Options::default()
    }
}

fn make(place: &Place, options: &create::Options, count: usize) {
    for _ in 0..count {
        create::create(&place.repo, options, &Silent).unwrap();
    }
}

fn filled(place: Place, count: usize) -> Place {
    make(&place, &words(0), count);
    let found = list::list(&place.repo, &list::Options::default(), &Silent).unwrap();
    assert_eq!(found.checkpoints.len(), count);
    place
}

fn creation(c: &mut Criterion) {
    let mut group = c.benchmark_group("checkpoint_creation");
    let place = in_memory();
    group.bench_function("single", |b| b.iter(|| create::create(&place.repo, &words(0), &Silent).unwrap()));
    group.finish();
    let mut group = c.benchmark_group("checkpoint_creation_batch");
    group.sample_size(20);
    for count in [10, 100, 1000] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_with_input(BenchmarkId::from_parameter(count), &count, |b, &count| {
            b.iter_batched(in_memory, |place| (make(&place, &words(0), count), place), BatchSize::PerIteration);
        });
    }
    group.finish();
    let mut group = c.benchmark_group("checkpoint_with_tags");
    let place = in_memory();
    group.bench_function("with_3_tags", |b| b.iter(|| create::create(&place.repo, &words(3), &Silent).unwrap()));
    group.finish();
}

fn queries(c: &mut Criterion) {
    let place = filled(in_memory(), 100);
    let mut group = c.benchmark_group("query_operations");
    let all = list::Options::default();
    let by_session = list::Options { session: Some(SessionName::parse("s").unwrap()), ..list::Options::default() };
    for (name, options) in [("list_all", all), ("list_by_session", by_session)] {
        assert_eq!(list::list(&place.repo, &options, &Silent).unwrap().checkpoints.len(), 100);
        group.bench_function(name, |b| b.iter(|| list::list(&place.repo, &options, &Silent).unwrap()));
    }
    group.finish();
}

fn restoring(c: &mut Criterion) {
    let mut group = c.benchmark_group("restore");
    group.sample_size(20);
    let place = on_disk(BUFFERED);
    let file = |n: usize| place.folder.path().join(format!("file-{n}"));
    for n in 0..100 {
        std::fs::write(file(n), format!("{n}: one").repeat(100)).unwrap();
    }
    let options = create::Options::default();
    make(&place, &options, 1);
    for n in 0..5 {
        std::fs::write(file(n), format!("{n}: two").repeat(100)).unwrap();
    }
    make(&place, &options, 1);
    let mut number = 1;
    // From one to the other and back: five files are written each time.
    group.bench_function("single", |b| {
        b.iter(|| {
            let options = restore::Options { number, ..restore::Options::default() };
            let done = restore::restore(&place.repo, &options, &Silent).unwrap();
            assert_eq!((done.written, done.failed), (5, 0));
            number = 3 - number;
        });
    });
    group.finish();
    let mut group = c.benchmark_group("work_tree");
    group.sample_size(20);
    let mut step = 0;
    group.bench_function("one_of_100_files_edited", |b| {
        b.iter(|| {
            step += 1;
            std::fs::write(file(7), format!("step {step}")).unwrap();
            let made = create::create(&place.repo, &create::Options::default(), &Silent).unwrap();
            assert!(made.modified.len() <= 5);
        });
    });
    group.finish();
}

fn compaction(c: &mut Criterion) {
    let mut group = c.benchmark_group("compaction");
    group.sample_size(10);
    let policy = retention::Policy { newest: Some(10), ..retention::Policy::default() };
    let options = retention::Options { policy, ..retention::Options::default() };
    for count in [100, 500, 1000] {
        group.bench_with_input(BenchmarkId::from_parameter(count), &count, |b, &count| {
            b.iter_batched(
                || filled(in_memory(), count),
                |place| {
                    let done = retention::compact(&place.repo, &options, &Silent).unwrap();
                    assert_eq!((done.removed.len(), done.kept), (count - 10, 10));
                    place
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn concurrent(c: &mut Criterion) {
    const EACH: usize = 10;
    let mut group = c.benchmark_group("concurrent_creation");
    group.sample_size(20);
    for threads in [2, 4, 8] {
        group.throughput(Throughput::Elements((threads * EACH) as u64));
        group.bench_with_input(BenchmarkId::from_parameter(threads), &threads, |b, &threads| {
            b.iter_batched(
                in_memory,
                |place| {
                    std::thread::scope(|scope| {
                        for _ in 0..threads {
                            scope.spawn(|| make(&place, &words(0), EACH));
                        }
                    });
                    place
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn export(c: &mut Criterion) {
    let mut group = c.benchmark_group("export");
    group.sample_size(20);
    for count in [10, 100, 500] {
        let place = filled(in_memory(), count);
        let options = transfer::ExportOptions::default();
        let export = || {
            let mut document = Vec::new();
            transfer::export(&place.repo, &options, &mut document, Path::new("document"), &Silent).unwrap()
        };
        let outcome = export();
        assert_eq!(outcome.checkpoints, count as u64);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_with_input(BenchmarkId::from_parameter(count), &count, |b, _| {
            b.iter(export);
        });
    }
    group.finish();
}

fn service(c: &mut Criterion) {
    let mut group = c.benchmark_group("service_operations");
    let place = in_memory();
    let mut number = 0;
    group.bench_function("create_session", |b| {
        b.iter(|| {
            number += 1;
            new_session(&place, &format!("session-{number}"));
        });
    });
    group.bench_function("checkpoint", |b| b.iter(|| create::create(&place.repo, &words(0), &Silent).unwrap()));
    group.bench_function("metrics", |b| b.iter(|| black_box(place.repo.metrics().latencies())));
    group.finish();
}

fn backends(c: &mut Criterion) {
    let mut group = c.benchmark_group("storage_backends");
    group.sample_size(20);
    let places = [
        ("in_memory", in_memory()),
        ("file_buffered", on_disk(BUFFERED)),
        ("file_strict", on_disk(Durability::Strict)),
    ];
    for (name, place) in &places {
        group.bench_function(*name, |b| b.iter(|| create::create(&place.repo, &words(0), &Silent).unwrap()));
    }
    group.finish();
}

/// Percentiles of single calls, which criterion's means do not show.
fn percentiles(_: &mut Criterion) {
    const CALLS: usize = 2000;
    let mut report = serde_json::Map::new();
    let places = [("memory", in_memory()), ("buffered", on_disk(BUFFERED)), ("strict", on_disk(Durability::Strict))];
    for (name, place) in &places {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for _ in 0..CALLS {
            let start = Instant::now();
            create::create(&place.repo, &words(0), &Silent).unwrap();
            histogram.record(start.elapsed().as_nanos() as u64).unwrap();
        }
        let last =
            list::list(&place.repo, &list::Options { max_count: Some(1), ..Default::default() }, &Silent).unwrap();
        assert_eq!(last.checkpoints[0].number, CALLS as u64);
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let row = serde_json::json!({
            "calls": CALLS, "p50_us": at(0.5), "p95_us": at(0.95), "p99_us": at(0.99), "p999_us": at(0.999),
        });
        println!("checkpoint, {name}: {row}");
        report.insert(format!("checkpoint/{name}"), row);
    }
    std::fs::write("target/checkpoint-percentiles.json", serde_json::to_vec_pretty(&report).unwrap()).unwrap();
}

criterion_group!(benches, creation, queries, restoring, compaction, concurrent, export, service, backends, percentiles);
criterion_main!(benches);
