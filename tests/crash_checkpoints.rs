//! What is left of checkpoints and sessions when the machine stops, or the disk fails, at any operation.
//!
//! As in `crash.rs`, a scenario runs on a disk that stops or fails at its k-th operation, for every k, and what is found
//! afterwards is compared with a run without faults.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the start of a scenario is made by hand")]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use common::*;
use digstore::base::disk::Dir;
use digstore::base::disk::fault::{EVERY_UNSYNCED, Fault, FaultDisk};
use digstore::base::monitor::Silent;
use digstore::format::bundle::encode_info;
use digstore::model::bundle::Geometry;
use digstore::model::checkpoint::Area;
use digstore::model::path::RepoPath;
use digstore::model::session::SessionName;
use digstore::ops::checkpoint::{self, create, edit as change, list, restore, retention};
use digstore::ops::session::{self, events, replay, state};
use digstore::ops::{self, undo};
use digstore::repo::resolve::Point;
use digstore::repo::{RepoError, Repository};

/// More than stays pending: a layer of its own.
const LARGE_LEN: usize = 1_200_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Edit(u8),
    Begin,
    Put(&'static str, &'static str),
    Append(&'static str),
    End,
    Create,
    CreateInSession,
    Tag(u64, &'static str),
    Restore(u64),
    Undo,
    Delete(u64),
    Compact,
    Snapshot,
    SaveBundle,
    RestoreBundle,
}

/// The sparse bundle of some versions.
const BUNDLE: &str = "vm";

const SCENARIO: [Step; 25] = [
    Step::Begin,
    Step::Put("k", "1"),
    Step::Create,
    Step::Edit(2),
    Step::CreateInSession,
    Step::Put("k", "2"),
    Step::Tag(2, "good"),
    Step::Edit(3),
    Step::Restore(1),
    Step::Undo,
    Step::Snapshot,
    Step::Append("note"),
    Step::Edit(4),
    Step::CreateInSession,
    Step::Delete(1),
    Step::Undo,
    Step::Edit(5),
    Step::Create,
    Step::Compact,
    Step::End,
    Step::Edit(6),
    Step::SaveBundle,
    Step::Edit(7),
    Step::SaveBundle,
    Step::RestoreBundle,
];

fn version(number: u8) -> Items {
    let mut items = Items::from([
        (b"dir".to_vec(), Item::Dir(0o755)),
        (b"dir/a".to_vec(), file(format!("a in version {number}"))),
        (b"same".to_vec(), file(noise(1, 3000))),
        (b"link".to_vec(), Item::Link(format!("{number}").into_bytes())),
    ]);
    if number == 3 {
        items.insert(b"later".to_vec(), file("made after the checkpoint"));
        items.remove(&b"same"[..]);
    }
    if number >= 6 {
        let info = encode_info(&Geometry::new(4 << 16, 1 << 16).unwrap()).unwrap();
        let mut add = |name: &str, item| drop(items.insert(format!("{BUNDLE}{name}").into_bytes(), item));
        add("", Item::Dir(0o755));
        add("/Info.plist", file(info));
        add("/bands", Item::Dir(0o755));
        add("/bands/0", file(noise(5, 40_000)));
        add("/bands/1", file(noise(u64::from(number), 20_000)));
        add(if number == 6 { "/bands/2" } else { "/bands/3" }, file(vec![0; 1000]));
    } else if number >= 4 {
        items.insert(b"large".to_vec(), file(noise(u64::from(number), LARGE_LEN)));
    }
    items
}

fn name() -> SessionName {
    SessionName::parse("s").unwrap()
}

fn run(root: &Arc<dyn Dir>, repo: &Repository, step: Step) -> ops::Result<()> {
    let create = |session| {
        let options = create::Options { session, message: format!("{step:?}"), ..create::Options::default() };
        create::create(repo, &options, &Silent).map(drop)
    };
    match step {
        Step::Edit(number) => edit(root, &version(number)).map_err(|source| {
            let path = root.path().to_path_buf();
            digstore::base::disk::DiskError { action: "edit", path, source }.into()
        }),
        Step::Begin => {
            let options = session::BeginOptions { name: name(), owner: None, resume: false };
            session::begin(repo, &options, &Silent).map(drop)
        }
        Step::Put(key, value) => state::put(repo, &name(), key.as_bytes(), value.as_bytes(), &Silent).map(drop),
        Step::Append(event_type) => events::append(repo, &name(), event_type, b"{}", &Silent).map(drop),
        Step::End => session::end(repo, &name(), &Silent).map(drop),
        Step::Create => create(None),
        Step::CreateInSession => create(Some(name())),
        Step::Tag(number, tag) => change::tag(repo, number, &[tag.to_owned()], &[], &Silent).map(drop),
        Step::SaveBundle => {
            let area = Some(Area::Bundle(RepoPath::parse(BUNDLE.as_bytes())?));
            create::create(repo, &create::Options { area, ..create::Options::default() }, &Silent).map(drop)
        }
        Step::RestoreBundle => {
            let listed = list::list(repo, &list::Options::default(), &Silent)?;
            let number = listed.checkpoints.iter().rfind(|line| line.bundle.is_some()).map_or(0, |line| line.number);
            let options = restore::Options { number, ..restore::Options::default() };
            whole(restore::restore(repo, &options, &Silent)?.failed)
        }
        Step::Restore(number) => {
            let options = restore::Options { number, ..restore::Options::default() };
            let outcome = restore::restore(repo, &options, &Silent)?;
            whole(outcome.failed)
        }
        Step::Undo => whole(undo::undo(repo, &undo::Options::default(), &Silent)?.failed),
        Step::Delete(number) => change::delete(repo, &[number], &Silent).map(drop),
        Step::Compact => {
            let policy = retention::Policy { newest: Some(2), ..retention::Policy::default() };
            retention::compact(repo, &retention::Options { policy, ..Default::default() }, &Silent).map(drop)
        }
        Step::Snapshot => {
            let _lock = repo.lock("test")?;
            Ok(repo.journal().snapshot()?)
        }
    }
}

/// A failure that a verb reported by a number is one, too.
fn whole(failed: u64) -> ops::Result<()> {
    match failed {
        0 => Ok(()),
        _ => Err(ops::Error::Refused { message: format!("{failed} paths failed"), hint: "" }),
    }
}

/// All that checkpoints and sessions say, without ids and times.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Observed {
    /// By number: message, tags and files.
    checkpoints: BTreeMap<u64, (String, Vec<String>, Items)>,
    /// The log of the session in words, and its state.
    log: Vec<String>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn observe(repo: &Repository) -> Observed {
    let mut seen = Observed::default();
    for line in &list::list(repo, &list::Options::default(), &Silent).unwrap().checkpoints {
        let point = repo.resolve_point(&format!("@{}", line.number)).unwrap();
        assert!(matches!(point, Point::Checkpoint(..)));
        let items = items_of_tree(repo, &repo.tree_of(&point).unwrap());
        seen.checkpoints.insert(line.number, (line.subject.clone(), line.tags.clone(), items));
    }
    if session::show(repo, &name(), &Silent).is_ok() {
        let log = events::events(repo, &name(), &events::Options::default(), &Silent).unwrap();
        seen.log = log.iter().map(|event| format!("{} {}", event.number, event.kind.word())).collect();
        seen.values = replay::replay(repo, &name(), None, &Silent).unwrap().values;
    }
    seen
}

/// Is it something between two moments? A verb may be made of two commits: the one that saves, and its own.
fn is_between(now: &Observed, before: &Observed, after: &Observed) -> bool {
    let all =
        |a: &Observed, b: &Observed| a.checkpoints.iter().all(|(number, one)| b.checkpoints.get(number) == Some(one));
    let growing = all(before, now) && all(now, after);
    let shrinking = all(after, now) && all(now, before);
    let session = (&now.log, &now.values);
    let session_fits = [(&before.log, &before.values), (&after.log, &after.values)].contains(&session);
    // A tag changes one that is there before and after.
    session_fits
        && (growing || shrinking || now.checkpoints == before.checkpoints || now.checkpoints == after.checkpoints)
}

struct Reference {
    observed: Vec<Observed>,
    work: Vec<Items>,
    operations: Vec<u64>,
}

fn start() -> tempfile::TempDir {
    let folder = scratch();
    write_items(folder.path(), &version(1));
    drop(init_at(folder.path()));
    folder
}

fn open(disk: &FaultDisk) -> Result<(Arc<dyn Dir>, Repository), RepoError> {
    let root = disk.root();
    let repo = try_open(&root, settings())?;
    Ok((root, repo))
}

fn reference() -> Reference {
    let folder = start();
    let disk = FaultDisk::new(folder.path(), None).unwrap();
    let (root, repo) = open(&disk).unwrap();
    let mut found = Reference {
        observed: vec![Observed::default()],
        work: vec![read_items(folder.path())],
        operations: vec![disk.operations()],
    };
    for step in SCENARIO {
        run(&root, &repo, step).unwrap();
        found.observed.push(observe(&repo));
        found.work.push(read_items(folder.path()));
        found.operations.push(disk.operations());
    }
    assert_clean(&repo);
    // What the scenario is to show: restored, taken back, compacted to two.
    assert_eq!(found.work[9], version(1));
    assert_eq!(found.work[10], version(3));
    assert_eq!(found.observed[19].checkpoints.len(), 2);
    assert_eq!(of_bundle(&found.work[25]), of_bundle(&version(6)));
    assert_eq!(of_bundle(&found.work[24]), of_bundle(&version(7)));
    found
}

/// What of the items belongs to the bundle.
fn of_bundle(items: &Items) -> Items {
    let is_part = |path: &[u8]| path.split(|byte| *byte == b'/').next() == Some(BUNDLE.as_bytes());
    items.iter().filter(|(path, _)| is_part(path)).map(|(path, item)| (path.clone(), item.clone())).collect()
}

impl Reference {
    /// Operations that tell something: while the user edits, one stop is as good as another.
    fn stops(&self) -> Vec<(u64, usize)> {
        let mut stops = Vec::new();
        for (at, (step, range)) in SCENARIO.iter().zip(self.operations.windows(2)).enumerate() {
            if !matches!(step, Step::Edit(_)) {
                stops.extend((range[0]..range[1]).map(|stop| (stop, at)));
            }
        }
        stops
    }
}

fn run_until_failure(disk: &FaultDisk) -> (usize, Option<ops::Error>) {
    let (root, repo) = match open(disk) {
        Ok(opened) => opened,
        Err(error) => return (0, Some(error.into())),
    };
    for (done, step) in SCENARIO.into_iter().enumerate() {
        if let Err(error) = run(&root, &repo, step) {
            return (done, Some(error));
        }
    }
    (SCENARIO.len(), None)
}

/// What was reported is there, what was not is there wholly or not at all, and life goes on.
fn assert_sound(reference: &Reference, folder: &Path, done: usize) {
    let root = FaultDisk::new(folder, None).unwrap().root();
    let repo = try_open(&root, settings()).unwrap();
    let now = observe(&repo);
    let (before, after) = (&reference.observed[done], &reference.observed[(done + 1).min(SCENARIO.len())]);
    assert!(is_between(&now, before, after), "{now:?}\n{before:?}\n{after:?}");
    assert_clean(&repo);
    let disk_now = read_items(folder);
    let made = create::create(&repo, &create::Options::default(), &Silent).unwrap().checkpoint.unwrap();
    assert!(now.checkpoints.keys().all(|number| *number < made.number), "a number was given twice");
    let tree = repo.tree_of(&repo.resolve_point(&format!("@{}", made.number)).unwrap()).unwrap();
    let unfinished = |items: Items| -> Items {
        items.into_iter().filter(|(path, _)| !digstore::base::disk::is_temp_name(name_of(path).1)).collect()
    };
    assert_eq!(items_of_tree(&repo, &tree), unfinished(disk_now), "a checkpoint is what is on disk");
    for (number, (_, _, items)) in &now.checkpoints {
        let options = restore::Options { number: *number, ..restore::Options::default() };
        assert_eq!(restore::restore(&repo, &options, &Silent).unwrap().failed, 0);
        let is_bundle = checkpoint::get(&repo.journal().read(), *number).unwrap().bundle().is_some();
        let there = unfinished(read_items(folder));
        assert_eq!(if is_bundle { of_bundle(&there) } else { there }, *items);
    }
    assert_clean(&repo);
    assert!(repo.strays().unwrap().is_empty());
}

#[test]
fn a_stop_at_any_operation_leaves_whole_checkpoints() {
    let reference = reference();
    for (stop, step) in reference.stops() {
        let folder = start();
        let disk = FaultDisk::new(folder.path(), Some((stop, Fault::Stop))).unwrap();
        let (done, error) = run_until_failure(&disk);
        assert!(error.is_some() && done == step, "stop {stop}: {error:?} after {done} steps");
        for unsynced in EVERY_UNSYNCED {
            let image = scratch();
            disk.image(unsynced, image.path()).unwrap();
            let check = || assert_sound(&reference, image.path(), done);
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err() {
                let log = disk.log();
                let tail = &log[log.len().saturating_sub(40)..];
                panic!("stop {stop} in {:?} with {unsynced:?}: {error:?}\n{tail:#?}", SCENARIO[done]);
            }
        }
    }
}

#[test]
fn a_failure_at_any_operation_leaves_whole_checkpoints() {
    let reference = reference();
    for fault in [Fault::Fail(io::ErrorKind::Other), Fault::Full] {
        for (at, _) in reference.stops() {
            let folder = start();
            let disk = FaultDisk::new(folder.path(), Some((at, fault))).unwrap();
            let (done, error) = run_until_failure(&disk);
            let check = || assert_sound(&reference, folder.path(), done);
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err() {
                let log = disk.log();
                let tail = &log[log.len().saturating_sub(40)..];
                panic!("{fault:?} at {at} in {:?}: {error:?}\n{tail:#?}", SCENARIO.get(done));
            }
        }
    }
}
