//! What of an area is as it was when it was last stored, and what becomes of what is not.

use hashbrown::HashMap;

use super::{Capture, Change};
use crate::base::clock;
use crate::base::disk::{FileKind, Stat};
use crate::format::journal::Op;
use crate::model::checkpoint::Area;
use crate::model::path::RepoPath;
use crate::model::staging::{SeenStat, StagedEntry, StagedNode, is_racy};
use crate::model::tree::Meta;
use crate::ops::Result;
use crate::ops::ingest::Captured;
use crate::ops::moved::Lost;
use crate::ops::worklist::{Work, Worklist};
use crate::store::journal::State;
use crate::store::staging::{self, Encoded};
use crate::store::{folders, worktable};
use crate::world::dirs::Folders;
use crate::world::walk::{Found, WalkEntry};

/// A path that is not plainly as it was, or, without a base, any path.
pub struct Row {
    pub path: RepoPath,
    /// What it was when last stored.
    pub old: Option<Box<StagedEntry>>,
    /// What the work table says; kept while it is right.
    pub work: Option<Box<StagedEntry>>,
    /// What staging says, if it is not a removal.
    pub staged: Option<Box<StagedEntry>>,
    pub now: Now,
}

impl Row {
    /// A row as it was found. What is recorded of a path that is as it was or gone, or of a file to be read, is looked up
    /// again: it takes ten times as much memory as the path.
    pub fn found(state: &State, area: &Area, work: Work<Box<Self>>) -> Result<Self> {
        let (path, len, is_gone) = match work {
            Work::Other(row) => return Ok(*row),
            Work::Plain(path, len) => (path, len, false),
            Work::Gone(path) => (path, None, true),
        };
        let work = worktable::get(state, area, &path)?.map(Box::new);
        let staged = staging::get(state, &path)?.filter(|entry| entry.node != StagedNode::Deleted).map(Box::new);
        let old = stored(area, work.as_deref(), staged.as_deref()).cloned().map(Box::new);
        let now = match (len, &old) {
            (Some(len), _) => Now::Read(len),
            (None, Some(old)) if !is_gone => Now::Known(old.clone()),
            (None, _) => Now::Gone,
        };
        Ok(Self { path, old, work, staged, now })
    }
}

/// What a path was when the area was last stored.
fn stored<'a>(area: &Area, work: Option<&'a StagedEntry>, staged: Option<&'a StagedEntry>) -> Option<&'a StagedEntry> {
    let beside = staged.filter(|_| *area == Area::WorkTree);
    work.or(beside).filter(|entry| entry.node != StagedNode::Deleted)
}

/// What a path is now.
pub enum Now {
    /// Known by its looks.
    Known(Box<StagedEntry>),
    /// A file of this length, to be read.
    Read(u64),
    /// A link or folder.
    Node(Box<(StagedNode, Stat)>),
    /// Nothing.
    Gone,
    /// It cannot be looked at.
    Unreadable,
}

/// Goes through disk, work table and staging together.
pub struct Finder<'a> {
    pub area: &'a Area,
    pub paranoid: bool,
    /// What was read in an earlier attempt.
    pub read: &'a HashMap<RepoPath, StagedEntry>,
    pub folders: Folders,
    pub all: bool,
    pub rows: Worklist<Box<Row>>,
    pub lost: Vec<Lost>,
    pub capture: Capture,
}

impl Finder<'_> {
    /// Fills `rows` and `capture`, given what is on disk in tree order.
    pub fn find(&mut self, state: &State, found: &mut Found) -> Result<()> {
        let mut all_work = worktable::entries(state, self.area)?;
        let mut all_staged = staging::entries_below(state, &self.area.root())?;
        let (mut work, mut staged) = (all_work.next_encoded()?, all_staged.next_encoded()?);
        loop {
            // The lower of the two recorded entries, or both if they are of one path.
            let order = match (&work, &staged) {
                (Some(work), Some(staged)) => work.cmp_entry(staged),
                (Some(_), None) => std::cmp::Ordering::Less,
                _ => std::cmp::Ordering::Greater,
            };
            let recorded = if order.is_lt() { work } else { staged };
            let beside = match (recorded, found.peek()) {
                (None, None) => return Ok(()),
                (Some(recorded), Some(found)) => recorded.cmp_path(&found.path),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
            };
            let disk = if beside.is_ge() { found.pop() } else { None };
            let (mut in_table, mut in_staging) = (None, None);
            if beside.is_le() && order.is_le() {
                in_table = std::mem::replace(&mut work, all_work.next_encoded()?);
            }
            if beside.is_le() && order.is_ge() {
                in_staging = std::mem::replace(&mut staged, all_staged.next_encoded()?);
            }
            self.look(in_table, in_staging, disk, found)?;
        }
    }

    fn look(
        &mut self,
        work: Option<Encoded<'_>>,
        staged: Option<Encoded<'_>>,
        disk: Option<WalkEntry>,
        found: &Found,
    ) -> Result<()> {
        let path = |disk: Option<WalkEntry>| match (disk, &work, &staged) {
            (Some(found), ..) => Ok(found.path),
            (None, Some(entry), _) | (None, None, Some(entry)) => entry.path(),
            (None, None, None) => Ok(RepoPath::root()),
        };
        let stat = disk.as_ref().map(|found| found.stat);
        let work_entry = work.map(|entry| entry.decode()).transpose()?.map(Box::new);
        let staged_entry = staged.map(|entry| entry.decode()).transpose()?;
        let staged_entry = staged_entry.filter(|entry| entry.node != StagedNode::Deleted).map(Box::new);
        let stored = stored(self.area, work_entry.as_deref(), staged_entry.as_deref());
        let proves = |entry: &StagedEntry, stat: &Stat| {
            !(self.paranoid && stat.kind == FileKind::File) && entry.looks_like(stat)
        };
        if let (Some(stored), Some(stat)) = (stored, &stat)
            && proves(stored, stat)
        {
            self.capture.unchanged += 1;
            if self.all {
                self.rows.push_plain(&path(disk)?, None);
            }
            return Ok(());
        }
        if stored.is_none() && stat.is_none() {
            return Ok(());
        }
        let (old, path) = (stored.cloned().map(Box::new), path(disk)?);
        let now = match stat {
            None if found.hides(&path) => Now::Unreadable,
            None => Now::Gone,
            Some(stat) => match (self.read.get(&path), &staged_entry) {
                (Some(read), _) if read.looks_like(&stat) => Now::Known(Box::new(read.clone())),
                (_, Some(staged)) if proves(staged, &stat) => Now::Known(staged.clone()),
                _ => self.kind_now(&path, stat),
            },
        };
        match now {
            Now::Read(len) => self.rows.push_plain(&path, Some(len)),
            Now::Gone => {
                self.lost.extend(Lost::new(&path, old.as_deref()));
                self.rows.push_gone(&path);
            }
            now => self.rows.push(Box::new(Row { path, old, work: work_entry, staged: staged_entry, now })),
        }
        Ok(())
    }

    fn kind_now(&mut self, path: &RepoPath, stat: Stat) -> Now {
        match stat.kind {
            FileKind::File => Now::Read(stat.len),
            FileKind::Dir => Now::Node(Box::new((StagedNode::Dir, stat))),
            FileKind::Symlink => match self.folders.read_link(path) {
                Ok(target) => Now::Node(Box::new((StagedNode::Symlink { target }, stat))),
                Err(error) => {
                    self.capture.problems.push(format!("cannot read the link {path}: {error}"));
                    self.capture.unreadable.push(path.clone());
                    Now::Unreadable
                }
            },
            FileKind::Other => {
                self.capture.special_files += 1;
                Now::Gone
            }
        }
    }
}

fn entry(node: StagedNode, stat: &Stat, racy: bool) -> StagedEntry {
    let meta = Meta { mode: stat.mode, mtime_ns: stat.mtime_ns };
    StagedEntry { node, meta, seen: SeenStat::from(stat), racy, generation: 0 }
}

/// A file that was read.
pub fn file_entry(captured: &Captured) -> StagedEntry {
    let Captured { content, stat, racy, .. } = captured;
    entry(StagedNode::File { len: stat.len, content: *content }, stat, *racy)
}

/// What a path is in the new tree, and what is recorded of it.
pub fn settle(
    area: &Area,
    row: Row,
    read: Option<std::result::Result<Captured, String>>,
    all: bool,
    capture: &mut Capture,
) -> Result<()> {
    let Row { path, old, work, staged, now } = row;
    let new = match (now, read) {
        (Now::Known(entry), _) => Some(*entry),
        (Now::Node(node), _) => {
            let (node, stat) = *node;
            Some(entry(node, &stat, is_racy(&stat, clock::now())))
        }
        (_, Some(Ok(captured))) => Some(file_entry(&captured)),
        (_, Some(Err(why))) => {
            capture.problems.push(why);
            capture.unreadable.push(path.clone());
            old.as_deref().cloned()
        }
        (Now::Unreadable | Now::Read(_), None) => old.as_deref().cloned(),
        (Now::Gone, None) => None,
    };
    // Where only times differ, the recorded time stays: it is that of the content.
    let new = new.map(|new| match &old {
        Some(old) if old.same_version(&new) => StagedEntry { meta: Meta { mode: new.meta.mode, ..old.meta }, ..new },
        _ => new,
    });
    let was_folder = old.as_ref().is_some_and(|old| old.node == StagedNode::Dir);
    if was_folder && new.as_ref().is_none_or(|new| new.node != StagedNode::Dir) {
        capture.ops.push(folders::delete_op(&path));
    }
    if let Some(op) = record(area, &path, new.as_ref(), work.as_deref(), staged.as_deref()) {
        capture.ops.record(op)?;
    }
    let change = match (old.as_deref(), &new) {
        (None, None) => None,
        (_, None) if all => None,
        (Some(_), None) => Some(Change::Removed),
        (None, Some(_)) => Some(Change::Added),
        (Some(_), Some(_)) if all => Some(Change::Added),
        (Some(old), Some(new)) if old.same_version(new) => None,
        (Some(_), Some(_)) => Some(Change::Modified),
    };
    if let Some(change) = change {
        capture.changed.push(&path, &new.unwrap_or_else(nothing), change);
    }
    Ok(())
}

/// The entry of a path at which nothing is.
pub fn nothing() -> StagedEntry {
    let meta = Meta { mode: 0, mtime_ns: 0 };
    StagedEntry { node: StagedNode::Deleted, meta, seen: SeenStat::default(), racy: false, generation: 0 }
}

/// What the area's table has to say of a path: nothing where staging is right, or of a bundle where nothing is.
pub fn record(
    area: &Area,
    path: &RepoPath,
    new: Option<&StagedEntry>,
    work: Option<&StagedEntry>,
    staged: Option<&StagedEntry>,
) -> Option<Op> {
    let staged = staged.filter(|_| *area == Area::WorkTree);
    let right = match (new, staged) {
        (None, None) => true,
        (Some(new), Some(staged)) => {
            staged.same_version(new) && (new.node == StagedNode::Dir || staged.seen == new.seen && !staged.racy)
        }
        _ => false,
    };
    if right {
        return work.map(|_| worktable::delete_op(area, path));
    }
    let wanted = match new {
        Some(new) => StagedEntry { generation: 0, ..new.clone() },
        None => nothing(),
    };
    (work != Some(&wanted)).then(|| worktable::put_op(area, path, &wanted))
}
