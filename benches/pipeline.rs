//! What each stage costs on the way of bytes into a repository and out of it.
//!
//! `cargo bench --bench pipeline`. Each benchmark checks that its work was done before it is timed; compare figures of one
//! run only.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark that cannot go on fails")]
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

mod support;

use std::fs;
use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use digstore::base::monitor::Silent;
use digstore::format::object::{decode_tree, encode_tree};
use digstore::model::id::{ObjectId, ObjectKind};
use digstore::model::path::{CONTROL_DIR, RepoPath};
use digstore::model::scopes::Scopes;
use digstore::model::staging::StagedEntry;
use digstore::model::tree::{Content, Entry, Meta, Node, Tree};
use digstore::ops::scan::walk_tree;
use digstore::ops::{checkout, status};
use digstore::repo::{Repository, Settings};
use digstore::store::staging;
use digstore::transform::chunker::{ChunkParams, Chunker};
use digstore::transform::compress::{Codec, DEFAULT_LEVEL, Opposite, compress, decompress};
use digstore::transform::filter::{Filter, Width};
use digstore::transform::hash::{chunk_id, chunk_ids};
use support::{
    add_all, commit_all, create, cut, file_path, fresh, noise, open_for, put_objects, staged_file, text, write_files,
};

/// As much as is cut in one window.
const BUFFER_LEN: usize = 8 << 20;
/// The average chunk.
const CHUNK_LEN: usize = 64 << 10;
const BLOCK_LEN: usize = 512 << 10;
const FILES: usize = 2_000;
const FILE_LEN: usize = 20_000;
const OBJECTS: usize = 100_000;
const ENTRIES: usize = 1_000;

fn cutting(c: &mut Criterion) {
    let chunker = Chunker::new(ChunkParams::default());
    let mut group = c.benchmark_group("cut");
    group.throughput(Throughput::Bytes(BUFFER_LEN as u64));
    for (name, buffer) in [("text", text(1, BUFFER_LEN)), ("noise", noise(1, BUFFER_LEN))] {
        assert!((BUFFER_LEN / CHUNK_LEN / 4..BUFFER_LEN / CHUNK_LEN * 4).contains(&cut(&chunker, &buffer)));
        group.bench_function(name, |b| b.iter(|| cut(&chunker, black_box(&buffer))));
    }
    group.finish();
}

/// By the length of what is hashed: each by itself, and several at once, as chunks of a batch are.
fn hashing(c: &mut Criterion) {
    let buffer = noise(2, BUFFER_LEN);
    let mut group = c.benchmark_group("hash");
    group.throughput(Throughput::Bytes(BUFFER_LEN as u64));
    for len in [1 << 10, 16 << 10, CHUNK_LEN, 1 << 20] {
        // As different as the lengths of chunks are: what is hashed at once ends at different times.
        let mut pieces = Vec::new();
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(rest.len().min(len / 2 + pieces.len() * 7919 % len));
            pieces.push(piece);
            rest = others;
        }
        assert_eq!(chunk_ids(&pieces), pieces.iter().map(|piece| chunk_id(piece)).collect::<Vec<_>>());
        group.bench_function(BenchmarkId::new("one", len), |b| {
            b.iter(|| pieces.iter().map(|piece| chunk_id(piece)).collect::<Vec<_>>());
        });
        group.bench_function(BenchmarkId::new("together", len), |b| b.iter(|| chunk_ids(black_box(&pieces))));
    }
    group.finish();
}

fn compressing(c: &mut Criterion) {
    let mut group = c.benchmark_group("compress");
    group.throughput(Throughput::Bytes(BLOCK_LEN as u64));
    let old = text(3, BLOCK_LEN);
    let new = [&old[..BLOCK_LEN / 2], b"changed", &old[BLOCK_LEN / 2 + 7..]].concat();
    // The upper bytes of real weights are few, the lower ones chance.
    let weights: Vec<u8> = noise(3, BLOCK_LEN / 2).into_iter().flat_map(|byte| [byte, 0x3c + byte % 4]).collect();
    for (name, plain) in [("text", &old), ("noise", &noise(4, BLOCK_LEN)), ("weights", &weights)] {
        let packed = compress(plain, None, DEFAULT_LEVEL).unwrap();
        assert_eq!(name == "weights", packed.filter != Filter::None);
        group.bench_function(name, |b| b.iter(|| compress(black_box(plain), None, DEFAULT_LEVEL).unwrap()));
        // What does not shrink is stored as it is.
        assert_eq!(name == "noise", packed.codec == Codec::Raw);
        if packed.codec != Codec::Raw {
            let unpack = || decompress(packed.codec, packed.filter, &packed.bytes, plain.len(), Opposite::NONE);
            assert_eq!(unpack().unwrap(), *plain);
            group.bench_function(format!("{name} back"), |b| b.iter(|| unpack().unwrap()));
        }
    }
    let base = Opposite::whole(&old);
    assert!(compress(&new, Some(base), DEFAULT_LEVEL).unwrap().bytes.len() < 200);
    group.bench_function("delta", |b| b.iter(|| compress(black_box(&new), Some(base), DEFAULT_LEVEL).unwrap()));
    for width in [Width::Two, Width::Four, Width::Eight] {
        for (filter, base) in [(Filter::Group(width), &[][..]), (Filter::Difference(width), &weights[..])] {
            assert_eq!(filter.undo(filter.apply(&new, base), base), new);
            group.bench_function(format!("filter {filter:?}"), |b| b.iter(|| filter.apply(black_box(&new), base)));
        }
    }
    group.finish();
}

fn in_memory() -> Repository {
    let folder = tempfile::tempdir().unwrap();
    let work = digstore::base::disk::open_root(folder.path()).unwrap();
    Repository::in_memory(work, Settings::default()).unwrap()
}

fn put(repo: &Repository, contents: &[Vec<u8>], ids: &[ObjectId]) {
    put_objects(repo, ids.iter().copied().zip(contents));
}

fn layers(c: &mut Criterion) {
    let contents: Vec<Vec<u8>> = (0..FILES).map(|number| text(number, FILE_LEN)).collect();
    let ids: Vec<ObjectId> = contents.iter().map(|bytes| chunk_id(bytes).into()).collect();
    let mut group = c.benchmark_group("layer");
    group.sample_size(10).throughput(Throughput::Elements(FILES as u64));
    group.bench_function("write", |b| {
        b.iter_batched(fresh, |(folder, repo)| (put(&repo, &contents, &ids), folder), BatchSize::PerIteration);
    });
    let (place, repo) = fresh();
    put(&repo, &contents, &ids);
    drop(repo);
    group.bench_function("read", |b| {
        b.iter_batched(
            || open_for(place.path(), place.path()),
            |repo| {
                let objects = repo.objects();
                for (id, bytes) in ids.iter().zip(&contents) {
                    assert_eq!(*objects.read(id, ObjectKind::Chunk).unwrap(), **bytes);
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn tables(c: &mut Criterion) {
    let repo = in_memory();
    let content = |number: usize| number.to_le_bytes().to_vec();
    let contents: Vec<Vec<u8>> = (0..OBJECTS).map(content).collect();
    let ids: Vec<ObjectId> = contents.iter().map(|bytes| chunk_id(bytes).into()).collect();
    let missing: Vec<ObjectId> = (OBJECTS..2 * OBJECTS).map(|number| chunk_id(&content(number)).into()).collect();
    put(&repo, &contents, &ids);
    let objects = repo.objects();
    let mut group = c.benchmark_group("tables");
    group.sample_size(20).throughput(Throughput::Elements(OBJECTS as u64));
    for (name, ids, there) in [("lookup hit", &ids, true), ("lookup miss", &missing, false)] {
        group.bench_function(name, |b| {
            b.iter(|| ids.iter().for_each(|id| assert_eq!(objects.contains(id).unwrap(), there)));
        });
        group.bench_function(format!("{name}, together"), |b| {
            b.iter(|| assert!(objects.contains_each(ids).unwrap().into_iter().all(|is| is == there)));
        });
    }
    let entries: Vec<(RepoPath, StagedEntry)> = (0..OBJECTS).map(staged_file).collect();
    let save = |repo: &Repository| {
        let lock = repo.lock("bench").unwrap();
        let ops = entries.iter().map(|(path, entry)| staging::put_op(path, entry)).collect::<Vec<_>>();
        repo.commit(&lock, &[], ops).unwrap();
    };
    group.bench_function("staging save", |b| {
        b.iter_batched(fresh, |(folder, repo)| (save(&repo), folder), BatchSize::PerIteration);
    });
    let (folder, repo) = fresh();
    save(&repo);
    drop(repo);
    group.bench_function("staging load", |b| {
        b.iter(|| {
            let repo = open_for(folder.path(), folder.path());
            let state = repo.journal().read();
            let (mut found, mut count) = (staging::entries(&state).unwrap(), 0);
            while found.next().unwrap().is_some() {
                count += 1;
            }
            assert_eq!(count, OBJECTS);
        });
    });
    let entry = |number: usize| Entry {
        name: format!("file-{number:05}.c").into_bytes(),
        meta: Meta { mode: 0o644, mtime_ns: number as i64 },
        node: Node::File { len: 1000, content: Content::Chunk(chunk_id(&number.to_le_bytes())) },
    };
    group.throughput(Throughput::Elements(ENTRIES as u64));
    let tree = Tree::from_sorted((0..ENTRIES).map(entry).collect()).unwrap();
    let bytes = encode_tree(&tree).1;
    assert_eq!(decode_tree(&bytes).unwrap(), tree);
    group.bench_function("tree build", |b| b.iter(|| encode_tree(black_box(&tree))));
    group.bench_function("tree read", |b| b.iter(|| decode_tree(black_box(&bytes)).unwrap()));
    group.finish();
}

fn verbs(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let total = write_files(folder.path(), FILES, FILE_LEN, FILE_LEN);
    let mut group = c.benchmark_group("verbs");
    group.sample_size(10).throughput(Throughput::Elements(FILES as u64));
    let reset = || drop(fs::remove_dir_all(folder.path().join(CONTROL_DIR)));
    group.bench_function("add", |b| {
        b.iter_batched(
            || {
                reset();
                create(folder.path(), Settings::default())
            },
            |repo| {
                let stored = add_all(&repo).ingest;
                assert_eq!((stored.files, stored.bytes), (FILES as u64, total));
            },
            BatchSize::PerIteration,
        );
    });
    reset();
    let repo = create(folder.path(), Settings::default());
    group.bench_function("walk", |b| {
        b.iter(|| {
            let walked = walk_tree(&repo, &repo.journal().read(), &Scopes::everything(), &Silent).unwrap();
            assert_eq!(walked.entries.len(), FILES + FILES / 100);
        });
    });
    let paths: Vec<_> = (0..FILES).map(|number| file_path(folder.path(), number)).collect();
    group.bench_function("read", |b| {
        b.iter(|| assert_eq!(paths.iter().map(|path| fs::read(path).unwrap().len() as u64).sum::<u64>(), total));
    });
    add_all(&repo);
    commit_all(&repo);
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
                let there = open_for(folder.path(), out.path());
                let options = checkout::Options { revision: "main".to_owned(), ..checkout::Options::default() };
                assert_eq!(checkout::checkout(&there, &options, &Silent).unwrap().written, FILES as u64);
                out
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, cutting, hashing, compressing, layers, tables, verbs);
criterion_main!(benches);
