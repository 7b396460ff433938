use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::create::{Options, Skipped, create};
use super::{edit, list, restore, retention, transfer};
use crate::base::monitor::{Recording, Silent};
use crate::model::checkpoint::{MAX_ANNOTATIONS_LEN, MAX_MESSAGE_LEN, MAX_STATE_LEN, Severity, Trigger};
use crate::model::path::{CONTROL_DIR, RepoPath};
use crate::model::session::SessionName;
use crate::model::tree::Node;
use crate::ops::testing::{TestRepo, path};
use crate::ops::{Error, add, checkout, commit, session, status, undo};
use crate::repo::{Repository, trees};
use crate::store::checkpoints;

/// What is at a path: kind and mode, content or target.
type Found = BTreeMap<String, (char, u32, Vec<u8>)>;

/// Everything on disk.
fn disk(root: &Path) -> Found {
    fn below(dir: &Path, at: &str, found: &mut Found) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
            if name == CONTROL_DIR {
                continue;
            }
            let meta = entry.path().symlink_metadata().unwrap();
            let mode = meta.mode() & 0o777;
            if meta.is_dir() {
                found.insert(path.clone(), ('d', mode, Vec::new()));
                below(&entry.path(), &path, found);
            } else if meta.is_symlink() {
                let target = fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes();
                found.insert(path, ('l', 0, target));
            } else {
                found.insert(path, ('f', mode, fs::read(entry.path()).unwrap()));
            }
        }
    }
    let mut found = Found::new();
    below(root, "", &mut found);
    found
}

/// Everything in a checkpoint.
fn stored(repo: &Repository, number: u64) -> Found {
    let tree = super::get(&repo.journal().read(), number).unwrap().tree().unwrap();
    let objects = repo.objects();
    let mut found = Found::new();
    for entry in trees::Entries::new(Arc::clone(&objects), objects.tree(&tree).unwrap()) {
        let (path, entry) = entry.unwrap();
        let value = match &entry.node {
            Node::Dir { .. } => ('d', entry.meta.mode, Vec::new()),
            Node::Symlink { target } => ('l', 0, target.clone()),
            Node::File { len, content } => {
                let mut bytes = Vec::new();
                objects
                    .pieces(content, *len, &mut |piece| {
                        match piece {
                            crate::model::recipe::Piece::Chunk { id, .. } => {
                                bytes.extend_from_slice(&objects.chunk(&id)?);
                            }
                            crate::model::recipe::Piece::Hole { len } => bytes.resize(bytes.len() + len as usize, 0),
                        }
                        Ok(())
                    })
                    .unwrap();
                ('f', entry.meta.mode, bytes)
            }
        };
        found.insert(path.to_string(), value);
    }
    found
}

fn make(repo: &Repository) -> u64 {
    create(repo, &Options::default(), &Silent).unwrap().checkpoint.unwrap().number
}

/// Restores, and what was foretold is what is done.
fn go_to(repo: &Repository, number: u64, paths: &[&str]) -> restore::Outcome {
    let paths = paths.iter().map(|text| path(text)).collect();
    let options = restore::Options { number, paths, ..restore::Options::default() };
    let dry = restore::restore(repo, &restore::Options { dry_run: true, ..options.clone() }, &Silent).unwrap();
    let done = restore::restore(repo, &options, &Silent).unwrap();
    assert_eq!((dry.written, dry.removed), (done.written, done.removed + done.failed), "restoring @{number}");
    done
}

fn take_back(repo: &Repository) -> undo::Outcome {
    undo::undo(repo, &undo::Options::default(), &Silent).unwrap()
}

fn write(repo: &TestRepo, name: &str, bytes: impl AsRef<[u8]>) {
    let at = repo.folder.path().join(name);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, bytes).unwrap();
}

fn name(text: &str) -> SessionName {
    SessionName::parse(text).unwrap()
}

fn add_all(repo: &Repository) {
    let options = add::Options { paths: vec![RepoPath::root()], ..add::Options::default() };
    add::add(repo, &options, &Silent).unwrap();
}

fn commit_all(repo: &Repository) {
    let options = commit::Options {
        message: "m".into(),
        author: "A <a@b>".into(),
        time_ns: 1,
        utc_offset_minutes: 0,
        all: false,
        allow_empty: true,
    };
    commit::commit(repo, &options, &Silent).unwrap();
}

#[test]
fn a_checkpoint_is_the_disk_whoever_wrote_it_and_staging_stays() {
    let repo = TestRepo::on_disk();
    write(&repo, "a/tracked", "one");
    write(&repo, "gone", "x");
    add_all(&repo);
    commit_all(&repo);
    write(&repo, "a/tracked", "two");
    write(&repo, "new/untracked", vec![7; 100_000]);
    fs::remove_file(repo.folder.path().join("gone")).unwrap();
    symlink("a/tracked", repo.folder.path().join("link")).unwrap();
    let before = status::status(&repo, &status::Options::default(), &Silent).unwrap();
    let layers = repo.objects().layers().layers().len();
    let outcome = create(&repo, &Options::default(), &Silent).unwrap();
    assert_eq!(outcome.checkpoint.as_ref().unwrap().number, 1);
    assert_eq!(stored(&repo, 1), disk(repo.folder.path()));
    let after = status::status(&repo, &status::Options::default(), &Silent).unwrap();
    assert_eq!((before.changed, before.untracked), (after.changed, after.untracked));
    // Few bytes: nothing but the log was written, and the next one reads nothing that looks the same.
    assert_eq!(repo.objects().layers().layers().len(), layers);
    write(&repo, "a/third", "3");
    let outcome = create(&repo, &Options::default(), &Silent).unwrap();
    assert_eq!((outcome.added, outcome.modified, outcome.removed), (vec![path("a/third")], vec![], vec![]));
    assert_eq!(stored(&repo, 2), disk(repo.folder.path()));
    let parent = repo.journal().read();
    let parent = super::get(&parent, 2).unwrap().origin.parent;
    assert_eq!(parent, Some(super::get(&repo.journal().read(), 1).unwrap().id));
}

#[test]
fn the_same_size_and_time_do_not_hide_a_change() {
    let repo = TestRepo::on_disk();
    write(&repo, "f", "aaaa");
    let at = repo.folder.path().join("f");
    let time = fs::metadata(&at).unwrap().modified().unwrap();
    make(&repo);
    write(&repo, "f", "bbbb");
    fs::File::options().write(true).open(&at).unwrap().set_modified(time).unwrap();
    let outcome = create(&repo, &Options::default(), &Silent).unwrap();
    assert_eq!(outcome.modified, [path("f")]);
    assert_eq!(stored(&repo, 2)["f"].2, b"bbbb");
}

#[test]
fn restore_saves_first_and_undo_brings_it_back() {
    let repo = TestRepo::on_disk();
    write(&repo, "keep", "k");
    write(&repo, "dir/file", "1");
    write(&repo, "shape", "a file");
    make(&repo);
    let first = disk(repo.folder.path());
    write(&repo, "dir/file", "2");
    write(&repo, "dir/later", "created after");
    fs::remove_file(repo.folder.path().join("shape")).unwrap();
    write(&repo, "shape/is", "a folder now");
    fs::set_permissions(repo.folder.path().join("keep"), fs::Permissions::from_mode(0o600)).unwrap();
    let second = disk(repo.folder.path());
    let open = fs::File::open(repo.folder.path().join("dir/file")).unwrap();
    let outcome = go_to(&repo, 1, &[]);
    assert_eq!((outcome.saved, outcome.failed), (Some(2), 0));
    assert_eq!(disk(repo.folder.path()), first);
    assert_eq!(stored(&repo, 2), second);
    drop(open);
    // The disk is equal to a stored one: no further safety checkpoint.
    assert_eq!(go_to(&repo, 1, &[]).saved, Some(1));
    // Nothing was done by the second one, so there is one to take back.
    take_back(&repo);
    assert_eq!(disk(repo.folder.path()), second);
}

#[test]
fn a_folder_or_a_file_is_restored_without_the_rest() {
    let repo = TestRepo::on_disk();
    for file in ["a/1", "a/2", "b"] {
        write(&repo, file, "old");
    }
    make(&repo);
    for file in ["a/1", "a/2", "a/3", "b"] {
        write(&repo, file, "newer");
    }
    let outcome = go_to(&repo, 1, &["a/1"]);
    assert_eq!((outcome.written, outcome.removed), (1, 0));
    let now = disk(repo.folder.path());
    assert_eq!((now["a/1"].2.as_slice(), now["a/2"].2.as_slice()), (&b"old"[..], &b"newer"[..]));
    go_to(&repo, 1, &["a"]);
    let now = disk(repo.folder.path());
    assert!(!now.contains_key("a/3"));
    assert_eq!((now["a/2"].2.as_slice(), now["b"].2.as_slice()), (&b"old"[..], &b"newer"[..]));
    let options = restore::Options { number: 1, paths: vec![path("nowhere")], ..restore::Options::default() };
    assert!(matches!(restore::restore(&repo, &options, &Silent), Err(Error::NoSuchPath { .. })));
    assert_eq!(stored(&repo, make(&repo)), disk(repo.folder.path()));
}

#[test]
fn auto_skips_what_is_unchanged_or_recent() {
    let repo = TestRepo::on_disk();
    write(&repo, "f", "1");
    let auto = Options { trigger: Trigger::Automatic("changed".into()), only_if_changed: true, ..Options::default() };
    assert!(create(&repo, &auto, &Silent).unwrap().checkpoint.is_some());
    assert_eq!(create(&repo, &auto, &Silent).unwrap().skipped, Some(Skipped::Unchanged));
    write(&repo, "f", "2");
    let patient = Options { min_interval: Some(Duration::from_secs(3600)), ..auto.clone() };
    assert_eq!(create(&repo, &patient, &Silent).unwrap().skipped, Some(Skipped::Recent));
    let hasty = Options { min_interval: Some(Duration::ZERO), ..auto };
    assert_eq!(create(&repo, &hasty, &Silent).unwrap().checkpoint.unwrap().number, 2);
}

#[test]
fn bad_requests_are_refused() {
    let repo = TestRepo::in_memory();
    let bad = [
        Options { state: Some("{".into()), ..Options::default() },
        Options { state: Some(String::new()), ..Options::default() },
        Options { tags: vec!["a b".into()], ..Options::default() },
        Options { tags: vec![String::new()], ..Options::default() },
        Options { session: Some(name("none")), ..Options::default() },
        Options { trigger: Trigger::Automatic("x\n".into()), ..Options::default() },
    ];
    for options in bad {
        assert!(create(&repo, &options, &Silent).is_err(), "{options:?}");
    }
    assert_eq!(make(&repo), 1, "no number was given to what was refused");
}

#[test]
fn metadata_is_kept_and_its_checksum_is_the_same_after_reopening() {
    let repo = TestRepo::on_disk();
    let begin = session::BeginOptions { name: name("s"), owner: None, resume: false };
    session::begin(&repo, &begin, &Silent).unwrap();
    let options = Options {
        session: Some(name("s")),
        message: "m\nmore".into(),
        tags: vec!["b".into(), "a".into(), "b".into()],
        state: Some("{\"b\":1, \"a\":[2]}".into()),
        ..Options::default()
    };
    create(&repo, &options, &Silent).unwrap();
    edit::tag(&repo, 1, &["c".into()], &["b".into()], &Silent).unwrap();
    edit::annotate(&repo, 1, Severity::Warning, "look here", &Silent).unwrap();
    let shown = list::show(&repo, 1, &Silent).unwrap();
    assert_eq!(shown.checkpoint.tags, ["a", "c"]);
    let repo = repo.reopen();
    let again = list::show(&repo, 1, &Silent).unwrap();
    assert_eq!((again.checksum, again.checkpoint), (shown.checksum, shown.checkpoint));
    let by_tag = |tag: &str| {
        let options = list::Options { tag: Some(tag.into()), ..list::Options::default() };
        list::list(&repo, &options, &Silent).unwrap().checkpoints.len()
    };
    assert_eq!((by_tag("a"), by_tag("b"), by_tag("c")), (1, 0, 1));
    assert!(matches!(edit::tag(&repo, 9, &[], &[], &Silent), Err(Error::Repo(_))));
}

#[test]
fn lists_come_in_pages_by_session_tag_and_time() {
    let repo = TestRepo::in_memory();
    let begin = session::BeginOptions { name: name("s"), owner: None, resume: false };
    session::begin(&repo, &begin, &Silent).unwrap();
    for number in 1..=9u64 {
        let options = Options {
            session: (number % 3 == 0).then(|| name("s")),
            tags: if number % 2 == 0 { vec!["even".into()] } else { vec![] },
            area: None,
            ..Options::default()
        };
        create(&repo, &options, &Silent).unwrap();
    }
    let numbers = |options: list::Options| {
        let outcome = list::list(&repo, &options, &Silent).unwrap();
        (outcome.checkpoints.iter().map(|line| line.number).collect::<Vec<_>>(), outcome.more)
    };
    let all = list::Options::default();
    assert_eq!(numbers(all.clone()), ((1..=9).rev().collect(), false));
    assert_eq!(numbers(list::Options { max_count: Some(2), ..all.clone() }), (vec![9, 8], true));
    assert!(!numbers(list::Options { max_count: Some(9), ..all.clone() }).1);
    let page = list::Options { before: Some(8), max_count: Some(3), ..all.clone() };
    assert_eq!(numbers(page), (vec![7, 6, 5], true));
    assert_eq!(numbers(list::Options { session: Some(name("s")), ..all.clone() }).0, [9, 6, 3]);
    assert_eq!(numbers(list::Options { tag: Some("even".into()), ..all.clone() }).0, [8, 6, 4, 2]);
    let both = list::Options { session: Some(name("s")), tag: Some("even".into()), ..all };
    assert_eq!(numbers(both).0, [6]);
    let time = super::get(&repo.journal().read(), 5).unwrap().origin.time_ns;
    assert_eq!(numbers(list::Options { until_ns: Some(time), ..all.clone() }).0, [4, 3, 2, 1]);
    assert_eq!(numbers(list::Options { since_ns: Some(time), ..all }).0, [9, 8, 7, 6, 5]);
}

#[test]
fn long_checkpoints_are_deleted_together_and_come_back_one_after_the_other() {
    let repo = TestRepo::on_disk();
    for number in 0..5 {
        write(&repo, "a", format!("{number}"));
        let state = format!("\"{}\"", "x".repeat(MAX_STATE_LEN - 2));
        create(&repo, &Options { state: Some(state), ..Options::default() }, &Silent).unwrap();
    }
    let long = "r".repeat(MAX_MESSAGE_LEN);
    let remark = || edit::annotate(&repo, 1, Severity::Info, &long, &Silent);
    (0..MAX_ANNOTATIONS_LEN / MAX_MESSAGE_LEN).for_each(|_| drop(remark().unwrap()));
    assert!(matches!(remark(), Err(Error::Refused { .. })));
    edit::delete(&repo, &[1, 2, 3, 4, 5], &Silent).unwrap();
    for left in 1..=5 {
        take_back(&repo);
        assert_eq!(checkpoints::numbers(&repo.journal().read()).unwrap().len(), left);
    }
}

#[test]
fn numbers_are_never_given_again() {
    let repo = TestRepo::on_disk();
    make(&repo);
    make(&repo);
    edit::delete(&repo, &[2], &Silent).unwrap();
    let repo = repo.reopen();
    assert_eq!(make(&repo), 3);
    assert!(super::get(&repo.journal().read(), 2).is_err());
}

/// Bytes of layers and of what is pending.
fn size(repo: &Repository) -> u64 {
    let objects = repo.objects();
    let layers: u64 = objects.layers().layers().iter().map(|(_, record)| record.file_len).sum();
    layers + objects.pending().stored_bytes()
}

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn compaction_gives_space_back_and_keeps_what_is_kept() {
    let repo = TestRepo::on_disk();
    for step in 0..6u8 {
        // Three large ones in layers of their own, three small ones that stay pending.
        let len = if step < 3 { 1_500_000 } else { 20_000 };
        write(&repo, "big", noise(step, len));
        write(&repo, "same", noise(99, 50_000));
        make(&repo);
    }
    edit::tag(&repo, 2, &["good".into()], &[], &Silent).unwrap();
    let before = size(&repo);
    let policy = retention::Policy { newest: Some(1), tagged: retention::Tagged::Any, thin: false };
    let options = retention::Options { policy, ..retention::Options::default() };
    let look = retention::Options { dry_run: true, ..options.clone() };
    let preview = retention::compact(&repo, &look, &Silent).unwrap();
    assert_eq!(size(&repo), before);
    let outcome = retention::compact(&repo, &options, &Silent).unwrap();
    assert_eq!(outcome.removed, preview.removed);
    assert_eq!(outcome.removed.iter().map(|line| line.number).collect::<Vec<_>>(), [5, 4, 3, 1]);
    assert_eq!(before - size(&repo), outcome.freed_bytes);
    assert!(outcome.freed_bytes > 3_000_000, "{outcome:?}");
    let difference = outcome.freed_bytes.abs_diff(preview.freed_bytes);
    assert!(difference * 50 < outcome.freed_bytes, "{} {}", outcome.freed_bytes, preview.freed_bytes);
    let repo = repo.reopen();
    assert_eq!(stored(&repo, 2)["big"].2, noise(1, 1_500_000));
    assert_eq!(stored(&repo, 6), disk(repo.folder.path()));
    let refused = undo::undo(&repo, &undo::Options::default(), &Silent);
    assert!(matches!(refused, Err(Error::Refused { .. })));
    assert_eq!(repo.strays().unwrap(), []);
}

#[test]
fn a_file_that_reads_like_a_folder_does_not_hide_the_folder() {
    let repo = TestRepo::on_disk();
    write(&repo, "folder/inner", noise(1, 5000));
    write(&repo, "folder/other", noise(2, 5000));
    make(&repo);
    let bytes = {
        let tree = super::get(&repo.journal().read(), 1).unwrap().tree().unwrap();
        let objects = repo.objects();
        let root = objects.tree(&tree).unwrap();
        let Node::Dir { tree } = root.get(b"folder").unwrap().node else { panic!() };
        objects.read(&tree.into(), crate::model::id::ObjectKind::Tree).unwrap().to_vec()
    };
    // Reached before the folder, and after it.
    write(&repo, "a", &bytes);
    write(&repo, "z", &bytes);
    write(&repo, "dead", noise(3, 50_000));
    make(&repo);
    fs::remove_file(repo.folder.path().join("dead")).unwrap();
    make(&repo);
    edit::delete(&repo, &[1, 2], &Silent).unwrap();
    let outcome = retention::compact(&repo, &retention::Options::default(), &Silent).unwrap();
    assert!(outcome.freed_bytes > 40_000, "{outcome:?}");
    assert_eq!(stored(&repo.reopen(), 3)["folder/inner"].2, noise(1, 5000));
}

#[test]
fn compaction_for_later_can_be_undone() {
    let repo = TestRepo::on_disk();
    for step in 0..4u8 {
        write(&repo, "f", noise(step, 10_000));
        make(&repo);
    }
    let policy = retention::Policy { newest: Some(1), ..retention::Policy::default() };
    let options = retention::Options { policy, later: true, ..retention::Options::default() };
    assert_eq!(retention::compact(&repo, &options, &Silent).unwrap().removed.len(), 3);
    assert!(super::get(&repo.journal().read(), 2).is_err());
    take_back(&repo);
    assert_eq!(stored(&repo, 2)["f"].2, noise(1, 10_000));
    // Without a rule only space is given back.
    edit::delete(&repo, &[1, 2, 3], &Silent).unwrap();
    let before = size(&repo);
    let look = retention::Options { dry_run: true, ..retention::Options::default() };
    let foretold = retention::compact(&repo, &look, &Silent).unwrap().freed_bytes;
    let outcome = retention::compact(&repo, &retention::Options::default(), &Silent).unwrap();
    assert!(foretold.abs_diff(outcome.freed_bytes) < 5_000, "{foretold} and {}", outcome.freed_bytes);
    assert_eq!((outcome.removed.len(), before - size(&repo)), (0, outcome.freed_bytes));
    assert!(outcome.freed_bytes >= 25_000);
    assert_eq!(stored(&repo, 4), disk(repo.folder.path()));
}

#[test]
fn thinning_keeps_an_hour_then_one_an_hour_then_one_a_day() {
    const MINUTE: i64 = 60_000_000_000;
    let now = 1_700_000_000_000_000_000;
    let repo = TestRepo::in_memory();
    let mut all = Vec::new();
    make(&repo);
    let sample = super::get(&repo.journal().read(), 1).unwrap();
    // One every ten minutes for three days, the newest first.
    for step in 0..432i64 {
        let mut checkpoint = sample.clone();
        checkpoint.number = 1000 - step as u64;
        checkpoint.origin.time_ns = now - step * 10 * MINUTE;
        all.push(checkpoint);
    }
    let thin = retention::Policy { thin: true, ..retention::Policy::default() };
    let gone = thin.select(&all, now);
    let kept = all.len() - gone.len();
    // Six of the last hour, 23 hours (one more where the clock cuts one), two days and the rest of a third.
    assert!((6 + 23 + 2..=6 + 24 + 3).contains(&kept), "{kept}");
    let rest: Vec<_> = all.iter().filter(|checkpoint| !gone.contains(&checkpoint.number)).cloned().collect();
    assert_eq!(thin.select(&rest, now), Vec::<u64>::new(), "doing it again changes nothing");
    assert!(retention::Policy::default().select(&all, now).is_empty(), "without a rule nothing goes");
}

/// A document with checkpoints.
pub(super) fn exported(repo: &TestRepo, options: &transfer::ExportOptions) -> Vec<u8> {
    let mut document = Vec::new();
    transfer::export(repo, options, &mut document, Path::new("document"), &Silent).unwrap();
    document
}

/// Takes a document in.
pub(super) fn imported(repo: &TestRepo, document: &[u8]) -> crate::ops::Result<transfer::ImportOutcome> {
    transfer::import(repo, document, Path::new("document"), &Silent)
}

#[test]
fn an_export_is_taken_in_elsewhere_whole_or_not_at_all() {
    let repo = TestRepo::on_disk();
    write(&repo, "dir/f", noise(1, 300_000));
    make(&repo);
    write(&repo, "g", "2");
    let options = Options { state: Some("{ \"x\" : 1 }".into()), tags: vec!["t".into()], ..Options::default() };
    create(&repo, &options, &Silent).unwrap();
    let export = |content| {
        let options = transfer::ExportOptions { content, ..transfer::ExportOptions::default() };
        exported(&repo, &options)
    };
    let other = TestRepo::on_disk();
    make(&other);
    let text = String::from_utf8(export(true)).unwrap();
    let damaged = [
        text.replacen("\"version\":1", "\"version\":2", 1),
        text.replacen("\"checksum\":\"", "\"checksum\":\"0", 1),
        text.replacen("\"message\":\"\"", "\"message\":\"x\"", 1),
        text.replacen("\"number\":1", "\"number\":3", 1),
        text.replacen("\"data\":\"", "\"data\":\"AAAA", 1),
        text.replacen("digstore checkpoints", "something else", 1),
        text[..text.len() - 5].to_owned(),
        "[]".to_owned(),
        String::from_utf8(export(false)).unwrap(),
    ];
    for (row, bad) in damaged.iter().enumerate() {
        assert_ne!(*bad, text, "row {row}");
        assert!(imported(&other, bad.as_bytes()).is_err(), "row {row}");
    }
    let outcome = imported(&other, text.as_bytes()).unwrap();
    assert_eq!((outcome.numbers.as_slice(), outcome.known, outcome.gaps), (&[2, 3][..], 0, 0));
    assert_eq!(stored(&other, 3), stored(&repo, 2));
    assert_eq!(super::get(&other.journal().read(), 3).unwrap().id, super::get(&repo.journal().read(), 2).unwrap().id);
    let again = imported(&other, text.as_bytes()).unwrap();
    assert_eq!((again.numbers.len(), again.known), (0, 2));
    // With its names in another order, objects before checkpoints say what they are for.
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (objects, others): (Vec<_>, Vec<_>) =
        value.as_object().unwrap().iter().partition(|(name, _)| *name == "objects");
    let names = objects.iter().chain(&others).map(|(name, value)| format!("{name:?}:{value}"));
    let mixed = format!("{{{}}}", names.collect::<Vec<_>>().join(","));
    let third = TestRepo::on_disk();
    assert_eq!(imported(&third, mixed.as_bytes()).unwrap().numbers, [1, 2]);
    assert_eq!(stored(&third, 2), stored(&repo, 2));
    assert_eq!(make(&other), 4);
}

#[test]
fn undo_takes_back_commits_checkouts_restores_and_branches() {
    let repo = TestRepo::on_disk();
    write(&repo, "a", "1");
    write(&repo, "b", "1");
    add_all(&repo);
    commit_all(&repo);
    let first = repo.head_commit().unwrap();
    write(&repo, "a", "2");
    fs::remove_file(repo.folder.path().join("b")).unwrap();
    add_all(&repo);
    let staged = status::status(&repo, &status::Options::default(), &Silent).unwrap().staged;
    commit_all(&repo);
    let second = repo.head_commit().unwrap();
    // A commit.
    take_back(&repo);
    assert_eq!(repo.head_commit().unwrap(), first);
    assert_eq!(status::status(&repo, &status::Options::default(), &Silent).unwrap().staged, staged);
    commit_all(&repo);
    let at_second = disk(repo.folder.path());
    // A checkout.
    let to = |revision: &str, force| {
        let options = checkout::Options { revision: revision.into(), force, ..checkout::Options::default() };
        checkout::checkout(&repo, &options, &Silent).unwrap();
    };
    to(&first.unwrap().to_string(), false);
    take_back(&repo);
    assert_eq!(disk(repo.folder.path()), at_second);
    assert!(status::status(&repo, &status::Options::default(), &Silent).unwrap().is_clean());
    assert_ne!(repo.head_commit().unwrap(), first);
    assert_eq!(repo.head_commit().unwrap().is_some(), second.is_some());
    // A forced one that loses work.
    write(&repo, "a", "precious");
    write(&repo, "untracked", "precious, too");
    let precious = disk(repo.folder.path());
    to("HEAD", true);
    assert_eq!(disk(repo.folder.path()), at_second);
    take_back(&repo);
    assert_eq!(disk(repo.folder.path()), precious);
    // A restore.
    let options = checkout::RestoreOptions { paths: vec![path("a")], force: true, ..Default::default() };
    checkout::restore(&repo, &options, &Silent).unwrap();
    assert_ne!(disk(repo.folder.path()), precious);
    take_back(&repo);
    assert_eq!(disk(repo.folder.path()), precious);
    let commit_undone = undo::undo(&repo, &undo::Options { dry_run: true }, &Silent).unwrap();
    assert!(commit_undone.operations[0].summary.starts_with("commit"), "{commit_undone:?}");
}

#[test]
fn a_path_that_cannot_be_saved_is_not_restored_over() {
    if rustix::process::geteuid().is_root() {
        // Past the capture of the test runner: this must be seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED, root reads everything: a path that cannot be saved");
        return;
    }
    let repo = TestRepo::on_disk();
    write(&repo, "secret", "1");
    make(&repo);
    write(&repo, "secret", "2, and unreadable");
    let at = repo.folder.path().join("secret");
    fs::set_permissions(&at, fs::Permissions::from_mode(0o000)).unwrap();
    let monitor = Recording::default();
    let outcome = create(&repo, &Options::default(), &monitor).unwrap();
    assert_eq!((outcome.unreadable, outcome.checkpoint.unwrap().origin.unreadable_paths), (1, 1));
    fs::set_permissions(&at, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(fs::read(&at).unwrap(), b"2, and unreadable");
}

/// Something that happens to a work tree and its repository.
#[derive(Debug, Clone)]
enum Step {
    Write(usize, u8, usize),
    Remove(usize),
    Folder(usize),
    Link(usize, u8),
    Mode(usize, bool),
    Touch(usize),
    Add,
    Commit,
    Status,
    Checkpoint,
    Restore(usize),
    RestorePath(usize, usize),
    Undo,
    Reopen,
}

const NAMES: [&str; 7] = ["a", "b", "d/x", "d/y", "d/e/z", "d/e", "f.g"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0..NAMES.len();
    let step = prop_oneof![
        5 => (at.clone(), any::<u8>(), prop::sample::select(vec![0usize, 1, 300, 70_000])).prop_map(|(n, s, l)| Step::Write(n, s, l)),
        2 => at.clone().prop_map(Step::Remove),
        1 => at.clone().prop_map(Step::Folder),
        1 => (at.clone(), any::<u8>()).prop_map(|(n, t)| Step::Link(n, t)),
        1 => (at.clone(), any::<bool>()).prop_map(|(n, x)| Step::Mode(n, x)),
        1 => at.clone().prop_map(Step::Touch),
        1 => Just(Step::Add),
        1 => Just(Step::Commit),
        1 => Just(Step::Status),
        4 => Just(Step::Checkpoint),
        2 => any::<prop::sample::Index>().prop_map(|i| Step::Restore(i.index(1000))),
        2 => (any::<prop::sample::Index>(), at).prop_map(|(i, n)| Step::RestorePath(i.index(1000), n)),
        1 => Just(Step::Undo),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..25)
}

/// Clears whatever is at a path or in the way of it.
fn clear(root: &Path, name: &str) {
    let mut at = root.to_path_buf();
    for part in name.split('/') {
        at.push(part);
        match at.symlink_metadata() {
            Ok(meta) if meta.is_dir() && at != root.join(name) => {}
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&at).unwrap(),
            Ok(_) => fs::remove_file(&at).unwrap(),
            Err(_) => {}
        }
    }
    fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever happened before, a checkpoint is what is on disk, and restoring one gives it back exactly.
    #[test]
    fn checkpoints_are_the_disk(steps in steps()) {
        let mut repo = TestRepo::on_disk();
        let root = repo.folder.path().to_path_buf();
        let mut taken: Vec<(u64, Found)> = Vec::new();
        for step in steps {
            match step {
                Step::Write(at, seed, len) => {
                    clear(&root, NAMES[at]);
                    fs::write(root.join(NAMES[at]), noise(seed, len)).unwrap();
                }
                Step::Remove(at) => clear(&root, NAMES[at]),
                Step::Folder(at) => {
                    clear(&root, NAMES[at]);
                    fs::create_dir(root.join(NAMES[at])).unwrap();
                }
                Step::Link(at, target) => {
                    clear(&root, NAMES[at]);
                    symlink(format!("to {target}"), root.join(NAMES[at])).unwrap();
                }
                Step::Mode(at, executable) => {
                    let file = root.join(NAMES[at]);
                    if file.symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) {
                        let mode = if executable { 0o755 } else { 0o700 };
                        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
                    }
                }
                Step::Touch(at) => {
                    if let Ok(file) = fs::File::options().append(true).open(root.join(NAMES[at])) {
                        file.set_modified(std::time::SystemTime::now()).unwrap();
                    }
                }
                Step::Add => add_all(&repo),
                Step::Commit => commit_all(&repo),
                Step::Status => {
                    status::status(&repo, &status::Options::default(), &Silent).unwrap();
                }
                Step::Checkpoint => {
                    let number = make(&repo);
                    let now = disk(&root);
                    prop_assert_eq!(&stored(&repo, number), &now);
                    taken.push((number, now));
                }
                Step::Restore(which) if !taken.is_empty() => {
                    let (number, then) = &taken[which % taken.len()];
                    let outcome = go_to(&repo, *number, &[]);
                    prop_assert_eq!(outcome.failed, 0);
                    prop_assert_eq!(&disk(&root), then);
                }
                Step::RestorePath(which, at) if !taken.is_empty() => {
                    let (number, then) = &taken[which % taken.len()];
                    let name = NAMES[at];
                    let before = disk(&root);
                    if !then.contains_key(name) && !before.contains_key(name) {
                        continue;
                    }
                    let inside = |key: &String| key == name || key.starts_with(&format!("{name}/"));
                    let shape_above = |found: &Found| name.rsplit_once('/').is_none_or(|(above, _)| {
                        found.get(above).is_none_or(|(kind, ..)| *kind == 'd')
                    });
                    // Where something else stands in the place of a folder above, that gives way to it, unless there is nothing to bring.
                    if !shape_above(&before) && !then.contains_key(name) {
                        continue;
                    }
                    prop_assert_eq!(go_to(&repo, *number, &[name]).failed, 0);
                    let after = disk(&root);
                    let part = |found: &Found| -> Found {
                        found.iter().filter(|(key, _)| inside(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
                    };
                    prop_assert_eq!(part(&after), part(then));
                }
                Step::Undo => {
                    let before = disk(&root);
                    if let Ok(outcome) = undo::undo(&repo, &undo::Options::default(), &Silent)
                        && let Some(saved) = outcome.saved
                    {
                        prop_assert_eq!(&stored(&repo, saved), &before);
                    }
                }
                Step::Reopen => repo = repo.reopen(),
                Step::Restore(_) | Step::RestorePath(..) => {}
            }
        }
        for (number, then) in &taken {
            prop_assert_eq!(&stored(&repo, *number), then);
        }
    }
}

#[test]
fn names_of_one_file_are_restored_together() {
    let repo = TestRepo::on_disk();
    write(&repo, "a", "one");
    write(&repo, "b", "two");
    make(&repo);
    fs::remove_file(repo.folder.path().join("b")).unwrap();
    write(&repo, "a", "three");
    fs::hard_link(repo.folder.path().join("a"), repo.folder.path().join("b")).unwrap();
    fs::hard_link(repo.folder.path().join("a"), repo.folder.path().join("c")).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let outcome = go_to(&repo, 1, &[]);
    assert_eq!((outcome.written, outcome.removed, outcome.failed), (2, 1, 0));
}

#[test]
fn what_the_target_ignores_stays_and_what_is_ignored_now_is_not_overwritten() {
    let repo = TestRepo::on_disk();
    write(&repo, ".digignore", "build/\n");
    write(&repo, "build/out", "made by a tool");
    make(&repo);
    fs::remove_file(repo.folder.path().join(".digignore")).unwrap();
    let outcome = go_to(&repo, 1, &[]);
    assert_eq!((outcome.written, outcome.removed, outcome.saved), (1, 0, Some(2)));
    assert!(disk(repo.folder.path()).contains_key("build/out"), "it was there when @1 was made");
    // What is tracked is in a checkpoint all the same.
    let force = add::Options { paths: vec![path("build/out")], force: true, ..add::Options::default() };
    add::add(&repo, &force, &Silent).unwrap();
    fs::remove_file(repo.folder.path().join(".digignore")).unwrap();
    go_to(&repo, 1, &[]);
    assert!(stored(&repo, make(&repo)).contains_key("build/out"));
    // The other way round: a file that no checkpoint holds is where a stored one would go.
    write(&repo, "conf", "stored");
    let with_conf = make(&repo);
    fs::remove_file(repo.folder.path().join("conf")).unwrap();
    write(&repo, ".digignore", "build/\nconf\n");
    write(&repo, "conf", "precious");
    let options = restore::Options { number: with_conf, ..restore::Options::default() };
    match restore::restore(&repo, &options, &Silent) {
        Err(Error::WouldLose { paths, .. }) => assert_eq!(paths, [path("conf")]),
        other => panic!("{other:?}"),
    }
    assert_eq!(disk(repo.folder.path())["conf"].2, b"precious");
    // In a folder where a file would go; nothing else is written either.
    let root = repo.folder.path();
    fs::remove_file(root.join("conf")).unwrap();
    write(&repo, "conf/conf", "precious");
    write(&repo, "other", "new");
    match restore::restore(&repo, &options, &Silent) {
        Err(Error::WouldLose { paths, .. }) => assert_eq!(paths, [path("conf")]),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        (disk(root)["conf/conf"].2.as_slice(), disk(root).contains_key("other")),
        (b"precious".as_slice(), true)
    );
}

#[test]
fn an_empty_folder_counts() {
    let repo = TestRepo::on_disk();
    let folder = repo.folder.path().join("empty");
    fs::create_dir(&folder).unwrap();
    let first = make(&repo);
    fs::remove_dir(&folder).unwrap();
    let outcome = go_to(&repo, first, &["empty"]);
    assert_eq!((outcome.written, outcome.removed, folder.is_dir()), (1, 0, true));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(go_to(&repo, first, &[]).written, 1, "its mode");
    assert_eq!(go_to(&repo, first, &[]).written, 0);
    take_back(&repo);
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
    take_back(&repo);
    assert!(!folder.exists());
}

#[test]
fn folders_above_a_path_are_made_as_they_were() {
    let repo = TestRepo::on_disk();
    let folder = repo.folder.path().join("a");
    write(&repo, "a/f", "1");
    write(&repo, "a/g", "2");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let first = make(&repo);
    add_all(&repo);
    commit_all(&repo);
    let mode = || folder.metadata().unwrap().mode() & 0o777;
    let from_staging = |force| {
        let options = checkout::RestoreOptions { paths: vec![path("a/f")], force, ..Default::default() };
        checkout::restore(&repo, &options, &Silent)
    };
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!((go_to(&repo, first, &["a/f"]).written, mode()), (2, 0o700));
    take_back(&repo);
    assert!(!folder.exists());
    // Unless something else is in them.
    go_to(&repo, first, &["a/f"]);
    write(&repo, "a/since", "new");
    take_back(&repo);
    assert_eq!((folder.join("f").exists(), fs::read(folder.join("since")).unwrap()), (false, b"new".to_vec()));
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!((from_staging(false).unwrap().folders, mode()), (1, 0o700));
    // Something else stands there.
    fs::remove_dir_all(&folder).unwrap();
    write(&repo, "a", "in the way");
    let outcome = go_to(&repo, first, &["a/f"]);
    assert_eq!((outcome.written, outcome.removed, mode()), (2, 1, 0o700));
    take_back(&repo);
    assert_eq!(fs::read(&folder).unwrap(), b"in the way");
    assert!(matches!(from_staging(false), Err(Error::WouldLose { paths, .. }) if paths == [path("a")]));
    from_staging(true).unwrap();
    assert_eq!((fs::read(folder.join("f")).unwrap(), mode()), (b"1".to_vec(), 0o700));
    take_back(&repo);
    assert_eq!(fs::read(&folder).unwrap(), b"in the way");
    go_to(&repo, first, &["a/f"]);
    assert_eq!(go_to(&repo, first, &["a/f"]).written, 0, "it is there");
    // What is stored may go.
    fs::remove_dir_all(&folder).unwrap();
    write(&repo, "a", "stored");
    add_all(&repo);
    commit_all(&repo);
    let options =
        checkout::RestoreOptions { paths: vec![path("a/f")], source: Some("HEAD~1".to_owned()), ..Default::default() };
    checkout::restore(&repo, &options, &Silent).unwrap();
    assert_eq!(fs::read(folder.join("f")).unwrap(), b"1");
}

#[test]
fn a_handle_that_only_followed_the_journal_knows_the_objects_too() {
    let repo = TestRepo::on_disk();
    write(&repo, "d/a", "1");
    make(&repo);
    let other = repo.another();
    write(&repo, "d/b", noise(1, 100_000));
    let theirs = make(&other);
    repo.journal().catch_up().unwrap();
    write(&repo, "d/a", "2");
    let own = make(&repo);
    for number in [theirs, own] {
        assert_eq!(stored(&repo, number)["d/b"].2, noise(1, 100_000));
    }
}

#[test]
fn undo_is_never_stuck() {
    let repo = TestRepo::on_disk();
    write(&repo, "f", "x");
    add_all(&repo);
    commit_all(&repo);
    let first = make(&repo);
    // The path is gone on both sides.
    fs::remove_file(repo.folder.path().join("f")).unwrap();
    go_to(&repo, first, &["f"]);
    fs::remove_file(repo.folder.path().join("f")).unwrap();
    take_back(&repo);
    // The checkpoint that was made before is gone.
    write(&repo, "f", "changed");
    let saved = go_to(&repo, first, &[]).saved.unwrap();
    edit::delete(&repo, &[saved], &Silent).unwrap();
    retention::compact(&repo, &retention::Options::default(), &Silent).unwrap();
    let mut refused = 0;
    while undo::undo(&repo, &undo::Options::default(), &Silent).is_err() {
        refused += 1;
        assert!(refused < 3, "the deletion, then the restore, are out of the way");
    }
    assert_eq!(repo.head_commit().unwrap(), None, "the commit was reached");
}
