//! Repositories for the tests of verbs, made without the verbs that write.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Deref;
use std::sync::Arc;

use tempfile::TempDir;

use crate::base::disk::open_root;
use crate::format::object::{encode_commit, encode_recipe, encode_tree};
use crate::model::commit::Commit;
use crate::model::id::{CommitId, ObjectId, ObjectKind, TreeId};
use crate::model::path::{CONTROL_DIR, RepoPath};
use crate::model::recipe::{Piece, Recipe};
use crate::model::refs::{Head, RefName};
use crate::model::staging::{SeenStat, StagedEntry, StagedNode};
use crate::model::tree::{Content, Entry, Meta, Node, Tree};
use crate::repo::{Repository, Settings, init};
use crate::store::layer_writer::LayerWriter;
use crate::store::objects::ObjectStore;
use crate::store::refs::{self, RefKind};
use crate::store::staging;
use crate::transform::chunker::ChunkParams;
use crate::transform::hash::chunk_id;

/// Files above this get a recipe of pieces of this length.
pub const PIECE_LEN: usize = 1000;
/// The modification time of everything in a commit.
pub const MTIME_NS: i64 = 1_600_000_000_123_456_789;

/// What to put at a path.
#[derive(Debug, Clone)]
pub enum What {
    /// A file's bytes and mode.
    File(Vec<u8>, u32),
    /// A link's target.
    Link(Vec<u8>),
    /// A folder, empty if nothing else is in it.
    Dir(u32),
}

/// A file of the usual mode.
pub fn file(bytes: impl AsRef<[u8]>) -> What {
    What::File(bytes.as_ref().to_vec(), 0o644)
}

/// A path.
pub fn path(text: &str) -> RepoPath {
    RepoPath::parse(text.as_bytes()).unwrap()
}

/// A repository and the folder that it lives in.
pub struct TestRepo {
    /// The work tree.
    pub folder: Arc<TempDir>,
    /// The repository.
    pub repo: Repository,
}

impl Deref for TestRepo {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.repo
    }
}

/// Small blocks, so that a few kilobytes fill several, and few paths at once, so that a few come in several parts.
pub fn settings() -> Settings {
    Settings { block_len: 5_000, cpu_threads: 2, io_threads: 2, paths_at_once: 3, ..Settings::default() }
}

impl TestRepo {
    /// One that writes nothing.
    pub fn in_memory() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repository::in_memory(open_root(folder.path()).unwrap(), settings()).unwrap();
        Self { folder: Arc::new(folder), repo }
    }

    /// One in the folder's `.digstore`.
    pub fn on_disk() -> Self {
        Self::on_disk_with(settings())
    }

    /// The same with other settings.
    pub fn on_disk_with(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let work = open_root(folder.path()).unwrap();
        let (dir, _) = init::create(work.as_ref(), OsStr::new(CONTROL_DIR), ChunkParams::default()).unwrap();
        let repo = Repository::open(dir, work, settings).unwrap();
        Self { folder: Arc::new(folder), repo }
    }

    /// The same repository as a new process sees it.
    pub fn reopen(self) -> Self {
        self.reopen_with(settings())
    }

    /// The same with other settings.
    pub fn reopen_with(self, settings: Settings) -> Self {
        let Self { folder, repo } = self;
        drop(repo);
        Self::at(folder, settings)
    }

    /// The same repository as another process sees it at the same time.
    pub fn another(&self) -> Self {
        Self::at(Arc::clone(&self.folder), self.settings().clone())
    }

    fn at(folder: Arc<TempDir>, settings: Settings) -> Self {
        let work = open_root(folder.path()).unwrap();
        let repo = Repository::open(work.open_dir(OsStr::new(CONTROL_DIR)).unwrap(), work, settings).unwrap();
        Self { folder, repo }
    }

    /// Commits a whole tree onto HEAD's branch; staging is made equal to it.
    pub fn commit(&self, files: &[(&str, What)], message: &str) -> CommitId {
        let parents = self.head_commit().unwrap().into_iter().collect();
        self.commit_onto(files, message, parents)
    }

    /// The same with given parents.
    pub fn commit_onto(&self, files: &[(&str, What)], message: &str, parents: Vec<CommitId>) -> CommitId {
        let lock = self.lock("test").unwrap();
        let mut layer = Additions { layer: self.new_layer().unwrap(), known: self.objects() };
        let (tree, entries) = store_tree(&mut layer, files);
        let generation = refs::generation(&self.journal().read()).unwrap() + 1;
        let time_ns = MTIME_NS + generation as i64;
        let author = "A <a@example.org>".to_owned();
        let commit = Commit { tree, parents, author, time_ns, utc_offset_minutes: 60, message: message.to_owned() };
        let (id, bytes) = encode_commit(&commit);
        layer.add(id.into(), ObjectKind::Commit, &bytes);
        let branch = match refs::head(&self.journal().read()).unwrap() {
            Head::Branch(name) => name,
            Head::Detached(_) => RefName::parse("main").unwrap(),
        };
        let mut ops = vec![refs::set_op(RefKind::Branch, &branch, &id), refs::generation_op(generation)];
        let gone = staged_paths(self).into_iter().filter(|path| !entries.contains_key(path));
        ops.extend(gone.map(|path| staging::delete_op(&path)));
        ops.extend(entries.iter().map(|(path, (node, meta))| staging::put_op(path, &entry(node, *meta, generation))));
        self.repo.commit(&lock, &[layer.layer.seal().unwrap()], ops).unwrap();
        id
    }

    /// A stored file.
    pub fn stored(&self, commit: &CommitId, name: &str) -> Vec<u8> {
        let root = self.root_tree(Some(commit)).unwrap();
        let objects = self.objects();
        let found = crate::repo::trees::lookup(&objects, &root, &path(name)).unwrap().unwrap();
        let Node::File { len, content } = found.node else { panic!("{name} is a file") };
        crate::ops::content::ContentReader::whole(self, &objects, &content, len).unwrap().into_vec().unwrap()
    }

    /// Stages files, or removals, without committing.
    pub fn stage(&self, files: &[(&str, Option<What>)]) {
        let lock = self.lock("test").unwrap();
        let mut layer = Additions { layer: self.new_layer().unwrap(), known: self.objects() };
        let generation = refs::generation(&self.journal().read()).unwrap() + 1;
        let mut ops = Vec::new();
        for (name, what) in files {
            let staged = match what {
                None => entry(&StagedNode::Deleted, Meta { mode: 0, mtime_ns: 0 }, generation),
                Some(what) => {
                    let (node, meta) = store_node(&mut layer, what);
                    entry(&node, meta, generation)
                }
            };
            ops.push(staging::put_op(&path(name), &staged));
        }
        self.repo.commit(&lock, &[layer.layer.seal().unwrap()], ops).unwrap();
    }

    /// Sets a branch or tag.
    pub fn set_ref(&self, kind: RefKind, name: &str, id: &CommitId) {
        let lock = self.lock("test").unwrap();
        self.repo.commit(&lock, &[], vec![refs::set_op(kind, &RefName::parse(name).unwrap(), id)]).unwrap();
    }

    /// Moves HEAD.
    pub fn set_head(&self, head: &Head) {
        let lock = self.lock("test").unwrap();
        self.repo.commit(&lock, &[], vec![refs::head_op(head)]).unwrap();
    }

    /// Makes the work tree hold these files.
    pub fn write_work(&self, files: &[(&str, &[u8])]) {
        for (name, bytes) in files {
            let path = self.folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

/// A layer that gets only what is in no other.
struct Additions {
    layer: LayerWriter,
    known: Arc<ObjectStore>,
}

impl Additions {
    fn add(&mut self, id: ObjectId, kind: ObjectKind, bytes: &[u8]) {
        if !self.known.contains(&id).unwrap() {
            self.layer.add(id, kind, bytes, None).unwrap();
        }
    }
}

/// All paths that staging knows.
fn staged_paths(repo: &Repository) -> Vec<RepoPath> {
    let state = repo.journal().read();
    let mut scan = staging::entries(&state).unwrap();
    let mut paths = Vec::new();
    while let Some((path, _)) = scan.next().unwrap() {
        paths.push(path);
    }
    paths
}

/// An entry whose stat proves nothing.
fn entry(node: &StagedNode, meta: Meta, generation: u64) -> StagedEntry {
    StagedEntry { node: node.clone(), meta, seen: SeenStat::default(), racy: true, generation }
}

fn store_node(layer: &mut Additions, what: &What) -> (StagedNode, Meta) {
    let meta = |mode| Meta { mode, mtime_ns: MTIME_NS };
    match what {
        What::Dir(mode) => (StagedNode::Dir, meta(*mode)),
        What::Link(target) => (StagedNode::Symlink { target: target.clone() }, meta(0o777)),
        What::File(bytes, mode) => {
            let mut chunk = |bytes: &[u8]| {
                layer.add(chunk_id(bytes).into(), ObjectKind::Chunk, bytes);
                chunk_id(bytes)
            };
            let content = if bytes.is_empty() {
                Content::Empty
            } else if bytes.len() <= PIECE_LEN {
                Content::Chunk(chunk(bytes))
            } else {
                let pieces = bytes.chunks(PIECE_LEN).map(|part| match part.iter().all(|b| *b == 0) {
                    true => Piece::Hole { len: part.len() as u64 },
                    false => Piece::Chunk { id: chunk(part), len: part.len() as u32 },
                });
                let (id, encoded) = encode_recipe(&Recipe::Leaf(pieces.collect()));
                layer.add(id.into(), ObjectKind::Recipe, &encoded);
                Content::Recipe(id)
            };
            (StagedNode::File { len: bytes.len() as u64, content }, meta(*mode))
        }
    }
}

type Nodes = BTreeMap<RepoPath, (StagedNode, Meta)>;

/// Stores files and the folders that they are in.
fn store_tree(layer: &mut Additions, files: &[(&str, What)]) -> (TreeId, Nodes) {
    let mut nodes = Nodes::new();
    for (name, what) in files {
        let mut above = path(name).parent();
        while let Some(folder) = above.filter(|folder| !folder.is_root()) {
            above = folder.parent();
            nodes.entry(folder).or_insert((StagedNode::Dir, Meta { mode: 0o755, mtime_ns: MTIME_NS }));
        }
        nodes.insert(path(name), store_node(layer, what));
    }
    (store_folder(layer, &nodes, &RepoPath::root()), nodes)
}

fn store_folder(layer: &mut Additions, nodes: &Nodes, folder: &RepoPath) -> TreeId {
    let inside = nodes.iter().filter(|(path, _)| path.parent().as_ref() == Some(folder));
    let entries = inside.map(|(path, (node, meta))| {
        let node = match node {
            StagedNode::File { len, content } => Node::File { len: *len, content: *content },
            StagedNode::Symlink { target } => Node::Symlink { target: target.clone() },
            _ => Node::Dir { tree: store_folder(layer, nodes, path) },
        };
        Entry { name: path.file_name().to_vec(), meta: *meta, node }
    });
    let (id, bytes) = encode_tree(&Tree::from_sorted(entries.collect()).unwrap());
    layer.add(id.into(), ObjectKind::Tree, &bytes);
    id
}
