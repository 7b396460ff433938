//! What a byte costs on its way into a repository and out of it: cut, hash, compress, add, status, checkout.
//!
//! `cargo bench`. Each benchmark checks that its work was done before it is timed; compare figures of one run only.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark that cannot go on fails")]
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use digstore::base::disk::open_root;
use digstore::base::monitor::Silent;
use digstore::model::path::{CONTROL_DIR, RepoPath};
use digstore::ops::{add, checkout, commit, status};
use digstore::repo::{Repository, Settings, init};
use digstore::transform::chunker::{ChunkParams, Chunker};
use digstore::transform::compress::{DEFAULT_LEVEL, compress};
use digstore::transform::hash::{chunk_id, chunk_ids};
use support::{cut, text};

/// As much as is cut in one window.
const BUFFER_LEN: usize = 8 << 20;
/// The average chunk.
const CHUNK_LEN: usize = 64 << 10;
const BLOCK_LEN: usize = 512 << 10;
const FILES: usize = 2_000;
const FILE_LEN: usize = 20_000;

fn bytes(c: &mut Criterion) {
    let buffer = text(1, BUFFER_LEN);
    let chunker = Chunker::new(ChunkParams::default());
    let mut group = c.benchmark_group("bytes");
    group.throughput(Throughput::Bytes(BUFFER_LEN as u64));
    assert!((BUFFER_LEN / CHUNK_LEN / 4..BUFFER_LEN / CHUNK_LEN * 4).contains(&cut(&chunker, &buffer)));
    group.bench_function("cut", |b| b.iter(|| cut(&chunker, black_box(&buffer))));
    group.bench_function("hash", |b| {
        b.iter(|| buffer.chunks(CHUNK_LEN).map(chunk_id).collect::<Vec<_>>());
    });
    // Lengths as different as those of chunks are: the lanes end at different times.
    let mut pieces = Vec::new();
    let mut rest = &buffer[..];
    while !rest.is_empty() {
        let (piece, others) = rest.split_at(rest.len().min(CHUNK_LEN / 4 + pieces.len() * 7919 % (2 * CHUNK_LEN)));
        pieces.push(piece);
        rest = others;
    }
    assert_eq!(chunk_ids(&pieces), pieces.iter().map(|piece| chunk_id(piece)).collect::<Vec<_>>());
    group.bench_function("hash_unequal", |b| b.iter(|| pieces.iter().map(|piece| chunk_id(piece)).collect::<Vec<_>>()));
    group.bench_function("hash_unequal_together", |b| {
        b.iter(|| chunk_ids(black_box(&pieces)));
    });
    group.bench_function("compress", |b| {
        b.iter(|| {
            for block in buffer.chunks(BLOCK_LEN) {
                black_box(compress(block, None, DEFAULT_LEVEL).unwrap());
            }
        });
    });
    group.finish();
}

fn open(folder: &Path) -> Repository {
    let work = open_root(folder).unwrap();
    let (dir, _) = init::create(work.as_ref(), OsStr::new(CONTROL_DIR), ChunkParams::default()).unwrap();
    Repository::open(dir, work, Settings::default()).unwrap()
}

fn add_all(repo: &Repository) -> add::Outcome {
    add::add(repo, &add::Options { paths: vec![RepoPath::root()], ..add::Options::default() }, &Silent).unwrap()
}

fn fill(folder: &Path) {
    for number in 0..FILES {
        let dir = folder.join(format!("d{}", number / 100));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{number}")), text(number, FILE_LEN)).unwrap();
    }
}

fn verbs(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let mut group = c.benchmark_group("verbs");
    group.sample_size(10).throughput(Throughput::Elements(FILES as u64));
    let reset = || drop(fs::remove_dir_all(folder.path().join(CONTROL_DIR)));
    group.bench_function("add", |b| {
        b.iter_batched(
            || {
                reset();
                open(folder.path())
            },
            |repo| assert_eq!(add_all(&repo).ingest.files, FILES as u64),
            BatchSize::PerIteration,
        );
    });
    reset();
    let repo = open(folder.path());
    add_all(&repo);
    let options = commit::Options {
        message: "all".to_owned(),
        author: "bench".to_owned(),
        time_ns: 0,
        utc_offset_minutes: 0,
        all: false,
        allow_empty: false,
    };
    commit::commit(&repo, &options, &Silent).unwrap();
    // Entries that were too fresh to prove anything are looked at once more.
    add_all(&repo);
    group.bench_function("status", |b| {
        b.iter(|| {
            let found = status::status(&repo, &status::Options::default(), &Silent).unwrap();
            assert!(found.is_clean() && found.tracked >= FILES as u64);
        });
    });
    group.bench_function("checkout", |b| {
        b.iter_batched(
            || tempfile::tempdir().unwrap(),
            |out| {
                let control = open_root(folder.path()).unwrap().open_dir(OsStr::new(CONTROL_DIR)).unwrap();
                let there = Repository::open(control, open_root(out.path()).unwrap(), Settings::default()).unwrap();
                let options = checkout::Options { revision: "main".to_owned(), ..checkout::Options::default() };
                assert_eq!(checkout::checkout(&there, &options, &Silent).unwrap().written, FILES as u64);
                out
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, bytes, verbs);
criterion_main!(benches);
