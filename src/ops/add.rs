//! `add`: store content as it is now, and stage it for the next commit.

use std::sync::Arc;

use hashbrown::HashSet;
use serde::Serialize;

use super::compare::{WorkChange, work_changes};
use super::gc::merge;
use super::ingest::{self, Captured, IngestStats, Sink, Source, ingest_part};
use super::moved::{Gone, Lost};
use super::scan::{Pair, pair, walk_along};
use super::worklist::{Work, Worklist};
use super::{Error, Result};
use crate::base::clock;
use crate::base::disk::{FileKind, Stat};
use crate::base::monitor::Monitor;
use crate::format::journal::Op;
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::model::staging::{SeenStat, StagedEntry, StagedNode, is_racy};
use crate::model::tree::{Meta, Tree};
use crate::repo::{Repository, WriteLock, trees};
use crate::store::journal::{Batch, State};
use crate::store::{refs, staging};
use crate::world::bundle::BandPaths;
use crate::world::dirs::Folders;

/// What to add.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Paths and all below them. The root stands for everything.
    pub paths: Vec<RepoPath>,
    /// Look only, and say what would be done.
    pub dry_run: bool,
    /// Ignored paths too.
    pub force: bool,
    /// Only what is tracked already, as `commit -a` does.
    pub tracked_only: bool,
}

/// What was staged.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// New files, links and folders.
    pub added: Vec<RepoPath>,
    /// Tracked ones with other content, mode or kind.
    pub modified: Vec<RepoPath>,
    /// Tracked ones that are gone.
    pub deleted: Vec<RepoPath>,
    /// Tracked files that look exactly as when they were recorded; they were not opened.
    pub unchanged: u64,
    /// Work done.
    pub ingest: IngestStats,
    /// Paths that could not be read; the rest was staged.
    pub unreadable: u64,
    /// Devices, sockets and pipes, which cannot be stored.
    pub special_files: u64,
    /// Files with further hard links, each stored as a file of its own.
    pub hard_links: u64,
    /// Files whose extended attributes are not kept.
    pub extended_attributes: u64,
    /// Was this a look only?
    pub dry_run: bool,
}

/// Paths that do not look as they were recorded.
#[derive(Default)]
struct Changes {
    /// Paths at which nothing is any more, and what was recorded. They come first: what is recorded first may be all that is, and a
    /// file must not stand above what was in a folder of its name.
    gone: Vec<(RepoPath, StagedEntry)>,
    /// The others.
    found: Worklist<Box<Known>>,
}

/// A link or folder that does not look as it was recorded: known without reading content.
struct Known {
    path: RepoPath,
    node: StagedNode,
    stat: Stat,
}

/// Stages what the paths hold now.
pub fn add(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("add");
    if options.dry_run {
        return preview(repo, options, monitor);
    }
    let lock = repo.lock("add")?;
    let outcome = stage(repo, &lock, options, monitor)?;
    if outcome.ingest.stored_bytes > 0 {
        merge::maintain(repo, &lock, monitor);
    }
    Ok(outcome)
}

/// Finds, stores and records changes.
///
/// Of more changes than fit in memory, some are recorded before the next are read; what is recorded stays if that fails.
pub fn stage(repo: &Repository, lock: &WriteLock, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let (changes, listed) = find_changes(repo, options, &mut outcome, monitor)?;
    let lost = changes.gone.iter().filter_map(|(path, staged)| Lost::new(path, Some(staged)));
    let gone = Gone::from(lost.collect::<Vec<_>>());
    let head = repo.root_tree(repo.head_commit()?.as_ref())?;
    let generation = refs::generation(&repo.journal().read())? + 1;
    let bands = BandPaths::new(repo.work());
    let mut staging = Staging { repo, head: &head, generation, bands, gone, ops: listed.into(), outcome };
    ingest::begin(monitor, changes.found.file_lens());
    let staged = staging.store_all(lock, changes, monitor);
    monitor.end();
    staged?;
    Ok(staging.outcome)
}

/// What would be staged. What only looks different is read, and is not among it.
fn preview(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let mut outcome = Outcome { dry_run: true, ..Outcome::default() };
    let (changes, _) = find_changes(repo, options, &mut outcome, monitor)?;
    let state = repo.journal().read();
    outcome.deleted.extend(changes.gone.into_iter().map(|(path, _)| path));
    let (mut parts, mut tracked) = (changes.found.into_parts(usize::MAX), Vec::new());
    let mut folders = Folders::new(Arc::clone(repo.work()));
    for work in parts.next()?.into_iter().flatten() {
        let path = match work {
            Work::Plain(path, _) => path,
            Work::Other(known) => known.path,
            Work::Gone(path) => {
                outcome.deleted.push(path);
                continue;
            }
        };
        let staged = staging::get(&state, &path)?.filter(|entry| entry.node != StagedNode::Deleted);
        if staged.is_none() {
            outcome.added.push(path);
            continue;
        }
        let disk = folders.stat(&path).unwrap_or(None);
        tracked.push(Pair { path, staged, deleted: false, disk });
    }
    for (pair, change) in tracked.iter().zip(work_changes(repo, &tracked, monitor)) {
        match change {
            WorkChange::Same => outcome.unchanged += 1,
            WorkChange::Unreadable => outcome.unreadable += 1,
            _ => outcome.modified.push(pair.path.clone()),
        }
    }
    Ok(outcome)
}

/// Everything in scope that does not look as it was recorded.
fn find_changes(
    repo: &Repository,
    options: &Options,
    outcome: &mut Outcome,
    monitor: &dyn Monitor,
) -> Result<(Changes, Vec<Op>)> {
    let state = repo.journal().read();
    monitor.begin("looking for changes", None, None);
    let scopes = Scopes::new(&options.paths);
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let mut not_found: HashSet<&RepoPath> = options.paths.iter().filter(|path| !path.is_root()).collect();
    let mut changes = Changes::default();
    let listed = walk_along(repo, &state, &scopes, options.force, !options.dry_run, monitor, |found| {
        let paired = pair(&state, found, &scopes, &mut |pair| {
            if pair.disk.is_some() {
                not_found.remove(&pair.path);
            }
            let is_new = pair.staged.is_none();
            let is_folder = |pair: &Pair| pair.disk.is_some_and(|disk| disk.kind == FileKind::Dir);
            let known_as_folder =
                |pair: &Pair| pair.staged.as_ref().is_some_and(|staged| staged.node == StagedNode::Dir);
            let wanted = match scopes.contains(&pair.path) {
                true => !(options.tracked_only && is_new),
                // Folders above a named path are recorded with it, so that their modes are known, and no file stays in their place.
                false => is_folder(&pair) && !known_as_folder(&pair) && !options.tracked_only,
            };
            if wanted {
                changes.sort_out(pair, &mut folders, outcome, monitor);
            }
            Ok(())
        });
        found.beside.left_out.iter().chain(&found.beside.remarks).for_each(|problem| monitor.problem(problem));
        outcome.unreadable += found.beside.left_out.len() as u64;
        for (path, problem) in &found.beside.unreadable {
            if scopes.contains(path) || scopes.lead_below(path) {
                monitor.problem(problem);
                outcome.unreadable += 1;
            }
        }
        paired?;
        not_found.retain(|path| !found.hides(path));
        Ok(std::mem::take(&mut found.beside.listed))
    })?;
    for path in options.paths.iter().filter(|path| not_found.contains(path)) {
        if !staging::is_known(&state, path)? {
            return Err(match folders.stat(path) {
                Ok(Some(_)) => Error::Ignored(path.clone()),
                _ => Error::NoSuchPath { path: path.clone(), place: "in the work tree".to_owned() },
            });
        }
    }
    monitor.end();
    if monitor.cancelled() {
        return Err(Error::Interrupted);
    }
    Ok((changes, listed))
}

impl Changes {
    /// Takes in what does not look as it was recorded.
    fn sort_out(&mut self, pair: Pair, folders: &mut Folders, outcome: &mut Outcome, monitor: &dyn Monitor) {
        if pair.looks_unchanged() {
            outcome.unchanged += 1;
            return;
        }
        match (pair.disk, pair.staged) {
            (None, None) => {}
            (None, Some(staged)) => self.gone.push((pair.path, staged)),
            (Some(stat), staged) => {
                let path = pair.path;
                match stat.kind {
                    FileKind::File => {
                        outcome.hard_links += u64::from(stat.links > 1);
                        self.found.push_plain(&path, Some(stat.len));
                    }
                    FileKind::Dir => self.found.push(Box::new(Known { path, node: StagedNode::Dir, stat })),
                    FileKind::Symlink => match folders.read_link(&path) {
                        Ok(target) => {
                            let node = StagedNode::Symlink { target };
                            self.found.push(Box::new(Known { path, node, stat }));
                        }
                        Err(error) => {
                            monitor.problem(&format!("cannot read the link {path}: {error}"));
                            outcome.unreadable += 1;
                        }
                    },
                    FileKind::Other => {
                        outcome.special_files += 1;
                        // A tracked file that became a device is gone as far as its content goes.
                        self.gone.extend(staged.map(|staged| (path, staged)));
                    }
                }
            }
        }
    }
}

/// The batch being made.
struct Staging<'a> {
    repo: &'a Repository,
    head: &'a Arc<Tree>,
    generation: u64,
    bands: BandPaths,
    gone: Gone,
    ops: Batch,
    outcome: Outcome,
}

impl Staging<'_> {
    /// Stores and records changes, no more at a time than the settings say.
    fn store_all(&mut self, lock: &WriteLock, changes: Changes, monitor: &dyn Monitor) -> Result<()> {
        for (path, _) in changes.gone {
            self.remove(path)?;
        }
        let at_once = self.repo.settings().paths_at_once;
        let in_parts = changes.found.len() > at_once;
        let mut parts = changes.found.into_parts(at_once);
        while let Some(part) = parts.next()? {
            if in_parts {
                self.repo.give_back();
            }
            let mut sink = Sink::new(self.repo, lock);
            self.store(part, &mut sink, monitor)?;
            let (layers, stats) = sink.finish()?;
            self.outcome.ingest += stats;
            if !self.ops.is_empty() || !layers.is_empty() {
                self.repo.commit(lock, &layers, std::mem::take(&mut self.ops))?;
            }
        }
        if !self.ops.is_empty() {
            self.repo.commit(lock, &[], std::mem::take(&mut self.ops))?;
        }
        Ok(())
    }

    /// Stores changes, and puts what is to be recorded into the batch. A file's path goes on to its source.
    fn store(&mut self, mut part: Vec<Work<Box<Known>>>, sink: &mut Sink<'_>, monitor: &dyn Monitor) -> Result<()> {
        let repo = self.repo;
        let recorded = |state: &State, path: &RepoPath| -> Result<Option<Box<StagedEntry>>> {
            let entry = staging::get(state, path)?;
            Ok(entry.filter(|entry| entry.node != StagedNode::Deleted).map(Box::new))
        };
        let (mut sources, mut staged) = (Vec::new(), Vec::new());
        let state = repo.journal().read();
        for work in &mut part {
            if let Work::Plain(path, len) = work {
                let known = recorded(&state, path)?;
                let source = Source::new(std::mem::take(path), len.unwrap_or(0), known.as_deref(), &mut self.bands);
                sources.push(source.or_like(&self.gone));
                staged.push(known);
            }
        }
        drop(state);
        let sources = Arc::new(sources);
        let files = ingest_part(repo, &sources, sink, monitor)?.files;
        let mut files = Arc::unwrap_or_clone(sources).into_iter().zip(staged).zip(files);
        let state = repo.journal().read();
        for work in part {
            match work {
                Work::Other(known) => {
                    let Known { path, node, stat } = *known;
                    let staged = recorded(&state, &path)?;
                    self.record(path, staged.as_deref(), node, &stat, is_racy(&stat, clock::now()));
                }
                Work::Plain(..) => match files.next() {
                    Some(((source, staged), Ok(captured))) => self.file(source.path, staged.as_deref(), captured),
                    Some((_, Err(why))) => self.failed(&why, monitor),
                    None => {}
                },
                Work::Gone(path) => self.remove(path)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, path: RepoPath, staged: Option<&StagedEntry>, captured: Captured) {
        self.outcome.extended_attributes += u64::from(captured.has_xattrs);
        let node = StagedNode::File { len: captured.stat.len, content: captured.content };
        self.record(path, staged, node, &captured.stat, captured.racy);
    }

    fn failed(&mut self, why: &str, monitor: &dyn Monitor) {
        monitor.problem(why);
        self.outcome.unreadable += 1;
    }

    /// Records what a path is now. Where only times differ, the recorded time stays: it is that of the content.
    fn record(&mut self, path: RepoPath, staged: Option<&StagedEntry>, node: StagedNode, stat: &Stat, racy: bool) {
        let fresh = StagedEntry {
            node,
            meta: Meta { mode: stat.mode, mtime_ns: stat.mtime_ns },
            seen: SeenStat::from(stat),
            racy,
            generation: self.generation,
        };
        let entry = match staged {
            Some(old) if old.same_version(&fresh) => {
                let meta = Meta { mode: stat.mode, ..old.meta };
                let entry = StagedEntry { seen: fresh.seen, racy, meta, ..old.clone() };
                self.ops.push(staging::put_op(&path, &entry));
                return;
            }
            _ => fresh,
        };
        self.ops.push(staging::put_op(&path, &entry));
        let list = if staged.is_some() { &mut self.outcome.modified } else { &mut self.outcome.added };
        list.push(path);
    }

    /// Records that a path is gone. What was never committed is forgotten altogether.
    fn remove(&mut self, path: RepoPath) -> Result<()> {
        let committed = trees::lookup(&self.repo.objects(), self.head, &path)?.is_some();
        self.ops.push(removal(&path, committed, self.generation));
        self.outcome.deleted.push(path);
        Ok(())
    }
}

/// The operation that stages a path's removal.
pub fn removal(path: &RepoPath, in_head: bool, generation: u64) -> Op {
    if !in_head {
        return staging::delete_op(path);
    }
    let meta = Meta { mode: 0, mtime_ns: 0 };
    let entry = StagedEntry { node: StagedNode::Deleted, meta, seen: SeenStat::default(), racy: false, generation };
    staging::put_op(path, &entry)
}
