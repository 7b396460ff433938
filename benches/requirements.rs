//! The rates that the requirements ask of single parts, whether two threads do twice the work, and whether much that is stored
//! makes finding slow: one table, with what was asked.
//!
//! `cargo bench --bench requirements`, or with the names of parts behind `--`: chunking, hashing, storage, scaling, finding. What
//! whole commands take, and their memory, is measured by `stress/run.py`. The table and its numbers go to
//! `target/stress/requirements.md` and `.json` if nothing is left out. Every part checks its work before its time counts.
//! Nothing here fails because a machine is slow.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark that cannot go on fails")]
#![allow(missing_docs, reason = "nothing here is used from elsewhere")]

mod support;

use std::fmt::Write;
use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;
use std::time::{Instant, SystemTime};

use digstore::base::meter::{Meter, Stage};
use digstore::base::monitor::Silent;
use digstore::model::id::{ObjectId, ObjectKind};
use digstore::model::path::CONTROL_DIR;
use digstore::model::scopes::Scopes;
use digstore::ops::scan::walk_tree;
use digstore::repo::Settings;
use digstore::store::staging;
use digstore::transform::chunker::{ChunkParams, Chunker};
use digstore::transform::compress::{DEFAULT_LEVEL, compress};
use digstore::transform::cutter::{Cutter, Part, chunk_ranges};
use digstore::transform::hash::{chunk_id, chunk_ids};
use support::{add_all, create, file_path, fresh, noise, open_for, put_objects, staged_file, text, write_files};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const MB: f64 = 1e6;
/// The middle of so many rounds counts.
const ROUNDS: usize = 5;
/// Threads of the machines that the requirements are measured on.
const THREADS: usize = 2;
/// What a round of cutting or hashing goes through on each thread.
const ROUND_LEN: usize = 64 * MIB;
const BLOCK_LEN: usize = 512 * KIB;
/// Layers of the store of ten million objects.
const LAYERS: usize = 16;

enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Shown beside another one.
    None,
}

struct Table {
    rows: Vec<(String, f64, &'static str, Bound)>,
}

impl Table {
    fn add(&mut self, what: impl Into<String>, found: f64, unit: &'static str, bound: Bound) {
        let what = what.into();
        println!("{what}: {found:.2} {unit}");
        self.rows.push((what, found, unit, bound));
    }

    fn markdown(&self) -> String {
        let mut out = "## Rates of single parts\n\n| | Asked | Measured | |\n|---|---:|---:|---|\n".to_owned();
        for (what, found, unit, bound) in &self.rows {
            let (asked, verdict) = match bound {
                Bound::AtLeast(limit) => {
                    (format!("> {}", shown(*limit)), if found >= limit { "met" } else { "**missed**" })
                }
                Bound::AtMost(limit) => {
                    (format!("< {}", shown(*limit)), if found <= limit { "met" } else { "**missed**" })
                }
                Bound::None => (String::new(), ""),
            };
            let _ = writeln!(out, "| {what} | {asked} | {} {unit} | {verdict} |", shown(*found));
        }
        out
    }

    fn json(&self) -> String {
        let row = |(what, found, unit, _): &(String, f64, &str, Bound)| format!("  [{what:?}, {found}, {unit:?}]");
        format!("[\n{}\n]\n", self.rows.iter().map(row).collect::<Vec<_>>().join(",\n"))
    }
}

fn shown(number: f64) -> String {
    if number >= 100.0 {
        let digits = format!("{number:.0}");
        let groups: Vec<&str> =
            digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
        groups.join(",")
    } else {
        format!("{number:.2}")
    }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// The middle of some rounds, each prepared anew.
fn median<T>(prepare: impl Fn() -> T, mut work: impl FnMut(T)) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let prepared = prepare();
            seconds(|| work(prepared))
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

/// How long so many threads take, each doing the same work.
fn on_threads(count: usize, work: impl Fn() + Sync) -> f64 {
    median(|| (), |()| std::thread::scope(|scope| (0..count).for_each(|_| drop(scope.spawn(&work)))))
}

/// Cuts a file and hashes its chunks, as a worker of the pipeline does; gives how many there are.
fn cut_and_hash(file: &[u8]) -> usize {
    let mut cutter = Cutter::new(Chunker::new(ChunkParams::default()));
    let mut parts = Vec::new();
    cutter.feed(file.to_vec(), 0, &mut parts);
    cutter.finish(&mut parts);
    let (mut chunks, mut len) = (Vec::new(), 0);
    for part in &parts {
        let Part::Data { bytes, start, ends } = part else { continue };
        chunks.extend(chunk_ranges(*start, ends).map(|range| &bytes[range]));
        len += bytes.len() - start;
    }
    assert_eq!(len, file.len(), "noise has no holes");
    chunk_ids(&chunks).len()
}

fn chunking(table: &mut Table) {
    let bytes = noise(1, 256 * MIB);
    for (name, len, least) in [("1 to 64 KB", 32 * KIB, 10_000.0), ("64 KB to 1 MB", 512 * KIB, 2_000.0)] {
        let files = ROUND_LEN / len;
        let took = on_threads(THREADS, || {
            let chunks: usize = bytes[..ROUND_LEN].chunks(len).map(cut_and_hash).sum();
            assert!(chunks >= files);
        });
        table.add(
            format!("cut and hash, files of {name}"),
            (THREADS * files) as f64 / took,
            "files/s",
            Bound::AtLeast(least),
        );
    }
    for (name, len) in [("1 to 100 MB", 16 * MIB), ("100 MB to 1 GB", 256 * MIB)] {
        let took = on_threads(THREADS, || assert!(bytes.chunks(len).map(cut_and_hash).sum::<usize>() > 1000));
        table.add(
            format!("cut and hash, files of {name}"),
            (THREADS * bytes.len()) as f64 / took / MB,
            "MB/s",
            Bound::AtLeast(500.0),
        );
    }
}

fn hashing(table: &mut Table) {
    let bytes = noise(2, ROUND_LEN);
    let rate = |threads: usize, took: f64| (threads * ROUND_LEN) as f64 / took / 1e9;
    for (name, len, least) in
        [("below 64 KB", 32 * KIB, 2.0), ("of 64 KB to 10 MB", MIB, 1.5), ("above 10 MB", 32 * MIB, 1.0)]
    {
        let pieces: Vec<&[u8]> = bytes.chunks(len).collect();
        let alone = |threads| rate(threads, on_threads(threads, || hash_each(&pieces)));
        let together = |threads| rate(threads, on_threads(threads, || hash_together(&pieces)));
        // A large file is hashed in chunks, so several at once too; of one stream, this is what there is.
        table.add(format!("SHA-256, pieces {name}, one at a time, one thread"), alone(1), "GB/s", Bound::None);
        let best = if pieces.len() > 4 { together(1) } else { alone(1) };
        table.add(format!("SHA-256, pieces {name}, one thread"), best, "GB/s", Bound::AtLeast(least));
    }
    let chunks: Vec<&[u8]> = bytes.chunks(64 * KIB).collect();
    let meter = Meter::default();
    let took = median(|| (), |()| (0..MIB).for_each(|_| drop(meter.time(Stage::Hash))));
    table.add("what it takes to time a stage", took / MIB as f64 * 1e9, "ns", Bound::None);
    let took = on_threads(THREADS, || hash_together(&chunks));
    table.add("SHA-256, chunks, all threads", rate(THREADS, took), "GB/s", Bound::AtLeast(4.0));
}

/// Hashes one after the other.
fn hash_each(pieces: &[&[u8]]) {
    assert_eq!(pieces.iter().map(|piece| chunk_id(piece)).collect::<Vec<_>>().len(), pieces.len());
}

/// Hashes several at once.
fn hash_together(pieces: &[&[u8]]) {
    assert_eq!(chunk_ids(black_box(pieces)).len(), pieces.len());
}

fn storage(table: &mut Table) {
    const FILES: usize = 20_000;
    let contents: Vec<(ObjectId, Vec<u8>)> = (0..FILES)
        .map(|number| {
            let bytes = text(number, 10_000);
            (chunk_id(&bytes).into(), bytes)
        })
        .collect();
    let files = FILES as f64;
    let took = median(fresh, |(_, repo)| put_objects(&repo, contents.iter().cloned()));
    table.add("layer written, durable", files / took, "files/s", Bound::AtLeast(1_000.0));
    let (folder, repo) = fresh();
    put_objects(&repo, contents.iter().cloned());
    drop(repo);
    let took = median(
        || open_for(folder.path(), folder.path()),
        |repo| {
            let objects = repo.objects();
            contents.iter().for_each(|(id, bytes)| assert_eq!(*objects.read(id, ObjectKind::Chunk).unwrap(), **bytes));
        },
    );
    table.add("layer read", files / took, "files/s", Bound::AtLeast(2_000.0));
    let took = median(fresh, |(_, repo)| {
        let lock = repo.lock("bench").unwrap();
        let op = |number| {
            let (path, entry) = staged_file(number);
            staging::put_op(&path, &entry)
        };
        repo.commit(&lock, &[], (0..FILES).map(op).collect::<Vec<_>>()).unwrap();
        assert!(staging::get(&repo.journal().read(), &staged_file(FILES - 1).0).unwrap().is_some());
    });
    table.add("staging written, durable", files / took, "files/s", Bound::AtLeast(5_000.0));
    let folder = tempfile::tempdir().unwrap();
    let bytes = write_files(folder.path(), FILES, 1_000, 51_400);
    let repo = create(folder.path(), Settings::default());
    let took = median(
        || (),
        |()| {
            assert_eq!(
                walk_tree(&repo, &repo.journal().read(), &Scopes::everything(), &Silent).unwrap().entries.len(),
                FILES + FILES / 100
            );
        },
    );
    table.add("scan", files / took, "files/s", Bound::AtLeast(1_000.0));
    add_all(&repo);
    let touch = || {
        for number in 0..FILES {
            File::open(file_path(folder.path(), number)).unwrap().set_modified(SystemTime::now()).unwrap();
        }
    };
    let took = median(touch, |()| {
        let found = add_all(&repo).ingest;
        assert_eq!((found.chunks_new, found.bytes), (0, bytes));
    });
    table.add("known chunks, read, hashed and found", files / took, "chunks/s", Bound::AtLeast(1_000.0));
}

/// How many objects a second are found, or found missing, in a repository of so many: asked for one by one, and many together,
/// as `add` does.
fn lookups(count: usize) -> [[f64; 2]; 2] {
    /// Files that `add` reads together.
    const TOGETHER: usize = 200;
    const ASKED: usize = 200_000;
    let id = |number: usize| ObjectId::from(chunk_id(&number.to_le_bytes()));
    let (folder, repo) = fresh();
    for layer in 0..LAYERS {
        let numbers = layer * (count / LAYERS)..(layer + 1) * (count / LAYERS);
        put_objects(&repo, numbers.map(|number| (id(number), number.to_le_bytes().to_vec())));
    }
    drop(repo);
    let repo = open_for(folder.path(), folder.path());
    let objects = repo.objects();
    // Spread over all of them; the first ones are known, the others are not.
    let step = (count / ASKED).max(1);
    let ids =
        |from: usize| (0..ASKED).map(|number| id(from + number * step % (count / LAYERS * LAYERS))).collect::<Vec<_>>();
    [(ids(0), true), (ids(2 * count), false)].map(|(ids, there)| {
        let alone = median(|| (), |()| ids.iter().for_each(|id| assert_eq!(objects.contains(id).unwrap(), there)));
        let each = |ids: &[ObjectId]| objects.contains_each(ids).unwrap().into_iter().filter(|is| *is == there).count();
        let together = median(|| (), |()| assert_eq!(ids.chunks(TOGETHER).map(each).sum::<usize>(), ASKED));
        [alone, together].map(|took| ASKED as f64 / took)
    })
}

/// How often a second two places of memory can be read that depend on chance, one in a fan-out for so many ids and one in their
/// entries: what a lookup that misses cannot do without.
fn chance_reads(count: usize) -> f64 {
    const READS: usize = 1_000_000;
    const FANOUT_SHARE: usize = 2;
    let (fanout, entries) = (vec![1u64; count / FANOUT_SHARE], vec![[1u64, 2]; count]);
    let places: Vec<usize> =
        noise(7, READS * 8).as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes) as usize).collect();
    let took = median(
        || (),
        |()| {
            let sum: u64 = places.iter().fold(0, |before, place| {
                // The second read waits for the first, as the row does for its bucket.
                let first = fanout[(place >> 8) % fanout.len()];
                before + entries[(place + first as usize) % count][1]
            });
            assert_eq!(sum, 2 * READS as u64);
        },
    );
    READS as f64 / took
}

fn finding(table: &mut Table) {
    let few = lookups(10_000);
    let many = lookups(10_000_000);
    let floor = chance_reads(10_000) / chance_reads(10_000_000);
    table.add("how much longer two reads take in 200 MB of memory than in 200 KB", floor, "times", Bound::None);
    for (at, name) in ["hit", "miss"].into_iter().enumerate() {
        for (way, how) in ["one by one", "many together"].into_iter().enumerate() {
            let (few, many) = (few[at][way], many[at][way]);
            let asked = || Bound::AtLeast(10_000.0);
            table.add(format!("lookups among 10,000 chunks, {how}, {name}"), few, "a second", asked());
            table.add(format!("lookups among 10,000,000 chunks, {how}, {name}"), many, "a second", asked());
            let bound = if how == "many together" { Bound::AtMost(2.0) } else { Bound::None };
            table.add(format!("how much longer among 10,000,000, {how}, {name}"), few / many, "times", bound);
        }
    }
}

/// Stores a tree anew with so many threads.
fn storing(folder: &Path, threads: usize, files: u64) -> f64 {
    let prepare = || {
        drop(fs::remove_dir_all(folder.join(CONTROL_DIR)));
        create(folder, Settings { cpu_threads: threads, io_threads: threads, ..Settings::default() })
    };
    median(prepare, |repo| assert_eq!(add_all(&repo).ingest.files, files))
}

fn scaling(table: &mut Table) {
    const ASKED: Bound = Bound::AtLeast(1.7);
    let twice = |work: &(dyn Fn() + Sync)| THREADS as f64 * on_threads(1, work) / on_threads(THREADS, work);
    let bytes = noise(3, ROUND_LEN);
    let chunks: Vec<&[u8]> = bytes.chunks(64 * KIB).collect();
    let alone = twice(&|| hash_each(&chunks));
    table.add("two threads beside one: hashing, one chunk at a time", alone, "times", ASKED);
    let together = twice(&|| hash_together(&chunks));
    table.add("two threads beside one: hashing, several at once", together, "times", Bound::None);
    let plain = text(4, 8 * MIB);
    let compressing = twice(&|| {
        let packed = plain.chunks(BLOCK_LEN).map(|block| compress(block, None, DEFAULT_LEVEL).unwrap().bytes.len());
        assert!(packed.sum::<usize>() < plain.len() / 2);
    });
    table.add("two threads beside one: compressing", compressing, "times", ASKED);
    let large = tempfile::tempdir().unwrap();
    (0..8).for_each(|number| fs::write(large.path().join(format!("{number}")), noise(number, ROUND_LEN)).unwrap());
    let small = tempfile::tempdir().unwrap();
    write_files(small.path(), 10_000, 1_000, 51_400);
    for (name, folder, files) in [("0.5 GB of noise", &large, 8), ("10,000 text files", &small, 10_000)] {
        let times = storing(folder.path(), 1, files) / storing(folder.path(), THREADS, files);
        table.add(format!("two threads beside one: whole add, {name}"), times, "times", Bound::None);
    }
}

fn main() {
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    let mut table = Table { rows: Vec::new() };
    let parts: [(&str, fn(&mut Table)); 5] = [
        ("chunking", chunking),
        ("hashing", hashing),
        ("storage", storage),
        ("scaling", scaling),
        ("finding", finding),
    ];
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    assert!(asked.iter().all(|asked| parts.iter().any(|(name, _)| name == asked)), "no such part: {asked:?}");
    for (name, part) in parts {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            part(&mut table);
        }
    }
    if !asked.is_empty() {
        return println!("\n{}", table.markdown());
    }
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/stress");
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("requirements.md"), table.markdown()).unwrap();
    fs::write(out.join("requirements.json"), table.json()).unwrap();
    println!("\n{}", table.markdown());
}
