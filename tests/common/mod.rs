//! What the tests of whole verbs share: repositories in temporary folders, folders as plain values, and a check of a
//! repository that uses none of the code that checks repositories.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::disallowed_methods, reason = "work trees are changed by others than digstore")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use digstore::base::disk::{Dir, open_root};
use digstore::base::monitor::{Recording, Silent};
use digstore::model::id::CommitId;
use digstore::model::path::{CONTROL_DIR, RepoPath};
use digstore::model::recipe::Piece;
use digstore::model::staging::StagedNode;
use digstore::model::tree::{Content, Node, Tree};
use digstore::ops::{self, add, checkout, commit, fsck};
use digstore::repo::{RepoError, Repository, Settings, init, trees};
use digstore::store::objects::ObjectStore;
use digstore::store::refs::{self, RefKind};
use digstore::store::staging;
use digstore::transform::chunker::ChunkParams;

/// Average length of chunks: small, so that files of a few kilobytes have many.
pub const AVERAGE_CHUNK_LEN: u32 = 1024;
/// Time of every commit made here, so that the same content has the same id.
pub const COMMIT_TIME_NS: i64 = 1_700_000_000_000_000_000;

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A file's bytes and mode.
    File(Vec<u8>, u32),
    /// A link's target.
    Link(Vec<u8>),
    /// A folder's mode.
    Dir(u32),
}

/// A folder and all below it, by path.
pub type Items = BTreeMap<Vec<u8>, Item>;

/// A file of the usual mode.
pub fn file(bytes: impl AsRef<[u8]>) -> Item {
    Item::File(bytes.as_ref().to_vec(), 0o644)
}

/// A path in a repository.
pub fn path(text: impl AsRef<[u8]>) -> RepoPath {
    RepoPath::parse(text.as_ref()).unwrap()
}

/// Bytes that do not shrink and differ for each seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A folder in memory where the system has such a place: what a sweep writes is read once and need not be durable.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Small blocks, and one thread each, so that runs repeat exactly.
pub fn settings() -> Settings {
    Settings {
        chunking: ChunkParams::with_average(AVERAGE_CHUNK_LEN),
        block_len: 8 << 10,
        // What is merged by the way is for tests of just that.
        maintenance: false,
        io_threads: 1,
        cpu_threads: 1,
        ..Settings::default()
    }
}

/// Makes a repository in the folder's `.digstore`, or completes one.
pub fn try_init(work: &Arc<dyn Dir>, settings: Settings) -> Result<Repository, RepoError> {
    init::create(work.as_ref(), OsStr::new(CONTROL_DIR), settings.chunking)?;
    try_open(work, settings)
}

/// Opens the repository in the folder's `.digstore`.
pub fn try_open(work: &Arc<dyn Dir>, settings: Settings) -> Result<Repository, RepoError> {
    let dir = work.open_dir(OsStr::new(CONTROL_DIR)).map_err(|source| digstore::base::disk::DiskError {
        action: "open",
        path: work.path().to_path_buf(),
        source,
    })?;
    Repository::open(dir, Arc::clone(work), settings)
}

/// A new repository in a folder.
pub fn init_at(folder: &Path) -> Repository {
    try_init(&open_root(folder).unwrap(), settings()).unwrap()
}

/// The repository in a folder.
pub fn open_at(folder: &Path) -> Repository {
    try_open(&open_root(folder).unwrap(), settings()).unwrap()
}

/// Stages everything.
pub fn add_all(repo: &Repository) -> ops::Result<add::Outcome> {
    add::add(repo, &add::Options { paths: vec![RepoPath::root()], ..add::Options::default() }, &Silent)
}

/// Commits what is staged.
pub fn try_commit(repo: &Repository, message: &str) -> ops::Result<commit::Outcome> {
    let options = commit::Options {
        message: message.to_owned(),
        author: "A <a@example.org>".to_owned(),
        time_ns: COMMIT_TIME_NS,
        utc_offset_minutes: 0,
        all: false,
        allow_empty: true,
    };
    commit::commit(repo, &options, &Silent)
}

/// Stages and commits everything.
pub fn save(repo: &Repository, message: &str) -> CommitId {
    let added = add_all(repo).unwrap();
    assert_eq!(added.unreadable, 0);
    try_commit(repo, message).unwrap().id
}

/// Goes to a revision; what could not be written is an error.
pub fn try_checkout(repo: &Repository, revision: &str, force: bool) -> ops::Result<checkout::Outcome> {
    let options = checkout::Options { revision: revision.to_owned(), force, ..checkout::Options::default() };
    complete(|monitor| checkout::checkout(repo, &options, monitor))
}

/// Makes files that could not be written an error of the verb.
pub fn complete(verb: impl FnOnce(&Recording) -> ops::Result<checkout::Outcome>) -> ops::Result<checkout::Outcome> {
    let monitor = Recording::default();
    let outcome = verb(&monitor)?;
    match outcome.failed {
        0 => Ok(outcome),
        _ => Err(ops::Error::Refused { message: monitor.problems.into_inner().unwrap().join("; "), hint: "" }),
    }
}

/// Goes to a revision whatever is lost.
pub fn go_to(repo: &Repository, revision: &str) {
    try_checkout(repo, revision, true).unwrap();
}

/// Makes a folder hold exactly these items, beside the repository.
pub fn write_items(folder: &Path, items: &Items) {
    for (name, _) in read_items(folder).iter().rev() {
        let at = folder.join(OsStr::from_bytes(name));
        if fs::symlink_metadata(&at).unwrap().is_dir() { fs::remove_dir(at) } else { fs::remove_file(at) }.unwrap();
    }
    for (name, item) in items {
        let at = folder.join(OsStr::from_bytes(name));
        match item {
            Item::File(bytes, mode) => {
                fs::write(&at, bytes).unwrap();
                fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Item::Link(target) => symlink(OsStr::from_bytes(target), &at).unwrap(),
            Item::Dir(mode) => {
                fs::create_dir(&at).unwrap();
                fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
    }
}

/// All that is in a folder, but for the repository.
pub fn read_items(folder: &Path) -> Items {
    let mut items = Items::new();
    read_level(folder, b"", &mut items);
    items
}

fn read_level(folder: &Path, prefix: &[u8], items: &mut Items) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_vec();
        if prefix.is_empty() && name == CONTROL_DIR.as_bytes() {
            continue;
        }
        let path = [prefix, &name].concat();
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        let item = if meta.is_dir() {
            read_level(&entry.path(), &[path.as_slice(), b"/"].concat(), items);
            Item::Dir(meta.mode() & 0o7777)
        } else if meta.is_symlink() {
            Item::Link(fs::read_link(entry.path()).unwrap().into_os_string().into_vec())
        } else {
            Item::File(fs::read(entry.path()).unwrap(), meta.mode() & 0o7777)
        };
        items.insert(path, item);
    }
}

/// A stored file's bytes, every chunk of them verified by the store.
pub fn stored_bytes(objects: &ObjectStore, content: &Content, len: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    objects
        .pieces(content, len, &mut |piece| {
            match piece {
                Piece::Hole { len } => bytes.resize(bytes.len() + len as usize, 0),
                Piece::Chunk { id, len } => {
                    let chunk = objects.chunk(&id)?;
                    assert_eq!(chunk.len(), len as usize, "a chunk has the length that its file says");
                    bytes.extend_from_slice(&chunk);
                }
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(bytes.len() as u64, len);
    bytes
}

/// All that a commit holds.
pub fn stored_items(repo: &Repository, id: &CommitId) -> Items {
    items_of_tree(repo, &repo.root_tree(Some(id)).unwrap())
}

/// Everything in a tree.
pub fn items_of_tree(repo: &Repository, tree: &Arc<Tree>) -> Items {
    let objects = repo.objects();
    let mut items = Items::new();
    for entry in trees::Entries::new(Arc::clone(&objects), Arc::clone(tree)) {
        let (path, entry) = entry.unwrap();
        let item = match &entry.node {
            Node::File { len, content } => Item::File(stored_bytes(&objects, content, *len), entry.meta.mode),
            Node::Symlink { target } => Item::Link(target.clone()),
            Node::Dir { .. } => Item::Dir(entry.meta.mode),
        };
        items.insert(path.as_bytes().to_vec(), item);
    }
    items
}

/// All branches and tags, and HEAD if it has a commit.
pub fn all_refs(repo: &Repository) -> BTreeMap<String, CommitId> {
    let state = repo.journal().read();
    let mut found = BTreeMap::new();
    for (kind, word) in [(RefKind::Branch, "branch"), (RefKind::Tag, "tag")] {
        let names = refs::list(&state, kind).unwrap();
        found.extend(names.into_iter().map(|(name, id)| (format!("{word} {name}"), id)));
    }
    found.extend(refs::head_commit(&state).unwrap().map(|id| ("HEAD".to_owned(), id)));
    found
}

/// Everything that refs and staging lead to is there and is what its id says.
pub fn assert_clean(repo: &Repository) {
    let objects = repo.objects();
    let mut waiting: Vec<CommitId> = all_refs(repo).into_values().collect();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if seen.insert(id) {
            waiting.extend(objects.commit(&id).unwrap().parents);
            stored_items(repo, &id);
        }
    }
    {
        // Given back before fsck: it reads the journal itself.
        let state = repo.journal().read();
        let mut entries = staging::entries(&state).unwrap();
        while let Some((path, entry)) = entries.next().unwrap() {
            if let StagedNode::File { len, content } = &entry.node {
                assert_eq!(stored_bytes(&objects, content, *len).len() as u64, *len, "{path}");
            }
        }
    }
    for number in 0..objects.layers().layers().len() as u32 {
        objects.layers().reader(number).unwrap().tables().unwrap().verify().unwrap();
    }
    assert!(objects.index().verify().is_empty());
    let found = fsck::fsck(repo, &fsck::Options { full: true }, &Silent).unwrap();
    assert!(!found.is_damaged(), "{:?}", found.findings);
}

/// The folder and the name of a path.
pub fn name_of(path: &[u8]) -> (&[u8], &OsStr) {
    let at = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    (&path[..at.saturating_sub(1)], OsStr::from_bytes(&path[at..]))
}

/// Opens a folder below `root`.
pub fn open_folder(root: &Arc<dyn Dir>, path: &[u8]) -> io::Result<Arc<dyn Dir>> {
    let names = path.split(|b| *b == b'/').filter(|name| !name.is_empty());
    names.map(OsStr::from_bytes).try_fold(Arc::clone(root), |dir, name| dir.open_dir(name))
}

/// Makes the work tree hold `items`, durably, as a careful user would. May be repeated after a failure.
pub fn edit(root: &Arc<dyn Dir>, items: &Items) -> io::Result<()> {
    let now = read_items(root.path());
    for (path, old) in now.iter().rev().filter(|(path, old)| items.get(*path) != Some(old)) {
        let (folder, name) = name_of(path);
        let dir = open_folder(root, folder)?;
        if matches!(old, Item::Dir(_)) {
            dir.remove_dir(name)?;
        } else {
            dir.remove_file(name)?;
        }
        dir.sync()?;
    }
    for (path, item) in items.iter().filter(|(path, item)| now.get(*path) != Some(item)) {
        let (folder, name) = name_of(path);
        let dir = open_folder(root, folder)?;
        match item {
            Item::File(bytes, mode) => {
                let file = dir.create(name, *mode)?;
                file.set_mode(*mode)?;
                file.write_at(bytes, 0)?;
                file.sync()?;
            }
            Item::Link(target) => dir.symlink(OsStr::from_bytes(target), name)?,
            Item::Dir(mode) => dir.create_dir(name, *mode)?,
        }
        dir.sync()?;
    }
    Ok(())
}
