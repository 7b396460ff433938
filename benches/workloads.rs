//! The workloads of the requirements: many small files, large files in windows, and both at once, through the verbs.
//!
//! `cargo bench --bench workloads`. Each checks what was stored before it is timed; runs at real size, beside rivals, are in
//! `stress/`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark that cannot go on fails")]
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use digstore::model::path::CONTROL_DIR;
use digstore::repo::Settings;
use support::{add_all, commit_all, create, noise, write_files};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Islands of bytes in a GiB of hole, and their length: as in the stress run of a sparse file, on the small side.
const ISLANDS: u64 = 20;

/// A new repository over the files each time; stores and commits all of them.
fn store(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    id: BenchmarkId,
    folder: &Path,
    files: u64,
    bytes: u64,
) {
    group.bench_function(id, |b| {
        b.iter_batched(
            || {
                drop(fs::remove_dir_all(folder.join(CONTROL_DIR)));
                create(folder, Settings::default())
            },
            |repo| {
                let stored = add_all(&repo).ingest;
                commit_all(&repo);
                assert_eq!((stored.files, stored.bytes), (files, bytes));
            },
            BatchSize::PerIteration,
        );
    });
}

fn small_files_commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("small_files_commit");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for count in [1_000, 5_000, 10_000, 20_000] {
        let folder = tempfile::tempdir().unwrap();
        let bytes = write_files(folder.path(), count, 1_000, 51_400);
        group.throughput(Throughput::Elements(count as u64));
        store(&mut group, BenchmarkId::new("commit", count), folder.path(), count as u64, bytes);
    }
    group.finish();
}

fn large_file_streaming(c: &mut Criterion) {
    let mut group = c.benchmark_group("large_file_streaming");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for gib in [1, 5, 10] {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("image")).unwrap();
        file.set_len(gib * GIB).unwrap();
        for island in 0..ISLANDS * gib {
            file.write_all_at(&noise(island, MIB as usize), island * (GIB / ISLANDS)).unwrap();
        }
        group.throughput(Throughput::Bytes(gib * GIB));
        store(&mut group, BenchmarkId::new("sparse_gib", gib), folder.path(), 1, gib * GIB);
    }
    // No hole: every byte is read, cut, hashed and written.
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("media")).unwrap();
    (0..GIB / MIB).for_each(|number| file.write_all_at(&noise(number, MIB as usize), number * MIB).unwrap());
    group.throughput(Throughput::Bytes(GIB));
    store(&mut group, BenchmarkId::new("noise_gib", 1), folder.path(), 1, GIB);
    group.finish();
}

fn mixed_workload(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = write_files(folder.path(), 10_000, 1_024, 10_240);
    for number in 0..5 {
        let large = noise(number, 100 * MIB as usize);
        fs::write(folder.path().join(format!("large-{number}")), &large).unwrap();
        bytes += large.len() as u64;
    }
    let mut group = c.benchmark_group("mixed_workload");
    group.sample_size(10).measurement_time(Duration::from_secs(20)).throughput(Throughput::Bytes(bytes));
    store(&mut group, BenchmarkId::from_parameter("10k_small_plus_5_large"), folder.path(), 10_005, bytes);
    group.finish();
}

criterion_group!(benches, small_files_commit, large_file_streaming, mixed_workload);
criterion_main!(benches);
