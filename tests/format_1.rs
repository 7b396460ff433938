//! A repository as the first released format had it, kept for ever: it opens, it is written to as such, it is brought forward,
//! and that is taken back. `fixtures/format-1.tar.zst` was written by the last program that knew nothing of the second.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use common::*;
use digstore::base::disk::fault::{EVERY_UNSYNCED, Fault, FaultDisk};
use digstore::base::disk::{Dir, open_root};
use digstore::base::monitor::Silent;
use digstore::format::layer::VERSION_WITHOUT_BASES;
use digstore::format::manifest::VERSION;
use digstore::model::id::CommitId;
use digstore::ops::migrate::{self, migrate};
use digstore::ops::{self, fsck};
use digstore::repo::Repository;
use digstore::store::checkpoints::{self, Listing};

/// The commits in the fixture, the first one first.
const COMMITS: [&str; 2] = ["main~1", "main"];
/// SHA-256 of what the file `large` is in them.
const LARGE: [&str; 2] = [
    "48213dd301abd273fb5f37d29fa365089f560f0abe6a905582cf3496238e8620",
    "2fa008e872f48872caac232c9858c5cfbc5a2c33d1ef7db2fc56d019af724bc9",
];

fn unpack(folder: &Path) {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1.tar.zst");
    let tar = zstd::Decoder::new(File::open(packed).unwrap()).unwrap();
    tar::Archive::new(tar).unpack(folder).unwrap();
}

fn open(root: &Arc<dyn Dir>) -> Repository {
    try_open(root, settings()).unwrap()
}

fn run(repo: &Repository, undo: bool) -> ops::Result<migrate::Outcome> {
    migrate(repo, &migrate::Options { dry_run: false, undo }, &Silent)
}

/// Whatever its format now is, everything that was in it is there.
fn assert_whole(repo: &Repository) {
    let outcome = fsck::fsck(repo, &fsck::Options { full: true }, &Silent).unwrap();
    assert_eq!(outcome.findings, []);
    for (commit, expected) in COMMITS.iter().zip(LARGE) {
        let items = stored_items(repo, &repo.resolve(commit).unwrap());
        let Item::File(bytes, _) = &items[&b"large"[..]] else { panic!("a file") };
        assert_eq!(hex(&digstore::transform::hash::sha256(&[bytes])), expected);
        assert_eq!(items[&b"sparse"[..]], file([vec![0; 131_072], tail(&items, b"sparse", 500)].concat()));
    }
    let state = repo.journal().read();
    let all = checkpoints::all(&state, &Listing::All).unwrap();
    assert_eq!(all.iter().map(|checkpoint| checkpoint.origin.message.as_str()).collect::<Vec<_>>(), ["third"]);
    let tree = repo.objects().tree(&all[0].tree().unwrap()).unwrap();
    assert_eq!(items_of_tree(repo, &tree)[&b"sub/a"[..]], file("checkpointed\n"));
}

fn tail(items: &Items, name: &[u8], len: usize) -> Vec<u8> {
    let Item::File(bytes, _) = &items[name] else { panic!("a file") };
    bytes[bytes.len() - len..].to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Versions of the layers, and how many blocks of them need another.
fn layers(repo: &Repository) -> (Vec<u16>, usize) {
    let objects = repo.objects();
    let readers = (0..objects.layers().layers().len() as u32).map(|number| objects.layers().reader(number).unwrap());
    let (mut versions, mut deltas) = (Vec::new(), 0);
    for reader in readers {
        versions.push(reader.footer().version);
        deltas += (0..reader.footer().block_count).filter(|at| reader.block(*at).unwrap().depth() > 0).count();
    }
    versions.sort_unstable();
    versions.dedup();
    (versions, deltas)
}

/// The tree of the last commit with one file changed, committed.
fn change(folder: &Path, repo: &Repository, byte: u8) -> CommitId {
    let mut items = stored_items(repo, &repo.resolve("main").unwrap());
    let Item::File(bytes, _) = items.get_mut(&b"large"[..]).unwrap() else { panic!("a file") };
    bytes[150_000] = byte;
    write_items(folder, &items);
    save(repo, "changed")
}

#[test]
fn it_opens_and_is_written_to_as_it_is() {
    let folder = scratch();
    unpack(folder.path());
    let repo = open(&open_root(folder.path()).unwrap());
    assert_eq!(repo.manifest().version, VERSION_WITHOUT_BASES);
    assert_whole(&repo);
    let id = change(folder.path(), &repo, 1);
    assert_eq!(layers(&repo), (vec![VERSION_WITHOUT_BASES], 0), "an earlier program can still read all of it");
    let repo = open(&open_root(folder.path()).unwrap());
    assert!(stored_items(&repo, &id).contains_key(&b"large"[..]));
}

#[test]
fn it_is_brought_forward_and_back() {
    let folder = scratch();
    unpack(folder.path());
    let root = open_root(folder.path()).unwrap();
    let look = migrate(&open(&root), &migrate::Options { dry_run: true, undo: false }, &Silent).unwrap();
    assert_eq!((look.from, look.to, look.layers), (1, VERSION, 0));
    assert_eq!(open(&root).manifest().version, 1, "a look changes nothing");
    run(&open(&root), false).unwrap();
    let repo = open(&root);
    assert_eq!(repo.manifest().version, VERSION);
    assert_whole(&repo);
    let id = change(folder.path(), &repo, 2);
    let (versions, deltas) = layers(&repo);
    assert_eq!(versions, [VERSION_WITHOUT_BASES, VERSION]);
    assert!(deltas > 0, "blocks of the first format serve as bases");
    let items = stored_items(&repo, &id);
    let outcome = run(&repo, true).unwrap();
    assert!(outcome.layers > 0 && (outcome.from, outcome.to) == (VERSION, 1));
    let repo = open(&root);
    assert_eq!((repo.manifest().version, layers(&repo)), (1, (vec![1], 0)));
    assert_eq!(stored_items(&repo, &id), items, "what was stored since is still there");
    assert_eq!(run(&repo, true).unwrap().layers, 0, "nothing is left to do");
}

#[test]
fn a_stop_leaves_the_old_format_or_the_new_one() {
    for undo in [false, true] {
        let start = || {
            let folder = scratch();
            unpack(folder.path());
            if undo {
                let root = open_root(folder.path()).unwrap();
                run(&open(&root), false).unwrap();
                change(folder.path(), &open(&root), 3);
            }
            folder
        };
        let whole = start();
        let disk = FaultDisk::new(whole.path(), None).unwrap();
        run(&open(&disk.root()), undo).unwrap();
        // The last of them is the note that nothing is left to clean away: nobody is told whether it was written.
        let note = disk.operations() - 1;
        for stop in 0..=note {
            let folder = start();
            let disk = FaultDisk::new(folder.path(), Some((stop, Fault::Stop))).unwrap();
            let failed = try_open(&disk.root(), settings()).is_err() || run(&open(&disk.root()), undo).is_err();
            assert_eq!(failed, stop != note, "stop {stop}");
            for unsynced in EVERY_UNSYNCED {
                let image = scratch();
                disk.image(unsynced, image.path()).unwrap();
                let root = open_root(image.path()).unwrap();
                let repo = open(&root);
                let commit = if undo { "main~1" } else { "main" };
                assert!(stored_items(&repo, &repo.resolve(commit).unwrap()).contains_key(&b"large"[..]), "stop {stop}");
                assert_eq!(
                    fsck::fsck(&repo, &fsck::Options { full: true }, &Silent).unwrap().findings,
                    [],
                    "stop {stop}"
                );
                run(&repo, undo).unwrap();
                assert_eq!(open(&root).manifest().version, if undo { 1 } else { VERSION });
            }
        }
    }
}
