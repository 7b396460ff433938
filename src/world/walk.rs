//! The work tree as it is: every name with its stat, in tree order, found by many threads.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::vec::IntoIter;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::dirs::{Folders, IfAbsent};
use super::ignore::{FILE_NAME, Rules};
use crate::base::clock;
use crate::base::disk::{Dir, FileKind, Stat, is_temp_name};
use crate::base::meter::{Meter, Stage};
use crate::base::monitor::Monitor;
use crate::format::folder::{Name, encode_folder, folder_key};
use crate::format::journal::Op;
use crate::model::path::{CONTROL_DIR, RepoPath};
use crate::model::scopes::Scopes;
use crate::model::staging::{SeenStat, is_racy};

/// A name in the work tree.
#[derive(Debug, Clone)]
pub struct WalkEntry {
    /// Its path.
    pub path: RepoPath,
    /// What `lstat` says.
    pub stat: Stat,
}

/// What a walk found, or a part of it.
#[derive(Debug, Default)]
pub struct Walked {
    /// Everything that is neither ignored nor the repository, in tree order. A folder comes before its content.
    pub entries: Vec<WalkEntry>,
    /// What could not be looked at; one sentence each.
    pub problems: Vec<String>,
    /// Paths that could not be looked at. What is tracked at or below them is not known to be gone.
    pub unreadable: Vec<RepoPath>,
    /// Unfinished files and links of stopped processes. They are no entries.
    pub leftovers: Vec<(RepoPath, FileKind)>,
    /// The operations that keep what folders hold that had to be listed; only of those whose looks prove something, and
    /// only if [`WalkOptions::keeps_listings`].
    pub listed: Vec<Op>,
}

/// Gives the names in a folder that looks like this, sorted, if they are known.
pub type KnownFolder<'a> = dyn Fn(&RepoPath, &Stat) -> Option<Vec<Name<'a>>> + Sync + 'a;

/// What to leave out.
pub struct WalkOptions<'a> {
    /// Ignored names are left out unless this says that they are tracked.
    pub is_tracked: &'a (dyn Fn(&RepoPath) -> bool + Sync),
    /// Ignored names are not left out at all.
    pub include_ignored: bool,
    /// Only these paths and the folders that lead to them.
    pub scopes: &'a Scopes,
    /// The repository's folder, if it lies in the work tree under another name than usual.
    pub skip: Option<&'a RepoPath>,
    /// What is known of folders that look as they did; without it, every folder is listed.
    pub known: Option<&'a KnownFolder<'a>>,
    /// What is in other folders is to be known the next time.
    pub keeps_listings: bool,
    /// Asked whether to stop.
    pub monitor: &'a dyn Monitor,
}

/// Names of one folder that a thread looks at in one go; a `lstat` takes about a microsecond.
const NAMES_PER_TASK: usize = 512;
/// How far ahead of what was handed over names are looked at: some megabytes.
const NAMES_AHEAD: usize = 16 << 10;
/// Folders listed in one round, which ends when all are, at most: they may be longer than those before.
const FOLDERS_AT_ONCE: usize = 1024;
/// Rounds that wait to be looked at, while one is looked at and one is made.
const ROUNDS_WAITING: usize = 1;
/// Folders kept open for those in them that are still to be listed; beyond, a folder is opened once more by its path.
#[cfg(not(test))]
const MAX_OPEN: usize = 128;
/// So that tests get there.
#[cfg(test)]
const MAX_OPEN: usize = 8;

/// Walks everything below `root`, and lets `look` look at what is found meanwhile: no more than some ten thousand names of
/// it are in memory, and all of a few folders. Lists on `pool`.
///
/// # Errors
/// The system gives no thread.
pub fn walk<T>(
    root: &Arc<dyn Dir>,
    options: &WalkOptions<'_>,
    pool: &ThreadPool,
    meter: &Meter,
    look: impl FnOnce(&mut Found) -> T,
) -> io::Result<T> {
    let (sender, receiver) = sync_channel(ROUNDS_WAITING);
    std::thread::scope(|scope| {
        let walk =
            Walk { root, options, open: Arc::default(), names: AtomicUsize::new(0), folders: AtomicUsize::new(0) };
        let thread = std::thread::Builder::new().name("digstore-walk".to_owned());
        thread.spawn_scoped(scope, move || walk.run(pool, meter, &sender))?;
        Ok(look(&mut Found { rounds: Some(receiver), ..Found::default() }))
    })
}

/// What a walk finds, in tree order, and what it has to say of that so far.
#[derive(Debug, Default)]
pub struct Found {
    rounds: Option<Receiver<Vec<Part>>>,
    parts: IntoIter<Part>,
    /// What is left of a folder, within what is left of the folder that it is in.
    open: Vec<(IntoIter<WalkEntry>, bool)>,
    next: Option<WalkEntry>,
    /// Paths that the walk leaves out, to be found all the same.
    also: IntoIter<WalkEntry>,
    hidden: Scopes,
    /// All but entries.
    pub beside: Walked,
}

impl From<Walked> for Found {
    fn from(mut walked: Walked) -> Self {
        let entries = std::mem::take(&mut walked.entries);
        let hidden = Scopes::new(&walked.unreadable);
        Self { beside: walked, hidden, open: vec![(entries.into_iter(), false)], ..Self::default() }
    }
}

impl Found {
    /// Finds further paths, which are in tree order.
    pub fn and(&mut self, also: Vec<WalkEntry>) {
        self.also = also.into_iter();
    }

    /// The next path. What could not be looked at before it is known then.
    pub fn peek(&mut self) -> Option<&WalkEntry> {
        if self.is_also_next() { self.also.as_slice().first() } else { self.next.as_ref() }
    }

    /// Goes on to the next path.
    pub fn pop(&mut self) -> Option<WalkEntry> {
        if self.is_also_next() { self.also.next() } else { self.next.take() }
    }

    /// All that is left.
    pub fn rest(&mut self) -> Walked {
        let entries = std::iter::from_fn(|| self.pop()).collect();
        Walked { entries, ..std::mem::take(&mut self.beside) }
    }

    /// Could a path not be looked at, so that nothing is known of it?
    pub fn hides(&self, path: &RepoPath) -> bool {
        self.hidden.contains(path)
    }

    fn is_also_next(&mut self) -> bool {
        if self.next.is_none() {
            self.go_on();
        }
        let Some(also) = self.also.as_slice().first() else { return false };
        match self.next.as_ref().map(|next| also.path.cmp(&next.path)) {
            Some(std::cmp::Ordering::Equal) => {
                self.also.next();
                false
            }
            order => order.is_none_or(std::cmp::Ordering::is_lt),
        }
    }

    fn go_on(&mut self) {
        if self.open.is_empty() && self.rounds.is_some() {
            // The folder that the walk begins in.
            self.enter();
        }
        while let Some((entries, goes_on)) = self.open.last_mut() {
            let Some(entry) = entries.next() else {
                let goes_on = *goes_on;
                self.open.pop();
                if goes_on {
                    self.enter();
                }
                continue;
            };
            if self.rounds.is_none() || entry.stat.kind != FileKind::Dir || self.enter() {
                self.next = Some(entry);
                return;
            }
        }
    }

    /// Takes the next part, which is that of the folder come to; `false` if the folder is gone.
    fn enter(&mut self) -> bool {
        while self.parts.as_slice().is_empty() {
            let Some(round) = self.rounds.as_ref().and_then(|rounds| rounds.recv().ok()) else {
                // The end, or the walk was cancelled.
                self.open.clear();
                self.rounds = None;
                return false;
            };
            self.parts = round.into_iter();
        }
        let Some(Part { found, goes_on, is_gone }) = self.parts.next() else { return false };
        if is_gone {
            return false;
        }
        found.unreadable.iter().for_each(|path| self.hidden.insert(path.clone()));
        self.beside.unreadable.extend(found.unreadable);
        self.beside.problems.extend(found.problems);
        self.beside.leftovers.extend(found.leftovers);
        self.beside.listed.extend(found.listed);
        self.open.push((found.entries.into_iter(), goes_on));
        true
    }
}

/// What is in one folder. The parts of the folders in it follow, each where its folder's entry stands.
#[derive(Debug, Default)]
struct Part {
    found: Walked,
    /// After those, another part has more of the folder.
    goes_on: bool,
    /// The folder went away since it was seen.
    is_gone: bool,
}

impl Part {
    fn problem(path: RepoPath, problem: String) -> Self {
        let found = Walked { problems: vec![problem], unreadable: vec![path], ..Walked::default() };
        Self { found, ..Self::default() }
    }

    fn cannot_open(path: RepoPath, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            return Self { is_gone: true, ..Self::default() };
        }
        let problem = format!("cannot open the folder {path}: {error}");
        Self::problem(path, problem)
    }
}

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

struct Walk<'w, 'a> {
    root: &'w Arc<dyn Dir>,
    options: &'w WalkOptions<'a>,
    /// Folders that are kept open.
    open: Arc<AtomicUsize>,
    /// Names in folders listed so far.
    names: AtomicUsize,
    folders: AtomicUsize,
}

impl<'a> Walk<'_, 'a> {
    fn run(&self, pool: &ThreadPool, meter: &Meter, rounds: &SyncSender<Vec<Part>>) {
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
        let rules = match above.enter(dir.as_ref(), &path, has_rules && !options.include_ignored) {
            Ok(rules) => rules,
            Err(message) => return failed(path, message),
        };
        let unfinished = names.iter().filter(|(name, kind)| *kind != FileKind::Dir && is_temp_name(name));
        let unfinished = unfinished.filter_map(|(name, kind)| Some((path.join(name.as_bytes()).ok()?, *kind)));
        let mut part = Part::default();
        part.found.leftovers.extend(unfinished);
        if let Some(stat) = stat.filter(|_| is_news && options.keeps_listings) {
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
                Some(Err((path, problem))) => {
                    found.unreadable.push(path);
                    found.problems.push(problem);
                }
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

/// What a name turned out to be and whether it is ignored, or where and why it could not be looked at.
type Look = Result<(WalkEntry, bool), (RepoPath, String)>;

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
        Err(error) => return Some(Err((folder.clone(), format!("in {}: {error}; it is left out", shown(folder))))),
    };
    if options.skip == Some(&path) || !(options.scopes.contains(&path) || options.scopes.lead_below(&path)) {
        return None;
    }
    let is_dir = kind == FileKind::Dir;
    let ignored = !options.include_ignored && (all_ignored || rules.ignores(&path, is_dir));
    if ignored && !(options.is_tracked)(&path) {
        return None;
    }
    let problem = |error: io::Error| Some(Err((path.clone(), format!("cannot look at {path}: {error}"))));
    let stat = match dir.stat(name) {
        Ok(Some(stat)) => stat,
        // It went away since the folder was listed.
        Ok(None) => return None,
        Err(error) => return problem(error),
    };
    Some(Ok((WalkEntry { path, stat }, ignored)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::base::disk::open_root;
    use crate::base::monitor::Silent;

    fn walk_with<T>(folder: &std::path::Path, options: &WalkOptions<'_>, look: impl FnOnce(&mut Found) -> T) -> T {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        walk(&open_root(folder).unwrap(), options, &pool, &Meter::default(), look).unwrap()
    }

    /// Leaves out nothing.
    fn all(scopes: &Scopes) -> WalkOptions<'_> {
        WalkOptions {
            is_tracked: &|_| false,
            include_ignored: false,
            skip: None,
            scopes,
            known: None,
            keeps_listings: false,
            monitor: &Silent,
        }
    }

    fn walk_at(folder: &std::path::Path, tracked: &[&str], include_ignored: bool) -> Vec<String> {
        let is_tracked = |path: &RepoPath| tracked.iter().any(|t| t.as_bytes() == path.as_bytes());
        let scopes = Scopes::everything();
        let options = WalkOptions { is_tracked: &is_tracked, include_ignored, ..all(&scopes) };
        let walked = walk_with(folder, &options, Found::rest);
        assert!(walked.entries.is_sorted_by(|a, b| a.path < b.path), "tree order");
        walked.entries.iter().map(|entry| entry.path.to_string()).collect()
    }

    fn make(folder: &std::path::Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn everything_is_found_in_tree_order_but_the_repository() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &[("a/b", ""), ("a.c", ""), ("a0", ""), (".digstore/format", ""), ("z/y/x", "")]);
        for n in 0..300 {
            make(folder.path(), &[(&format!("many/{n:03}"), "")]);
        }
        let found = walk_at(folder.path(), &[], false);
        assert_eq!(found[..5], ["a", "a/b", "a.c", "a0", "many"]);
        assert_eq!(found.len(), 5 + 300 + 3);
    }

    /// Everything below a folder in tree order, found the plain way.
    fn model(folder: &std::path::Path, at: &RepoPath, found: &mut Vec<String>) {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let path = at.join(name.as_bytes()).unwrap();
            found.push(path.to_string());
            if folder.join(&name).is_dir() {
                model(&folder.join(&name), &path, found);
            }
        }
    }

    #[test]
    fn long_wide_and_deep_folders_come_in_tree_order() {
        let folder = tempfile::tempdir().unwrap();
        // More names than one task looks at, with folders among them, at the ends of tasks too.
        for number in 0..2 * NAMES_PER_TASK + 3 {
            let inside = if number % 100 == 0 || number % NAMES_PER_TASK == 0 { "/in/side" } else { "" };
            make(folder.path(), &[(&format!("long/{number:05}{inside}"), "")]);
        }
        // More open folders with something still to be listed than are kept open.
        for number in 0..MAX_OPEN + 50 {
            make(folder.path(), &[(&format!("wide/{number:04}/a/b/c"), ""), (&format!("wide/{number:04}/a0"), "")]);
        }
        make(folder.path(), &[(&format!("{}end", "deep/".repeat(400)), "")]);
        let mut expected = Vec::new();
        model(folder.path(), &RepoPath::root(), &mut expected);
        assert_eq!(walk_at(folder.path(), &[], false), expected);
    }

    #[test]
    fn no_more_is_listed_ahead_than_a_few_rounds() {
        let folder = tempfile::tempdir().unwrap();
        let rounds = ROUNDS_WAITING + 2;
        let count = 2 * rounds * FOLDERS_AT_ONCE;
        for number in 0..count {
            fs::create_dir_all(folder.path().join(format!("{:02}/{number:05}", number / 1000))).unwrap();
        }
        let listed = AtomicUsize::new(0);
        let known = |_: &RepoPath, _: &Stat| {
            listed.fetch_add(1, Ordering::Relaxed);
            None
        };
        let scopes = Scopes::everything();
        let options = WalkOptions { known: Some(&known), ..all(&scopes) };
        let first = walk_with(folder.path(), &options, |found| {
            let first = found.pop().unwrap().path.to_string();
            // Whoever looks no further lets it end.
            std::thread::sleep(std::time::Duration::from_millis(100));
            first
        });
        assert_eq!(first, "00");
        assert!(listed.into_inner() <= rounds * FOLDERS_AT_ONCE, "{count} folders in all");
    }

    #[test]
    fn what_goes_away_is_left_out_and_what_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &[("a/x", ""), ("b/x", ""), ("c/.digignore", "{a"), ("c/x", ""), ("d", "")]);
        // Of two folders, the one that is come to later goes away before.
        let known = |path: &RepoPath, _: &Stat| {
            match path.as_bytes() {
                b"a" => drop(fs::remove_dir_all(folder.path().join("b"))),
                b"b" => drop(fs::remove_dir_all(folder.path().join("a"))),
                _ => {}
            }
            None
        };
        let scopes = Scopes::everything();
        let options = WalkOptions { known: Some(&known), ..all(&scopes) };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let (paths, problems) = walk(&open_root(folder.path()).unwrap(), &options, &pool, &Meter::default(), |found| {
            let paths: Vec<String> = std::iter::from_fn(|| found.pop()).map(|entry| entry.path.to_string()).collect();
            assert!(found.hides(&RepoPath::parse(b"c/x").unwrap()) && !found.hides(&RepoPath::parse(b"d").unwrap()));
            (paths, found.rest().problems)
        })
        .unwrap();
        assert!(paths == ["a", "a/x", "c", "d"] || paths == ["b", "b/x", "c", "d"], "{paths:?}");
        assert!(problems.len() == 1 && problems.iter().all(|problem| problem.contains("c/.digignore")), "{problems:?}");
    }

    #[test]
    fn a_long_folder_that_goes_away_takes_nothing_else_along() {
        let folder = tempfile::tempdir().unwrap();
        let mut expected = vec!["0".to_owned()];
        for number in 0..3 * NAMES_PER_TASK {
            make(folder.path(), &[(&format!("0/{number:05}"), "")]);
        }
        for number in 0..2 * MAX_OPEN {
            let path = format!("a{number:02}/in/side");
            make(folder.path(), &[(&path, "")]);
            expected.extend([path[..3].to_owned(), path[..6].to_owned(), path]);
        }
        // One thread comes to the long folder when too many others are kept open, and then into those before it again.
        let known = |path: &RepoPath, _: &Stat| {
            if path.as_bytes().ends_with(b"/in") {
                let _ = fs::remove_dir_all(folder.path().join("0"));
            }
            None
        };
        let scopes = Scopes::everything();
        let options = WalkOptions { known: Some(&known), ..all(&scopes) };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let found = walk(&open_root(folder.path()).unwrap(), &options, &pool, &Meter::default(), Found::rest).unwrap();
        let paths: Vec<String> = found.entries.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(paths, expected);
    }

    #[test]
    fn behind_a_deep_folder_no_more_is_listed_than_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &[(&format!("0/{}end", "deep/".repeat(100)), "")]);
        for number in 0..4 * FOLDERS_AT_ONCE {
            make(folder.path(), &[(&format!("a/{:02}/{number:05}/x", number / 100), "")]);
        }
        let (listed, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let known = |path: &RepoPath, _: &Stat| {
            if path.as_bytes().starts_with(b"a") {
                listed.fetch_add(1, Ordering::Relaxed);
            } else {
                most.fetch_max(listed.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            None
        };
        let scopes = Scopes::everything();
        let options = WalkOptions { known: Some(&known), ..all(&scopes) };
        let found = walk_with(folder.path(), &options, Found::rest);
        assert_eq!(found.entries.len(), 1 + 100 + 1 + 1 + 41 + 2 * 4 * FOLDERS_AT_ONCE);
        // Each of them counts as two names and more.
        assert!(most.into_inner() <= NAMES_AHEAD / 2);
    }

    #[test]
    fn ignore_rules_nest_and_tracked_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        make(
            folder.path(),
            &[
                (".digignore", "*.log\n/build/\n!keep.log\ndeep/**/x\n\\#odd\n"),
                ("a.log", ""),
                ("keep.log", ""),
                ("build/out", ""),
                ("sub/build/out", ""),
                ("sub/a.log", ""),
                ("sub/.digignore", "!a.log\nsecret\n"),
                ("sub/secret", ""),
                ("secret", ""),
                ("deep/1/2/x", ""),
                ("#odd", ""),
                ("b.txt", ""),
            ],
        );
        let expected = [
            ".digignore",
            "b.txt",
            "deep",
            "deep/1",
            "deep/1/2",
            "keep.log",
            "secret",
            "sub",
            "sub/.digignore",
            "sub/a.log",
            "sub/build",
            "sub/build/out",
        ];
        assert_eq!(walk_at(folder.path(), &[], false), expected);
        let tracked = walk_at(folder.path(), &["build", "build/out", "a.log"], false);
        assert!(tracked.contains(&"build/out".to_owned()) && tracked.contains(&"a.log".to_owned()));
        assert_eq!(walk_at(folder.path(), &[], true).len(), 18);
    }
}
