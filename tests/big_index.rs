//! Opening and asking a repository of ten million chunks takes as much work as one of a thousand.
//!
//! The large repository is not filled chunk by chunk. It holds a real commit, layers that have ten million rows in
//! their tables, of which only some were written and the rest is a hole in the file, and a whole index over these rows
//! in the format's own encoding. What is counted is bytes read, memory taken and pages touched, never time.
#![allow(unsafe_code, reason = "an allocator that counts cannot be had without")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a repository is made that no verb would make in reasonable time")]
#![cfg(target_os = "linux")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use common::*;
use digstore::format::index::{Encoder, IndexEntry};
use digstore::format::layer::{Footer, HEADER_LEN, PLACE_LEN, VERSION, encode_header};
use digstore::format::object::kind_number;
use digstore::format::staging::LayerRecord;
use digstore::format::table::{bucket_of, fanout_bits, fanout_len};
use digstore::model::id::{DIGEST_LEN, LayerId, ObjectId, ObjectKind};
use digstore::model::path::CONTROL_DIR;
use digstore::repo::Repository;
use digstore::store::layer_reader::file_name;
use digstore::store::refs;
use digstore::transform::hash::sha256;

const SMALL: u32 = 1_000;
const LARGE: u32 = 10_000_000;
/// The same number of layers in both, so that the journals are alike.
const LAYERS: u32 = 20;
/// Rows of each layer that are really there, to be found.
const REAL_ROWS: u32 = 5;
/// Ids that are looked up and not there.
const ABSENT: u64 = 1000;
/// Heap that one more entry could not explain, but a table of them would exceed by far.
const SLACK_BYTES: u64 = 64 << 10;
/// A lookup touches a page of the fan-out and one of the entries, where a small index has them all in one.
const PAGES_PER_LOOKUP: u64 = 3;
/// Pages that vary from run to run: stacks, allocator, kernel's read-around.
const SLACK_PAGES: u64 = 100;

/// Counts what is taken from the heap.
struct Counting;

static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is handed to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED_BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Work of this process so far.
#[derive(Debug, Clone, Copy)]
struct Work {
    heap_bytes: u64,
    read_bytes: u64,
    reads: u64,
    pages: u64,
}

impl Work {
    fn now() -> Self {
        let io = fs::read_to_string("/proc/self/io").unwrap();
        let field = |name: &str| -> u64 {
            io.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
        };
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        // After the name in parentheses: state, six ids, flags, then minor faults.
        let pages = stat.rsplit(')').next().unwrap().split_whitespace().nth(7).unwrap().parse().unwrap();
        let heap_bytes = ALLOCATED_BYTES.load(Ordering::Relaxed);
        Self { heap_bytes, read_bytes: field("rchar:"), reads: field("syscr:"), pages }
    }

    fn of<T>(act: impl FnOnce() -> T) -> (Self, T) {
        let before = Self::now();
        let result = act();
        let after = Self::now();
        let work = Self {
            heap_bytes: after.heap_bytes - before.heap_bytes,
            read_bytes: after.read_bytes - before.read_bytes,
            reads: after.reads - before.reads,
            pages: after.pages - before.pages,
        };
        (work, result)
    }
}

/// Ids in ascending order, spread evenly: the number of an id decides its first eight bytes.
fn prefix_of_number(number: u32, count: u32) -> u64 {
    u64::MAX / u64::from(count) * u64::from(number) + 1
}

/// The whole id of a row that is really there.
fn id_of_number(number: u32, count: u32) -> [u8; DIGEST_LEN] {
    let mut id = sha256(&[&number.to_le_bytes()]);
    id[..8].copy_from_slice(&prefix_of_number(number, count).to_be_bytes());
    id
}

/// A layer of `rows` objects without blocks, in which only the first rows are written.
fn write_layer(folder: &Path, repo: &Repository, number: u32, count: u32) -> (LayerId, LayerRecord) {
    let rows = count / LAYERS;
    let footer = Footer {
        version: VERSION,
        block_count: 0,
        object_count: rows,
        base_count: 0,
        fanout_bits: fanout_bits(rows as usize),
        blocks_end: HEADER_LEN as u64,
        raw_bytes: u64::from(number),
        tables_digest: [0; 32],
        merkle_root: [0; 32],
        repo: repo.manifest().id,
    };
    let (id, _) = Footer::decode(&footer.encode()).unwrap();
    let ids_at = HEADER_LEN + fanout_len(footer.fanout_bits);
    let places_at = ids_at + rows as usize * DIGEST_LEN;
    let file_len = footer.file_len().unwrap();
    let file = File::create(folder.join(file_name(&id))).unwrap();
    file.set_len(file_len).unwrap();
    file.write_all_at(&encode_header(VERSION, &repo.manifest().id), 0).unwrap();
    for row in 0..REAL_ROWS {
        let id = id_of_number(number * rows + row, count);
        file.write_all_at(&id, (ids_at + row as usize * DIGEST_LEN) as u64).unwrap();
        let kind_at = places_at + (row as usize + 1) * PLACE_LEN - 1;
        file.write_all_at(&[kind_number(ObjectKind::Chunk)], kind_at as u64).unwrap();
    }
    file.write_all_at(&footer.encode(), file_len - footer.encode().len() as u64).unwrap();
    (id, LayerRecord { file_len, object_count: rows, block_count: 1 })
}

/// A repository of one real commit and `count` further chunks under one index.
fn generate(folder: &Path, count: u32) {
    fs::write(folder.join("file"), noise(1, 5000)).unwrap();
    let repo = init_at(folder);
    save(&repo, "real");
    let control = folder.join(CONTROL_DIR);
    let lock = repo.lock("test").unwrap();
    let layers: Vec<(LayerId, LayerRecord)> =
        (0..LAYERS).map(|number| write_layer(&control.join("layers"), &repo, number, count)).collect();
    let ids: Vec<LayerId> = layers.iter().map(|(id, _)| *id).collect();
    let rows = count / LAYERS;
    let entry =
        |number| IndexEntry { prefix: prefix_of_number(number, count), layer: number / rows, row: number % rows };
    let entries: Vec<IndexEntry> = (0..count).map(entry).collect();
    let bits = fanout_bits(entries.len());
    let mut buckets = vec![0; 1 << bits];
    entries.iter().for_each(|entry| buckets[bucket_of(entry.prefix, bits)] += 1);
    let (mut encoder, start) = Encoder::start(&repo.manifest().id, &ids, &buckets);
    let index = [start, encoder.entries(&entries), encoder.end().to_vec()].concat();
    fs::write(control.join("index/1.idx"), index).unwrap();
    let ops = layers.iter().map(|(id, record)| refs::layer_op(id, record)).collect::<Vec<_>>();
    repo.commit(&lock, &[], ops).unwrap();
}

/// What was counted in one repository.
#[derive(Debug)]
struct Measured {
    open: Work,
    absent: Work,
    add: Work,
}

fn measure(folder: &Path, count: u32) -> Measured {
    generate(folder, count);
    // Once for what is set up on first use.
    drop(open_at(folder));
    let started = Instant::now();
    let (open, repo) = Work::of(|| open_at(folder));
    println!("{count} chunks: opened in {:?}", started.elapsed());
    let objects = repo.objects();
    assert_eq!(objects.index().shape(), (1, 2), "one index; the real layers are in none");
    // Everything that is there is found, also behind the large index.
    assert_clean_but_for_generated(&repo);
    let absent = |seed: u64| ObjectId::from_digest(sha256(&[b"absent", &seed.to_le_bytes()]));
    let mut together = Vec::new();
    for layer in 0..LAYERS {
        for row in 0..REAL_ROWS {
            let number = layer * (count / LAYERS) + row;
            let id = ObjectId::from_digest(id_of_number(number, count));
            let found = objects.find(&id).unwrap();
            assert_eq!(found.unwrap().object.place.kind, ObjectKind::Chunk);
            together.extend([id, absent(u64::from(number))]);
        }
    }
    let absent_count = together.len() / 2;
    // The objects of real layers are in no index.
    let readers = (0..objects.layers().layers().len() as u32).map(|layer| objects.layers().reader(layer).unwrap());
    for reader in readers.filter(|reader| reader.footer().block_count > 0) {
        together.extend(reader.stored_objects().unwrap().iter().map(|row| row.id));
    }
    let one_by_one: Vec<bool> = together.iter().map(|id| objects.contains(id).unwrap()).collect();
    assert_eq!(objects.contains_each(&together).unwrap(), one_by_one);
    assert_eq!(one_by_one.iter().filter(|found| !**found).count(), absent_count);
    assert!(together.len() > 2 * absent_count);
    let (absent, found) = Work::of(|| (0..ABSENT).filter(|seed| objects.contains(&absent(*seed)).unwrap()).count());
    assert_eq!(found, 0);
    drop(objects);
    fs::write(folder.join("file"), noise(2, 5000)).unwrap();
    let (add, added) = Work::of(|| add_all(&repo).unwrap());
    assert_eq!(added.modified.len(), 1);
    Measured { open, absent, add }
}

fn assert_clean_but_for_generated(repo: &Repository) {
    let head = repo.head_commit().unwrap().unwrap();
    assert_eq!(stored_items(repo, &head)[&b"file"[..]], file(noise(1, 5000)));
}

#[test]
fn ten_million_chunks_cost_as_much_as_a_thousand() {
    let (small_folder, large_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let small = measure(small_folder.path(), SMALL);
    let large = measure(large_folder.path(), LARGE);
    println!("{small:#?}\n{large:#?}");
    for (what, small, large, lookups) in [
        ("open", small.open, large.open, 0),
        ("look up", small.absent, large.absent, ABSENT),
        ("add", small.add, large.add, 0),
    ] {
        assert!(large.heap_bytes <= small.heap_bytes + SLACK_BYTES, "{what}: {large:?} {small:?}");
        assert!(large.read_bytes <= small.read_bytes + SLACK_BYTES, "{what}: {large:?} {small:?}");
        assert!(large.reads <= small.reads + u64::from(LAYERS), "{what}: {large:?} {small:?}");
        let pages = small.pages + SLACK_PAGES + lookups * PAGES_PER_LOOKUP;
        assert!(large.pages <= pages, "{what}: {large:?} {small:?}");
    }
}
