//! Repositories that somebody made to do harm, and repositories that a disk has damaged.
//!
//! Nothing here may panic, write outside the work tree, or give other bytes than those stored. What cannot be read is an
//! error of the right kind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "damage is done by others than digstore")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::*;
use digstore::base::bytes::{put_bytes, put_varint};
use digstore::base::disk::open_root;
use digstore::base::kind::ErrorKind;
use digstore::base::monitor::Silent;
use digstore::format::layer::{FOOTER_LEN, HEADER_LEN};
use digstore::format::object::{MAX_CHUNK_LEN, encode_commit, encode_recipe, entry_type};
use digstore::model::commit::Commit;
use digstore::model::id::{ChunkId, CommitId, ObjectId, ObjectKind, RecipeId, TreeId};
use digstore::model::path::{CONTROL_DIR, RepoPath};
use digstore::model::recipe::{Piece, Recipe};
use digstore::model::refs::RefName;
use digstore::model::tree::{Content, Node};
use digstore::ops::export::{self, Target};
use digstore::ops::{self, cat, checkout, diff, fsck, log, ls, rm, show};
use digstore::repo::{RepoError, Repository, trees};
use digstore::store::StoreError;
use digstore::store::layer_writer::LayerWriter;
use digstore::store::refs::{self, RefKind};
use digstore::transform::hash::{chunk_id, sha256};

// ---- Trees that nobody should have made ----

/// An entry as bytes, of whatever name.
#[derive(Clone)]
struct RawEntry {
    name: Vec<u8>,
    kind: u8,
    mode: u64,
    /// What follows mode and time.
    rest: Vec<u8>,
}

/// The file that hostile entries hold.
const EVIL: &[u8] = b"written by a hostile tree";

fn evil_file(name: &[u8]) -> RawEntry {
    let mut rest = Vec::new();
    put_varint(&mut rest, EVIL.len() as u64);
    rest.extend_from_slice(chunk_id(EVIL).digest());
    RawEntry { name: name.to_vec(), kind: entry_type::CHUNK, mode: 0o644, rest }
}

fn raw_link(name: &[u8], target: &[u8]) -> RawEntry {
    let mut rest = Vec::new();
    put_bytes(&mut rest, target);
    RawEntry { name: name.to_vec(), kind: entry_type::SYMLINK, mode: 0o777, rest }
}

fn raw_dir(name: &[u8], digest: &[u8; 32]) -> RawEntry {
    RawEntry { name: name.to_vec(), kind: entry_type::DIR, mode: 0o755, rest: digest.to_vec() }
}

fn raw_tree(entries: &[RawEntry]) -> Vec<u8> {
    let mut out = b"DIGTREE1".to_vec();
    put_varint(&mut out, entries.len() as u64);
    for entry in entries {
        put_bytes(&mut out, &entry.name);
        out.push(entry.kind);
        put_varint(&mut out, entry.mode);
        put_varint(&mut out, 0);
        out.extend_from_slice(&entry.rest);
    }
    out
}

/// A work tree with something beside it that must stay as it is.
struct Site {
    folder: tempfile::TempDir,
    repo: Repository,
}

impl Site {
    fn new() -> Self {
        let folder = scratch();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/f"), "outside").unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        let repo = init_at(&folder.path().join("work"));
        Self { folder, repo }
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// Commits a tree made by `build`, whatever is in it.
    fn commit_raw(&self, build: impl FnOnce(&mut LayerWriter) -> [u8; 32]) -> CommitId {
        let lock = self.repo.lock("test").unwrap();
        let mut layer = self.repo.new_layer().unwrap();
        layer.add(chunk_id(EVIL).into(), ObjectKind::Chunk, EVIL, None).unwrap();
        let tree = TreeId::from_digest(build(&mut layer));
        let commit = Commit {
            tree,
            parents: vec![],
            author: "A".to_owned(),
            time_ns: COMMIT_TIME_NS,
            utc_offset_minutes: 0,
            message: "hostile".to_owned(),
        };
        let (id, bytes) = encode_commit(&commit);
        layer.add(id.into(), ObjectKind::Commit, &bytes, None).unwrap();
        let ops = vec![refs::set_op(RefKind::Branch, &RefName::parse("main").unwrap(), &id)];
        self.repo.commit(&lock, &[layer.seal().unwrap()], ops).unwrap();
        id
    }

    /// Everything beside the work tree is as it was, and the repository's own file too.
    fn assert_untouched(&self, format: &[u8], what: &str) {
        let beside: Vec<_> = fs::read_dir(self.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(beside.len(), 2, "{what}: {beside:?}");
        assert_eq!(read_items(&self.outside()), Items::from([(b"f".to_vec(), file("outside"))]), "{what}");
        assert_eq!(fs::read(self.work().join(CONTROL_DIR).join("format")).unwrap(), format, "{what}");
    }
}

fn add_object(layer: &mut LayerWriter, kind: ObjectKind, bytes: &[u8]) -> [u8; 32] {
    let digest = sha256(&[bytes]);
    layer.add(ObjectId::from_digest(digest), kind, bytes, None).unwrap();
    digest
}

/// The verbs that read a revision's tree, and what they say.
fn verbs_on_main(site: &Site) -> Vec<(&'static str, ops::Result<()>)> {
    let repo = &site.repo;
    let root = RepoPath::root;
    let main = || Some("main".to_owned());
    let go = |force| try_checkout(repo, "main", force).map(drop);
    let restore = || {
        let options =
            checkout::RestoreOptions { paths: vec![root()], source: main(), force: true, ..Default::default() };
        complete(|monitor| checkout::restore(repo, &options, monitor)).map(drop)
    };
    let list = || ls::ls(repo, &ls::Options { revision: main(), path: root(), recursive: true }, &Silent).map(drop);
    let sides = || {
        let options = diff::Options::new(diff::Side::Empty, diff::Side::Revision("main".to_owned()));
        diff::diff(repo, &options, &Silent).map(drop)
    };
    let target = tempfile::tempdir().unwrap();
    let to = |target| {
        let outcome = export::export(repo, &export::Options { revision: main(), path: root(), target }, &Silent)?;
        assert_eq!(outcome.failed, 0, "a hostile tree is no file that could not be written");
        Ok(())
    };
    let results = vec![
        ("checkout", go(false)),
        ("checkout --force", go(true)),
        ("restore", restore()),
        ("ls", list()),
        ("diff", sides()),
        ("show", show::show(repo, &show::Options { revision: main(), content: true }, &Silent).map(drop)),
        ("export", to(Target::Dir(target.path().join("dir")))),
        ("export to tar", to(Target::Tar { path: target.path().join("tar"), zstd: false })),
    ];
    results
}

#[test]
fn hostile_trees_are_damage_and_write_nothing() {
    let names: Vec<(String, Vec<RawEntry>)> = [
        &b"."[..],
        b"..",
        b"",
        b"a/b",
        b"../outside/f",
        b"/etc/x",
        b"a\0b",
        b".digstore",
        b".DIGSTORE",
        b".DigStore",
        b".digstore.",
        b".digstore ",
        b".digstore::$INDEX_ALLOCATION",
        b"digsto~1",
        "\u{200c}.digstore".as_bytes(),
        ".dig\u{feff}store".as_bytes(),
        &[b'n'; 256],
    ]
    .map(|name| (format!("name {:?}", String::from_utf8_lossy(name)), vec![evil_file(name)]))
    .into();
    let mut trees = names;
    let bad_mode = RawEntry { mode: 0o10000, ..evil_file(b"x") };
    let unknown_kind = RawEntry { kind: 9, ..evil_file(b"x") };
    let empty_with_len = RawEntry { rest: [&[0][..], &[0; 32]].concat(), ..evil_file(b"x") };
    let cut_short = RawEntry { rest: vec![5, 1, 2, 3], ..evil_file(b"x") };
    trees.extend([
        ("twice".to_owned(), vec![evil_file(b"a"), evil_file(b"a")]),
        ("unsorted".to_owned(), vec![evil_file(b"b"), evil_file(b"a")]),
        ("a folder and a link of one name".to_owned(), vec![raw_link(b"d", b"../outside"), raw_dir(b"d", &[0; 32])]),
        ("a good one first".to_owned(), vec![evil_file(b"a"), evil_file(b"b/../../x")]),
        ("empty link".to_owned(), vec![raw_link(b"x", b"")]),
        ("link with zero byte".to_owned(), vec![raw_link(b"x", b"a\0b")]),
        ("long link".to_owned(), vec![raw_link(b"x", &[b'x'; 4096])]),
        ("mode".to_owned(), vec![bad_mode]),
        ("kind".to_owned(), vec![unknown_kind]),
        ("length".to_owned(), vec![empty_with_len]),
        ("cut short".to_owned(), vec![cut_short]),
        ("no such folder".to_owned(), vec![raw_dir(b"d", &[7; 32])]),
        ("a folder that is a file".to_owned(), vec![raw_dir(b"d", chunk_id(EVIL).digest())]),
    ]);
    for (what, entries) in &trees {
        // Once as the root, once in a folder beside a file that is sound.
        for nested in [false, true] {
            let site = Site::new();
            let format = fs::read(site.work().join(CONTROL_DIR).join("format")).unwrap();
            site.commit_raw(|layer| {
                let tree = add_object(layer, ObjectKind::Tree, &raw_tree(entries));
                if !nested {
                    return tree;
                }
                add_object(layer, ObjectKind::Tree, &raw_tree(&[evil_file(b"aa"), raw_dir(b"sub", &tree)]))
            });
            for (verb, result) in verbs_on_main(&site) {
                let error = result.expect_err(&format!("{verb} of a tree with {what}, nested: {nested}"));
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{verb}, {what}: {error}");
                site.assert_untouched(&format, what);
                assert!(read_items(&site.work()).is_empty(), "{verb}, {what}");
            }
        }
    }
}

/// The same way of making a tree gives one that works, or the test above would show nothing.
#[test]
fn a_sound_tree_made_by_hand_is_taken() {
    let site = Site::new();
    let entries = [evil_file(b"aa"), raw_link(b"link", b"../outside")];
    let tree = raw_tree(&entries);
    site.commit_raw(|layer| {
        let sub = add_object(layer, ObjectKind::Tree, &tree);
        add_object(layer, ObjectKind::Tree, &raw_tree(&[evil_file(b"aa"), raw_dir(b"sub", &sub)]))
    });
    for (verb, result) in verbs_on_main(&site) {
        result.unwrap_or_else(|error| panic!("{verb}: {error}"));
    }
    assert_eq!(read_items(&site.work())[&b"sub/aa"[..]], file(EVIL));
}

#[test]
fn folders_nested_without_end_are_damage() {
    const DEPTH: usize = 5000;
    let site = Site::new();
    site.commit_raw(|layer| {
        let bottom = add_object(layer, ObjectKind::Tree, &raw_tree(&[evil_file(b"x")]));
        (0..DEPTH).fold(bottom, |below, _| add_object(layer, ObjectKind::Tree, &raw_tree(&[raw_dir(b"d", &below)])))
    });
    for (verb, result) in verbs_on_main(&site) {
        assert_eq!(result.expect_err(verb).kind(), ErrorKind::Corrupt, "{verb}");
    }
    assert!(read_items(&site.work()).is_empty());
}

#[test]
fn files_that_are_not_what_the_tree_says_are_damage() {
    let chunk = |len: u32| Piece::Chunk { id: chunk_id(EVIL), len };
    let hole = |len| Piece::Hole { len };
    let evil_len = EVIL.len() as u32;
    type Build = Box<dyn Fn(&mut LayerWriter) -> (u8, u64, [u8; 32])>;
    let recipe = |len: u64, recipe: Recipe| -> Build {
        Box::new(move |layer| {
            let (id, bytes) = encode_recipe(&recipe);
            layer.add(id.into(), ObjectKind::Recipe, &bytes, None).unwrap();
            (entry_type::RECIPE, len, *id.digest())
        })
    };
    let evil = chunk_id(EVIL);
    let branch_of_branch: Build = Box::new(move |layer| {
        let mut add = |recipe: Recipe| {
            let (id, bytes) = encode_recipe(&recipe);
            layer.add(id.into(), ObjectKind::Recipe, &bytes, None).unwrap();
            id
        };
        let leaf = add(Recipe::Leaf(vec![Piece::Chunk { id: evil, len: evil_len }]));
        let inner = add(Recipe::Branch(vec![(leaf, u64::from(evil_len))]));
        (entry_type::RECIPE, u64::from(evil_len), *add(Recipe::Branch(vec![(inner, u64::from(evil_len))])).digest())
    });
    let parts_too_short: Build = Box::new(move |layer| {
        let (leaf, bytes) = encode_recipe(&Recipe::Leaf(vec![Piece::Chunk { id: evil, len: evil_len }]));
        layer.add(leaf.into(), ObjectKind::Recipe, &bytes, None).unwrap();
        let (id, bytes) = encode_recipe(&Recipe::Branch(vec![(leaf, u64::from(evil_len))]));
        layer.add(id.into(), ObjectKind::Recipe, &bytes, None).unwrap();
        (entry_type::RECIPE, 1000, *id.digest())
    });
    let chunk_of_len = |len: u64| -> Build { Box::new(move |_| (entry_type::CHUNK, len, *evil.digest())) };
    let cases: Vec<(&str, Build)> = vec![
        ("a longer chunk", chunk_of_len(u64::from(evil_len) - 1)),
        ("a shorter chunk", chunk_of_len(u64::from(evil_len) + 1)),
        ("a chunk of no sensible length", chunk_of_len(u64::MAX)),
        ("no such chunk", Box::new(|_| (entry_type::CHUNK, 5, [9; 32]))),
        ("no such recipe", Box::new(|_| (entry_type::RECIPE, 5, [9; 32]))),
        ("a recipe that is a chunk", Box::new(move |_| (entry_type::RECIPE, 5, *evil.digest()))),
        ("pieces too short", recipe(1000, Recipe::Leaf(vec![chunk(evil_len), hole(1)]))),
        ("pieces too long", recipe(3, Recipe::Leaf(vec![chunk(evil_len), hole(1)]))),
        ("a piece longer than its chunk", recipe(u64::from(MAX_CHUNK_LEN), Recipe::Leaf(vec![chunk(MAX_CHUNK_LEN)]))),
        ("holes beyond all numbers", recipe(5, Recipe::Leaf(vec![hole(u64::MAX), hole(u64::MAX), hole(7)]))),
        ("no pieces", recipe(5, Recipe::Leaf(vec![]))),
        ("a part that is missing", recipe(5, Recipe::Branch(vec![(RecipeId::from_digest([9; 32]), 5)]))),
        ("parts beyond all numbers", recipe(5, Recipe::Branch(vec![(RecipeId::from_digest([9; 32]), u64::MAX); 3]))),
        ("a branch of branches", branch_of_branch),
        ("parts too short", parts_too_short),
    ];
    for (what, build) in cases {
        let site = Site::new();
        site.commit_raw(|layer| {
            let (kind, len, digest) = build(layer);
            let mut rest = Vec::new();
            put_varint(&mut rest, len);
            rest.extend_from_slice(&digest);
            let bad = RawEntry { name: b"bad".to_vec(), kind, mode: 0o644, rest };
            add_object(layer, ObjectKind::Tree, &raw_tree(&[bad, evil_file(b"good")]))
        });
        let options = cat::Options { revision: Some("main".to_owned()), path: path("bad"), range: None };
        let error = cat::cat(&site.repo, &options, &mut Vec::new(), &Silent).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        let options = checkout::Options { revision: "main".to_owned(), ..checkout::Options::default() };
        match checkout::checkout(&site.repo, &options, &Silent) {
            // What is sound is written, what is not is counted and leaves nothing behind.
            Ok(outcome) => {
                assert_eq!((outcome.failed, outcome.damaged, outcome.written), (1, 1, 1), "{what}");
                assert_eq!(read_items(&site.work()), Items::from([(b"good".to_vec(), file(EVIL))]), "{what}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
                assert!(read_items(&site.work()).is_empty(), "{what}");
            }
        }
    }
}

// ---- Links in the way ----

#[test]
fn nothing_is_written_or_removed_through_a_link() {
    let format = |site: &Site| fs::read(site.work().join(CONTROL_DIR).join("format")).unwrap();
    let two_versions = || {
        let site = Site::new();
        let version = |text: &str| {
            Items::from([
                (b"d".to_vec(), Item::Dir(0o755)),
                (b"d/f".to_vec(), file(text)),
                (b"d/only".to_vec(), file("in the first")),
                (b"z".to_vec(), file("z")),
            ])
        };
        write_items(&site.work(), &version("one"));
        let one = save(&site.repo, "one");
        let mut second = version("two!");
        second.remove(&b"d/only"[..]);
        write_items(&site.work(), &second);
        save(&site.repo, "two");
        // Somebody puts a link to another place where the folder was.
        fs::rename(site.work().join("d"), site.folder.path().join("work/moved")).unwrap();
        symlink(site.outside(), site.work().join("d")).unwrap();
        (site, one.to_string())
    };
    let (site, one) = two_versions();
    let before = format(&site);
    let error = try_checkout(&site.repo, &one, false).unwrap_err();
    assert!(matches!(error, ops::Error::WouldLose { .. }), "{error}");
    site.assert_untouched(&before, "checkout");
    go_to(&site.repo, &one);
    site.assert_untouched(&before, "forced checkout");
    assert_eq!(read_items(&site.work())[&b"d/f"[..]], file("one"));

    for what in ["d", "d/f"] {
        let (site, one) = two_versions();
        let before = format(&site);
        for force in [false, true] {
            let options = checkout::RestoreOptions {
                paths: vec![path(what)],
                source: Some(one.clone()),
                force,
                ..checkout::RestoreOptions::default()
            };
            // Refused or done: either is right, as long as it is done inside.
            let _ = checkout::restore(&site.repo, &options, &Silent);
            site.assert_untouched(&before, "restore");
        }
    }

    let (site, _) = two_versions();
    let before = format(&site);
    for force in [false, true] {
        let options = rm::Options { paths: vec![path("d")], recursive: true, cached: false, force, dry_run: false };
        let _ = rm::rm(&site.repo, &options, &Silent);
        let options = rm::Options { paths: vec![path("d/f")], recursive: false, cached: false, force, dry_run: false };
        let _ = rm::rm(&site.repo, &options, &Silent);
        site.assert_untouched(&before, "rm");
    }

    // A link that nobody tracks, where the other version wants a folder.
    let site = Site::new();
    write_items(&site.work(), &Items::from([(b"n".to_vec(), Item::Dir(0o755)), (b"n/f".to_vec(), file("new"))]));
    let one = save(&site.repo, "one").to_string();
    write_items(&site.work(), &Items::new());
    save(&site.repo, "nothing");
    symlink(site.outside(), site.work().join("n")).unwrap();
    let before = format(&site);
    assert!(matches!(try_checkout(&site.repo, &one, false), Err(ops::Error::WouldLose { .. })));
    site.assert_untouched(&before, "checkout over an untracked link");
    assert!(fs::symlink_metadata(site.work().join("n")).unwrap().is_symlink());
    go_to(&site.repo, &one);
    site.assert_untouched(&before, "forced checkout over an untracked link");
}

// ---- Damage ----

/// All that a repository holds, or the kind of the first failure.
type Everything = Result<BTreeMap<String, Vec<Items>>, ErrorKind>;

fn read_everything(folder: &Path) -> Everything {
    let read = || -> ops::Result<_> {
        let repo = try_open(&open_root(folder).unwrap(), settings())?;
        let mut found = BTreeMap::new();
        for (name, id) in all_refs_of(&repo)? {
            let mut history = Vec::new();
            let mut next = Some(id);
            while let Some(id) = next {
                history.push(items_of(&repo, &id)?);
                next = repo.objects().commit(&id)?.parents.first().copied();
            }
            found.insert(name, history);
        }
        Ok(found)
    };
    read().map_err(|error: ops::Error| error.kind())
}

/// Does a full check find damage, or is there so much of it that there is nothing to check?
fn fsck_sees(folder: &Path) -> bool {
    let opened = try_open(&open_root(folder).unwrap(), settings());
    opened.is_err()
        || fsck::fsck(&opened.unwrap(), &fsck::Options { full: true }, &Silent).map_or(true, |found| found.is_damaged())
}

fn all_refs_of(repo: &Repository) -> ops::Result<Vec<(String, CommitId)>> {
    let state = repo.journal().read();
    let names = refs::list(&state, RefKind::Branch)?;
    Ok(names.into_iter().map(|(name, id)| (name.to_string(), id)).collect())
}

fn items_of(repo: &Repository, id: &CommitId) -> ops::Result<Items> {
    let mut items = Items::new();
    for entry in trees::Entries::new(repo.objects(), repo.root_tree(Some(id))?) {
        let (path, entry) = entry?;
        let item = match &entry.node {
            Node::File { len, content } => Item::File(bytes_of(repo, content, *len)?, entry.meta.mode),
            Node::Symlink { target } => Item::Link(target.clone()),
            Node::Dir { .. } => Item::Dir(entry.meta.mode),
        };
        items.insert(path.as_bytes().to_vec(), item);
    }
    Ok(items)
}

fn bytes_of(repo: &Repository, content: &Content, len: u64) -> Result<Vec<u8>, RepoError> {
    let mut bytes = Vec::new();
    let objects = repo.objects();
    let chunk = |id: &ChunkId| -> Result<Vec<u8>, StoreError> { Ok(objects.chunk(id)?.to_vec()) };
    objects.pieces(content, len, &mut |piece| {
        match piece {
            Piece::Hole { len } => bytes.resize(bytes.len() + len as usize, 0),
            Piece::Chunk { id, .. } => bytes.extend(chunk(&id)?),
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// A repository with every kind of file: nine commits of one layer of content and one of trees, an index over most of
/// them, two snapshots, and a log with several records behind the newer one.
struct Victim {
    folder: tempfile::TempDir,
    sound: Everything,
}

const COMMITS: u64 = 9;

impl Victim {
    fn new() -> Self {
        let folder = scratch();
        let repo = init_at(folder.path());
        for number in 0..COMMITS {
            fs::write(folder.path().join("file"), noise(number, 1500)).unwrap();
            fs::write(folder.path().join("text"), format!("text {number} ").repeat(20)).unwrap();
            save(&repo, "commit");
            if number == 2 || number == 5 {
                let _lock = repo.lock("test").unwrap();
                repo.journal().snapshot().unwrap();
            }
        }
        let (indexes, _) = repo.objects().index().shape();
        assert_eq!(indexes, 1);
        drop(repo);
        let sound = read_everything(folder.path());
        assert_eq!(sound.as_ref().unwrap()["main"].len() as u64, COMMITS);
        Self { folder, sound }
    }

    fn control(&self) -> PathBuf {
        self.folder.path().join(CONTROL_DIR)
    }

    /// The repository's files in a folder, by name.
    fn files(&self, folder: &str, prefix: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.control().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect();
        files.sort();
        files
    }

    /// What is read while `file` has other bytes, or none.
    fn with(&self, file: &Path, bytes: Option<&[u8]>) -> Everything {
        self.meanwhile(file, bytes, read_everything)
    }

    /// What is found in the folder while `file` has other bytes, or none.
    fn meanwhile<T>(&self, file: &Path, bytes: Option<&[u8]>, look: impl FnOnce(&Path) -> T) -> T {
        let good = fs::read(file).unwrap();
        // Never changed in place: an open repository may have it mapped.
        fs::remove_file(file).unwrap();
        if let Some(bytes) = bytes {
            fs::write(file, bytes).unwrap();
        }
        let found = look(self.folder.path());
        let _ = fs::remove_file(file);
        fs::write(file, good).unwrap();
        found
    }

    /// Some commits may be missing at the end, but what is there is right.
    fn is_earlier_state(&self, found: &Everything) -> bool {
        let (Ok(found), Ok(sound)) = (found, &self.sound) else { return false };
        let main = found.get("main").map(Vec::as_slice).unwrap_or_default();
        sound["main"].ends_with(main)
    }
}

/// All objects of a repository, and as many that it does not have.
fn ids_there_and_not(folder: &Path) -> Vec<ObjectId> {
    let objects = open_at(folder).objects();
    let layers = (0..objects.layers().layers().len() as u32).map(|layer| objects.layers().reader(layer).unwrap());
    let there = layers.flat_map(|layer| layer.stored_objects().unwrap()).map(|row| row.id);
    there.flat_map(|id| [id, ObjectId::from_digest(sha256(&[id.digest()]))]).collect()
}

/// Does asking for many objects together say what asking one by one says?
fn together_is_as_alone(folder: &Path, ids: &[ObjectId]) -> bool {
    let Ok(repo) = try_open(&open_root(folder).unwrap(), settings()) else { return true };
    let objects = repo.objects();
    let alone: Result<Vec<bool>, StoreError> = ids.iter().map(|id| objects.contains(id)).collect();
    objects.contains_each(ids).ok() == alone.ok()
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

const FOREIGN: &[u8] =
    b"this is something else altogether, and long enough to be taken for a file with a header or two of it, \
    one hundred and fifty-two bytes being the length of a footer, for example";
/// Where damage shows in reading, a check of all is made for one byte in so many only, since it takes long.
const FSCK_EVERY: usize = 7;
/// Where binary headers have their version.
const VERSION_AT: usize = 8;
const VERSION_LEN: usize = 2;
/// Where binary headers but that of the index have the bits of required features.
const FEATURES_AT: usize = 12;
const FEATURES_LEN: usize = 4;

/// A version or feature of the future is no damage: the file may be perfectly sound.
fn says_future(at: usize) -> bool {
    (VERSION_AT..VERSION_AT + VERSION_LEN).contains(&at) || (FEATURES_AT..FEATURES_AT + FEATURES_LEN).contains(&at)
}

#[test]
fn whole_files_gone_bad() {
    let victim = Victim::new();
    let layer = victim.files("layers", "")[3].clone();
    let [old_snapshot, snapshot] = victim.files("journal", "snap-").try_into().unwrap();
    let logs = victim.files("journal", "log-");
    let log = logs.last().unwrap().clone();
    let index = victim.files("index", "")[0].clone();
    let format = victim.control().join("format");
    let corrupt = || Some(ErrorKind::Corrupt);
    let failed = || Some(ErrorKind::Failed);
    // The kind of error; none if all is read all the same.
    let table: [(&str, &Path, [Option<ErrorKind>; 5]); 5] = [
        // truncated by a byte, by half, emptied, removed, foreign
        ("format", &format, [None, corrupt(), corrupt(), failed(), corrupt()]),
        ("layer", &layer, [corrupt(), corrupt(), corrupt(), corrupt(), corrupt()]),
        ("index", &index, [None; 5]),
        ("newest snapshot", &snapshot, [None; 5]),
        ("older snapshot", &old_snapshot, [None; 5]),
    ];
    for (what, path, expected) in table {
        let good = fs::read(path).unwrap();
        let damages = [
            ("cut by a byte", Some(good[..good.len() - 1].to_vec())),
            ("cut in half", Some(good[..good.len() / 2].to_vec())),
            ("emptied", Some(vec![])),
            ("removed", None),
            ("foreign", Some(FOREIGN.to_vec())),
        ];
        for ((how, bytes), expected) in damages.into_iter().zip(expected) {
            let found = victim.with(path, bytes.as_deref());
            match expected {
                None => assert!(found == victim.sound, "{what} {how}: {:?}", found.err()),
                Some(kind) => assert_eq!(found.err(), Some(kind), "{what} {how}"),
            }
        }
    }
    // Tools that copy files only do not copy an empty folder; and an index may go at any time.
    fs::rename(victim.control().join("index"), victim.folder.path().join("index-away")).unwrap();
    assert!(read_everything(victim.folder.path()) == victim.sound);
    drop(open_at(victim.folder.path()).lock("test").unwrap());
    fs::remove_dir(victim.control().join("index")).unwrap();
    fs::rename(victim.folder.path().join("index-away"), victim.control().join("index")).unwrap();
    // A log without its end is what a crash leaves: an earlier state, or the whole.
    let good = fs::read(&log).unwrap();
    for cut in 0..good.len() {
        let found = victim.with(&log, Some(&good[..cut]));
        assert!(found == Err(ErrorKind::Corrupt) || victim.is_earlier_state(&found), "log cut at {cut}: {found:?}");
    }
    assert_eq!(victim.with(&log, Some(FOREIGN)).err(), Some(ErrorKind::Corrupt));
    // Of a newer version: an error that is no damage, so that nobody repairs what is sound.
    for path in [&layer, &log] {
        let mut future = fs::read(path).unwrap();
        future[VERSION_AT] = 99;
        assert_eq!(victim.with(path, Some(&future)).err(), Some(ErrorKind::Failed), "{}", path.display());
    }
    let text = fs::read_to_string(&format).unwrap();
    let future = text.replace("version = 2", "version = 3");
    assert_ne!(future, text);
    assert_eq!(victim.with(&format, Some(future.as_bytes())).err(), Some(ErrorKind::Failed));
    let feature = text.replace("required_features = []", "required_features = [\"time travel\"]");
    assert_ne!(feature, text);
    assert_eq!(victim.with(&format, Some(feature.as_bytes())).err(), Some(ErrorKind::Failed));
    assert!(read_everything(victim.folder.path()) == victim.sound, "all was put back");
}

#[test]
fn any_byte_of_a_layer_flipped() {
    let victim = Victim::new();
    let repo = open_at(victim.folder.path());
    let ids = ids_there_and_not(victim.folder.path());
    // One layer of content and one of trees.
    for layer in victim.files("layers", "").into_iter().take(4) {
        let good = fs::read(&layer).unwrap();
        let footer_at = good.len() - FOOTER_LEN;
        let mut harmless = 0;
        for at in 0..good.len() {
            let (found, seen) = victim.meanwhile(&layer, Some(&flipped(&good, at)), |folder| {
                assert!(together_is_as_alone(folder, &ids), "byte {at} of {}", good.len());
                let found = read_everything(folder);
                let look = found.is_ok() || at % FSCK_EVERY == 0;
                (found, !look || fsck_sees(folder))
            });
            assert!(seen, "fsck does not see byte {at} of {}", good.len());
            let future = says_future(at)
                || (footer_at..).nth(at.saturating_sub(footer_at)) == Some(at) && {
                    let in_footer = at - footer_at.min(at);
                    (VERSION_AT..VERSION_AT + VERSION_LEN).contains(&in_footer)
                };
            match found {
                Err(ErrorKind::Corrupt) => {}
                Err(kind) => assert!(kind == ErrorKind::Failed && future, "byte {at} of {}: {kind:?}", good.len()),
                found => {
                    assert!(found == victim.sound, "byte {at}: other content");
                    harmless += 1;
                    // Nothing that is read depends on it.
                    assert!((HEADER_LEN..footer_at).contains(&at), "byte {at} of header or footer is not checked");
                }
            }
        }
        // Rows of the fan-out for empty buckets, and kinds: a few.
        assert!(harmless < good.len() / 8, "{harmless} of {} bytes do not matter", good.len());
    }
    drop(repo);
}

#[test]
fn any_byte_of_the_journal_flipped() {
    let victim = Victim::new();
    let logs = victim.files("journal", "log-");
    let snapshots = victim.files("journal", "snap-");
    for log in &logs {
        let good = fs::read(log).unwrap();
        // Of the room ahead, which is all the same, a little.
        let end = good.iter().rposition(|&byte| byte != 0).unwrap() + 16;
        for at in 0..good.len().min(end) {
            let found = victim.with(log, Some(&flipped(&good, at)));
            let fine = match &found {
                Err(kind) => *kind == ErrorKind::Corrupt || (*kind == ErrorKind::Failed && says_future(at)),
                // A last record that is not whole is one that was never committed.
                Ok(_) => victim.is_earlier_state(&found),
            };
            assert!(fine, "byte {at} of {}: {found:?}", log.display());
        }
    }
    for snapshot in &snapshots {
        let good = fs::read(snapshot).unwrap();
        for at in (0..good.len()).filter(|at| !says_future(*at)) {
            assert!(victim.with(snapshot, Some(&flipped(&good, at))) == victim.sound, "byte {at}");
        }
    }
    // With both gone bad there is no state to start from.
    let bad = flipped(&fs::read(&snapshots[0]).unwrap(), 100);
    fs::write(&snapshots[0], bad).unwrap();
    let bad = flipped(&fs::read(&snapshots[1]).unwrap(), 100);
    assert_eq!(victim.with(&snapshots[1], Some(&bad)).err(), Some(ErrorKind::Corrupt));
}

#[test]
fn any_byte_of_the_index_flipped_is_harmless() {
    let victim = Victim::new();
    let index = victim.files("index", "")[0].clone();
    let good = fs::read(&index).unwrap();
    let ids = ids_there_and_not(victim.folder.path());
    for at in 0..good.len() {
        let found = victim.meanwhile(&index, Some(&flipped(&good, at)), |folder| {
            assert!(together_is_as_alone(folder, &ids), "byte {at} of {}", good.len());
            read_everything(folder)
        });
        assert!(found == victim.sound, "byte {at} of {}: {:?}", good.len(), found.err());
    }
    // Nor does it keep anybody from working.
    fs::remove_file(&index).unwrap();
    fs::write(&index, [&good[..good.len() / 2], &vec![0xff; good.len() - good.len() / 2]].concat()).unwrap();
    let repo = open_at(victim.folder.path());
    fs::write(victim.folder.path().join("more"), "more").unwrap();
    let id = save(&repo, "with a damaged index");
    go_to(&repo, "HEAD~5");
    go_to(&repo, &id.to_string());
    assert_eq!(stored_items(&repo, &id), read_items(victim.folder.path()));
    assert_eq!(log::log(&repo, &log::Options::default(), &Silent).unwrap().commits.len() as u64, COMMITS + 1);

    // When it is merged into the next index, what it has lost is taken from the layers.
    let damaged = fs::read(&index).unwrap();
    for number in 0.. {
        if fs::read(&index).ok().as_ref() != Some(&damaged) {
            break;
        }
        assert!(number < COMMITS, "an index is merged after a few commits");
        fs::write(victim.folder.path().join("more"), format!("more {number}")).unwrap();
        save(&repo, "more");
    }
    let objects = repo.objects();
    assert!(objects.index().verify().is_empty());
    for number in 0..objects.layers().layers().len() as u32 {
        let reader = objects.layers().reader(number).unwrap();
        let ids: Vec<ObjectId> = reader.tables().unwrap().ids().iter().map(|id| ObjectId::from_digest(*id)).collect();
        assert!(ids.iter().all(|id| objects.contains(id).unwrap()));
        assert!(objects.contains_each(&ids).unwrap().into_iter().all(|found| found));
    }
}
