//! Sparse bundles: the parts of a checkpoint in a process that keeps the repository open.
//!
//! `cargo bench --bench bundle`. `stress/bundle.py` measures whole processes on an image of 10 GiB with a file system in it.
//! Every benchmark checks counts of its work.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark that cannot go on fails")]
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use digstore::base::disk::open_root;
use digstore::base::monitor::Silent;
use digstore::base::pool::Pools;
use digstore::format::bundle::encode_info;
use digstore::model::bundle::{Geometry, band_name};
use digstore::model::checkpoint::Area;
use digstore::model::path::{CONTROL_DIR, RepoPath};
use digstore::ops::bundle::export::{ExportOptions, export};
use digstore::ops::bundle::import::{ImportOptions, import};
use digstore::ops::checkpoint::{create, restore};
use digstore::ops::scan::list_bundle;
use digstore::repo::{Repository, Settings, init};
use digstore::transform::chunker::ChunkParams;
use support::noise;
use tempfile::TempDir;

const BUNDLE: &str = "disk.sparsebundle";
const BAND_LEN: usize = 4 << 20;
/// Longer than the grain of any clock that files have: what is timed is work, not waiting for it.
const SETTLE: Duration = Duration::from_millis(25);

struct Place {
    repo: Repository,
    folder: TempDir,
}

impl Place {
    /// A bundle with so many bands of so many bytes of noise; the rest of each is a hole.
    fn new(bands: u64, data_len: usize) -> Self {
        let folder = tempfile::tempdir_in(std::env::current_dir().unwrap().join("target")).unwrap();
        fs::create_dir_all(folder.path().join(BUNDLE).join("bands")).unwrap();
        let geometry = Geometry::new(bands * BAND_LEN as u64, BAND_LEN as u64).unwrap();
        fs::write(folder.path().join(BUNDLE).join("Info.plist"), encode_info(&geometry).unwrap()).unwrap();
        let work = open_root(folder.path()).unwrap();
        let (dir, _) = init::create(work.as_ref(), OsStr::new(CONTROL_DIR), ChunkParams::default()).unwrap();
        let place = Self { repo: Repository::open(dir, work, Settings::default()).unwrap(), folder };
        for band in 0..bands {
            fs::write(place.band(band), noise(band, data_len)).unwrap();
            File::options().write(true).open(place.band(band)).unwrap().set_len(BAND_LEN as u64).unwrap();
        }
        std::thread::sleep(SETTLE);
        place
    }

    fn at(&self) -> std::path::PathBuf {
        self.folder.path().join(BUNDLE)
    }

    fn band(&self, band: u64) -> std::path::PathBuf {
        self.at().join("bands").join(band_name(band))
    }

    /// Overwrites a block in each of the first bands.
    fn poke(&self, bands: u64, step: u64) {
        for band in 0..bands {
            let file = File::options().write(true).open(self.band(band)).unwrap();
            file.write_all_at(&noise(step * 1000 + band, 4096), (step * 7919 % 1000) * 4096).unwrap();
        }
        std::thread::sleep(SETTLE);
    }

    fn save(&self) -> create::Outcome {
        let area = Some(Area::Bundle(bundle()));
        create::create(&self.repo, &create::Options { area, ..create::Options::default() }, &Silent).unwrap()
    }
}

fn bundle() -> RepoPath {
    RepoPath::parse(BUNDLE.as_bytes()).unwrap()
}

fn scan(c: &mut Criterion) {
    let mut group = c.benchmark_group("bundle_scan");
    for bands in [264u64, 2_560, 10_000] {
        let place = Place::new(bands, 4096);
        group.throughput(Throughput::Elements(bands));
        group.bench_with_input(BenchmarkId::from_parameter(bands), &bands, |b, bands| {
            b.iter(|| assert_eq!(list_bundle(&place.repo, &bundle()).unwrap().bands.len() as u64, *bands));
        });
    }
    group.finish();
}

fn checkpoint(c: &mut Criterion) {
    let mut group = c.benchmark_group("bundle_checkpoint");
    group.sample_size(20);
    let place = Place::new(64, BAND_LEN);
    place.save();
    let mut step = 0;
    for dirty in [0u64, 1, 3, 10, 20] {
        group.throughput(Throughput::Bytes(dirty.max(1) * BAND_LEN as u64));
        group.bench_with_input(BenchmarkId::new("changed_bands", dirty), &dirty, |b, dirty| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    step += 1;
                    place.poke(*dirty, step);
                    let start = Instant::now();
                    let outcome = place.save();
                    spent += start.elapsed();
                    assert_eq!((outcome.ingest.files, outcome.ingest.chunks_new), (*dirty, *dirty));
                }
                spent
            });
        });
    }
    group.finish();
}

fn restores(c: &mut Criterion) {
    let mut group = c.benchmark_group("bundle_restore");
    group.sample_size(10);
    let place = Place::new(32, BAND_LEN);
    let first = place.save().checkpoint.unwrap().number;
    place.poke(10, 1);
    let second = place.save().checkpoint.unwrap().number;
    let mut number = first;
    group.throughput(Throughput::Bytes(10 * BAND_LEN as u64));
    group.bench_function("ten_bands", |b| {
        b.iter(|| {
            let options = restore::Options { number, ..restore::Options::default() };
            let outcome = restore::restore(&place.repo, &options, &Silent).unwrap();
            assert_eq!((outcome.written, outcome.failed), (10, 0));
            number = first + second - number;
        });
    });
    group.finish();
}

fn copies(c: &mut Criterion) {
    let mut group = c.benchmark_group("bundle_copy");
    group.sample_size(10);
    let (place, pools) = (Place::new(16, BAND_LEN), Pools::new(0, 0));
    let at = |name: &str| place.folder.path().join(name);
    let out = ExportOptions { bundle: place.at(), image: at("image"), force: true };
    let exported = || assert_eq!(export(&pools, &out, &Silent).unwrap().bands, 16);
    group.throughput(Throughput::Bytes(16 * BAND_LEN as u64));
    group.bench_function("export", |b| b.iter(exported));
    let again = ImportOptions { image: at("image"), bundle: at("other"), band_len: None, replace: true };
    import(&pools, &ImportOptions { replace: false, ..again.clone() }, &Silent).unwrap();
    group.bench_function("import_of_the_same", |b| {
        b.iter(|| assert_eq!(import(&pools, &again, &Silent).unwrap().unchanged, 16));
    });
    assert!(same(&at("other").join("bands/3"), &place.band(3)));
    group.finish();
}

fn same(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

criterion_group!(benches, scan, checkpoint, restores, copies);
criterion_main!(benches);
