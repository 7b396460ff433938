//! Files that change or vanish while they are read: never a mixture that is called clean.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "work trees are changed by others than digstore")]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{init_at, noise, path, settings, try_commit, try_init, try_open};
use digstore::base::disk::open_root;
use digstore::base::monitor::Monitor;
use digstore::model::path::RepoPath;
use digstore::ops::{Error, add, cat, checkout, status, undo};
use digstore::repo::{Repository, Settings};

/// Does something to the work tree at a moment of the verb's work.
struct Meddler<'a> {
    /// Called with the name of each stage that begins.
    on_stage: &'a (dyn Fn(&str) + Sync),
    /// Called with the bytes stored so far.
    on_bytes: &'a (dyn Fn(u64) + Sync),
    bytes: AtomicU64,
    problems: Mutex<Vec<String>>,
}

impl<'a> Meddler<'a> {
    fn new(on_stage: &'a (dyn Fn(&str) + Sync), on_bytes: &'a (dyn Fn(u64) + Sync)) -> Self {
        Self { on_stage, on_bytes, bytes: AtomicU64::new(0), problems: Mutex::default() }
    }

    fn problems(self) -> Vec<String> {
        self.problems.into_inner().unwrap()
    }
}

impl Monitor for Meddler<'_> {
    fn begin(&self, stage: &str, _: Option<u64>, _: Option<u64>) {
        (self.on_stage)(stage);
    }
    fn advance(&self, _: u64, bytes: u64) {
        (self.on_bytes)(self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes);
    }
    fn end(&self) {}
    fn problem(&self, message: &str) {
        self.problems.lock().unwrap().push(message.to_owned());
    }
    fn cancelled(&self) -> bool {
        false
    }
}

fn add_watched(repo: &Repository, meddler: &Meddler<'_>) -> add::Outcome {
    add::add(repo, &add::Options { paths: vec![RepoPath::root()], ..add::Options::default() }, meddler).unwrap()
}

fn stored(repo: &Repository, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let options = cat::Options { revision: None, path: path(name), range: None };
    cat::cat(repo, &options, &mut bytes, &digstore::base::monitor::Silent).unwrap();
    bytes
}

/// Gives up after so many bytes.
struct Until {
    len: u64,
    seen: AtomicU64,
}

impl Monitor for Until {
    fn begin(&self, _: &str, _: Option<u64>, _: Option<u64>) {}
    fn advance(&self, _: u64, bytes: u64) {
        self.seen.fetch_add(bytes, Ordering::Relaxed);
    }
    fn end(&self) {}
    fn problem(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        self.seen.load(Ordering::Relaxed) >= self.len
    }
}

#[test]
fn what_an_add_that_was_given_up_left_is_removed_by_whoever_is_next() {
    const FILES: u64 = 120;
    const FILE_LEN: usize = 30_000;
    // Layers of three files: sixteen are committed on the way.
    let settings = Settings { layer_len: 64 << 10, in_flight_len: 1, ..settings() };
    let mut left = 0;
    for files in (10..FILES).step_by(3) {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..FILES {
            fs::write(folder.path().join(format!("{number:03}")), noise(number, FILE_LEN)).unwrap();
        }
        let work = open_root(folder.path()).unwrap();
        let repo = try_init(&work, settings.clone()).unwrap();
        let options = add::Options { paths: vec![RepoPath::root()], ..add::Options::default() };
        let until = Until { len: files * FILE_LEN as u64, seen: AtomicU64::new(0) };
        assert!(matches!(add::add(&repo, &options, &until), Err(Error::Interrupted)));
        left += repo.strays().unwrap().len();
        drop(repo);
        let repo = try_open(&work, settings.clone()).unwrap();
        drop(repo.lock("test").unwrap());
        assert_eq!(repo.strays().unwrap(), [], "given up after {files} files");
    }
    assert!(left > 0);
}

/// What is done to `a` between listing and reading, and what then is in the commit; `None`: nothing.
type Case = (&'static str, fn(&Path), Option<Vec<u8>>);

#[test]
fn what_happens_to_a_file_between_listing_and_reading_is_stored_or_reported() {
    let cases: [Case; 8] = [
        ("it vanishes", |file| fs::remove_file(file).unwrap(), None),
        ("it grows", |file| fs::write(file, noise(5, 90_000)).unwrap(), Some(noise(5, 90_000))),
        ("it becomes longer than memory", |file| fs::File::create(file).unwrap().set_len(1 << 42).unwrap(), None),
        ("it shrinks", |file| fs::write(file, "x").unwrap(), Some(b"x".to_vec())),
        ("it is emptied", |file| fs::write(file, "").unwrap(), Some(Vec::new())),
        (
            "it becomes a folder",
            |file| {
                fs::remove_file(file).unwrap();
                fs::create_dir(file).unwrap();
            },
            None,
        ),
        (
            "it becomes a link to elsewhere",
            |file| {
                fs::remove_file(file).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", file).unwrap();
            },
            None,
        ),
        (
            "its folder becomes a link to elsewhere",
            |file| {
                let folder = file.parent().unwrap();
                fs::rename(folder, folder.with_extension("away")).unwrap();
                std::os::unix::fs::symlink("/etc", folder).unwrap();
            },
            None,
        ),
    ];
    for (name, change, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let repo = init_at(folder.path());
        let file = folder.path().join("d/passwd");
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(&file, noise(1, 30_000)).unwrap();
        fs::write(folder.path().join("other"), "untouched").unwrap();
        let on_stage = |stage: &str| {
            if stage == "storing" {
                change(&file);
            }
        };
        let meddler = Meddler::new(&on_stage, &|_| {});
        let outcome = add_watched(&repo, &meddler);
        let problems = meddler.problems();
        try_commit(&repo, name).unwrap();
        assert_eq!(stored(&repo, "other"), b"untouched", "{name}");
        match expected {
            Some(bytes) => {
                assert_eq!((stored(&repo, "d/passwd"), problems.as_slice()), (bytes, &[][..]), "{name}");
            }
            None => {
                assert_eq!((outcome.unreadable, problems.len()), (1, 1), "{name}: {problems:?}");
                assert!(problems[0].contains("d/passwd"), "{name}: {problems:?}");
                let tracked = digstore::store::staging::is_tracked(&repo.journal().read(), &path("d/passwd")).unwrap();
                assert!(!tracked, "{name}");
            }
        }
    }
}

/// Longer than what is whole in memory at the settings below, so that it is read in windows.
const STREAMED_LEN: usize = 4 << 20;

fn streaming_repo(folder: &Path) -> Repository {
    let mut settings = settings();
    settings.classes.medium = 256 << 10;
    settings.read_len = 64 << 10;
    settings.in_flight_len = 512 << 10;
    try_init(&open_root(folder).unwrap(), settings).unwrap()
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let repo = streaming_repo(folder.path());
    let file = folder.path().join("big");
    fs::write(&file, noise(1, STREAMED_LEN)).unwrap();
    let changed = AtomicU64::new(0);
    let on_bytes = |bytes: u64| {
        // Once, in the middle: the beginning, which was read already, and the end, which was not.
        if bytes > STREAMED_LEN as u64 / 2 && changed.fetch_add(1, Ordering::Relaxed) == 0 {
            let open = fs::File::options().write(true).open(&file).unwrap();
            open.write_all_at(b"new beginning", 0).unwrap();
            open.write_all_at(b"new end", STREAMED_LEN as u64 - 7).unwrap();
        }
    };
    let meddler = Meddler::new(&|_| {}, &on_bytes);
    let outcome = add_watched(&repo, &meddler);
    assert_eq!((outcome.unreadable, meddler.problems().len()), (0, 0));
    try_commit(&repo, "after the change").unwrap();
    assert!(stored(&repo, "big") == fs::read(&file).unwrap(), "one state, the last");
}

#[test]
fn a_file_that_never_stands_still_is_reported_and_the_rest_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let repo = streaming_repo(folder.path());
    let file = folder.path().join("big");
    fs::write(&file, noise(1, STREAMED_LEN)).unwrap();
    fs::write(folder.path().join("small"), "still").unwrap();
    let writes = AtomicU64::new(0);
    let on_bytes = |_: u64| {
        let write = writes.fetch_add(1, Ordering::Relaxed);
        let open = fs::File::options().write(true).open(&file).unwrap();
        open.write_all_at(&write.to_le_bytes(), write % STREAMED_LEN as u64 / 2).unwrap();
        // A length of its own for each state: clocks of file systems are coarse.
        open.set_len(STREAMED_LEN as u64 + write).unwrap();
    };
    let meddler = Meddler::new(&|_| {}, &on_bytes);
    let outcome = add_watched(&repo, &meddler);
    let problems = meddler.problems();
    assert_eq!(outcome.unreadable, 1, "{problems:?}");
    assert!(problems[0].contains("big kept changing"), "{problems:?}");
    try_commit(&repo, "without it").unwrap();
    assert_eq!(stored(&repo, "small"), b"still");
    let state = status::status(&repo, &status::Options::default(), &digstore::base::monitor::Silent).unwrap();
    assert_eq!(state.untracked, [path("big")]);
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_stored_as_it_became() {
    let folder = tempfile::tempdir().unwrap();
    let repo = streaming_repo(folder.path());
    let file = folder.path().join("big");
    fs::write(&file, noise(1, STREAMED_LEN)).unwrap();
    let done = AtomicU64::new(0);
    let on_bytes = |bytes: u64| {
        if bytes > 1 << 20 && done.fetch_add(1, Ordering::Relaxed) == 0 {
            fs::File::options().write(true).open(&file).unwrap().set_len(300 << 10).unwrap();
        }
    };
    let meddler = Meddler::new(&|_| {}, &on_bytes);
    let outcome = add_watched(&repo, &meddler);
    assert_eq!((outcome.unreadable, meddler.problems().len()), (0, 0));
    try_commit(&repo, "shrunk").unwrap();
    assert!(stored(&repo, "big") == fs::read(&file).unwrap());
}

/// A repository whose last commit has these files.
fn committed(names: &[&str]) -> (tempfile::TempDir, Repository) {
    let folder = tempfile::tempdir().unwrap();
    let repo = init_at(folder.path());
    names.iter().for_each(|name| fs::write(folder.path().join(name), "committed").unwrap());
    add_watched(&repo, &Meddler::new(&|_| {}, &|_| {}));
    try_commit(&repo, "first").unwrap();
    (folder, repo)
}

fn force(repo: &Repository, on_stage: &(dyn Fn(&str) + Sync)) -> Result<checkout::Outcome, Error> {
    let options = checkout::Options { revision: "HEAD".to_owned(), force: true, ..checkout::Options::default() };
    checkout::checkout(repo, &options, &Meddler::new(on_stage, &|_| {}))
}

#[test]
fn what_changes_while_a_forced_checkout_stores_what_is_lost_is_stored_too() {
    let (folder, repo) = committed(&["a"]);
    fs::write(folder.path().join("a"), "lost").unwrap();
    let looks = AtomicU64::new(0);
    // The first look finds what is lost, the second comes after that was stored.
    let on_stage = |stage: &str| {
        if stage == "comparing with the work tree" && looks.fetch_add(1, Ordering::Relaxed) == 1 {
            fs::write(folder.path().join("a"), "lost, and newer").unwrap();
            fs::write(folder.path().join("late"), "lost as well").unwrap();
        }
    };
    let outcome = force(&repo, &on_stage).unwrap();
    assert_eq!(looks.into_inner(), 3);
    assert_eq!((outcome.lost, outcome.failed), (vec![path("a"), path("late")], 0));
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"committed");
    assert!(!folder.path().join("late").exists());
    undo::undo(&repo, &undo::Options::default(), &Meddler::new(&|_| {}, &|_| {})).unwrap();
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"lost, and newer");
    assert_eq!(fs::read(folder.path().join("late")).unwrap(), b"lost as well");
}

#[test]
fn what_a_forced_checkout_replaces_may_have_other_names_that_go() {
    let (folder, repo) = committed(&["a", "z"]);
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a"), "lost").unwrap();
    fs::hard_link(at("a"), at("untracked")).unwrap();
    fs::remove_file(at("z")).unwrap();
    fs::create_dir(at("z")).unwrap();
    fs::hard_link(at("a"), at("z/below")).unwrap();
    let outcome = force(&repo, &|_| {}).unwrap();
    assert_eq!((outcome.failed, outcome.written, outcome.removed), (0, 2, 3));
    assert_eq!([at("a"), at("z")].map(|file| fs::read(file).unwrap()), [b"committed"; 2]);
    undo::undo(&repo, &undo::Options::default(), &Meddler::new(&|_| {}, &|_| {})).unwrap();
    for name in ["a", "untracked", "z/below"] {
        assert_eq!(fs::read(at(name)).unwrap(), b"lost", "{name}");
    }
}

#[test]
fn a_forced_checkout_is_refused_rather_than_lose_what_keeps_changing() {
    let (folder, repo) = committed(&["a"]);
    let looks = AtomicU64::new(0);
    let on_stage = |stage: &str| {
        if stage == "comparing with the work tree" {
            let look = looks.fetch_add(1, Ordering::Relaxed);
            fs::write(folder.path().join("a"), format!("a log of {look} lines")).unwrap();
        }
    };
    let refused = force(&repo, &on_stage);
    assert!(matches!(refused, Err(Error::KeptChanging(at)) if at == path("a")));
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"a log of 3 lines");
}

#[test]
fn what_a_forced_checkout_could_not_replace_is_not_called_lost() {
    let (folder, repo) = committed(&["a", "b"]);
    fs::write(folder.path().join("a"), "lost").unwrap();
    fs::write(folder.path().join("b"), "lost").unwrap();
    fs::write(folder.path().join("untracked"), "lost").unwrap();
    // After the last look at it.
    let on_stage = |stage: &str| {
        if stage == "writing files" {
            fs::write(folder.path().join("a"), "not lost").unwrap();
        }
    };
    let outcome = force(&repo, &on_stage).unwrap();
    assert_eq!((outcome.failed, outcome.left), (1, vec![path("a")]));
    assert_eq!(outcome.lost, [path("b"), path("untracked")]);
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"not lost");
}
