//! Unchanged files are not opened. The count is of the whole process, so this binary has one test at a time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the work tree is changed by its user")]

mod common;

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use common::*;
use digstore::base::monitor::Silent;
use digstore::format::bundle::encode_info;
use digstore::model::bundle::{Geometry, band_name};
use digstore::model::checkpoint::Area;
use digstore::model::path::RepoPath;
use digstore::model::staging::RACY_WINDOW_NS;
use digstore::ops::checkpoint::create;
use digstore::ops::status;
use digstore::repo::Repository;
use digstore::world::read::files_opened;

const FILES: usize = 300;
const FOLDERS: usize = 10;
/// Long past any racy window.
const LONG_AGO: Duration = Duration::from_secs(3600);

/// The counter is global: tests of this file take turns.
static TURN: Mutex<()> = Mutex::new(());

/// How many files were opened meanwhile.
fn opens<T>(act: impl FnOnce() -> T) -> (u64, T) {
    let before = files_opened();
    let result = act();
    (files_opened() - before, result)
}

fn set_mtime(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

fn name(number: usize) -> String {
    format!("folder{}/file{number}", number % FOLDERS)
}

/// A tree whose files settled before they were added: the change time cannot be set, so it has to pass.
fn settled(folder: &Path) -> Repository {
    for number in 0..FILES {
        let at = folder.join(name(number));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&at, noise(number as u64, number * 20)).unwrap();
        set_mtime(&at, SystemTime::now() - LONG_AGO);
    }
    settle();
    init_at(folder)
}

fn settle() {
    std::thread::sleep(2 * Duration::from_nanos(RACY_WINDOW_NS as u64));
}

fn changes(repo: &Repository) -> (u64, Vec<String>) {
    let (count, outcome) = opens(|| status::status(repo, &status::Options::default(), &Silent).unwrap());
    (count, outcome.changed.iter().map(|item| item.path.to_string()).collect())
}

#[test]
fn only_what_looks_different_is_opened() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let repo = settled(folder.path());
    let (count, first) = opens(|| add_all(&repo).unwrap());
    assert_eq!((count, first.added.len()), (FILES as u64, FILES + FOLDERS));

    let (count, second) = opens(|| add_all(&repo).unwrap());
    assert_eq!((count, second.unchanged), (0, (FILES + FOLDERS) as u64));
    assert_eq!(changes(&repo), (0, vec![]));
    assert_eq!(opens(|| try_commit(&repo, "one").unwrap()).0, 0);
    assert_eq!(changes(&repo), (0, vec![]));
    // Another process knows the same.
    assert_eq!(changes(&open_at(folder.path())), (0, vec![]));

    // Touched: looked into, found unchanged, and after an add not looked into again.
    set_mtime(&folder.path().join(name(7)), SystemTime::now() - LONG_AGO / 2);
    assert_eq!(changes(&repo), (1, vec![]));
    settle();
    let (count, touched) = opens(|| add_all(&repo).unwrap());
    assert_eq!((count, touched.modified.len()), (1, 0));
    assert_eq!(opens(|| add_all(&repo).unwrap()).0, 0);

    fs::write(folder.path().join(name(8)), noise(1000, 8 * 20)).unwrap();
    assert_eq!(changes(&repo), (1, vec![name(8)]));
    settle();
    let (count, modified) = opens(|| add_all(&repo).unwrap());
    assert_eq!((count, modified.modified.len()), (1, 1));
    assert_eq!(opens(|| try_commit(&repo, "two").unwrap()).0, 0);

    // Another length needs no reading to be seen.
    fs::write(folder.path().join(name(9)), b"longer than it was, or shorter").unwrap();
    assert_eq!(changes(&repo), (0, vec![name(9)]));
}

#[test]
fn a_change_too_quick_for_the_clock_is_seen() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("file");
    fs::write(&at, "old bytes").unwrap();
    let time = fs::metadata(&at).unwrap().modified().unwrap();
    let repo = init_at(folder.path());
    // Added at once, and changed at once: nothing but the content may differ.
    add_all(&repo).unwrap();
    fs::write(&at, "new bytes").unwrap();
    set_mtime(&at, time);
    assert_eq!(changes(&repo), (1, vec!["file".to_owned()]));
    assert_eq!(opens(|| add_all(&repo).unwrap()).1.modified.len(), 1);
    let id = try_commit(&repo, "one").unwrap().id;
    assert_eq!(stored_items(&repo, &id), read_items(folder.path()));
}

#[test]
fn a_fresh_file_is_looked_into_until_it_has_settled() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let repo = init_at(folder.path());
    fs::write(folder.path().join("file"), "bytes").unwrap();
    // Of a clock ahead of ours nothing is known for as long as it is ahead, however slow this test runs.
    set_mtime(&folder.path().join("file"), SystemTime::now() + LONG_AGO);
    for _ in 0..3 {
        assert_eq!(opens(|| add_all(&repo).unwrap()).0, 1);
        assert_eq!(changes(&repo), (1, vec![]));
    }
    set_mtime(&folder.path().join("file"), SystemTime::now() - LONG_AGO);
    settle();
    assert_eq!(opens(|| add_all(&repo).unwrap()).0, 1);
    assert_eq!(opens(|| add_all(&repo).unwrap()).0, 0);
}

#[test]
fn status_reads_a_touched_file_once_and_remembers() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let repo = init_at(folder.path());
    fs::write(folder.path().join("file"), "bytes").unwrap();
    set_mtime(&folder.path().join("file"), SystemTime::now() - LONG_AGO);
    settle();
    add_all(&repo).unwrap();
    set_mtime(&folder.path().join("file"), SystemTime::now() - 2 * LONG_AGO);
    settle();
    assert_eq!(changes(&repo), (1, vec![]));
    assert_eq!(changes(&repo), (0, vec![]));
}

#[test]
fn a_checkpoint_of_a_bundle_opens_bands_that_changed() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("disk.sparsebundle");
    fs::create_dir_all(at.join("bands")).unwrap();
    let geometry = Geometry::new(64 << 20, 1 << 20).unwrap();
    fs::write(at.join("Info.plist"), encode_info(&geometry).unwrap()).unwrap();
    for band in 0..20u64 {
        fs::write(at.join("bands").join(band_name(band)), noise(band, 100_000)).unwrap();
    }
    let repo = init_at(folder.path());
    let area = Some(Area::Bundle(RepoPath::parse(b"disk.sparsebundle").unwrap()));
    let save =
        || create::create(&repo, &create::Options { area: area.clone(), ..Default::default() }, &Silent).unwrap();
    // All of it; Info.plist is one of the files. No wait is needed: creating waits for the clock.
    assert_eq!(opens(save).0, 21);
    assert_eq!(opens(save).0, 0);
    for band in ["3", "a", "13"] {
        let file = File::options().write(true).open(at.join("bands").join(band)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", 5000).unwrap();
    }
    fs::remove_file(at.join("bands/7")).unwrap();
    let (count, outcome) = opens(save);
    assert_eq!((count, outcome.modified.len(), outcome.removed.len()), (3, 3, 1));
    assert_eq!(opens(save).0, 0);
}
