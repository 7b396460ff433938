//! The same files give the same bytes in the repository, however they were read and by how many threads.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "work trees are changed by others than digstore")]

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use common::*;
use digstore::base::disk::open_root;
use digstore::base::size::{KIB, MIB};
use digstore::model::id::CommitId;
use digstore::model::path::CONTROL_DIR;
use digstore::repo::settings::SizeClasses;
use digstore::repo::{Repository, Settings, init, trees};
use digstore::transform::chunker::{ChunkParams, ZERO_BLOCK_LEN};

/// Where files count as large in the narrow classes; far below the real thresholds, so that files can be small.
const NARROW_MEDIUM: u64 = 200 * KIB;
const NARROW_LARGE: u64 = 400 * KIB;
const NARROW_HUGE: u64 = 800 * KIB;

const NARROW: SizeClasses =
    SizeClasses { tiny: 100, small: 4000, medium: NARROW_MEDIUM, large: NARROW_LARGE, huge: NARROW_HUGE };
/// So many layers are committed before an `add` is through (`ops::ingest`).
const LAYERS_AT_ONCE: usize = 16;

/// Everything is read in windows.
const WINDOWS_ONLY: SizeClasses = SizeClasses { tiny: 0, small: 0, medium: 0, large: 0, huge: 0 };

/// Lengths on both sides of every threshold.
fn lengths() -> Vec<u64> {
    let thresholds = [4 * KIB, 64 * KIB, NARROW_MEDIUM, NARROW_LARGE, NARROW_HUGE, MIB];
    let around = thresholds.into_iter().flat_map(|at| [at - 1, at, at + 1]);
    [0, 1, 100].into_iter().chain(around).collect()
}

/// A work tree with content that does and does not shrink, repeats, and has holes.
fn make_work(folder: &Path) {
    for (number, len) in lengths().into_iter().enumerate() {
        let sub = folder.join(format!("d{}", number % 4));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(format!("noise-{len}")), noise(number as u64, len as usize)).unwrap();
        fs::write(sub.join(format!("text-{len}")), vec![b'a' + number as u8 % 26; len as usize]).unwrap();
    }
    fs::copy(folder.join("d0/noise-0"), folder.join("copy-of-nothing")).unwrap();
    fs::write(folder.join("again"), noise(5, lengths()[5] as usize)).unwrap();
    let block = ZERO_BLOCK_LEN as u64;
    // The same bytes, once with real holes and once with zeros written out. Data starts and ends beside block borders.
    let data = [(0, 10), (3 * block, 1), (5 * block - 1, block as usize + 2), (9 * block + 7, 5000)];
    for (name, written_out) in [("holes", false), ("zeros", true)] {
        let file = File::create(folder.join(name)).unwrap();
        if written_out {
            file.write_all_at(&vec![0; 12 * ZERO_BLOCK_LEN], 0).unwrap();
        }
        file.set_len(12 * block + 100).unwrap();
        for (seed, (at, len)) in data.into_iter().enumerate() {
            file.write_all_at(&noise(seed as u64, len), at).unwrap();
        }
    }
    assert!(
        fs::metadata(folder.join("holes")).unwrap().blocks() < fs::metadata(folder.join("zeros")).unwrap().blocks()
    );
    File::create(folder.join("only-a-hole")).unwrap().set_len(2 * block).unwrap();
    File::create(folder.join("small-hole")).unwrap().set_len(100).unwrap();
}

fn variations() -> Vec<Settings> {
    let base = Settings { layer_len: 200 * KIB, block_len: 100 << 10, ..Settings::default() };
    let threads = |io_threads, cpu_threads| Settings { io_threads, cpu_threads, ..base.clone() };
    vec![
        threads(1, 1),
        threads(2, 2),
        threads(5, 5),
        threads(1, 5),
        threads(5, 1),
        Settings { read_len: 1, ..base.clone() },
        Settings { read_len: 3 * ZERO_BLOCK_LEN + 1, classes: WINDOWS_ONLY, ..threads(2, 5) },
        Settings { batch_files: 1, ..base.clone() },
        Settings { batch_files: 0, ..base.clone() },
        Settings { classes: NARROW, ..threads(2, 2) },
        Settings { classes: NARROW, read_len: ZERO_BLOCK_LEN, batch_files: 3, ..threads(5, 5) },
        Settings { classes: WINDOWS_ONLY, in_flight_len: 1, ..threads(2, 2) },
    ]
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The layers' bytes by name.
fn layers(store: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(store.join("layers")).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn content_of(repo: &Repository, id: &CommitId, at: &str) -> String {
    let tree = repo.root_tree(Some(id)).unwrap();
    format!("{:?}", trees::lookup(&repo.objects(), &tree, &path(at)).unwrap().unwrap().node)
}

#[test]
fn the_same_files_give_the_same_repository() {
    let folder = scratch();
    let work_path = folder.path().join("work");
    fs::create_dir(&work_path).unwrap();
    make_work(&work_path);
    let expected = read_items(&work_path);
    for chunking in [ChunkParams::default(), ChunkParams::with_average(AVERAGE_CHUNK_LEN)] {
        // One repository, copied before anything is in it: layers carry its id.
        let name = format!("template-{}", chunking.avg_len);
        init::create(open_root(folder.path()).unwrap().as_ref(), OsStr::new(&name), chunking).unwrap();
        let mut first: Option<(CommitId, BTreeMap<String, Vec<u8>>)> = None;
        for (number, settings) in variations().into_iter().enumerate() {
            let store = folder.path().join(format!("store-{}-{number}", chunking.avg_len));
            copy_folder(&folder.path().join(&name), &store);
            let work = open_root(&work_path).unwrap();
            let repo = Repository::open(open_root(&store).unwrap(), work, settings.clone()).unwrap();
            let id = save(&repo, "all");
            let found = (id, layers(&store));
            match &first {
                None => {
                    assert!(found.1.len() > 2 * LAYERS_AT_ONCE, "some layers are committed while the next ones fill");
                    assert_eq!(stored_items(&repo, &id), expected);
                    assert_eq!(content_of(&repo, &id, "holes"), content_of(&repo, &id, "zeros"));
                    first = Some(found);
                }
                Some(first) => {
                    assert_eq!(id, first.0, "{settings:?}");
                    // Not assert_eq: nobody wants to see the bytes.
                    assert!(found.1.keys().eq(first.1.keys()), "{settings:?}");
                    assert!(found.1 == first.1, "{settings:?}");
                }
            }
            drop(repo);
            fs::remove_dir_all(&store).unwrap();
        }
    }
    assert!(!work_path.join(CONTROL_DIR).exists());
}

#[test]
fn the_same_files_give_the_same_commit_in_another_repository() {
    let folder = scratch();
    let work_path = folder.path().join("work");
    fs::create_dir(&work_path).unwrap();
    make_work(&work_path);
    let commit = |name: &str| {
        let (dir, _) =
            init::create(open_root(folder.path()).unwrap().as_ref(), OsStr::new(name), ChunkParams::default()).unwrap();
        let repo = Repository::open(dir, open_root(&work_path).unwrap(), settings()).unwrap();
        (save(&repo, "all"), repo.manifest().id)
    };
    let (one, two) = (commit("one"), commit("two"));
    assert_eq!(one.0, two.0);
    assert_ne!(one.1, two.1);
}

#[test]
fn the_same_files_give_the_same_commit_however_many_paths_are_recorded_together() {
    let folder = scratch();
    let work_path = folder.path().join("work");
    fs::create_dir(&work_path).unwrap();
    make_work(&work_path);
    let expected = read_items(&work_path);
    let mut commits = Vec::new();
    for paths_at_once in [0, 1, 7, expected.len(), usize::MAX] {
        let name = format!("store-{paths_at_once}");
        let (dir, _) =
            init::create(open_root(folder.path()).unwrap().as_ref(), OsStr::new(&name), ChunkParams::default())
                .unwrap();
        let settings = Settings { paths_at_once, ..settings() };
        let repo = Repository::open(dir, open_root(&work_path).unwrap(), settings).unwrap();
        let added = add_all(&repo).unwrap();
        let pieces = expected.len().div_ceil(paths_at_once.max(1));
        assert_eq!(repo.journal().read().lsn(), pieces as u64);
        assert_eq!((added.added.len(), added.ingest.files > 40), (expected.len(), true));
        let id = try_commit(&repo, "all").unwrap().id;
        assert_eq!(stored_items(&repo, &id), expected);
        commits.push((id, added.ingest.chunks_new, added.ingest.chunks_known, added.ingest.bytes));
    }
    assert!(commits.windows(2).all(|two| two[0] == two[1]), "{commits:?}");
}
