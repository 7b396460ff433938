use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::base::disk::fault::{EVERY_UNSYNCED, Fault, FaultDisk};
use crate::base::disk::open_root;
use crate::format::journal::{LOG_HEADER_LEN, encode_batch};

const REPO: RepoId = [3; 16];

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(path: &Path) -> Journal {
    Journal::open(Some(open_root(path).unwrap()), REPO, Durability::Strict).unwrap()
}

fn content(journal: &Journal) -> Model {
    let state = journal.read();
    let mut scan = state.scan(b"").unwrap();
    let mut found = Model::new();
    while let Some((key, value)) = scan.next().unwrap() {
        assert_eq!(state.get(key).unwrap(), Some(value));
        found.insert(key.to_vec(), value.to_vec());
    }
    // Backwards it is the same, from the end and from below each key.
    let mut back = state.scan_back(b"", None).unwrap();
    for pair in found.iter().rev() {
        assert_eq!(back.next().unwrap(), Some((pair.0.as_slice(), pair.1.as_slice())));
        let below = found.range(..pair.0.clone()).next_back();
        let below = below.map(|(key, value)| (key.as_slice(), value.as_slice()));
        assert_eq!(state.scan_back(b"", Some(pair.0)).unwrap().next().unwrap(), below);
    }
    assert_eq!(back.next().unwrap(), None);
    for prefix in [&b"a"[..], b"ab", b"b", b"cc"] {
        let last = found.iter().rfind(|(key, _)| key.starts_with(prefix));
        assert_eq!(state.last(prefix).unwrap(), last.map(|(key, value)| (key.as_slice(), value.as_slice())));
    }
    found
}

/// Where the last record of the log ends; room that was made ahead may follow.
fn log_end(journal: &Journal) -> u64 {
    lock(&journal.writer).log_end()
}

fn apply(model: &mut Model, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Put(key, value) => model.insert(key.clone(), value.clone()),
            Op::Delete(key) => model.remove(key),
        };
    }
}

/// A batch with so many operations in memory.
fn batch(journal: &Journal, ops: Vec<Op>, at_once: usize) -> Result<Batch, StoreError> {
    let mut batch = journal.batch(at_once);
    ops.into_iter().try_for_each(|op| batch.record(op))?;
    Ok(batch)
}

fn op_strategy() -> impl Strategy<Value = Op> {
    let key = prop::collection::vec(prop::sample::select(b"abc".to_vec()), 1..4);
    (key, prop::option::of(prop::collection::vec(any::<u8>(), 0..5)))
        .prop_map(|(key, value)| value.map_or(Op::Delete(key.clone()), |value| Op::Put(key, value)))
}

/// A step of a history: a batch, a snapshot, or closing and opening again.
#[derive(Debug, Clone)]
enum Step {
    /// With so many operations in memory.
    Commit(Vec<Op>, usize),
    Snapshot,
    Reopen,
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (prop::collection::vec(op_strategy(), 0..9), 1..10usize).prop_map(|(ops, at_once)| Step::Commit(ops, at_once)),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_journal_is_a_map(steps in history()) {
        let folder = tempfile::tempdir().unwrap();
        Journal::create(open_root(folder.path()).unwrap().as_ref(), &REPO).unwrap();
        let mut journal = open(folder.path());
        journal.refresh().unwrap();
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Commit(ops, at_once) => {
                    apply(&mut model, &ops);
                    let touched = |prefix: &[u8]| ops.iter().any(|op| op.key().starts_with(prefix));
                    let batch = batch(&journal, ops.clone(), at_once).unwrap();
                    assert_eq!((batch.touches(b"a"), batch.touches(b"c")), (touched(b"a"), touched(b"c")));
                    assert_eq!(batch.is_empty(), ops.is_empty());
                    journal.commit(batch).unwrap();
                }
                Step::Snapshot => journal.snapshot().unwrap(),
                Step::Reopen => {
                    journal = open(folder.path());
                    journal.refresh().unwrap();
                }
            }
            prop_assert_eq!(content(&journal), model.clone());
        }
        // Recovery is deterministic and idempotent.
        prop_assert_eq!(content(&open(folder.path())), model.clone());
        prop_assert_eq!(content(&open(folder.path())), model);
    }

    #[test]
    fn a_log_cut_anywhere_gives_a_prefix(batches in prop::collection::vec(prop::collection::vec(op_strategy(), 1..4), 1..5)) {
        let folder = tempfile::tempdir().unwrap();
        Journal::create(open_root(folder.path()).unwrap().as_ref(), &REPO).unwrap();
        let journal = open(folder.path());
        journal.refresh().unwrap();
        let log = folder.path().join("log-0000000000000000");
        let mut prefixes = vec![(log_end(&journal), Model::new())];
        for ops in batches {
            let mut model = prefixes.last().unwrap().1.clone();
            apply(&mut model, &ops);
            journal.commit(ops).unwrap();
            prefixes.push((log_end(&journal), model));
        }
        let mut whole = std::fs::read(&log).unwrap();
        whole.truncate(log_end(&journal) as usize);
        for cut in prefixes[0].0..=whole.len() as u64 {
            std::fs::write(&log, &whole[..cut as usize]).unwrap();
            let expected = &prefixes.iter().rev().find(|(len, _)| *len <= cut).unwrap().1;
            let journal = open(folder.path());
            prop_assert_eq!(&content(&journal), expected);
            // The torn end is cut off by the next writer, and what it commits is read back.
            journal.refresh().unwrap();
            journal.commit(vec![Op::Put(b"new".to_vec(), vec![9])]).unwrap();
            let mut more = expected.clone();
            more.insert(b"new".to_vec(), vec![9]);
            prop_assert_eq!(content(&open(folder.path())), more);
        }
    }
}

#[test]
fn most_synced_commits_do_not_make_the_log_longer() {
    let folder = tempfile::tempdir().unwrap();
    Journal::create(open_root(folder.path()).unwrap().as_ref(), &REPO).unwrap();
    let journal = open(folder.path());
    journal.refresh().unwrap();
    let log = folder.path().join("log-0000000000000000");
    let mut lens = Vec::new();
    for n in 0..100 {
        journal.commit(put(n)).unwrap();
        lens.push(std::fs::metadata(&log).unwrap().len());
        // Who looks from outside sees the same, and a new writer goes on in the same room.
        assert_eq!(log_end(&open(folder.path())), log_end(&journal));
    }
    assert_eq!(lens[0], LOG_HEADER_LEN as u64 + (log_end(&journal) - LOG_HEADER_LEN as u64) / 100);
    lens.dedup();
    assert_eq!(lens.len(), 2, "{lens:?}");
    let other = open(folder.path());
    other.refresh().unwrap();
    other.commit(put(100)).unwrap();
    assert!(journal.refresh().unwrap());
    journal.commit(put(101)).unwrap();
    assert_eq!(std::fs::metadata(&log).unwrap().len(), lens[1]);
    assert_eq!(content(&open(folder.path())), content(&journal));
}

#[test]
fn compare_and_swap_changes_only_what_is_as_expected() {
    let folder = tempfile::tempdir().unwrap();
    three_commits(folder.path());
    let journal = open(folder.path());
    journal.refresh().unwrap();
    let lsn = journal.read().lsn();
    let swap = |expected: Option<&[u8]>, new: Option<&[u8]>| {
        journal.compare_and_swap(b"key", expected, new.map(<[u8]>::to_vec)).unwrap()
    };
    assert!(!swap(Some(b"old"), Some(b"new")));
    assert!(swap(None, Some(b"1")));
    assert!(!swap(None, Some(b"2")));
    assert!(!swap(Some(b""), None));
    assert!(swap(Some(b"1"), Some(b"2")));
    assert!(swap(Some(b"2"), None));
    // What was not as expected has written nothing.
    assert_eq!(journal.read().lsn(), lsn + 3);
    assert_eq!(journal.read().get(b"key").unwrap(), None);
}

#[test]
fn events_have_numbers_without_gaps() {
    let folder = tempfile::tempdir().unwrap();
    three_commits(folder.path());
    let journal = open(folder.path());
    journal.refresh().unwrap();
    for n in 1..=300u64 {
        assert_eq!(journal.append(b"e/one/", &n.to_le_bytes()).unwrap(), n);
        assert_eq!(journal.append(b"e/two/", b"").unwrap(), n);
        if n == 200 {
            journal.snapshot().unwrap();
        }
    }
    for journal in [&journal, &open(folder.path())] {
        let state = journal.read();
        assert_eq!(state.last_event(b"e/one/").unwrap(), 300);
        assert_eq!(state.last_event(b"e/none/").unwrap(), 0);
        for from in [0, 1, 7, 255, 256, 300, 301] {
            let mut events = state.events(b"e/one/", from).unwrap();
            for expected in from.max(1)..=300 {
                let (number, payload) = events.next().unwrap().unwrap();
                assert_eq!((number, payload), (expected, &expected.to_le_bytes()[..]));
            }
            assert_eq!(events.next().unwrap(), None);
        }
    }
    journal.commit(vec![Op::Delete(event_key(b"e/two/", 5))]).unwrap();
    let state = journal.read();
    let mut events = state.events(b"e/two/", 4).unwrap();
    assert_eq!(events.next().unwrap(), Some((4, &b""[..])));
    assert!(matches!(events.next(), Err(StoreError::JournalDamaged(_))));
}

#[test]
fn a_reader_catches_up_with_what_others_commit() {
    let folder = tempfile::tempdir().unwrap();
    three_commits(folder.path());
    let (writer, reader, other) = (open(folder.path()), open(folder.path()), open(folder.path()));
    writer.refresh().unwrap();
    assert!(!reader.catch_up().unwrap());
    for n in 4..40 {
        writer.commit(put(n)).unwrap();
        if n % 7 == 0 {
            writer.snapshot().unwrap();
        }
        assert!(reader.catch_up().unwrap());
        assert!(!reader.catch_up().unwrap());
        assert_eq!(content(&reader), content(&writer));
        if n % 10 == 0 {
            // Another writer, as after a change of the lock's holder.
            assert!(other.refresh().unwrap());
            other.commit(put(100 + n)).unwrap();
            assert!(writer.refresh().unwrap());
            assert!(!writer.refresh().unwrap());
        }
    }
    assert!(other.catch_up().unwrap());
    assert_eq!(content(&other), content(&open(folder.path())));
}

fn put(n: u8) -> Vec<Op> {
    vec![Op::Put(vec![b'k', n], vec![n; 100]), Op::Put(b"last".to_vec(), vec![n])]
}

fn three_commits(path: &Path) {
    Journal::create(open_root(path).unwrap().as_ref(), &REPO).unwrap();
    let journal = open(path);
    journal.refresh().unwrap();
    for n in 1..=3 {
        journal.commit(put(n)).unwrap();
    }
}

#[test]
fn damage_before_committed_records_is_an_error_not_a_shorter_history() {
    let folder = tempfile::tempdir().unwrap();
    three_commits(folder.path());
    let log = folder.path().join("log-0000000000000000");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[LOG_HEADER_LEN + 20] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let error = Journal::open(Some(open_root(folder.path()).unwrap()), REPO, Durability::Strict).unwrap_err();
    assert!(matches!(error, StoreError::JournalDamaged(_)), "{error}");
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_one_before_and_its_logs() {
    let folder = tempfile::tempdir().unwrap();
    three_commits(folder.path());
    let journal = open(folder.path());
    journal.refresh().unwrap();
    journal.snapshot().unwrap();
    journal.commit(put(4)).unwrap();
    journal.snapshot().unwrap();
    journal.commit(put(5)).unwrap();
    let expected = content(&journal);
    for name in ["snap-0000000000000004", "snap-0000000000000003"] {
        let path = folder.path().join(name);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert_eq!(content(&open(folder.path())), expected, "{name}");
        std::fs::write(&path, good).unwrap();
    }
}

#[test]
fn a_batch_too_large_for_a_record_is_committed_by_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    three_commits(folder.path());
    let journal = open(folder.path());
    journal.refresh().unwrap();
    let mut ops: Vec<Op> = (0..40u8).map(|n| Op::Put(vec![b'x', n], vec![n; 1 << 20])).collect();
    ops.push(Op::Delete(b"last".to_vec()));
    ops.push(Op::Put(vec![b'x', 0], b"again".to_vec()));
    journal.commit(ops).unwrap();
    journal.commit(put(7)).unwrap();
    for journal in [&journal, &open(folder.path())] {
        let found = content(journal);
        assert_eq!(found.len(), 3 + 40 + 1 + 1);
        assert_eq!(found[&[b'x', 0][..]], b"again");
        assert_eq!(found[&b"last"[..]], [7]);
    }
}

#[test]
fn a_failed_sync_poisons() {
    let folder = tempfile::tempdir().unwrap();
    three_commits(folder.path());
    let probe = FaultDisk::new(folder.path(), None).unwrap();
    let journal = Journal::open(Some(probe.root()), REPO, Durability::Strict).unwrap();
    journal.refresh().unwrap();
    let before = probe.operations();
    drop(journal);
    // The write is the first operation of a commit, the sync the second.
    let disk = FaultDisk::new(folder.path(), Some((before + 1, Fault::Fail(std::io::ErrorKind::Other)))).unwrap();
    let journal = Journal::open(Some(disk.root()), REPO, Durability::Strict).unwrap();
    journal.refresh().unwrap();
    assert!(matches!(journal.commit(put(8)), Err(StoreError::Disk(_))));
    assert!(matches!(journal.commit(put(9)), Err(StoreError::Poisoned)));
}

#[test]
fn buffered_mode_is_durable_after_closing_and_memory_mode_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    Journal::create(open_root(folder.path()).unwrap().as_ref(), &REPO).unwrap();
    let disk = FaultDisk::new(folder.path(), None).unwrap();
    let buffered = Durability::Buffered { interval: Duration::from_secs(3600), batches: 100 };
    let journal = Journal::open(Some(disk.root()), REPO, buffered).unwrap();
    journal.refresh().unwrap();
    for n in 0..50 {
        journal.commit(put(n)).unwrap();
    }
    assert_eq!(disk.count("sync"), 0);
    for n in 50..100 {
        journal.commit(put(n)).unwrap();
    }
    drop(journal);
    assert!((1..=2).contains(&disk.count("sync")));
    assert_eq!(content(&open(folder.path())).len(), 101);

    let journal = Journal::open(None, REPO, Durability::Memory).unwrap();
    journal.commit(put(1)).unwrap();
    assert_eq!(content(&journal).len(), 2);
}

#[test]
fn a_stop_at_any_operation_leaves_a_state_that_was_committed_or_reported() {
    let start = tempfile::tempdir().unwrap();
    three_commits(start.path());
    // Returns how many of the commits and snapshots were reported.
    let run = |disk: &FaultDisk| -> usize {
        let Ok(journal) = Journal::open(Some(disk.root()), REPO, Durability::Strict) else { return 0 };
        let steps: [&dyn Fn() -> Result<(), StoreError>; 6] = [
            &|| journal.refresh().map(|_| ()),
            &|| journal.commit(put(4)),
            &|| journal.snapshot(),
            &|| journal.commit(put(5)),
            &|| journal.snapshot(),
            &|| journal.commit(put(6)),
        ];
        steps.iter().take_while(|step| step().is_ok()).count()
    };
    let last_after = [3u8, 3, 4, 4, 5, 5, 6];
    let whole = tempfile::tempdir().unwrap();
    copy(start.path(), whole.path());
    let disk = FaultDisk::new(whole.path(), None).unwrap();
    assert_eq!(run(&disk), 6);
    for stop in 0..disk.operations() {
        let folder = tempfile::tempdir().unwrap();
        copy(start.path(), folder.path());
        let disk = FaultDisk::new(folder.path(), Some((stop, Fault::Stop))).unwrap();
        let done = run(&disk);
        for unsynced in EVERY_UNSYNCED {
            let image = tempfile::tempdir().unwrap();
            disk.image(unsynced, image.path()).unwrap();
            let journal = open(image.path());
            let last = content(&journal)[&b"last"[..]][0];
            let (reported, started) = (last_after[done], last_after[(done + 1).min(6)]);
            assert!(last == reported || last == started, "stop {stop} {unsynced:?}: {last}\n{:#?}", disk.log());
            journal.refresh().unwrap();
            journal.commit(put(77)).unwrap();
            assert_eq!(content(&open(image.path()))[&b"last"[..]], [77]);
        }
    }
}

/// Copies a journal's files.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_stop_in_buffered_mode_loses_nothing_but_the_newest_batches() {
    let start = tempfile::tempdir().unwrap();
    three_commits(start.path());
    let buffered = Durability::Buffered { interval: Duration::from_secs(3600), batches: u32::MAX };
    // Gives the last number that was committed, and the last one that a snapshot made durable.
    let run = |disk: &FaultDisk| -> (u8, u8) {
        let (mut committed, mut durable) = (3, 3);
        let Ok(journal) = Journal::open(Some(disk.root()), REPO, buffered) else { return (committed, durable) };
        if journal.refresh().is_err() {
            return (committed, durable);
        }
        for n in 4..12 {
            if journal.commit(put(n)).is_err() {
                break;
            }
            committed = n;
            if n % 4 == 0 {
                if journal.snapshot().is_err() {
                    break;
                }
                durable = n;
            }
        }
        (committed, durable)
    };
    let probe = tempfile::tempdir().unwrap();
    copy(start.path(), probe.path());
    let disk = FaultDisk::new(probe.path(), None).unwrap();
    assert_eq!(run(&disk), (11, 8));
    for stop in 0..disk.operations() {
        let folder = tempfile::tempdir().unwrap();
        copy(start.path(), folder.path());
        let disk = FaultDisk::new(folder.path(), Some((stop, Fault::Stop))).unwrap();
        let (committed, durable) = run(&disk);
        for unsynced in EVERY_UNSYNCED {
            let image = tempfile::tempdir().unwrap();
            disk.image(unsynced, image.path()).unwrap();
            let found = content(&open(image.path()));
            let last = found[&b"last"[..]][0];
            // One more than reported may be there; nothing is there of what follows something that is not.
            assert!((durable..=committed + 1).contains(&last), "stop {stop} {unsynced:?}: {last}\n{:#?}", disk.log());
            assert!((1..=last).all(|n| found.contains_key(&vec![b'k', n])), "stop {stop} {unsynced:?}");
            assert_eq!(found.len(), usize::from(last) + 1, "stop {stop} {unsynced:?}");
        }
    }
}

#[test]
fn a_full_disk_in_a_batch_leaves_all_of_it_or_nothing_and_a_handle_that_refuses() {
    let start = tempfile::tempdir().unwrap();
    three_commits(start.path());
    // One that goes into the log, and one that is so large that it is committed by a snapshot.
    let large = |n: u8| vec![Op::Put(vec![b'k', n], vec![n; 5 << 20]), Op::Put(b"last".to_vec(), vec![n])];
    // And one that does not fit in memory.
    let steps: [(&dyn Fn(u8) -> Vec<Op>, usize); 3] = [(&put, 10), (&large, 10), (&put, 1)];
    for (step, at_once) in steps {
        let commit = |journal: &Journal, n| journal.commit(batch(journal, step(n), at_once)?);
        let probe = tempfile::tempdir().unwrap();
        copy(start.path(), probe.path());
        let disk = FaultDisk::new(probe.path(), None).unwrap();
        let journal = Journal::open(Some(disk.root()), REPO, Durability::Strict).unwrap();
        journal.refresh().unwrap();
        commit(&journal, 4).unwrap();
        drop(journal);
        for at in 0..disk.operations() {
            let folder = tempfile::tempdir().unwrap();
            copy(start.path(), folder.path());
            let fault = Fault::Fail(std::io::ErrorKind::StorageFull);
            let disk = FaultDisk::new(folder.path(), Some((at, fault))).unwrap();
            let journal = Journal::open(Some(disk.root()), REPO, Durability::Strict).unwrap();
            journal.refresh().unwrap();
            let Ok(gathered) = batch(&journal, step(4), at_once) else {
                // Nothing of the journal was touched.
                journal.commit(put(4)).unwrap();
                continue;
            };
            if journal.commit(gathered).is_err() {
                // It is not known what the disk holds, so the handle is poisoned: it still reads, but as before the batch.
                assert!(journal.is_poisoned());
                assert!(matches!(journal.commit(put(5)), Err(StoreError::Poisoned)));
                assert!(matches!(journal.snapshot(), Err(StoreError::Poisoned)));
                assert_eq!(journal.read().get(b"last").unwrap(), Some(&[3][..]));
            }
            drop(journal);
            let journal = open(folder.path());
            let last = content(&journal)[&b"last"[..]][0];
            assert_eq!(content(&journal).contains_key(&[b'k', 4][..]), last == 4, "operation {at}: {:#?}", disk.log());
            journal.refresh().unwrap();
            journal.commit(put(9)).unwrap();
            assert_eq!(content(&open(folder.path()))[&b"last"[..]], [9]);
        }
    }
}

#[test]
fn whatever_stands_behind_the_log_is_not_taken_for_a_change() {
    let good = tempfile::tempdir().unwrap();
    three_commits(good.path());
    let name = "log-0000000000000000";
    let mut log = std::fs::read(good.path().join(name)).unwrap();
    log.truncate(log_end(&open(good.path())) as usize);
    let expected = content(&open(good.path()));
    let mut other_record = Vec::new();
    encode_batch(&mut other_record, &mut Vec::new(), 2, &put(99).into());
    let tails: [&[u8]; 5] =
        [&[0; 4096], &[0xff; 100], b"not of digstore", &[1], &other_record[..other_record.len() - 1]];
    for tail in tails {
        std::fs::write(good.path().join(name), [&log[..], tail].concat()).unwrap();
        let journal = open(good.path());
        assert_eq!(content(&journal), expected);
        assert!(!journal.catch_up().unwrap());
        journal.refresh().unwrap();
        journal.commit(put(4)).unwrap();
        assert_eq!(content(&open(good.path())), content(&journal));
        std::fs::write(good.path().join(name), &log).unwrap();
    }
    // A record that was there before is no change that follows: it is damage that is said.
    std::fs::write(good.path().join(name), [&log[..], &other_record[..]].concat()).unwrap();
    assert!(Journal::open(Some(open_root(good.path()).unwrap()), REPO, Durability::Strict).is_err());
}

#[test]
fn a_journal_in_memory_forgets_what_was_overwritten() {
    let journal = Journal::open(None, REPO, Durability::Memory).unwrap();
    let journal = journal.with_policy(SnapshotPolicy { min_log_bytes: 1000 });
    let mut model = Model::new();
    for n in 0..200u8 {
        let ops = vec![Op::Put(vec![b'k', n % 7], vec![n; 50]), Op::Delete(vec![b'k', (n + 1) % 7])];
        apply(&mut model, &ops);
        journal.commit(ops).unwrap();
        assert_eq!(content(&journal), model);
        let (snapshot_len, changes_len) = journal.read().lens();
        assert!(snapshot_len < 2000 && changes_len < 2000, "{snapshot_len} {changes_len}");
    }
    assert_eq!(journal.read().lsn(), 200);
}

#[test]
fn threads_see_whole_batches_and_never_go_back() {
    const ROUNDS: u64 = 300;
    let folder = tempfile::tempdir().unwrap();
    three_commits(folder.path());
    let journal = open(folder.path()).with_policy(SnapshotPolicy { min_log_bytes: 4096 });
    journal.refresh().unwrap();
    let follower = open(folder.path());
    let done = std::sync::atomic::AtomicBool::new(false);
    let both = |journal: &Journal, last: &mut u64| {
        let state = journal.read();
        let value = |key: &[u8]| state.get(key).unwrap().map_or(0, |v| u64::from_le_bytes(v.try_into().unwrap()));
        assert_eq!(value(b"left"), value(b"right"), "half a batch");
        assert!(state.lsn() >= *last, "a reader went back");
        *last = state.lsn();
    };
    std::thread::scope(|scope| {
        for catches_up in [false, true] {
            let (both, done, journal, follower) = (&both, &done, &journal, &follower);
            scope.spawn(move || {
                let mut last = 0;
                while !done.load(std::sync::atomic::Ordering::Acquire) {
                    if catches_up {
                        follower.catch_up().unwrap();
                    }
                    both(if catches_up { follower } else { journal }, &mut last);
                }
            });
        }
        for n in 1..=ROUNDS {
            let value = n.to_le_bytes().to_vec();
            journal.commit(vec![Op::Put(b"left".to_vec(), value.clone()), Op::Put(b"right".to_vec(), value)]).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Release);
    });
    follower.catch_up().unwrap();
    assert_eq!(content(&follower), content(&journal));
}

#[test]
fn two_threads_count_with_swaps() {
    let journal = Journal::open(None, REPO, Durability::Memory).unwrap();
    let number = || journal.read().get(b"n").unwrap().map(<[u8]>::to_vec);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..500 {
                    loop {
                        let old = number();
                        let value = old.as_deref().map_or(0, |v| u64::from_le_bytes(v.try_into().unwrap()));
                        let new = (value + 1).to_le_bytes().to_vec();
                        if journal.compare_and_swap(b"n", old.as_deref(), Some(new)).unwrap() {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(number().unwrap(), 1000u64.to_le_bytes());
}

/// The folder that a child of the test below works in; set only for such a child.
const CHILD_FOLDER: &str = "DIGSTORE_TEST_JOURNAL";
const CHILD_ROUNDS: u64 = 100;

/// Not a test by itself: what each process of the test below does.
#[test]
#[ignore = "a helper of processes_take_turns_and_lose_nothing"]
#[expect(clippy::disallowed_methods, reason = "a child is told by the environment where to work")]
fn child_that_counts() {
    use crate::base::disk::lock::{Before, LockFile};
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let folder = Path::new(&folder);
    let root = open_root(folder).unwrap();
    let lock = LockFile::new(std::ffi::OsStr::new("lock"), format!("child {}", std::process::id()));
    let journal = open(&folder.join("journal")).with_policy(SnapshotPolicy { min_log_bytes: 4096 });
    for _ in 0..CHILD_ROUNDS {
        let held = lock.acquire(Some(root.as_ref()), "a child", Duration::from_secs(60)).unwrap();
        if held.before() != Before::Ourselves {
            journal.refresh().unwrap();
            held.settle();
        }
        let old = journal.read().get(b"n").unwrap().map(<[u8]>::to_vec);
        let value = old.as_deref().map_or(0, |v| u64::from_le_bytes(v.try_into().unwrap()));
        let new = (value + 1).to_le_bytes().to_vec();
        assert!(journal.compare_and_swap(b"n", old.as_deref(), Some(new)).unwrap());
        assert_eq!(journal.append(b"events/", b"counted").unwrap(), value + 1);
    }
}

#[test]
fn processes_take_turns_and_lose_nothing() {
    const CHILDREN: u64 = 3;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("journal")).unwrap();
    let path = folder.path().join("journal");
    Journal::create(open_root(&path).unwrap().as_ref(), &REPO).unwrap();
    let child = || {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "store::journal::tests::child_that_counts"]);
        command.env(CHILD_FOLDER, folder.path()).stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let reader = open(&path);
    let mut children: Vec<_> = (0..CHILDREN).map(|_| child()).collect();
    // Meanwhile a reader follows without any lock, and sees counter and events together go up.
    let mut last = 0;
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        reader.catch_up().unwrap();
        let state = reader.read();
        let value = state.get(b"n").unwrap().map_or(0, |v| u64::from_le_bytes(v.try_into().unwrap()));
        let events = state.last_event(b"events/").unwrap();
        assert!(value == events || value == events + 1, "{value} and {events}");
        assert!(value >= last);
        last = value;
    }
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    let journal = open(&path);
    assert_eq!(journal.read().get(b"n").unwrap(), Some(&(CHILDREN * CHILD_ROUNDS).to_le_bytes()[..]));
    assert_eq!(journal.read().last_event(b"events/").unwrap(), CHILDREN * CHILD_ROUNDS);
}
