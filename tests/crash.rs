//! What is left when the machine stops, or an operation on the disk fails, at any moment of a working day.
//!
//! A scenario of verbs runs on a disk that stops or fails at its k-th operation, for every k. Repository and work tree
//! live on that disk, so the writes of a checkout are swept too. What is found afterwards is compared with a run
//! without faults, by content and not by id, because times differ between runs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the start of a scenario is made by hand")]

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use common::*;
use digstore::base::disk::fault::{EVERY_UNSYNCED, Fault, FaultDisk, Unsynced};
use digstore::base::disk::{Dir, is_temp_name, open_root};
use digstore::base::monitor::Silent;
use digstore::model::path::CONTROL_DIR;
use digstore::model::refs::Head;
use digstore::ops::{self, checkout, gc, mv, rm, status};
use digstore::repo::{RepoError, Repository};
use digstore::store::refs::{self, RefKind};
use digstore::store::{StoreError, staging};

/// Layers pile up until the scenario merges them, and replaced ones go at once. Those of a few kilobytes are written in several
/// pieces, by the thread that does so.
fn crash_settings() -> digstore::repo::Settings {
    digstore::repo::Settings { grace: std::time::Duration::ZERO, write_len: 4 << 10, ..settings() }
}

/// A file that no verb knows or may touch.
const PRECIOUS: &str = "precious";
/// A block of zeros is a hole from this length on.
const HOLE_LEN: usize = 64 << 10;

/// What happens in the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Init,
    /// The user gives the work tree this version.
    Edit(u8),
    Add,
    Commit(&'static str),
    Checkout(&'static str),
    Restore(&'static str, &'static str),
    Branch(&'static str),
    Tag(&'static str),
    Remove(&'static str),
    Move(&'static str, &'static str),
    /// The journal folds its log.
    Snapshot,
    /// Small layers become one.
    Merge,
    /// What nothing refers to goes.
    Gc,
}

/// Enough commits that the layers get an index at the end.
const SCENARIO: [Step; 25] = [
    Step::Init,
    Step::Add,
    Step::Commit("one"),
    Step::Edit(2),
    Step::Add,
    Step::Commit("two"),
    Step::Checkout("HEAD~1"),
    Step::Restore("main", "multi"),
    Step::Branch("side"),
    Step::Checkout("main"),
    Step::Snapshot,
    Step::Tag("v2"),
    Step::Edit(3),
    Step::Add,
    Step::Commit("three"),
    Step::Restore("HEAD~1", "sub"),
    Step::Edit(4),
    Step::Add,
    Step::Commit("four"),
    Step::Remove("third"),
    Step::Move("sub/a", "empty"),
    Step::Commit("five"),
    Step::Merge,
    Step::Gc,
    Step::Checkout("side"),
];

/// The work tree in each version.
fn version(number: u8) -> Items {
    let multi = |middle: u64| [noise(1, 3000), noise(middle, 1500), noise(2, 3000)].concat();
    let mut items = Items::from([
        (b".digignore".to_vec(), file(PRECIOUS)),
        (PRECIOUS.into(), file("nobody else has this")),
        (b"empty".to_vec(), Item::Dir(0o755)),
        (b"gone".to_vec(), file(noise(3, 100))),
        (b"link".to_vec(), Item::Link(b"tiny".to_vec())),
        (b"multi".to_vec(), file(multi(10))),
        (b"sparse".to_vec(), file([vec![0; HOLE_LEN], noise(4, 2000)].concat())),
        (b"sub".to_vec(), Item::Dir(0o755)),
        (b"sub/a".to_vec(), file("a")),
        (b"sub/b".to_vec(), file("b")),
        (b"swap".to_vec(), file("a file at first")),
        (b"tiny".to_vec(), file("tiny")),
        (b"zero".to_vec(), file("")),
    ]);
    if number >= 2 {
        items.insert(b"multi".to_vec(), file(multi(11)));
        items.insert(b"link".to_vec(), Item::Link(b"nowhere".to_vec()));
        items.insert(b"tiny".to_vec(), Item::File(b"tiny".to_vec(), 0o755));
        items.insert(b"swap".to_vec(), Item::Dir(0o755));
        items.insert(b"swap/inner".to_vec(), file("now a folder"));
        items.insert(b"sub/b".to_vec(), file("b, second"));
        items.remove(&b"gone"[..]);
    }
    if number >= 3 {
        items.insert(b"third".to_vec(), file(noise(5, 500)));
        items.insert(b"sub/a".to_vec(), file("a, third"));
    }
    if number >= 4 {
        items.remove(&b"sub/b"[..]);
        items.insert(b"zero".to_vec(), file("no more"));
    }
    items
}

/// Someone at work on a disk.
struct Worker {
    root: Arc<dyn Dir>,
    repo: Option<Repository>,
}

impl Worker {
    fn new(root: Arc<dyn Dir>) -> Self {
        Self { root, repo: None }
    }

    fn run(&mut self, step: Step) -> ops::Result<()> {
        match step {
            Step::Init => self.repo = Some(try_init(&self.root, crash_settings())?),
            Step::Edit(number) => {
                edit(&self.root, &version(number)).map_err(|source| digstore::base::disk::DiskError {
                    action: "edit",
                    path: self.root.path().to_path_buf(),
                    source,
                })?;
            }
            _ => return act(self.repo.as_ref().unwrap(), step),
        }
        Ok(())
    }
}

/// One verb.
fn act(repo: &Repository, step: Step) -> ops::Result<()> {
    let names = |kind, name: &str| {
        let action = ops::refs::Action::Create { name: name.to_owned(), revision: None, force: false };
        ops::refs::refs(repo, &ops::refs::Options { kind, action }, &Silent).map(drop)
    };
    match step {
        Step::Init | Step::Edit(_) => unreachable!("not a verb on an open repository"),
        Step::Add => match add_all(repo)?.unreadable {
            0 => Ok(()),
            unreadable => Err(ops::Error::Refused { message: format!("{unreadable} paths unread"), hint: "" }),
        },
        Step::Commit(message) => try_commit(repo, message).map(drop),
        Step::Checkout(revision) => try_checkout(repo, revision, false).map(drop),
        Step::Restore(source, what) => {
            let options = checkout::RestoreOptions {
                paths: vec![path(what)],
                source: Some(source.to_owned()),
                force: true,
                ..checkout::RestoreOptions::default()
            };
            complete(|monitor| checkout::restore(repo, &options, monitor)).map(drop)
        }
        Step::Remove(what) => {
            let options =
                rm::Options { paths: vec![path(what)], recursive: false, cached: false, force: false, dry_run: false };
            rm::rm(repo, &options, &Silent).map(drop)
        }
        Step::Move(from, to) => {
            let options = mv::Options { from: vec![path(from)], to: path(to), dry_run: false };
            mv::mv(repo, &options, &Silent).map(drop)
        }
        Step::Branch(name) => names(RefKind::Branch, name),
        Step::Tag(name) => names(RefKind::Tag, name),
        Step::Merge => {
            let lock = repo.lock("test")?;
            gc::merge::merge(repo, &lock).map(drop)
        }
        Step::Gc => {
            let options = gc::Options { grace: Some(std::time::Duration::ZERO), ..gc::Options::default() };
            gc::gc(repo, &options, &Silent).map(drop)
        }
        Step::Snapshot => {
            let _lock = repo.lock("test")?;
            Ok(repo.journal().snapshot()?)
        }
    }
}

/// All that a repository says, without ids and times.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Observed {
    /// Each name with the messages and trees of its history, newest first.
    refs: BTreeMap<String, Vec<(String, Items)>>,
    head: String,
    staged: BTreeMap<Vec<u8>, String>,
}

fn observe(repo: &Repository) -> Observed {
    let objects = repo.objects();
    let mut trees = BTreeMap::new();
    let mut history = |mut next: Option<digstore::model::id::CommitId>| {
        let mut found = Vec::new();
        while let Some(id) = next {
            let commit = objects.commit(&id).unwrap();
            let tree = trees.entry(commit.tree).or_insert_with(|| stored_items(repo, &id)).clone();
            found.push((commit.message, tree));
            next = commit.parents.first().copied();
        }
        found
    };
    let refs = all_refs(repo).into_iter().map(|(name, id)| (name, history(Some(id)))).collect();
    let state = repo.journal().read();
    let head = match refs::head(&state).unwrap() {
        Head::Branch(name) => name.to_string(),
        Head::Detached(_) => String::new(),
    };
    let generation = refs::generation(&state).unwrap();
    let mut staged = BTreeMap::new();
    let mut entries = staging::entries(&state).unwrap();
    while let Some((path, entry)) = entries.next().unwrap() {
        let is_new = entry.generation > generation;
        staged.insert(path.as_bytes().to_vec(), format!("{:?} {:o} {is_new}", entry.node, entry.meta.mode));
    }
    Observed { refs, head, staged }
}

/// The scenario without faults.
struct Reference {
    /// What the repository says before each step and at the end; nothing before it is made.
    observed: Vec<Observed>,
    /// What the work tree holds at the same moments.
    work: Vec<Items>,
    /// How many operations were made by then.
    operations: Vec<u64>,
}

fn start() -> tempfile::TempDir {
    let folder = scratch();
    write_items(folder.path(), &version(1));
    folder
}

fn reference() -> Reference {
    let folder = start();
    let disk = FaultDisk::new(folder.path(), None).unwrap();
    let mut worker = Worker::new(disk.root());
    let mut found = Reference {
        observed: vec![Observed::default()],
        work: vec![read_items(folder.path())],
        operations: vec![disk.operations()],
    };
    let mut had_index = false;
    for step in SCENARIO {
        let layers = |worker: &Worker| worker.repo.as_ref().map_or(0, |repo| repo.objects().layers().layers().len());
        let before = layers(&worker);
        worker.run(step).unwrap();
        assert!(step != Step::Merge || layers(&worker) < before, "there are enough small layers");
        had_index |= worker.repo.as_ref().unwrap().objects().index().shape().0 == 1;
        found.observed.push(observe(worker.repo.as_ref().unwrap()));
        found.work.push(read_items(folder.path()));
        found.operations.push(disk.operations());
    }
    let repo = worker.repo.unwrap();
    assert_clean(&repo);
    assert!(had_index, "the scenario is long enough for an index");
    assert!(found.observed.windows(2).filter(|two| two[0] != two[1]).count() >= SCENARIO.len() - 8);
    found
}

impl Reference {
    /// Every number of an operation that tells something: while the user edits, one stop is as good as another.
    fn stops(&self) -> impl Iterator<Item = u64> {
        let inside_edit = |k: &u64| {
            SCENARIO
                .iter()
                .zip(self.operations.windows(2))
                .any(|(step, range)| matches!(step, Step::Edit(_)) && (range[0] + 1..range[1]).contains(k))
        };
        (0..*self.operations.last().unwrap()).filter(move |k| !inside_edit(k))
    }

    fn states(&self, done: usize) -> [&Observed; 2] {
        [&self.observed[done], &self.observed[(done + 1).min(SCENARIO.len())]]
    }

    /// Everything that ever was at a path up to the step after `done`.
    fn ever(&self, done: usize, path: &[u8]) -> Vec<Option<&Item>> {
        self.work.iter().take(done + 2).map(|items| items.get(path)).collect()
    }
}

/// Runs the scenario until a step fails; gives the number of steps that were reported.
fn run_until_failure(disk: &FaultDisk) -> (Worker, usize, Option<ops::Error>) {
    let mut worker = Worker::new(disk.root());
    for (done, step) in SCENARIO.into_iter().enumerate() {
        if let Err(error) = worker.run(step) {
            return (worker, done, Some(error));
        }
    }
    (worker, SCENARIO.len(), None)
}

/// Unfinished files anywhere below a folder.
fn leftovers(folder: &Path) -> Vec<OsString> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(leftovers(&entry.path()));
        }
        if is_temp_name(&entry.file_name()) {
            found.push(entry.path().into_os_string());
        }
    }
    found
}

/// Items without the unfinished files among them.
fn finished(items: Items) -> Items {
    items.into_iter().filter(|(path, _)| !is_temp_name(name_of(path).1)).collect()
}

/// Opens what a fault left. Before init was reported nothing need be there, but then init must work.
fn reopen(folder: &Path, done: usize) -> Repository {
    // A sound disk, but one that need not wait for the medium.
    let work = FaultDisk::new(folder, None).unwrap().root();
    match try_open(&work, crash_settings()) {
        Err(RepoError::NotARepository { .. } | RepoError::Disk(_)) if done == 0 => {
            try_init(&work, crash_settings()).unwrap()
        }
        opened => opened.unwrap(),
    }
}

/// Life goes on: everything can be saved, old and new versions come back, and nothing unfinished stays.
fn assert_usable(folder: &Path, repo: &Repository) {
    drop(repo.lock("test").unwrap());
    assert!(repo.strays().unwrap().is_empty());
    assert_eq!(leftovers(&folder.join(CONTROL_DIR)), Vec::<OsString>::new());
    let before = finished(read_items(folder));
    let id = save(repo, "afterwards");
    let mut saved = stored_items(repo, &id);
    for revision in ["HEAD~1", &id.to_string()] {
        if let Ok(id) = repo.resolve(revision) {
            go_to(repo, revision);
            let mut expected = stored_items(repo, &id);
            let now = read_items(folder);
            // Forced checkouts leave what is ignored alone.
            expected.extend(now.get_key_value(PRECIOUS.as_bytes()).map(|(path, item)| (path.clone(), item.clone())));
            assert_eq!(now, expected);
        }
    }
    saved.extend(before.get_key_value(PRECIOUS.as_bytes()).map(|(path, item)| (path.clone(), item.clone())));
    assert_eq!(saved, before, "what was there is what was saved");
}

/// Whoever syncs a folder after a checkout makes names durable whose files are not.
fn names_synced(done: usize) -> bool {
    let mut since_checkout = SCENARIO[..=done].iter().skip_while(|step| !matches!(step, Step::Checkout(_)));
    since_checkout.any(|step| matches!(step, Step::Edit(_)))
}

/// The work tree after a stop in the step after `done`.
fn assert_work_tree(reference: &Reference, repo: &Repository, folder: &Path, done: usize, unsynced: Unsynced) {
    let found = finished(read_items(folder));
    assert_eq!(found.get(PRECIOUS.as_bytes()), version(1).get(PRECIOUS.as_bytes()));
    let all = status::status(repo, &status::Options::default(), &Silent).unwrap();
    let reported = |path: &[u8]| {
        all.changed.iter().any(|item| item.path.as_bytes() == path)
            || all.untracked.iter().any(|p| p.as_bytes() == path)
    };
    let (before, after) = (&reference.work[done], &reference.work[(done + 1).min(SCENARIO.len())]);
    let paths: std::collections::BTreeSet<&Vec<u8>> = found.keys().chain(before.keys()).chain(after.keys()).collect();
    for path in paths {
        let (now, old, new) = (found.get(path), before.get(path), after.get(path));
        // Where a file gives way to a folder, there is a moment with neither.
        let makes_way = now.is_none() && old.map(std::mem::discriminant) != new.map(std::mem::discriminant);
        let fine = match unsynced {
            Unsynced::Kept => now == old || now == new || makes_way,
            Unsynced::Lost if !names_synced(done) => reference.ever(done, path).contains(&now),
            // Checkout does not sync what it writes, since all of it is stored; but it must not look clean.
            Unsynced::Lost | Unsynced::NamesOnly | Unsynced::Torn => {
                reference.ever(done, path).contains(&now) || makes_way || reported(path)
            }
        };
        let shown = String::from_utf8_lossy(path);
        assert!(fine, "{shown} is neither old nor new:\n{now:?}\n{old:?}\n{new:?}");
    }
}

#[test]
fn a_stop_at_any_operation_loses_nothing_that_was_reported() {
    let reference = reference();
    for stop in reference.stops() {
        let folder = start();
        let disk = FaultDisk::new(folder.path(), Some((stop, Fault::Stop))).unwrap();
        let (worker, done, error) = run_until_failure(&disk);
        if error.is_none() && disk.operations() <= stop {
            // What depends on the clock took an operation less in this run.
            continue;
        }
        assert!(error.is_some(), "stop {stop}: nothing can be reported by a machine that has stopped");
        drop(worker);
        for unsynced in EVERY_UNSYNCED {
            let image = scratch();
            disk.image(unsynced, image.path()).unwrap();
            let check = || {
                let repo = reopen(image.path(), done);
                let now = observe(&repo);
                assert!(reference.states(done).contains(&&now) || (done == 0 && now == reference.observed[1]));
                assert_clean(&repo);
                if !matches!(SCENARIO[done], Step::Edit(_)) {
                    assert_work_tree(&reference, &repo, image.path(), done, unsynced);
                }
                if let Step::Checkout(revision) = SCENARIO[done]
                    && now == reference.observed[done]
                    && matches!(unsynced, Unsynced::Kept | Unsynced::Lost)
                    && !names_synced(done)
                {
                    // What was stopped half-way is completed by doing it again, without force.
                    try_checkout(&repo, revision, false).unwrap();
                    assert_eq!(read_items(image.path()), reference.work[done + 1]);
                }
                assert_usable(image.path(), &repo);
            };
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err() {
                let log = disk.log();
                let tail = &log[log.len().saturating_sub(40)..];
                panic!("stop {stop} in {:?} with {unsynced:?}: {error:?}\n{tail:#?}", SCENARIO[done]);
            }
        }
    }
}

/// An add in pieces: what is recorded of each path is what it was before or what it is afterwards, and the next add does the
/// rest.
#[test]
fn an_add_in_pieces_that_stops_has_recorded_whole_paths() {
    const PIECES: u64 = 4;
    let in_pieces = || digstore::repo::Settings { paths_at_once: 3, ..crash_settings() };
    let prepare = || {
        let folder = start();
        let repo = try_init(&open_root(folder.path()).unwrap(), in_pieces()).unwrap();
        save(&repo, "before");
        edit(repo.work(), &version(4)).unwrap();
        // Where a folder was, there is a file now.
        let (lsn, staged) = (repo.journal().read().lsn(), observe(&repo).staged);
        (folder, lsn, staged)
    };
    let (folder, lsn, before) = prepare();
    let repo = try_open(&open_root(folder.path()).unwrap(), in_pieces()).unwrap();
    let added = add_all(&repo).unwrap();
    let paths = (added.added.len() + added.modified.len() + added.deleted.len()) as u64;
    assert_eq!((paths.div_ceil(3), repo.journal().read().lsn() - lsn), (PIECES, PIECES), "{added:?}");
    let after = observe(&repo).staged;
    let mut halves = 0;
    for stop in 0.. {
        let (folder, ..) = prepare();
        let disk = FaultDisk::new(folder.path(), Some((stop, Fault::Stop))).unwrap();
        let stopped = try_open(&disk.root(), in_pieces()).map(|repo| add_all(&repo));
        if matches!(stopped, Ok(Ok(_))) {
            assert!(halves > 0 && stop > 20, "{stop}");
            return;
        }
        for unsynced in EVERY_UNSYNCED {
            let image = scratch();
            disk.image(unsynced, image.path()).unwrap();
            // The machine has started anew: that the one who had the lock before ended in order says nothing any more.
            fs::write(image.path().join(CONTROL_DIR).join("lock"), "").unwrap();
            let repo = try_open(&open_root(image.path()).unwrap(), in_pieces()).unwrap();
            let found = observe(&repo).staged;
            halves += usize::from(found != before && found != after);
            for path in before.keys().chain(after.keys()).chain(found.keys()) {
                let now = found.get(path);
                assert!(
                    now == before.get(path) || now == after.get(path),
                    "stop {stop}, {unsynced:?}: {path:?} {now:?}"
                );
            }
            assert_clean(&repo);
            assert_usable(image.path(), &repo);
        }
    }
}

/// May a handle say this when it is used again after a failed operation?
fn is_honest(error: &ops::Error, fault: Fault) -> bool {
    match error {
        ops::Error::Repo(RepoError::Store(StoreError::Poisoned)) => true,
        ops::Error::Refused { .. } => fault == Fault::Full,
        ops::Error::Disk(error)
        | ops::Error::Repo(RepoError::Disk(error) | RepoError::Store(StoreError::Disk(error))) => {
            fault == Fault::Full && error.source.kind() == io::ErrorKind::StorageFull
        }
        _ => false,
    }
}

fn sweep_failures(fault: Fault) {
    let reference = reference();
    for at in reference.stops() {
        let folder = start();
        let disk = FaultDisk::new(folder.path(), Some((at, fault))).unwrap();
        let (mut worker, done, error) = run_until_failure(&disk);
        let check = || {
            let Some(step) = SCENARIO.get(done).copied() else {
                // The failed operation was not needed.
                assert_eq!(observe(&reopen(folder.path(), done)), reference.observed[done]);
                return;
            };
            let about_index = format!("{error:?}").contains("/.digstore/index");
            assert!(step == Step::Init || !about_index, "an index is derived; what was done is done without it");
            let now = observe(&reopen(folder.path(), done));
            let took_effect = now == reference.observed[done + 1];
            assert!(took_effect || reference.states(done).contains(&&now));
            // The same handle again, unless the step is there although it was not reported.
            if worker.repo.is_some() && (!took_effect || reference.observed[done] == reference.observed[done + 1]) {
                match worker.run(step) {
                    Ok(()) => assert_eq!(observe(&reopen(folder.path(), done)), reference.observed[done + 1]),
                    // The file has moved, and there is no second one to move.
                    Err(ops::Error::Refused { .. }) if matches!(step, Step::Move(..)) => {}
                    Err(error) if matches!(step, Step::Edit(_)) => assert_eq!(fault, Fault::Full, "{error}"),
                    Err(error) => assert!(is_honest(&error, fault), "{error:?}"),
                }
            }
            drop(worker.repo.take());
            let repo = reopen(folder.path(), done);
            assert_clean(&repo);
            assert_usable(folder.path(), &repo);
        };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err() {
            let log = disk.log();
            let tail = &log[log.len().saturating_sub(40)..];
            panic!("{fault:?} at {at} in step {done}, {:?}: {error:?}\n{tail:#?}", SCENARIO.get(done));
        }
    }
}

#[test]
fn a_failed_operation_is_reported_and_harms_nothing() {
    sweep_failures(Fault::Fail(io::ErrorKind::Other));
}

#[test]
fn a_full_disk_is_reported_and_harms_nothing() {
    sweep_failures(Fault::Full);
}
