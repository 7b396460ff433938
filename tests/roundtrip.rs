//! What is added, committed and checked out elsewhere is what was there: content, modes, links, names, holes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "work trees are changed by others than digstore")]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use common::*;
use digstore::base::disk::{Dir, open_root};
use digstore::base::monitor::Silent;
use digstore::model::id::CommitId;
use digstore::model::path::{MAX_NAME_LEN, RepoPath};
use digstore::ops::export::{self, Target};
use digstore::ops::status;
use digstore::repo::Repository;
use proptest::prelude::*;

/// The same repository with an empty work tree.
fn elsewhere(repo: &Repository, work: &Path) -> Repository {
    Repository::open(Arc::clone(repo.dir().unwrap()), open_root(work).unwrap(), settings()).unwrap()
}

fn is_clean(repo: &Repository) -> bool {
    let found = status::status(repo, &status::Options::default(), &Silent).unwrap();
    found.unreadable == 0 && found.is_clean()
}

/// Saves a folder's content and gives it back in another folder.
fn round_trip(items: &Items) {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_items(folder.path(), items);
    let repo = init_at(folder.path());
    let id = save(&repo, "all");
    assert_eq!(&stored_items(&repo, &id), items);
    assert!(is_clean(&repo));
    go_to(&elsewhere(&repo, other.path()), &id.to_string());
    assert_eq!(&read_items(other.path()), items);
    let exported = other.path().join("export");
    let options = export::Options { revision: None, path: RepoPath::root(), target: Target::Dir(exported.clone()) };
    assert_eq!(export::export(&repo, &options, &Silent).unwrap().failed, 0);
    assert_eq!(&read_items(&exported), items);
    assert_clean(&open_at(folder.path()));
}

#[test]
fn modes_links_names_and_empty_things_come_back() {
    let mut items = Items::from([
        (b"empty file".to_vec(), file("")),
        (b"empty folder".to_vec(), Item::Dir(0o700)),
        (b"nested".to_vec(), Item::Dir(0o750)),
        (b"nested/empty".to_vec(), Item::Dir(0o755)),
        (b"dangling".to_vec(), Item::Link(b"no/such/file".to_vec())),
        (b"absolute".to_vec(), Item::Link(b"/etc/passwd".to_vec())),
        (b"up".to_vec(), Item::Link(b"../../..".to_vec())),
        (b"to itself".to_vec(), Item::Link(b"to itself".to_vec())),
        (b"weird".to_vec(), Item::Link(b"\xff\xfe\n\x1b[31m \\ \"".to_vec())),
        (b"long link".to_vec(), Item::Link(vec![b'x'; 4000])),
    ]);
    for mode in [0o400, 0o444, 0o600, 0o644, 0o666, 0o700, 0o755, 0o777] {
        items.insert(format!("mode {mode:o}").into_bytes(), Item::File(vec![mode as u8; 10], mode));
    }
    let names: [&[u8]; 12] = [
        b"\xff\xfe not UTF-8 \x80",
        b"line\nbreak",
        b"\x1b[31mred",
        b" ",
        b"-rf",
        b"--",
        b"*?[a]",
        b"C:\\x",
        b"...",
        b".hidden",
        b"A",
        b"a",
    ];
    items.extend(names.map(|name| (name.to_vec(), file(name))));
    items.insert(vec![b'n'; MAX_NAME_LEN], file("a long name"));
    items.insert([&[0xc3; MAX_NAME_LEN - 1][..], b"x"].concat(), Item::Dir(0o755));
    round_trip(&items);
}

#[test]
fn special_mode_bits_are_neither_recorded_nor_restored() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_items(folder.path(), &Items::from([(b"s".to_vec(), Item::File(b"x".to_vec(), 0o4755))]));
    let repo = init_at(folder.path());
    let id = save(&repo, "all");
    assert_eq!(stored_items(&repo, &id)[&b"s"[..]], Item::File(b"x".to_vec(), 0o755));
    go_to(&elsewhere(&repo, other.path()), "main");
    assert_eq!(read_items(other.path())[&b"s"[..]], Item::File(b"x".to_vec(), 0o755));
}

/// One folder in another, more than a path may hold in one system call.
#[test]
fn paths_up_to_the_limit_come_back_and_longer_ones_are_reported() {
    const NAME_LEN: usize = 200;
    const DEEP: usize = 20;
    const TOO_DEEP: usize = 25;
    let name = OsStr::from_bytes(&[b'd'; NAME_LEN]);
    let dig = |folder: &Path, depth: usize| -> Arc<dyn Dir> {
        (0..depth).fold(open_root(folder).unwrap(), |dir, _| {
            if dir.stat(name).unwrap().is_none() {
                dir.create_dir(name, 0o755).unwrap();
            }
            dir.open_dir(name).unwrap()
        })
    };
    let put = |dir: &Arc<dyn Dir>, bytes: &[u8]| {
        dir.create(OsStr::new("file"), 0o644).unwrap().write_at(bytes, 0).unwrap();
    };
    let get = |dir: &Arc<dyn Dir>| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut dir.open(OsStr::new("file")).unwrap(), &mut text).unwrap();
        text
    };
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(&dig(folder.path(), DEEP), b"deep");
    let repo = init_at(folder.path());
    let id = save(&repo, "deep");
    go_to(&elsewhere(&repo, other.path()), &id.to_string());
    assert_eq!(get(&dig(other.path(), DEEP)), "deep");

    // More than 4,096 bytes in all: the system takes it folder by folder, but a path of it is of use to nobody.
    put(&dig(folder.path(), TOO_DEEP), b"too deep");
    let added = add_all(&repo).unwrap();
    assert_eq!(added.unreadable, 1);
    let id = try_commit(&repo, "as far as it goes").unwrap().id;
    assert!(stored_items(&repo, &id).keys().all(|path| path.len() < 4096));
    go_to(&repo, "HEAD~1");
    assert_eq!(get(&dig(folder.path(), TOO_DEEP)), "too deep", "what is not stored is not removed");
}

#[test]
fn holes_are_holes_again() {
    const LEN: u64 = 64 << 20;
    /// Blocks of 512 bytes that a few kilobytes of data and the file system's own tables may take.
    const FEW_BLOCKS: u64 = 1024;
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let make = |name: &str, data: &[u64]| {
        let file = File::create(folder.path().join(name)).unwrap();
        file.set_len(LEN).unwrap();
        data.iter().for_each(|at| file.write_all_at(&noise(*at, 1000), *at).unwrap());
    };
    make("all", &[]);
    make("middle", &[LEN / 2 - 7]);
    make("both ends", &[0, LEN - 1000]);
    make("end is a hole", &[100_000]);
    let repo = init_at(folder.path());
    let added = add_all(&repo).unwrap();
    assert!(added.ingest.new_bytes < 10 * 128 * 1024, "holes are not stored");
    let id = try_commit(&repo, "sparse").unwrap().id;
    go_to(&elsewhere(&repo, other.path()), &id.to_string());
    for name in ["all", "middle", "both ends", "end is a hole"] {
        let (was, is) = (folder.path().join(name), other.path().join(name));
        let meta = fs::metadata(&is).unwrap();
        assert_eq!(meta.len(), LEN);
        assert!(meta.blocks() < FEW_BLOCKS, "{name}: {} blocks", meta.blocks());
        assert!(fs::read(was).unwrap() == fs::read(is).unwrap(), "{name}");
    }
}

/// Versions of a tree that follow each other; the checkouts go through them in every order.
fn walk_through(versions: &[Items]) {
    let folder = tempfile::tempdir().unwrap();
    let repo = init_at(folder.path());
    let commits: Vec<CommitId> = versions
        .iter()
        .map(|items| {
            write_items(folder.path(), items);
            save(&repo, "version")
        })
        .collect();
    for (id, items) in commits.iter().zip(versions) {
        assert_eq!(&stored_items(&repo, id), items);
    }
    for from in 0..versions.len() {
        for to in 0..versions.len() {
            for at in [from, to] {
                // Nothing is in the way, so nothing has to be forced.
                try_checkout(&repo, &commits[at].to_string(), false).unwrap();
                assert_eq!(read_items(folder.path()), versions[at], "from {from} to {to}");
                assert!(is_clean(&repo), "from {from} to {to}");
            }
        }
    }
    assert_clean(&open_at(folder.path()));
}

#[test]
fn files_folders_and_links_change_places() {
    let tree = |items: &[(&str, Item)]| -> Items {
        items.iter().map(|(path, item)| (path.as_bytes().to_vec(), item.clone())).collect()
    };
    let dir = || Item::Dir(0o755);
    let link = |target: &str| Item::Link(target.as_bytes().to_vec());
    walk_through(&[
        tree(&[("x", file("file")), ("y", dir()), ("y/in", dir()), ("y/in/deep", file("1")), ("Case", file("upper"))]),
        tree(&[("x", dir()), ("x/in", file("folder")), ("y", file("file")), ("case", file("upper"))]),
        tree(&[("x", link("y")), ("y", link("x")), ("Case", dir()), ("Case/case", file("both")), ("case", file(""))]),
        tree(&[("x", dir()), ("y", dir()), ("y/in", file("a file now"))]),
        tree(&[("x", Item::File(b"file".to_vec(), 0o755)), ("y", dir()), ("y/in", link("deep"))]),
        tree(&[("x", Item::Dir(0o700)), ("x/x", dir()), ("x/x/x", dir()), ("x/x/x/x", file("x"))]),
        Items::new(),
    ]);
}

#[derive(Debug, Clone)]
enum Edit {
    Put(Vec<u8>, Item),
    Remove(Vec<u8>),
}

fn path_strategy() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![&b"a"[..], b"A", b"b.c", b"\xff"]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join(&b'/'))
}

fn item_strategy() -> impl Strategy<Value = Item> {
    let mode = prop::sample::select(vec![0o400, 0o600, 0o644, 0o755]);
    let len = prop::sample::select(vec![0usize, 1, 300, 1024, 1025, 5000, 70_000]);
    prop_oneof![
        5 => (0u64..4, len, mode).prop_map(|(seed, len, mode)| Item::File(noise(seed, len), mode)),
        1 => (65_536usize..200_000).prop_map(|len| file([vec![0; len], vec![1]].concat())),
        1 => prop::sample::select(vec![&b"a"[..], b"/nowhere", b"../x"]).prop_map(|to| Item::Link(to.to_vec())),
        1 => prop::sample::select(vec![0o700, 0o755]).prop_map(Item::Dir),
    ]
}

fn edit_strategy() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => (path_strategy(), item_strategy()).prop_map(|(path, item)| Edit::Put(path, item)),
        1 => path_strategy().prop_map(Edit::Remove),
    ]
}

/// What an edit means: a thing at a path needs folders above it, and nothing below it unless it is a folder.
fn apply(items: &mut Items, edit: &Edit) {
    let (path, item) = match edit {
        Edit::Put(path, item) => (path, Some(item)),
        Edit::Remove(path) => (path, None),
    };
    let below = [path.as_slice(), b"/"].concat();
    if !matches!((items.get(path), item), (Some(Item::Dir(_)), Some(Item::Dir(_)))) {
        items.retain(|other, _| !other.starts_with(&below));
    }
    items.remove(path);
    let Some(item) = item else { return };
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let above = &path[..at];
        if !matches!(items.get(above), Some(Item::Dir(_))) {
            items.insert(above.to_vec(), Item::Dir(0o755));
        }
    }
    items.insert(path.clone(), item.clone());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_history_comes_back(history in prop::collection::vec(prop::collection::vec(edit_strategy(), 1..8), 1..4)) {
        let mut items = Items::new();
        let versions: Vec<Items> = history
            .iter()
            .map(|edits| {
                edits.iter().for_each(|edit| apply(&mut items, edit));
                items.clone()
            })
            .collect();
        walk_through(&versions);
    }
}
