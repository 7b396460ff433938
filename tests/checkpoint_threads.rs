//! Many threads of one process make checkpoints and use sessions through one handle.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "files of the work tree are written by hand")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use digstore::base::disk::open_root;
use digstore::base::monitor::Silent;
use digstore::model::checkpoint::Area;
use digstore::model::path::CONTROL_DIR;
use digstore::model::session::SessionName;
use digstore::ops::checkpoint::{create, list};
use digstore::ops::session::{self, events, state};
use digstore::repo::{Repository, Settings, init};
use digstore::transform::chunker::ChunkParams;

const THREADS: u64 = 8;
const EACH: u64 = 20;

fn repositories() -> [(&'static str, tempfile::TempDir, Repository); 2] {
    let settings = || Settings { cpu_threads: 2, io_threads: 2, ..Settings::default() };
    let folder = tempfile::tempdir().unwrap();
    let work = open_root(folder.path()).unwrap();
    let (dir, _) = init::create(work.as_ref(), OsStr::new(CONTROL_DIR), ChunkParams::default()).unwrap();
    let on_disk = Repository::open(dir, work, settings()).unwrap();
    let other = tempfile::tempdir().unwrap();
    let in_memory = Repository::in_memory(open_root(other.path()).unwrap(), settings()).unwrap();
    [("on disk", folder, on_disk), ("in memory", other, in_memory)]
}

fn name(text: &str) -> SessionName {
    SessionName::parse(text).unwrap()
}

fn begin(repo: &Repository, text: &str) {
    let options = session::BeginOptions { name: name(text), owner: None, resume: false };
    session::begin(repo, &options, &Silent).unwrap();
}

#[test]
fn every_checkpoint_gets_a_number_of_its_own() {
    for (which, folder, repo) in repositories() {
        for thread in 0..THREADS {
            begin(&repo, &format!("s{thread}"));
        }
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (repo, folder) = (&repo, folder.path());
                scope.spawn(move || {
                    for step in 0..EACH {
                        // Half of them store the work tree, which the others change meanwhile.
                        std::fs::write(folder.join(format!("f{thread}")), format!("{step}")).unwrap();
                        let session = Some(name(&format!("s{thread}")));
                        let area = (step % 2 == 0).then_some(Area::WorkTree);
                        let options = create::Options { session, area, ..create::Options::default() };
                        create::create(repo, &options, &Silent).unwrap();
                    }
                });
            }
        });
        let all = list::list(&repo, &list::Options::default(), &Silent).unwrap();
        let all = &all.checkpoints;
        let numbers: BTreeSet<u64> = all.iter().map(|line| line.number).collect();
        assert_eq!(numbers, (1..=THREADS * EACH).collect(), "{which}");
        assert_eq!(all.len() as u64, THREADS * EACH, "{which}");
        for thread in 0..THREADS {
            let options = list::Options { session: Some(name(&format!("s{thread}"))), ..list::Options::default() };
            assert_eq!(list::list(&repo, &options, &Silent).unwrap().checkpoints.len() as u64, EACH, "{which}");
        }
    }
}

#[test]
fn a_counter_under_compare_and_swap_loses_nothing() {
    for (which, _folder, repo) in repositories() {
        begin(&repo, "s");
        state::put(&repo, &name("s"), b"n", b"0", &Silent).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let mut done = 0;
                    while done < EACH {
                        let old = state::value(&repo, &name("s"), b"n", &Silent).unwrap();
                        let number: u64 = std::str::from_utf8(&old).unwrap().parse().unwrap();
                        let new = (number + 1).to_string();
                        let swapped =
                            state::compare_and_swap(&repo, &name("s"), b"n", Some(&old), Some(new.as_bytes()), &Silent);
                        match swapped {
                            Ok(_) => done += 1,
                            Err(digstore::ops::Error::Conflict { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
        });
        let end = state::value(&repo, &name("s"), b"n", &Silent).unwrap();
        assert_eq!(end, (THREADS * EACH).to_string().as_bytes(), "{which}");
    }
}

#[test]
fn a_slow_subscriber_gets_every_event_once_and_in_order() {
    for (which, _folder, repo) in repositories() {
        begin(&repo, "s");
        let repo = Arc::new(repo);
        // More than a queue holds.
        let count = 3 * events::QUEUE_LEN as u64;
        let writer = {
            let repo = Arc::clone(&repo);
            std::thread::spawn(move || {
                for step in 0..count {
                    events::append(&repo, &name("s"), "step", format!("{step}").as_bytes(), &Silent).unwrap();
                }
                session::end(&repo, &name("s"), &Silent).unwrap();
            })
        };
        let mut subscription = events::subscribe(&repo, &name("s"), 0).unwrap();
        let mut numbers = Vec::new();
        while !subscription.is_over().unwrap() {
            if let Some(event) = subscription.next(Duration::from_millis(20)).unwrap() {
                numbers.push(event.number);
                if event.number % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        writer.join().unwrap();
        // Its beginning, the events, its end.
        assert_eq!(numbers, (1..=count + 2).collect::<Vec<_>>(), "{which}");
        let mut late = events::subscribe(&repo, &name("s"), count).unwrap();
        assert_eq!(late.next(Duration::ZERO).unwrap().unwrap().number, count, "{which}");
    }
}
