use std::collections::BTreeMap;

use proptest::prelude::*;

use super::replay::{diff, replay};
use super::state::{Change, apply, compare_and_swap, delete, put, value, values};
use super::{BeginOptions, abort, begin, end, events, list, show};
use crate::base::monitor::Silent;
use crate::format::journal::Op;
use crate::format::session::event_stream;
use crate::model::session::{EventKind, SessionName, Status};
use crate::ops::checkpoint::{create, edit};
use crate::ops::testing::TestRepo;
use crate::ops::{Error, fsck};
use crate::repo::Repository;

fn name(text: &str) -> SessionName {
    SessionName::parse(text).unwrap()
}

fn start(repo: &Repository, text: &str) -> SessionName {
    begin(repo, &BeginOptions { name: name(text), owner: None, resume: false }, &Silent).unwrap();
    name(text)
}

fn assert_sound(repo: &Repository) {
    let found = fsck::fsck(repo, &fsck::Options { full: true }, &Silent).unwrap();
    assert!(!found.is_damaged(), "{:?}", found.findings);
}

#[test]
fn a_session_lives_by_its_table() {
    let repo = TestRepo::on_disk();
    let s = start(&repo, "s");
    assert!(matches!(
        begin(&repo, &BeginOptions { name: s.clone(), owner: None, resume: false }, &Silent),
        Err(Error::SessionExists(_))
    ));
    assert!(matches!(
        begin(&repo, &BeginOptions { name: s.clone(), owner: None, resume: true }, &Silent),
        Err(Error::Refused { .. })
    ));
    put(&repo, &s, b"k", b"v", &Silent).unwrap();
    let ended = end(&repo, &s, &Silent).unwrap().session;
    assert_eq!((ended.status, ended.events), (Status::Completed, 3));
    let refused: [&dyn Fn() -> crate::ops::Result<()>; 6] = [
        &|| end(&repo, &s, &Silent).map(drop),
        &|| abort(&repo, &s, "why", &Silent).map(drop),
        &|| put(&repo, &s, b"k", b"w", &Silent).map(drop),
        &|| delete(&repo, &s, b"k", &Silent).map(drop),
        &|| events::append(&repo, &s, "t", b"", &Silent).map(drop),
        &|| {
            create::create(&repo, &create::Options { session: Some(s.clone()), ..Default::default() }, &Silent)
                .map(drop)
        },
    ];
    for (row, step) in refused.iter().enumerate() {
        assert!(matches!(step(), Err(Error::SessionNotActive { status: Status::Completed, .. })), "row {row}");
    }
    assert_eq!(value(&repo, &s, b"k", &Silent).unwrap(), b"v", "what ended can be read");
    let t = start(&repo, "t");
    assert_eq!(abort(&repo, &t, "no money", &Silent).unwrap().session.reason, "no money");
    let repo = repo.reopen();
    let statuses: Vec<Status> = list(&repo, &Silent).unwrap().sessions.iter().map(|s| s.status).collect();
    assert_eq!(statuses, [Status::Completed, Status::Aborted]);
    for unknown in [replay(&repo, &name("u"), None, &Silent).map(drop), show(&repo, &name("u"), &Silent).map(drop)] {
        assert!(matches!(unknown, Err(Error::NoSuchSession(_))));
    }
    assert_sound(&repo);
}

#[test]
fn an_orphan_is_found_and_taken_over() {
    let repo = TestRepo::on_disk();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let options = BeginOptions { name: name("s"), owner: Some(child.id()), resume: false };
    begin(&repo, &options, &Silent).unwrap();
    put(&repo, &name("s"), b"k", b"1", &Silent).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let repo = repo.reopen();
    assert_eq!(show(&repo, &name("s"), &Silent).unwrap().session.status, Status::Orphaned);
    assert!(matches!(
        put(&repo, &name("s"), b"k", b"2", &Silent),
        Err(Error::SessionNotActive { status: Status::Orphaned, .. })
    ));
    let options = BeginOptions { name: name("s"), owner: None, resume: true };
    begin(&repo, &options, &Silent).unwrap();
    put(&repo, &name("s"), b"k", b"2", &Silent).unwrap();
    end(&repo, &name("s"), &Silent).unwrap();
    let log = events::events(&repo, &name("s"), &events::Options::default(), &Silent).unwrap();
    let words: Vec<&str> = log.iter().map(|event| event.kind.word()).collect();
    assert_eq!(words, ["begin", "put", "orphan", "resume", "put", "end"]);
    let nobody = BeginOptions { name: name("t"), owner: Some(child.id()), resume: false };
    assert!(begin(&repo, &nobody, &Silent).is_err(), "a dead process can own nothing");
}

#[test]
fn compare_and_swap_tells_what_is_there() {
    let repo = TestRepo::in_memory();
    let s = start(&repo, "s");
    let swap = |old: Option<&[u8]>, new: Option<&[u8]>| compare_and_swap(&repo, &s, b"k", old, new, &Silent);
    assert!(swap(None, Some(b"1")).unwrap().event.is_some());
    match swap(None, Some(b"2")) {
        Err(Error::Conflict { found, .. }) => assert_eq!(found.as_deref(), Some(&b"1"[..])),
        other => panic!("{other:?}"),
    }
    assert_eq!(swap(Some(b"1"), Some(b"1")).unwrap().event, None, "nothing to change is no event");
    assert!(swap(Some(b"1"), None).unwrap().event.is_some());
    assert!(matches!(swap(Some(b"1"), None), Err(Error::Conflict { found: None, .. })));
    assert!(value(&repo, &s, b"k", &Silent).is_err());
    for key in [&b""[..], &[b'x'; 1025]] {
        assert!(put(&repo, &s, key, b"", &Silent).is_err());
    }
}

#[test]
fn the_state_at_any_event_is_in_the_log() {
    let repo = TestRepo::on_disk();
    let s = start(&repo, "s");
    put(&repo, &s, b"a", b"1", &Silent).unwrap();
    put(&repo, &s, b"b", &[0xff, 0], &Silent).unwrap();
    put(&repo, &s, b"a", b"2", &Silent).unwrap();
    delete(&repo, &s, b"b", &Silent).unwrap();
    let options = create::Options { session: Some(s.clone()), ..create::Options::default() };
    create::create(&repo, &options, &Silent).unwrap();
    create::create(&repo, &options, &Silent).unwrap();
    edit::delete(&repo, &[1], &Silent).unwrap();
    let at = |at| replay(&repo, &s, at, &Silent).unwrap();
    assert_eq!(at(Some(0)).values.len(), 0);
    assert_eq!(at(Some(3)).values[&b"b"[..]], [0xff, 0]);
    assert_eq!(at(Some(4)).values[&b"a"[..]], b"2");
    assert_eq!(at(Some(5)).values.len(), 1);
    assert_eq!((at(Some(7)).checkpoints, at(None).checkpoints), ([1, 2].into(), [2].into()));
    assert_eq!(at(None).at, 8);
    assert!(matches!(replay(&repo, &s, Some(9), &Silent), Err(Error::Refused { .. })));
    let t = start(&repo, "t");
    apply(&repo, &t, &[Change::Put(b"a".into(), b"2".into()), Change::Put(b"c".into(), b"3".into())], &Silent).unwrap();
    let difference = diff(&repo, (&s, Some(3)), (&t, None), &Silent).unwrap();
    assert_eq!((difference.added.len(), difference.removed.len(), difference.changed.len()), (1, 1, 1));
    assert_eq!(diff(&repo, (&s, None), (&t, None), &Silent).unwrap().same, 1);
    assert_sound(&repo);
}

#[test]
fn a_gap_in_a_log_is_damage_and_not_a_shorter_story() {
    let repo = TestRepo::on_disk();
    let s = start(&repo, "s");
    for _ in 0..3 {
        put(&repo, &s, b"k", b"v", &Silent).unwrap();
    }
    let id = show(&repo, &s, &Silent).unwrap().session.id;
    let lock = repo.lock("test").unwrap();
    let second = [&event_stream(id)[..], &2u64.to_be_bytes()].concat();
    Repository::commit(&repo, &lock, &[], vec![Op::Delete(second)]).unwrap();
    drop(lock);
    let error = replay(&repo, &s, None, &Silent).unwrap_err();
    assert_eq!(error.code(), "corrupt", "{error}");
    let found = fsck::fsck(&repo, &fsck::Options::default(), &Silent).unwrap();
    assert!(found.findings.iter().any(|finding| finding.problem.contains("'s'")), "{:?}", found.findings);
}

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let key = prop::collection::vec(prop::sample::select(b"ab\xff".to_vec()), 1..3);
    let change = (key, prop::option::of(prop::collection::vec(any::<u8>(), 0..4)))
        .prop_map(|(key, value)| value.map_or(Change::Delete(key.clone()), |value| Change::Put(key, value)));
    prop::collection::vec(prop::collection::vec(change, 1..4), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Replay is pure: derived from the log, the same each time, for every event, and nothing is written by it.
    #[test]
    fn replay_is_the_log_folded(batches in changes()) {
        let repo = TestRepo::on_disk();
        let s = start(&repo, "s");
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut history = vec![BTreeMap::new(), BTreeMap::new()];
        for batch in &batches {
            apply(&repo, &s, batch, &Silent).unwrap();
            for change in batch {
                match change.clone() {
                    Change::Put(key, value) => model.insert(key, value),
                    Change::Delete(key) => model.remove(&key),
                };
                history.push(model.clone());
            }
        }
        let before = repo.journal().read().lsn();
        for (at, expected) in history.iter().enumerate() {
            let view = replay(&repo, &s, Some(at as u64), &Silent).unwrap();
            prop_assert_eq!(&view.values, expected);
            prop_assert_eq!(&view, &replay(&repo, &s, Some(at as u64), &Silent).unwrap());
        }
        prop_assert_eq!(repo.journal().read().lsn(), before);
        let kept: BTreeMap<_, _> = values(&repo, &s, b"", &Silent).unwrap().into_iter().collect();
        prop_assert_eq!(&kept, &model);
        let last = replay(&repo, &s, None, &Silent).unwrap();
        let repo = repo.reopen();
        prop_assert_eq!(&replay(&repo, &s, None, &Silent).unwrap(), &last);
        let log = events::events(&repo, &s, &events::Options::default(), &Silent).unwrap();
        prop_assert_eq!(log.iter().map(|event| event.number).collect::<Vec<_>>(), (1..=last.at).collect::<Vec<_>>());
        let puts = batches.iter().flatten().filter(|change| matches!(change, Change::Put(..))).count();
        let found = log.iter().filter(|event| matches!(event.kind, EventKind::Put { .. })).count();
        prop_assert_eq!(found, puts);
    }
}
