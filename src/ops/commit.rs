//! `commit`: staging becomes a point in history. Opens no file of the work tree.

use std::borrow::Cow;

use serde::Serialize;

use super::gc::merge;
use super::ingest::{IngestStats, Sink};
use super::{Error, Result, add};
use crate::base::clock::UnixNanos;
use crate::base::monitor::Monitor;
use crate::format::object::{encode_commit, encode_tree};
use crate::model::commit::{Commit, MAX_AUTHOR_LEN, MAX_MESSAGE_LEN};
use crate::model::id::{CommitId, ObjectId, ObjectKind, TreeId};
use crate::model::operation::{Operation, RefStep};
use crate::model::path::RepoPath;
use crate::model::refs::Head;
use crate::model::staging::StagedNode;
use crate::model::tree::{Content, Entry, Meta, Node, Tree};
use crate::repo::Repository;
use crate::store::StoreError;
use crate::store::journal::State;
use crate::store::refs::{self, RefKind};
use crate::store::staging::Encoded;
use crate::store::{operations, staging};

/// What to commit.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it is about.
    pub message: String,
    /// Who makes it.
    pub author: String,
    /// When.
    pub time_ns: UnixNanos,
    /// Minutes east of UTC, for display.
    pub utc_offset_minutes: i16,
    /// Stage changes of tracked files first.
    pub all: bool,
    /// Commit even if the tree is that of HEAD.
    pub allow_empty: bool,
}

/// What was committed.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The commit.
    pub id: CommitId,
    /// Its tree.
    pub tree: TreeId,
    /// The branch that moved; none if HEAD is on none.
    pub branch: Option<String>,
    /// Is it the first commit?
    pub is_first: bool,
    /// Paths that differ from the commit before.
    pub changed_paths: u64,
    /// Paths that `-a` could not read; the rest is committed.
    pub unreadable: u64,
    /// Work done for `-a`, and bytes stored for trees.
    pub ingest: IngestStats,
}

/// A mode for folders that no entry describes.
const IMPLIED_DIR_MODE: u32 = 0o755;

/// Records what is staged.
pub fn commit(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("commit");
    check_text(options)?;
    let lock = repo.lock("commit")?;
    let (mut unreadable, mut ops) = (0, Vec::new());
    if options.all {
        let all = add::Options { paths: vec![RepoPath::root()], tracked_only: true, ..add::Options::default() };
        // Staged for good before it is committed: if the commit fails, nothing that was read is lost.
        unreadable = add::stage(repo, &lock, &all, monitor)?.unreadable;
    }
    let mut sink = Sink::new(repo, &lock);
    let (head, generation) = {
        let state = repo.journal().read();
        (refs::head(&state)?, refs::generation(&state)?)
    };
    let parent = repo.head_commit()?;
    let base = repo.root_tree(parent.as_ref())?;
    let base_id = encode_tree(&base).0;
    let (tree, changed_paths, gone) = {
        let state = repo.journal().read();
        let changes = staged_changes(&state, generation)?;
        let gone = verify_content(repo, &changes)?;
        let store: &mut StoreTree<'_> = &mut |tree, older| add_tree(&mut sink, tree, older);
        (build(repo, store, (base_id, &base), changes.iter().copied())?, changes.len() as u64, gone)
    };
    if tree == base_id && parent.is_some() && !options.allow_empty || (changed_paths == 0 && !options.allow_empty) {
        return Err(Error::NothingToCommit);
    }
    if parent.is_none() {
        // The root is stored even if it is empty.
        add_tree(&mut sink, &Tree::default(), None)?;
    }
    let commit = Commit {
        tree,
        parents: parent.into_iter().collect(),
        author: options.author.clone(),
        time_ns: options.time_ns,
        utc_offset_minutes: options.utc_offset_minutes,
        message: options.message.clone(),
    };
    let (id, bytes) = encode_commit(&commit);
    sink.add(id.into(), ObjectKind::Commit, &bytes, None)?;
    let (layers, ingest) = sink.finish()?;
    let mut operation = Operation::new(options.time_ns, format!("commit {} {}", id.short(), commit.subject()));
    let branch = match &head {
        Head::Branch(name) => {
            ops.push(refs::set_op(RefKind::Branch, name, &id));
            ops.push(refs::head_op(&head));
            let step = RefStep { kind: RefKind::Branch, name: name.clone(), before: parent, after: Some(id) };
            operation.refs.push(step);
            Some(name.to_string())
        }
        Head::Detached(_) => {
            ops.push(refs::head_op(&Head::Detached(id)));
            operation.head = Some((head.clone(), Head::Detached(id)));
            None
        }
    };
    ops.push(refs::generation_op(generation + 1));
    ops.extend(gone.iter().map(staging::delete_op));
    operation.committed = true;
    ops.extend(operations::record_ops(&repo.journal().read(), operation)?);
    repo.commit(&lock, &layers, ops)?;
    merge::maintain(repo, &lock, monitor);
    Ok(Outcome { id, tree, branch, is_first: parent.is_none(), changed_paths, unreadable, ingest })
}

fn check_text(options: &Options) -> Result<()> {
    let refused = |message: String, hint| Err(Error::Refused { message, hint });
    if options.message.trim().is_empty() {
        return refused("the message is empty".to_owned(), "say what the commit is about with -m MESSAGE");
    }
    if options.message.len() > MAX_MESSAGE_LEN {
        return refused(format!("the message is longer than {MAX_MESSAGE_LEN} bytes"), "shorten it");
    }
    if options.author.is_empty() || options.author.len() > MAX_AUTHOR_LEN || options.author.contains(['\n', '\0']) {
        let hint = "set it as 'Name <mail>' in DIGSTORE_AUTHOR or as user.name and user.email in digstore.toml";
        return refused("the author is empty, too long or has several lines".to_owned(), hint);
    }
    Ok(())
}

/// What is staged and not committed, in tree order, as it lies there: there may be a million of them.
fn staged_changes(state: &State, generation: u64) -> Result<Vec<Encoded<'_>>> {
    let mut entries = staging::entries(state)?;
    let mut changes = Vec::new();
    while let Some(entry) = entries.next_encoded()? {
        if entry.generation()? > generation {
            changes.push(entry);
        }
    }
    Ok(changes)
}

/// A commit must never refer to what is not stored: an index that wrongly says "present" ends here. Gives the paths that
/// are removed.
fn verify_content(repo: &Repository, changes: &[Encoded<'_>]) -> Result<Vec<RepoPath>> {
    let objects = repo.objects();
    let mut gone = Vec::new();
    for change in changes {
        let path = change.path()?;
        let (id, kind): (ObjectId, _) = match change.decode()?.node {
            StagedNode::File { content: Content::Chunk(id), .. } => (id.into(), ObjectKind::Chunk),
            StagedNode::File { content: Content::Recipe(id), .. } => (id.into(), ObjectKind::Recipe),
            StagedNode::File { content: Content::Empty, .. } | StagedNode::Symlink { .. } | StagedNode::Dir => continue,
            StagedNode::Deleted => {
                gone.push(path);
                continue;
            }
        };
        objects.locate_sealed(&id, kind).map_err(|error| match error {
            StoreError::Missing { .. } => {
                let why = format!("it is staged for {path} but in no layer; stage the file again with 'digstore add'");
                StoreError::Corrupt { kind, id, why }
            }
            other => other,
        })?;
    }
    Ok(gone)
}

/// Stores a tree. `older` is the one that was in its place.
pub fn add_tree(sink: &mut Sink<'_>, tree: &Tree, older: Option<TreeId>) -> Result<TreeId> {
    let (id, bytes) = encode_tree(tree);
    sink.add(id.into(), ObjectKind::Tree, &bytes, older.map(ObjectId::from))?;
    Ok(id)
}

/// What becomes of each tree that is built, and of the one that was in its place.
pub type StoreTree<'s> = dyn FnMut(&Tree, Option<TreeId>) -> Result<TreeId> + 's;

/// The root tree: `base` with `changes`, which are in tree order, applied. Folders without changes are taken over by their ids.
pub fn build<'a>(
    repo: &Repository,
    store: &mut StoreTree<'_>,
    base: (TreeId, &Tree),
    changes: impl Iterator<Item = Encoded<'a>>,
) -> Result<TreeId> {
    let mut changes = changes.peekable();
    // What concerns one name of the root at a time: all of a million would take 32 MB.
    let mut groups = std::iter::from_fn(|| {
        let first = changes.next()?;
        let mut group = vec![first];
        while let Some(next) = changes.next_if(|next| next.names().next() == first.names().next()) {
            group.push(next);
        }
        Some(Cow::from(group))
    });
    build_folder(repo, store, base, &mut groups, 0)
}

/// The tree at `depth` names below the root: `base` with changes applied, which are given in groups by their names there.
fn build_folder<'a>(
    repo: &Repository,
    store: &mut StoreTree<'_>,
    (base_id, base): (TreeId, &Tree),
    groups: &mut dyn Iterator<Item = Cow<'a, [Encoded<'a>]>>,
    depth: usize,
) -> Result<TreeId> {
    let mut old = base.entries().iter().peekable();
    let mut entries = Vec::with_capacity(base.entries().len());
    for group in groups {
        let name = group.first().and_then(|change| change.names().nth(depth)).unwrap_or_default().to_vec();
        while let Some(kept) = old.next_if(|entry| entry.name < name) {
            entries.push(kept.clone());
        }
        let replaced = old.next_if(|entry| entry.name == name);
        entries.extend(merge(repo, store, name, replaced, &group, depth)?);
    }
    entries.extend(old.cloned());
    let tree = Tree::from_sorted(entries)
        .map_err(|error| StoreError::Internal(format!("staging does not make a tree: {error}")))?;
    store(&tree, Some(base_id))
}

/// What stands at one name after the changes at and below it.
fn merge(
    repo: &Repository,
    store: &mut StoreTree<'_>,
    name: Vec<u8>,
    old: Option<&Entry>,
    group: &[Encoded<'_>],
    depth: usize,
) -> Result<Option<Entry>> {
    let (exact, below) = match group.split_first() {
        Some((first, below)) if first.names().count() == depth + 1 => (Some(first.decode()?), below),
        _ => (None, group),
    };
    let is_file = exact.as_ref().is_some_and(|entry| !matches!(entry.node, StagedNode::Dir | StagedNode::Deleted));
    if is_file && !all_gone(below)? {
        let path = group.first().map(Encoded::path).transpose()?.unwrap_or_default();
        let message = format!("{path} is staged as a file, and something below it");
        return Err(Error::Refused { message, hint: "stage again what is there with 'digstore add PATH'" });
    }
    let meta = match exact.map(|entry| (entry.node, entry.meta)) {
        Some((StagedNode::File { len, content }, meta)) => {
            return Ok(Some(Entry { name, meta, node: Node::File { len, content } }));
        }
        Some((StagedNode::Symlink { target }, meta)) => {
            return Ok(Some(Entry { name, meta, node: Node::Symlink { target } }));
        }
        Some((StagedNode::Deleted, _)) if all_gone(below)? => return Ok(None),
        Some((StagedNode::Deleted | StagedNode::Dir, meta)) => Some(meta),
        None => None,
    };
    let (old_id, old_tree) = match old {
        Some(Entry { node: Node::Dir { tree }, .. }) => (*tree, repo.objects().tree(tree)?),
        _ => (encode_tree(&Tree::default()).0, std::sync::Arc::default()),
    };
    let old_meta = old.filter(|entry| matches!(entry.node, Node::Dir { .. })).map(|entry| entry.meta);
    if meta.is_none() && old_meta.is_none() && all_gone(below)? {
        return Ok(old.cloned());
    }
    let meta = meta.or(old_meta).unwrap_or(Meta { mode: IMPLIED_DIR_MODE, mtime_ns: 0 });
    let mut groups =
        below.chunk_by(|one, other| one.names().nth(depth + 1) == other.names().nth(depth + 1)).map(Cow::from);
    let tree = build_folder(repo, store, (old_id, &old_tree), &mut groups, depth + 1)?;
    Ok(Some(Entry { name, meta, node: Node::Dir { tree } }))
}

fn all_gone(changes: &[Encoded<'_>]) -> Result<bool> {
    for change in changes {
        if change.decode()?.node != StagedNode::Deleted {
            return Ok(false);
        }
    }
    Ok(true)
}
