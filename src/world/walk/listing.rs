//! Listing folders and looking at names, by many threads, only so far ahead as memory allows.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::found::Part;
use super::{WalkEntry, WalkOptions};
use crate::base::clock;
use crate::base::disk::{Dir, FileKind, Stat, is_temp_name};
use crate::base::meter::{Meter, Stage};
use crate::format::folder::{Name, encode_folder, folder_key};
use crate::format::journal::Op;
use crate::model::path::{CONTROL_DIR, RepoPath};
use crate::model::staging::{SeenStat, is_racy};
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::ignore::{FILE_NAME, Rules};

/// Names of one folder that a thread looks at in one go; a `lstat` takes about a microsecond.
pub(super) const NAMES_PER_TASK: usize = 512;
/// Longer listings are not kept: one new name would write all of them anew, and to look at so many files takes far longer than to
/// list them.
const MAX_NAMES_KEPT: usize = 16 << 10;
/// How far ahead of what was handed over names are looked at: some megabytes.
pub(super) const NAMES_AHEAD: usize = 16 << 10;
/// Folders listed in one round, which ends when all are, at most: they may be longer than those before.
pub(super) const FOLDERS_AT_ONCE: usize = 1024;
/// Folders kept open for those in them that are still to be listed; beyond, a folder is opened once more by its path.
#[cfg(not(test))]
pub(super) const MAX_OPEN: usize = 128;
/// So that tests get there.
#[cfg(test)]
pub(super) const MAX_OPEN: usize = 8;
/// A stretch of the tree.
enum Item<'a> {
    /// It is known.
    Found(Part),
    /// Names of a folder that are to be looked at.
    Names(Arc<Folder>, Arc<Vec<Name<'a>>>, Range<usize>),
    /// A folder to be listed, the folder that it is in, and whether it is ignored.
    Unlisted(RepoPath, Stat, Arc<Folder>, bool),
}

/// A folder whose names are known.
struct Folder {
    path: RepoPath,
    rules: Rules,
    /// The folder itself is ignored, and is visited only for what is tracked in it.
    ignored: bool,
    /// None if too many are open.
    handle: Option<Handle>,
}

/// An open folder, counted.
struct Handle {
    dir: Arc<dyn Dir>,
    open: Arc<AtomicUsize>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Folders that are being listed.
pub(super) struct Walk<'w, 'a> {
    root: &'w Arc<dyn Dir>,
    options: &'w WalkOptions<'a>,
    /// Folders that are kept open.
    open: Arc<AtomicUsize>,
    /// Names in folders listed so far.
    names: AtomicUsize,
    folders: AtomicUsize,
}

impl<'w, 'a> Walk<'w, 'a> {
    /// Nothing is listed yet.
    pub fn new(root: &'w Arc<dyn Dir>, options: &'w WalkOptions<'a>) -> Self {
        Self { root, options, open: Arc::default(), names: AtomicUsize::new(0), folders: AtomicUsize::new(0) }
    }

    /// Goes through all of the tree, and sends what is found in tree order as long as somebody receives it.
    pub fn run(&self, pool: &ThreadPool, meter: &Meter, rounds: &SyncSender<Vec<Part>>) {
        let busy = meter.time(Stage::Scan);
        // The end of this list is the next in the tree.
        let mut ahead = pool.install(|| self.list(self.root, RepoPath::root(), None, &Rules::default(), false));
        drop(busy);
        while !ahead.is_empty() && !self.options.monitor.cancelled() {
            let mut round = Vec::new();
            while let Some(Item::Found(part)) = ahead.pop_if(|item| matches!(item, Item::Found(_))) {
                round.push(part);
            }
            // Nobody receives any more if looking failed.
            if rounds.send(round).is_err() {
                return;
            }
            let _busy = meter.time(Stage::Scan);
            let next = ahead.split_off(ahead.len() - self.next_round(&ahead));
            let found: Vec<Vec<Item<'_>>> =
                pool.install(|| next.into_par_iter().with_max_len(1).map(|item| self.look_into(item)).collect());
            for mut items in found {
                ahead.append(&mut items);
            }
        }
    }

    /// How many items from the end are looked into next: as many as have [`NAMES_AHEAD`] names with those that wait there
    /// already, if folders are like those before. What is at the end is not known yet, so each round leads on.
    fn next_round(&self, ahead: &[Item<'_>]) -> usize {
        let (listed, folders) = (self.names.load(Ordering::Relaxed), self.folders.load(Ordering::Relaxed));
        let average = listed / folders.max(1) + 1;
        let (mut names, mut tasks) = (0, 0);
        let is_within = |item: &&Item<'_>| {
            let goes_on = tasks == 0 || names < NAMES_AHEAD && tasks < FOLDERS_AT_ONCE;
            names += match item {
                Item::Found(part) => part.found.entries.len() + 1,
                Item::Names(_, _, range) => range.len(),
                Item::Unlisted(..) => average,
            };
            tasks += usize::from(!matches!(item, Item::Found(_)));
            goes_on
        };
        ahead.iter().rev().take_while(is_within).count()
    }

    /// What is known then, from its end.
    fn look_into(&self, item: Item<'a>) -> Vec<Item<'a>> {
        match item {
            Item::Found(_) => vec![item],
            Item::Names(folder, items, range) => {
                let goes_on = range.end < items.len();
                match self.dir(&folder) {
                    Ok(dir) => {
                        let part = Part { goes_on, ..Part::default() };
                        self.look_at(dir.as_ref(), &folder, items.get(range).unwrap_or_default(), part)
                    }
                    // It was come to already, so it is not left out; what is gone of it is not found.
                    Err(error) => {
                        let part = Part::cannot_open(folder.path.clone(), &error);
                        vec![Item::Found(Part { goes_on, is_gone: false, ..part })]
                    }
                }
            }
            Item::Unlisted(path, stat, parent, ignored) => {
                let name = OsStr::from_bytes(path.file_name());
                match self.dir(&parent).and_then(|dir| dir.open_dir(name)) {
                    Ok(dir) => self.list(&dir, path, Some(&stat), &parent.rules, ignored),
                    Err(error) => vec![Item::Found(Part::cannot_open(path, &error))],
                }
            }
        }
    }

    fn dir(&self, folder: &Folder) -> io::Result<Arc<dyn Dir>> {
        match &folder.handle {
            Some(handle) => Ok(Arc::clone(&handle.dir)),
            None => Folders::new(Arc::clone(self.root)).open(&folder.path, IfAbsent::Fail),
        }
    }

    /// Lists an open folder, and looks at its names unless there are many.
    fn list(
        &self,
        dir: &Arc<dyn Dir>,
        path: RepoPath,
        stat: Option<&Stat>,
        above: &Rules,
        ignored: bool,
    ) -> Vec<Item<'a>> {
        let options = self.options;
        if options.monitor.cancelled() {
            return vec![Item::Found(Part::default())];
        }
        let failed = |path, problem: String| vec![Item::Found(Part::problem(path, problem))];
        let (names, is_news) = match names(dir.as_ref(), &path, stat, options) {
            Ok(found) => found,
            Err(error) => {
                let problem = format!("cannot read the folder {}: {error}", shown(&path));
                return failed(path, problem);
            }
        };
        self.folders.fetch_add(1, Ordering::Relaxed);
        self.names.fetch_add(names.len(), Ordering::Relaxed);
        let has_rules = names.iter().any(|(name, kind)| **name == *FILE_NAME && *kind == FileKind::File);
        let (rules, wrong) = match above.enter(dir.as_ref(), &path, has_rules && !options.include_ignored) {
            Ok(entered) => entered,
            Err(message) => return failed(path, message),
        };
        let unfinished = names.iter().filter(|(name, kind)| *kind != FileKind::Dir && is_temp_name(name));
        let unfinished = unfinished.filter_map(|(name, kind)| Some((path.join(name.as_bytes()).ok()?, *kind)));
        let mut part = Part::default();
        part.found.remarks.extend(wrong);
        part.found.leftovers.extend(unfinished);
        let is_short = names.len() <= MAX_NAMES_KEPT;
        if let Some(stat) = stat.filter(|_| is_news && is_short && options.keeps_listings) {
            part.found.listed.push(Op::Put(folder_key(&path), encode_folder(&SeenStat::from(stat), &names)));
        }
        let has_folders = names.iter().any(|(_, kind)| *kind == FileKind::Dir);
        let handle = if has_folders || names.len() > NAMES_PER_TASK { self.keep_open(dir) } else { None };
        let folder = Arc::new(Folder { path, rules, ignored, handle });
        if names.len() <= NAMES_PER_TASK {
            return self.look_at(dir.as_ref(), &folder, &names, part);
        }
        part.goes_on = true;
        let names = Arc::new(names);
        let starts = (0..names.len()).step_by(NAMES_PER_TASK).rev();
        let stretch = |start| {
            let end = names.len().min(start + NAMES_PER_TASK);
            Item::Names(Arc::clone(&folder), Arc::clone(&names), start..end)
        };
        starts.map(stretch).chain([Item::Found(part)]).collect()
    }

    fn keep_open(&self, dir: &Arc<dyn Dir>) -> Option<Handle> {
        let count = self.open.fetch_add(1, Ordering::Relaxed);
        let handle = Handle { dir: Arc::clone(dir), open: Arc::clone(&self.open) };
        (count < MAX_OPEN).then_some(handle)
    }

    /// Looks at names of an open folder, and adds what is found to a part of it.
    fn look_at(&self, dir: &dyn Dir, folder: &Arc<Folder>, names: &[Name<'_>], mut part: Part) -> Vec<Item<'a>> {
        let found = &mut part.found;
        found.entries.reserve_exact(names.len());
        let mut items = Vec::new();
        for (name, kind) in names {
            match look(dir, &folder.path, name, *kind, &folder.rules, folder.ignored, self.options) {
                None => {}
                Some(Err(NoLook::Unreadable(path, problem))) => found.unreadable.push((path, problem)),
                Some(Err(NoLook::LeftOut(problem))) => found.left_out.push(problem),
                Some(Ok((entry, ignored))) => {
                    if entry.stat.kind == FileKind::Dir {
                        items.push(Item::Unlisted(entry.path.clone(), entry.stat, Arc::clone(folder), ignored));
                    }
                    found.entries.push(entry);
                }
            }
        }
        items.reverse();
        items.push(Item::Found(part));
        items
    }
}

/// The names in a folder, sorted, and whether they should be remembered.
///
/// A folder whose listing is known and that looks the same is not read. This spares a walk of the kernel's tree, 5,100
/// folders, a third of its system time.
fn names<'a>(
    dir: &dyn Dir,
    path: &RepoPath,
    stat: Option<&Stat>,
    options: &WalkOptions<'a>,
) -> io::Result<(Vec<Name<'a>>, bool)> {
    let stat = stat.filter(|_| options.known.is_some());
    if let (Some(known), Some(stat)) = (options.known, stat)
        && let Some(names) = known(path, stat)
    {
        return Ok((names, false));
    }
    // A change right after the listing must not look like the folder before it.
    let proves = stat.is_some_and(|stat| !is_racy(stat, clock::now()));
    let mut items = dir.list()?;
    items.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok((items.into_iter().map(|item| (Cow::Owned(item.name), item.kind)).collect(), proves))
}

/// What a name turned out to be, and whether it is ignored.
type Look = Result<(WalkEntry, bool), NoLook>;

/// Why a name was not looked at.
enum NoLook {
    /// It could not be.
    Unreadable(RepoPath, String),
    /// Nothing that is tracked can have this name.
    LeftOut(String),
}

fn shown(path: &RepoPath) -> String {
    if path.is_root() { ".".to_owned() } else { path.to_string() }
}

/// Looks at one name; `None` if it is left out.
fn look(
    dir: &dyn Dir,
    folder: &RepoPath,
    name: &OsStr,
    kind: FileKind,
    rules: &Rules,
    all_ignored: bool,
    options: &WalkOptions<'_>,
) -> Option<Look> {
    // The repository, and those of folders below, which are theirs alone.
    if name == CONTROL_DIR || is_temp_name(name) {
        return None;
    }
    let path = match folder.join(name.as_bytes()) {
        Ok(path) => path,
        Err(error) => return Some(Err(NoLook::LeftOut(format!("in {}: {error}; it is left out", shown(folder))))),
    };
    if options.skip == Some(&path) || !(options.scopes.contains(&path) || options.scopes.lead_below(&path)) {
        return None;
    }
    let is_dir = kind == FileKind::Dir;
    let ignored = !options.include_ignored && (all_ignored || rules.ignores(&path, is_dir));
    if ignored && !(options.is_tracked)(&path) {
        return None;
    }
    let problem =
        |error: io::Error| Some(Err(NoLook::Unreadable(path.clone(), format!("cannot look at {path}: {error}"))));
    let stat = match dir.stat(name) {
        Ok(Some(stat)) => stat,
        // It went away since the folder was listed.
        Ok(None) => return None,
        Err(error) => return problem(error),
    };
    Some(Ok((WalkEntry { path, stat }, ignored)))
}
