//! `stats`: what is stored and what it costs, counted.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use hashbrown::{HashMap, HashSet};
use serde::Serialize;

use super::layer::KindCount;
use super::log::History;
use super::{Error, Result};
use crate::base::disk::{Dir, FileKind, IoContext};
use crate::base::metrics::Latency;
use crate::base::monitor::Monitor;
use crate::model::id::{ChunkId, RecipeId, TreeId};
use crate::model::recipe::Piece;
use crate::model::tree::{Content, Node};
use crate::repo::Repository;
use crate::store::objects::ObjectStore;
use crate::store::refs::{self, RefKind};
use crate::store::{checkpoints, sessions};

/// How much to count.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Count the files of every commit for the share of repeated content, not only of HEAD's.
    pub all: bool,
}

/// What was counted.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// What HEAD holds.
    pub head: TreeCount,
    /// Commits that branches, tags and HEAD lead to.
    pub commits: u64,
    /// Number of branches.
    pub branches: u64,
    /// Number of tags.
    pub tags: u64,
    /// Number of layers.
    pub layers: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Stored objects of each kind, whether anything leads to them or not.
    pub objects: BTreeMap<String, KindCount>,
    /// Bytes of all blocks when decoded.
    pub plain_bytes: u64,
    /// Bytes of all blocks as stored.
    pub stored_bytes: u64,
    /// Bytes of all layers' tables.
    pub table_bytes: u64,
    /// Bytes of the layer files.
    pub layer_bytes: u64,
    /// Bytes of the journal's files.
    pub journal_bytes: u64,
    /// Bytes of the index files.
    pub index_bytes: u64,
    /// Bytes of all files of the repository.
    pub total_bytes: u64,
    /// The commits counted for `dedup_ratio`: 1 (HEAD), or all.
    pub counted_commits: u64,
    /// Bytes of the files of the counted commits, each time that a file occurs in one.
    pub counted_file_bytes: u64,
    /// Bytes of the different chunks in them.
    pub counted_chunk_bytes: u64,
    /// `counted_file_bytes` for each byte of `counted_chunk_bytes`.
    pub dedup_ratio: Option<f64>,
    /// `plain_bytes` for each byte of `stored_bytes`.
    pub compression_ratio: Option<f64>,
    /// Number of checkpoints.
    pub checkpoints: u64,
    /// Number of sessions.
    pub sessions: u64,
    /// Bytes that are in the journal until a layer takes them.
    pub pending_bytes: u64,
    /// The last few ten thousand operations in this repository, by name: how many, and how long they took.
    pub operations: BTreeMap<String, Latency>,
}

/// What a tree holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TreeCount {
    /// Regular files.
    pub files: u64,
    /// Symbolic links.
    pub links: u64,
    /// Folders, without the root.
    pub dirs: u64,
    /// Bytes of the files, holes included.
    pub bytes: u64,
}

/// Counts.
pub fn stats(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let objects = repo.objects();
    count_history(repo, &objects, options, monitor, &mut outcome)?;
    count_layers(&objects, &mut outcome)?;
    match repo.dir() {
        Some(dir) => count_disk(dir.as_ref(), &mut outcome)?,
        None => outcome.total_bytes = outcome.layer_bytes,
    }
    outcome.operations = BTreeMap::clone(&repo.measured().latencies());
    outcome.pending_bytes = objects.pending().stored_bytes();
    let ratio = |a: u64, b: u64| (b > 0).then(|| a as f64 / b as f64);
    outcome.dedup_ratio = ratio(outcome.counted_file_bytes, outcome.counted_chunk_bytes);
    outcome.compression_ratio = ratio(outcome.plain_bytes, outcome.stored_bytes);
    Ok(outcome)
}

fn count_history(
    repo: &Repository,
    objects: &ObjectStore,
    options: &Options,
    monitor: &dyn Monitor,
    outcome: &mut Outcome,
) -> Result<()> {
    let tips = {
        let state = repo.journal().read();
        outcome.branches = refs::list(&state, RefKind::Branch)?.len() as u64;
        outcome.checkpoints = checkpoints::numbers(&state)?.len() as u64;
        outcome.sessions = sessions::list(&state)?.len() as u64;
        outcome.tags = refs::list(&state, RefKind::Tag)?.len() as u64;
        refs::tips(&state)?
    };
    let mut counter = Counter::new(objects, monitor);
    if let Some(head) = repo.head_commit()? {
        outcome.head = counter.tree(&objects.commit(&head)?.tree)?;
        outcome.counted_file_bytes = outcome.head.bytes;
        outcome.counted_commits = 1;
    }
    let mut history = History::new(objects);
    for tip in tips {
        history.push(tip)?;
    }
    let mut file_bytes = 0;
    while let Some((_, commit)) = history.next()? {
        outcome.commits += 1;
        if options.all {
            file_bytes += counter.tree(&commit.tree)?.bytes;
        }
    }
    if options.all {
        outcome.counted_commits = outcome.commits;
        outcome.counted_file_bytes = file_bytes;
    }
    outcome.counted_chunk_bytes = counter.chunk_bytes;
    Ok(())
}

/// Counts trees; what was counted once is not read again.
struct Counter<'a> {
    objects: &'a ObjectStore,
    monitor: &'a dyn Monitor,
    trees: HashMap<TreeId, TreeCount>,
    recipes: HashSet<RecipeId>,
    chunks: HashSet<ChunkId>,
    chunk_bytes: u64,
}

impl<'a> Counter<'a> {
    fn new(objects: &'a ObjectStore, monitor: &'a dyn Monitor) -> Self {
        let (trees, recipes, chunks) = (HashMap::new(), HashSet::new(), HashSet::new());
        Self { objects, monitor, trees, recipes, chunks, chunk_bytes: 0 }
    }

    fn tree(&mut self, id: &TreeId) -> Result<TreeCount> {
        if let Some(known) = self.trees.get(id) {
            return Ok(*known);
        }
        if self.monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let mut count = TreeCount::default();
        for entry in self.objects.tree(id)?.entries() {
            match &entry.node {
                Node::Symlink { .. } => count.links += 1,
                Node::File { len, content } => {
                    count.files += 1;
                    count.bytes += len;
                    self.content(content, *len)?;
                }
                Node::Dir { tree } => {
                    let below = self.tree(tree)?;
                    count.dirs += 1 + below.dirs;
                    count.files += below.files;
                    count.links += below.links;
                    count.bytes += below.bytes;
                }
            }
        }
        self.trees.insert(*id, count);
        Ok(count)
    }

    fn content(&mut self, content: &Content, len: u64) -> Result<()> {
        if let Content::Recipe(id) = content
            && !self.recipes.insert(*id)
        {
            return Ok(());
        }
        let (chunks, chunk_bytes) = (&mut self.chunks, &mut self.chunk_bytes);
        self.objects.pieces(content, len, &mut |piece| {
            if let Piece::Chunk { id, len } = piece
                && chunks.insert(id)
            {
                *chunk_bytes += u64::from(len);
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn count_layers(objects: &ObjectStore, outcome: &mut Outcome) -> Result<()> {
    for number in 0..objects.layers().layers().len() as u32 {
        let reader = objects.layers().reader(number)?;
        outcome.layers += 1;
        outcome.blocks += u64::from(reader.footer().block_count);
        outcome.plain_bytes += reader.footer().raw_bytes;
        outcome.table_bytes += reader.footer().tables_len();
        outcome.layer_bytes += reader.file_len();
        for block in 0..reader.footer().block_count {
            outcome.stored_bytes += u64::from(reader.block(block)?.stored_len);
        }
        for place in reader.stored_objects()?.iter().map(|object| object.place) {
            let kind = outcome.objects.entry(place.kind.to_string()).or_default();
            kind.count += 1;
            kind.plain_bytes += u64::from(place.len);
        }
    }
    Ok(())
}

fn count_disk(dir: &dyn Dir, outcome: &mut Outcome) -> Result<()> {
    outcome.total_bytes = files_len(dir)?;
    for item in dir.list().on("list", dir.path())? {
        if item.kind != FileKind::Dir {
            continue;
        }
        let sub = dir.open_dir(&item.name).on("open", dir.path().join(&item.name))?;
        let len = files_len(sub.as_ref())?;
        outcome.total_bytes += len;
        let known = [("journal", &mut outcome.journal_bytes), ("index", &mut outcome.index_bytes)];
        for (_, slot) in known.into_iter().filter(|(name, _)| item.name == OsStr::new(name)) {
            *slot = len;
        }
    }
    Ok(())
}

/// Bytes of the files directly in a folder.
fn files_len(dir: &dyn Dir) -> Result<u64> {
    let mut sum = 0;
    for item in dir.list().on("list", dir.path())? {
        if item.kind == FileKind::File {
            let stat = dir.stat(&item.name).on("look at", dir.path().join(&item.name))?;
            sum += stat.map_or(0, |stat| stat.len);
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monitor::Silent;
    use crate::ops::testing::{TestRepo, What, file};
    use crate::transform::chunker::tests::noise;

    #[test]
    fn an_empty_repository_counts_nothing() {
        for repo in [TestRepo::in_memory(), TestRepo::on_disk()] {
            let found = stats(&repo, &Options { all: true }, &Silent).unwrap();
            assert_eq!((found.commits, found.layers, found.dedup_ratio, found.compression_ratio), (0, 0, None, None));
        }
    }

    #[test]
    fn figures_are_counted() {
        let repo = TestRepo::on_disk();
        let big = noise(1, 10_000);
        let files = [("d/a", file(&big)), ("d/b", file(&big)), ("l", What::Link(b"x".to_vec())), ("z", file(""))];
        repo.commit(&files, "one");
        repo.commit(&[&files[..], &[("new", file("12345"))]].concat(), "two");
        let found = stats(&repo, &Options::default(), &Silent).unwrap();
        assert_eq!(found.head, TreeCount { files: 4, links: 1, dirs: 1, bytes: 20_005 });
        assert_eq!((found.commits, found.branches, found.tags, found.layers), (2, 1, 0, 2));
        assert_eq!((found.counted_file_bytes, found.counted_chunk_bytes), (20_005, 10_005));
        let sum = found.stored_bytes + found.table_bytes + found.layers * (32 + 152);
        assert_eq!(sum, found.layer_bytes);
        assert!(found.journal_bytes > 0 && found.total_bytes > found.layer_bytes + found.journal_bytes);
        assert_eq!(found.objects["commit"].count, 2);
        let all = stats(&repo, &Options { all: true }, &Silent).unwrap();
        assert_eq!((all.counted_commits, all.counted_file_bytes, all.counted_chunk_bytes), (2, 40_005, 10_005));
    }
}
