//! What versions cost in time: the ten of the user's document. Each checks counts or hashes before it is timed.
//!
//! `cargo bench --bench storage`. Compare figures of one run only; bytes are in docs/benchmarks/storage.md.
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
use digstore::model::id::ObjectKind;
use digstore::model::path::{CONTROL_DIR, RepoPath};
use digstore::model::tree::{Content, Node};
use digstore::ops::checkout;
use digstore::ops::content::ContentReader;
use digstore::repo::{Repository, Settings, trees};
use digstore::transform::chunker::{ChunkParams, Chunker};
use digstore::transform::compress::{DEFAULT_LEVEL, Opposite, compress, decompress};
use digstore::transform::hash::sha256;
use support::{add_all, commit_all, create, cut, noise};

const MIB: usize = 1 << 20;
/// Files that are recovered together in the user's document.
const FILES: usize = 61;
const FILE_LEN: usize = 20_000;

/// A fifth of it in pieces of 4 KiB is new.
fn changed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (number, piece) in bytes.chunks_mut(4096).enumerate().filter(|(number, _)| number % 5 == 0) {
        piece.copy_from_slice(&noise(1000 + number as u64, piece.len()));
    }
    bytes
}

struct Place {
    folder: tempfile::TempDir,
    repo: Repository,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repo = create(folder.path(), Settings::default());
        Self { folder, repo }
    }

    fn save(&self, files: &[(String, Vec<u8>)]) -> u64 {
        for (name, bytes) in files {
            fs::write(self.folder.path().join(name), bytes).unwrap();
        }
        let stored = add_all(&self.repo).ingest.stored_bytes;
        commit_all(&self.repo);
        stored
    }

    /// A place with a version, and with a second one that is a change of it.
    fn with_versions(bytes: &[u8]) -> (Self, [u64; 2]) {
        let place = Self::new();
        let one = place.save(&[("file".to_owned(), bytes.to_vec())]);
        let two = place.save(&[("file".to_owned(), changed(bytes))]);
        (place, [one, two])
    }

    fn content(&self, revision: &str) -> (u64, Content) {
        let id = self.repo.resolve(revision).unwrap();
        let root = self.repo.root_tree(Some(&id)).unwrap();
        let path = RepoPath::parse(b"file").unwrap();
        let entry = trees::lookup(&self.repo.objects(), &root, &path).unwrap().unwrap();
        let Node::File { len, content } = entry.node else { panic!("a file") };
        (len, content)
    }

    fn read(&self, revision: &str) -> Vec<u8> {
        let (len, content) = self.content(revision);
        let objects = self.repo.objects();
        ContentReader::whole(&self.repo, &objects, &content, len).unwrap().into_vec().unwrap()
    }
}

/// Storing a file of 1 MiB: whole, and as a change of a fifth.
fn capture(c: &mut Criterion) {
    let bytes = noise(1, MIB);
    let (_, [whole, delta]) = Place::with_versions(&bytes);
    assert!(whole > MIB as u64 && delta < whole / 3, "{whole} {delta}");
    let mut group = c.benchmark_group("capture");
    group.throughput(Throughput::Bytes(MIB as u64)).sample_size(20);
    let file = |bytes: &[u8]| [("file".to_owned(), bytes.to_vec())];
    group.bench_function("whole", |b| {
        b.iter_batched(Place::new, |place| place.save(&file(&bytes)), BatchSize::PerIteration);
    });
    let second = changed(&bytes);
    let start = || {
        let place = Place::new();
        place.save(&file(&bytes));
        place
    };
    group.bench_function("delta", |b| {
        b.iter_batched(start, |place| place.save(&file(&second)), BatchSize::PerIteration);
    });
    group.finish();
}

/// Reading a file of 1 MiB back: whole, and through its base.
fn recovery(c: &mut Criterion) {
    let bytes = noise(1, MIB);
    let (place, _) = Place::with_versions(&bytes);
    assert_eq!(
        (sha256(&[&place.read("HEAD~1")]), sha256(&[&place.read("HEAD")])),
        (sha256(&[&bytes]), sha256(&[&changed(&bytes)]))
    );
    let mut group = c.benchmark_group("recovery");
    group.throughput(Throughput::Bytes(MIB as u64));
    for (name, revision) in [("whole", "HEAD~1"), ("delta", "HEAD")] {
        // Opened anew each time: nothing is decoded yet.
        let open = || {
            let work = open_root(place.folder.path()).unwrap();
            let dir = work.open_dir(OsStr::new(CONTROL_DIR)).unwrap();
            Repository::open(dir, work, Settings::default()).unwrap()
        };
        let (len, content) = place.content(revision);
        group.bench_function(name, |b| {
            b.iter_batched(
                open,
                |repo| {
                    let objects = repo.objects();
                    let reader = ContentReader::whole(&repo, &objects, &content, len).unwrap();
                    assert_eq!(reader.into_vec().unwrap().len(), MIB);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// What compression, cutting and checking take alone.
fn components(c: &mut Criterion) {
    let (old, large) = (noise(1, MIB), noise(2, 10 * MIB));
    let new = changed(&old);
    let mut group = c.benchmark_group("components");
    let base = Opposite::whole(&old);
    let packed = compress(&new, Some(base), DEFAULT_LEVEL).unwrap();
    assert!(packed.uses_base && packed.bytes.len() < MIB / 3);
    assert_eq!(decompress(packed.codec, packed.filter, &packed.bytes, new.len(), base).unwrap(), new);
    group.throughput(Throughput::Bytes(MIB as u64));
    group.bench_function("delta of 1 MB", |b| {
        b.iter(|| compress(black_box(&new), Some(base), DEFAULT_LEVEL).unwrap());
    });
    let chunker = Chunker::new(ChunkParams::default());
    assert!((80..400).contains(&cut(&chunker, &large)));
    group.throughput(Throughput::Bytes(10 * MIB as u64));
    group.bench_function("chunking of 10 MB", |b| b.iter(|| cut(&chunker, black_box(&large))));
    let (place, _) = Place::with_versions(&old);
    let objects = place.repo.objects();
    let reader = objects.layers().reader(0).unwrap();
    let mut damaged = reader.tables().unwrap().verify();
    assert!(damaged.is_ok());
    group.throughput(Throughput::Elements(1));
    group.bench_function("Merkle verification", |b| b.iter(|| damaged = reader.tables().unwrap().verify()));
    let (_, content) = place.content("HEAD");
    let Content::Recipe(id) = content else { panic!("several chunks") };
    assert_eq!(objects.locate(&id.into(), ObjectKind::Recipe).unwrap().object.id, id.into());
    group.bench_function("lookup", |b| b.iter(|| objects.locate(&black_box(id).into(), ObjectKind::Recipe).unwrap()));
    group.finish();
}

/// A file stored, and 61 files brought back, as whole verbs.
fn end_to_end(c: &mut Criterion) {
    let mut group = c.benchmark_group("end to end");
    group.sample_size(20);
    let start = || {
        let place = Place::new();
        place.save(&[("file".to_owned(), noise(1, FILE_LEN))]);
        place
    };
    let second = [("file".to_owned(), changed(&noise(1, FILE_LEN)))];
    assert!(start().save(&second) < FILE_LEN as u64);
    group.bench_function("capture", |b| b.iter_batched(start, |place| place.save(&second), BatchSize::PerIteration));
    let versions: Vec<Vec<(String, Vec<u8>)>> = (0..2)
        .map(|version| (0..FILES).map(|n| (format!("f{n}"), noise((version * FILES + n) as u64, FILE_LEN))).collect())
        .collect();
    let place = Place::new();
    versions.iter().for_each(|files| {
        place.save(files);
    });
    let go = |revision: &str| {
        let options = checkout::Options { revision: revision.to_owned(), ..checkout::Options::default() };
        let written = checkout::checkout(&place.repo, &options, &Silent).unwrap().written;
        assert_eq!(written, FILES as u64);
    };
    let is_version = |version: &Vec<(String, Vec<u8>)>, folder: &Path| {
        version.iter().all(|(name, bytes)| fs::read(folder.join(name)).unwrap() == *bytes)
    };
    go("HEAD~1");
    assert!(is_version(&versions[0], place.folder.path()));
    group.throughput(Throughput::Elements(FILES as u64));
    // The one after the other, also where criterion calls anew.
    let mut to = ["main", "main~1"].into_iter().cycle();
    group.bench_function("recovery of 61 files", |b| b.iter(|| go(to.next().unwrap())));
    group.finish();
}

criterion_group!(benches, capture, recovery, components, end_to_end);
criterion_main!(benches);
