//! Storing the work tree, or a sparse bundle in it, as it is on disk, whoever wrote it, without touching what is staged.
//!
//! Staging and the area's table together say what it was when it was last stored. A file that looks as it did is taken
//! over by its entry; what does not is read. If there is a base, the tree of that moment, only folders with changes are
//! made anew.
//!
//! Bands belong together: a bundle is stored as it was at one moment, or not at all.

mod find;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use serde::Serialize;

use self::find::{Finder, Now, Row, file_entry, settle};
pub use self::find::{nothing, record};
use super::ingest::{self, Sink, Source, ingest_part};
use super::moved::{Gone, Lost};
use super::scan::{bundle_held_still, list_bundle, walk_along, walk_bundle};
use super::status::is_version;
use super::worklist::Worklist;
use super::{Error, Result, commit};
use crate::base::clock;
use crate::base::disk::FileKind;
use crate::base::monitor::Monitor;
use crate::format::object::encode_tree;
use crate::model::checkpoint::Area;
use crate::model::id::TreeId;
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::model::staging::{SeenStat, StagedEntry, grain_ends};
use crate::model::tree::Tree;
use crate::repo::{Repository, trees};
use crate::store::checkpoints;
use crate::store::journal::Batch;
use crate::store::journal::State;
use crate::store::staging::{Encoded, Packed};
use crate::store::{staging, worktable};
use crate::world::bundle::{BandPaths, Listing};
use crate::world::dirs::Folders;
use crate::world::walk::{Found, WalkEntry};

/// How a path differs from when the work tree was last stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there.
    Added,
    /// Other content, kind or mode.
    Modified,
    /// It is not there any more.
    Removed,
}

/// Paths that differ, how, and what they are now, in tree order. There may be a million of them.
#[derive(Debug, Default)]
pub struct Changed {
    entries: Packed,
    changes: Vec<Change>,
}

impl Changed {
    fn push(&mut self, path: &RepoPath, entry: &StagedEntry, change: Change) {
        self.entries.push(path, entry);
        self.changes.push(change);
    }

    fn copy(&mut self, entry: Encoded<'_>, change: Change) {
        self.entries.copy(entry);
        self.changes.push(change);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = (Encoded<'_>, Change)> {
        self.entries.entries().zip(self.changes.iter().copied())
    }

    /// Those that differ in one way.
    pub fn paths(&self, wanted: Change) -> Result<Vec<RepoPath>> {
        let wanted = self.iter().filter(|(_, change)| *change == wanted);
        Ok(wanted.map(|(entry, _)| entry.path()).collect::<std::result::Result<_, _>>()?)
    }
}

/// What to store.
#[derive(Debug, Clone, Copy)]
pub struct What<'a> {
    /// All of the work tree, or a bundle in it.
    pub area: &'a Area,
    /// Read every file, however it looks.
    pub paranoid: bool,
    /// Paths that are stored too, though they are ignored.
    pub also: &'a [RepoPath],
}

impl<'a> What<'a> {
    /// All of an area that is not ignored.
    pub fn of(area: &'a Area) -> Self {
        Self { area, paranoid: false, also: &[] }
    }
}

/// An area, stored.
#[derive(Debug)]
pub struct Capture {
    /// Its tree, from the root of the work tree.
    pub tree: TreeId,
    /// The tree that it was last stored as, if it ever was.
    pub before: Option<TreeId>,
    /// What differs from that; everything, if there is none.
    pub changed: Changed,
    /// Paths that look as they did.
    pub unchanged: u64,
    /// Paths that could not be read. They are in the tree as they were last stored, if they were.
    pub unreadable: Vec<RepoPath>,
    /// Names that can be nothing's, so what has them is in no tree.
    pub left_out: usize,
    /// Why not, and what else is to be said; one sentence each.
    pub problems: Vec<String>,
    /// Devices, sockets and pipes, which cannot be stored.
    pub special_files: u64,
    /// What is in a bundle's folder and belongs to no bundle. It is not stored.
    pub foreign: Vec<String>,
    /// Unfinished files of stopped processes. They are not stored.
    pub leftovers: Vec<(RepoPath, FileKind)>,
    /// How long it took.
    pub times: Times,
    /// What to record about the looks of files, once the tree is committed.
    pub ops: Batch,
}

impl Capture {
    /// How much there is that was not read.
    pub fn not_read(&self) -> u64 {
        (self.unreadable.len() + self.left_out) as u64
    }
}

/// Where the time of a checkpoint went, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// Listing and looking at files, and finding out which ones to read.
    pub look_ns: u64,
    /// Waiting until a further change of a bundle would show in its times.
    pub wait_ns: u64,
    /// Reading, cutting and hashing files, and finding out which chunks are new.
    pub read_ns: u64,
    /// Compressing what is new, and sealing layers if it is much.
    pub store_ns: u64,
    /// The record in the journal, durable in strict mode.
    pub record_ns: u64,
}

/// The time since `start`, in nanoseconds; `start` is now.
pub fn lap(start: &mut Instant) -> u64 {
    let now = Instant::now();
    let passed = now.duration_since(std::mem::replace(start, now));
    u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
}

/// A bundle that changes while it is read is read again this often before that is reported.
const ATTEMPTS: usize = 3;

/// Stores an area's content in `sink`.
pub fn capture(repo: &Repository, sink: &mut Sink<'_>, what: What<'_>, monitor: &dyn Monitor) -> Result<Capture> {
    let tell = |problems: &[String]| problems.iter().for_each(|problem| monitor.problem(problem));
    let (mut read, mut times, mut start) = (HashMap::new(), Times::default(), Instant::now());
    let Area::Bundle(path) = what.area else {
        monitor.begin("looking for changes", None, None);
        let state = repo.journal().read();
        let looked = walk_along(repo, &state, &Scopes::everything(), false, true, monitor, |found| {
            look(repo, &state, what, found, &read)
        })?;
        drop(state);
        times.look_ns += lap(&mut start);
        let captured = store(repo, sink, what.area, looked, &mut read, &mut times, monitor)?;
        tell(&captured.problems);
        return Ok(Capture { times, ..captured });
    };
    let mut problems = Vec::new();
    for _ in 0..ATTEMPTS {
        start = Instant::now();
        let mut before = list_bundle(repo, path)?;
        times.look_ns += lap(&mut start);
        if let Some(rest) = rest_of_grain(&before) {
            std::thread::sleep(rest);
            times.wait_ns += lap(&mut start);
            before = list_bundle(repo, path)?;
            times.look_ns += lap(&mut start);
            if rest_of_grain(&before).is_some() {
                continue;
            }
        }
        let (walked, foreign) = walk_bundle(repo, path, &before)?;
        let looked = look(repo, &repo.journal().read(), what, &mut walked.into(), &read)?;
        times.look_ns += lap(&mut start);
        let captured = store(repo, sink, what.area, looked, &mut read, &mut times, monitor)?;
        if captured.changed.is_empty() && captured.unreadable.is_empty() && read.is_empty() {
            // Everything was as it was last stored when the first look began.
            tell(&captured.problems);
            return Ok(Capture { foreign, times, ..captured });
        }
        start = Instant::now();
        // What was read at different times is one state only if nothing changed between the first look and the last.
        let held_still = bundle_held_still(repo, path, &before)?;
        times.look_ns += lap(&mut start);
        if held_still && captured.unreadable.is_empty() {
            tell(&captured.problems);
            return Ok(Capture { foreign, times, ..captured });
        }
        problems = if held_still { captured.problems } else { Vec::new() };
    }
    if problems.is_empty() {
        return Err(Error::KeptChanging(path.clone()));
    }
    tell(&problems);
    let message = format!("the bundle '{path}' could not be read as a whole; nothing was recorded");
    Err(Error::Refused { message, hint: "a bundle is recorded whole or not at all; see what is said above" })
}

/// How long it takes until a further change of what changed last would show in its times; `None` if it would by now.
fn rest_of_grain(listing: &Listing) -> Option<Duration> {
    let now = clock::now();
    let (bands, frame) = (listing.bands.iter().map(|(_, stat)| stat), listing.frame.iter().map(|(_, stat)| stat));
    let end = bands.chain(frame).chain(&listing.folder).filter_map(|stat| grain_ends(stat, now)).max()?;
    Some(Duration::from_nanos(end.abs_diff(now) + 1))
}

/// After so many entries that were looked up, the pages of the journal that they lie in are given back: a few megabytes.
const LOOKED_UP_AT_ONCE: usize = 8 << 10;

/// The first of some files and links that does not look as it did when the work tree was last stored. What could not be read does not
/// count.
pub fn first_unstored(repo: &Repository, paths: &[RepoPath], unreadable: &[RepoPath]) -> Result<Option<RepoPath>> {
    let state = repo.journal().read();
    let mut folders = Folders::new(Arc::clone(repo.work()));
    for (number, path) in paths.iter().enumerate() {
        if number % LOOKED_UP_AT_ONCE == 0 {
            state.pass_all();
        }
        let now = folders.stat(path).unwrap_or(None);
        let Some(now) = now.filter(|now| matches!(now.kind, FileKind::File | FileKind::Symlink)) else { continue };
        let row = worktable::get(&state, &Area::WorkTree, path)?;
        let stored = row.map_or_else(|| staging::get(&state, path), |row| Ok(Some(row)))?;
        if !stored.is_some_and(|stored| stored.seen == SeenStat::from(&now)) && !unreadable.contains(path) {
            return Ok(Some(path.clone()));
        }
    }
    state.pass_all();
    Ok(None)
}

/// What was found by looking only.
struct Looked {
    /// The tree that the area was last stored as, if staging and the area's table say so.
    base: Option<TreeId>,
    rows: Worklist<Box<Row>>,
    /// The files among what is gone.
    lost: Vec<Lost>,
    capture: Capture,
}

/// Finds out what of the area is not as it was last stored. `read` has what was read already.
fn look(
    repo: &Repository,
    state: &State,
    what: What<'_>,
    found: &mut Found,
    read: &HashMap<RepoPath, StagedEntry>,
) -> Result<Looked> {
    let What { area, paranoid, also } = what;
    let base = worktable::base(state, area)?;
    let before = base.map_or_else(|| last_tree(state, area), |base| Ok(Some(base)))?;
    found.and(left_out(repo, also));
    let mut finder = Finder {
        area,
        paranoid,
        read,
        folders: Folders::new(Arc::clone(repo.work())),
        all: base.is_none(),
        rows: Worklist::default(),
        lost: Vec::new(),
        capture: Capture {
            tree: before.unwrap_or(TreeId::from_digest([0; 32])),
            before,
            changed: Changed::default(),
            unchanged: 0,
            unreadable: Vec::new(),
            left_out: 0,
            problems: Vec::new(),
            special_files: 0,
            foreign: Vec::new(),
            leftovers: Vec::new(),
            times: Times::default(),
            ops: repo.batch(),
        },
    };
    finder.find(state, found)?;
    let Finder { rows, lost, mut capture, .. } = finder;
    capture.problems.extend(found.beside.problems().cloned());
    capture.left_out = found.beside.left_out.len();
    capture.unreadable.extend(found.beside.unreadable.drain(..).map(|(path, _)| path));
    capture.leftovers.append(&mut found.beside.leftovers);
    capture.ops.extend(std::mem::take(&mut found.beside.listed));
    Ok(Looked { base, rows, lost, capture })
}

/// Stores what was found. `read` gets what is read.
fn store(
    repo: &Repository,
    sink: &mut Sink<'_>,
    area: &Area,
    mut looked: Looked,
    read: &mut HashMap<RepoPath, StagedEntry>,
    times: &mut Times,
    monitor: &dyn Monitor,
) -> Result<Capture> {
    let mut start = Instant::now();
    monitor.end();
    if monitor.cancelled() {
        return Err(Error::Interrupted);
    }
    if looked.rows.is_empty() && looked.base.is_some() {
        return Ok(looked.capture);
    }
    let settled = settle_all(repo, sink, area, &mut looked, read, monitor);
    monitor.end();
    settled?;
    let Looked { base, mut capture, .. } = looked;
    let before = capture.before;
    let old = before.map_or_else(|| Ok(Arc::default()), |id| repo.objects().tree(&id))?;
    if base.is_none() && before.is_some() {
        capture.changed = differing(repo, area, &old, &capture.changed)?;
    }
    if capture.changed.is_empty() && before.is_none() {
        capture.tree = commit::add_tree(sink, &Tree::default(), None)?;
    } else if !capture.changed.is_empty() {
        let id = before.unwrap_or_else(|| encode_tree(&old).0);
        let store: &mut commit::StoreTree<'_> = &mut |tree, older| commit::add_tree(sink, tree, older);
        capture.tree = commit::build(repo, store, (id, &old), capture.changed.entries.entries())?;
    }
    if base != Some(capture.tree) {
        capture.ops.push(worktable::base_op(area, &capture.tree));
    }
    times.read_ns += lap(&mut start);
    Ok(capture)
}

/// Reads what has to be read, no more files at a time than the settings say, and settles what each path is now.
fn settle_all(
    repo: &Repository,
    sink: &mut Sink<'_>,
    area: &Area,
    looked: &mut Looked,
    read: &mut HashMap<RepoPath, StagedEntry>,
    monitor: &dyn Monitor,
) -> Result<()> {
    let (rows, all) = (std::mem::take(&mut looked.rows), looked.base.is_none());
    let gone = Gone::from(std::mem::take(&mut looked.lost));
    let len = |row: &Row| if let Now::Read(len) = row.now { Some(len) } else { None };
    ingest::begin(monitor, rows.file_lens());
    let at_once = repo.settings().paths_at_once;
    let in_parts = rows.len() > at_once;
    let mut parts = rows.into_parts(at_once);
    let mut bands = BandPaths::new(repo.work());
    while let Some(part) = parts.next()? {
        if in_parts {
            repo.give_back();
        }
        let state = repo.journal().read();
        let rows = part.into_iter().map(|work| Row::found(&state, area, work)).collect::<Result<Vec<_>>>()?;
        drop(state);
        let mut source = |row: &Row| {
            let source = Source::new(row.path.clone(), len(row)?, row.old.as_deref(), &mut bands);
            Some(source.or_like(&gone))
        };
        let sources: Vec<Source> = rows.iter().filter_map(&mut source).collect();
        let mut contents = match sources.is_empty() {
            true => Vec::new(),
            false => ingest_part(repo, &Arc::new(sources), sink, monitor)?.files,
        }
        .into_iter();
        for row in rows {
            let content = if matches!(row.now, Now::Read(_)) { contents.next() } else { None };
            if let (Area::Bundle(_), Some(Ok(captured))) = (area, &content) {
                read.insert(row.path.clone(), file_entry(captured));
            }
            settle(area, row, content, all, &mut looked.capture)?;
        }
    }
    drop(parts);
    if in_parts {
        repo.give_back();
    }
    Ok(())
}

/// The tree of the checkpoint that the area was last equal to.
fn last_tree(state: &State, area: &Area) -> Result<Option<TreeId>> {
    let Some(number) = worktable::parent(state, area)? else { return Ok(None) };
    Ok(checkpoints::get(state, number)?.and_then(|checkpoint| checkpoint.tree()))
}

/// What of all entries differs from a tree, and what is in the tree and not among them.
fn differing(repo: &Repository, area: &Area, old: &Arc<Tree>, all: &Changed) -> Result<Changed> {
    let mut changed = Changed::default();
    let root = area.root();
    let mut all = all.entries.entries().peekable();
    for entry in trees::Entries::new(repo.objects(), Arc::clone(old)) {
        let (path, entry) = entry?;
        while let Some(new) = all.next_if(|new| new.cmp_path(&path).is_lt()) {
            changed.copy(new, Change::Added);
        }
        match all.next_if(|new| new.cmp_path(&path).is_eq()) {
            Some(new) if is_version(&entry, &new.decode()?) => {}
            Some(new) => changed.copy(new, Change::Modified),
            // Folders that lead to a bundle are no part of it.
            None if !path.is_within(&root) => {}
            None => changed.push(&path, &nothing(), Change::Removed),
        }
    }
    all.for_each(|new| changed.copy(new, Change::Added));
    Ok(changed)
}

/// The paths `also`, which the walk leaves out, as they are on disk.
fn left_out(repo: &Repository, also: &[RepoPath]) -> Vec<WalkEntry> {
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let found = also.iter().filter_map(|path| Some(WalkEntry { path: path.clone(), stat: folders.stat(path).ok()?? }));
    let mut found: Vec<WalkEntry> = found.collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    found
}
