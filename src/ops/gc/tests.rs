use super::*;
use crate::base::monitor::Silent;
use crate::model::id::{CommitId, LayerId};
use crate::model::path::RepoPath;
use crate::model::refs::{Head, RefName};
use crate::ops::fsck::{self, fsck};
use crate::ops::testing::{TestRepo, settings};
use crate::ops::{add, commit};
use crate::repo::Settings;
use crate::store;
use crate::store::refs::RefKind;
use crate::store::retired::Retired;
use crate::transform::chunker::tests::noise;

/// A repository of one file in many versions, made by the real verbs.
struct Versions {
    repo: TestRepo,
    ids: Vec<CommitId>,
    contents: Vec<Vec<u8>>,
}

const LEN: usize = 30_000;

impl Versions {
    fn new(count: usize, settings: Settings) -> Self {
        let repo = TestRepo::on_disk_with(settings);
        let mut versions = Self { repo, ids: Vec::new(), contents: Vec::new() };
        let mut content = noise(1, LEN);
        for number in 0..count {
            content.splice(number * 40..number * 40 + 20, noise(100 + number as u64, 25));
            versions.save(content.clone());
        }
        versions
    }

    /// Commits a version that has no parent, on a branch of its own, so that it can be dropped alone.
    fn save(&mut self, content: Vec<u8>) {
        let branch = branch(self.ids.len());
        let lock = self.repo.lock("test").unwrap();
        self.repo.repo.commit(&lock, &[], vec![store::refs::head_op(&Head::Branch(branch))]).unwrap();
        drop(lock);
        self.repo.write_work(&[("file", &content)]);
        add::add(&self.repo, &add::Options { paths: vec![RepoPath::root()], ..Default::default() }, &Silent).unwrap();
        let options = commit::Options {
            message: format!("version {}", self.ids.len()),
            author: "A <a@example.org>".to_owned(),
            time_ns: 1_700_000_000_000_000_000 + self.ids.len() as i64,
            utc_offset_minutes: 0,
            all: false,
            allow_empty: true,
        };
        self.ids.push(commit::commit(&self.repo, &options, &Silent).unwrap().id);
        self.contents.push(content);
    }

    /// Every byte is sound, and these versions are what they were.
    fn check(&self, kept: &[usize]) {
        let found = fsck(&self.repo, &fsck::Options { full: true }, &Silent).unwrap();
        assert_eq!(found.findings, []);
        for number in kept {
            assert_eq!(self.repo.stored(&self.ids[*number], "file"), self.contents[*number], "version {number}");
        }
    }

    fn bytes(&self) -> u64 {
        layers(&self.repo).1
    }

    /// How many blocks each block of content needs.
    fn depths(&self) -> Vec<u8> {
        let objects = self.repo.objects();
        let mut depths = Vec::new();
        for number in 0..objects.layers().layers().len() as u32 {
            let reader = objects.layers().reader(number).unwrap();
            depths.extend((0..reader.footer().block_count).map(|block| reader.block(block).unwrap().depth()));
        }
        depths
    }

    fn gc(&self, aggressive: bool) -> Outcome {
        gc(&self.repo, &Options { aggressive, grace: Some(Duration::ZERO), ..Options::default() }, &Silent).unwrap()
    }

    /// Makes all versions unreachable but these. The last one is that of HEAD and staging, and must be among them.
    fn keep(&self, kept: &[usize]) {
        let lock = self.repo.lock("test").unwrap();
        let state = self.repo.journal().read();
        let dropped = (0..self.ids.len()).filter(|number| !kept.contains(number));
        let mut ops: Vec<_> = dropped.map(|number| store::refs::delete_op(RefKind::Branch, &branch(number))).collect();
        ops.extend(operations::list(&state).unwrap().iter().map(operations::forget_op));
        drop(state);
        self.repo.repo.commit(&lock, &[], ops).unwrap();
    }
}

fn branch(number: usize) -> RefName {
    RefName::parse(&format!("v{number}")).unwrap()
}

/// One block for the whole file, and nothing is merged by the way.
fn one_block() -> Settings {
    Settings { block_len: 64_000, maintenance: false, ..settings() }
}

#[test]
fn a_chain_is_bounded_by_the_snapshot_interval_and_every_version_comes_back() {
    for (count, interval) in [(15, 8), (12, 3), (5, 1), (200, 8)] {
        let settings = Settings { snapshot_interval: interval, ..one_block() };
        let versions = Versions::new(count, settings);
        let deepest = versions.depths().into_iter().max().unwrap();
        assert_eq!(deepest, interval.min(count as u8) - 1, "{count} versions, {interval} to a chain");
        versions.check(&(0..count).collect::<Vec<_>>());
        let whole = count.div_ceil(usize::from(interval)) as u64;
        let bytes = versions.bytes();
        assert!(bytes > whole * LEN as u64 && bytes < (whole * LEN as u64) + count as u64 * 3_000, "{bytes} bytes");
    }
}

#[test]
fn what_is_dropped_comes_back_and_the_rest_stays() {
    // A middle one that others need, the first, which all need, all but the last, and nothing.
    for kept in [&[0, 1, 3, 4][..], &[1, 2, 3, 4], &[4], &[0, 1, 2, 3, 4]] {
        let versions = Versions::new(5, one_block());
        versions.keep(kept);
        let before = versions.bytes();
        let plan = gc(&versions.repo, &Options { dry_run: true, ..Options::default() }, &Silent).unwrap();
        assert_eq!((plan.bytes_before, versions.bytes()), (before, before), "a look changes nothing");
        assert_eq!(plan.dead_bytes > 100, kept.len() < 5, "{plan:?}");
        let outcome = versions.gc(false);
        assert_eq!(outcome.waiting_bytes, 0);
        assert_eq!(outcome.layers_after, Some(1), "small layers became one");
        assert!(versions.bytes() < before);
        assert!(
            versions.bytes() < LEN as u64 + 5 * 1_500,
            "{kept:?}: {} bytes for one whole version",
            versions.bytes()
        );
        versions.check(kept);
        let again = versions.gc(false);
        assert_eq!(again.layers_rewritten, 0, "{kept:?}: nothing is left to do");
        assert!(again.dead_bytes < 1_000, "{kept:?}: a small block stays as long as that is cheaper: {again:?}");
        let Versions { repo, ids, contents } = versions;
        Versions { repo: repo.reopen(), ids, contents }.check(kept);
    }
}

#[test]
fn compressing_anew_keeps_every_version_and_cuts_chains_that_are_too_long() {
    let mut versions = Versions::new(10, Settings { snapshot_interval: 10, ..one_block() });
    assert_eq!(versions.depths().into_iter().max(), Some(9));
    versions.gc(true);
    assert_eq!(versions.depths().into_iter().max(), Some(9));
    versions.repo = versions.repo.reopen_with(Settings { snapshot_interval: 4, ..one_block() });
    versions.gc(true);
    assert_eq!(versions.depths().into_iter().max(), Some(3));
    versions.check(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn replaced_files_stay_for_readers_until_their_time_is_over() {
    let versions = Versions::new(4, one_block());
    let reader =
        Versions { repo: versions.repo.another(), ids: versions.ids.clone(), contents: versions.contents.clone() };
    versions.keep(&[0, 3]);
    let options = Options { grace: Some(Duration::from_secs(600)), ..Options::default() };
    let outcome = gc(&versions.repo, &options, &Silent).unwrap();
    assert!(outcome.waiting_bytes > 0 && outcome.freed_bytes == 0);
    assert_eq!(versions.repo.strays().unwrap(), [], "what is retired is no leftover");
    for number in 0..4 {
        assert_eq!(reader.repo.stored(&reader.ids[number], "file"), reader.contents[number], "as it was when opened");
    }
    assert_eq!(versions.gc(false).freed_bytes, outcome.waiting_bytes);
    versions.check(&[0, 3]);
}

#[test]
fn the_list_of_replaced_files_is_gone_through_a_few_times_within_their_time_not_with_each_commit() {
    let versions = Versions::new(1, Settings { maintenance: false, ..one_block() });
    let repo = &versions.repo.repo;
    let (grace, hour) = (Duration::from_secs(8 * 3600), 3_600_000_000_000i64);
    let now = crate::base::clock::now();
    let lock = repo.lock("test").unwrap();
    let retire = |place: u8, hours: i64| {
        let retired =
            Retired { id: LayerId::from_digest([place; 32]), since: now - hours * hour - hour / 2, file_len: 1 };
        repo.commit(&lock, &[], vec![retired::put_op(&retired), retired::oldest_op(Some(retired.since))]).unwrap();
    };
    let state = || (retired::list(&repo.journal().read()).unwrap().len(), repo.journal().read().lsn());
    [(1, 0), (2, 6), (3, 7), (4, 8)].into_iter().for_each(|(place, hours)| retire(place, hours));
    assert_eq!(repo.reap(&lock, grace).unwrap(), 1);
    let (left, lsn) = state();
    assert_eq!(left, 3);
    assert_eq!(
        repo.reap(&lock, grace - Duration::from_secs(1800)).unwrap(),
        0,
        "this one is due, and waits for the next"
    );
    assert_eq!(state(), (left, lsn), "nothing was looked at");
    assert_eq!(repo.reap(&lock, grace - Duration::from_secs(3601)).unwrap(), 1);
    assert_eq!(repo.reap(&lock, Duration::ZERO).unwrap(), 2);
    assert_eq!((state().0, retired::oldest(&repo.journal().read()).unwrap()), (0, None));
    // A journal that was made anew may have lost the time, and not the list.
    retire(5, 9);
    repo.commit(&lock, &[], vec![retired::oldest_op(None)]).unwrap();
    assert_eq!(repo.reap(&lock, grace).unwrap(), 1);
}

#[test]
fn any_versions_may_go_in_any_order() {
    for seed in 0..12u64 {
        let settings = Settings { block_len: 8_000, maintenance: seed % 2 == 0, snapshot_interval: 5, ..settings() };
        let versions = Versions::new(9, settings);
        let chance = noise(seed + 1, 64);
        let mut kept: Vec<usize> = (0..9).collect();
        for round in 0..4 {
            kept.retain(|number| *number == 8 || chance[round * 9 + number] > 63);
            versions.keep(&kept);
            versions.gc(round == 2);
            versions.check(&kept);
        }
    }
}

/// Text that shrinks, so that a wrong base shows.
fn text(seed: u64, len: usize) -> Vec<u8> {
    noise(seed, len / 4).iter().flat_map(|byte| format!("{byte:03} ").into_bytes()).collect()
}

#[test]
fn work_in_many_steps_loses_nothing_though_layers_are_renumbered_between_them() {
    for aggressive in [false, true] {
        let settings = Settings { layer_len: 40_000, block_len: 12_000, maintenance: false, ..settings() };
        let mut versions = Versions::new(0, settings);
        let mut content = text(1, 60_000);
        for number in 0..8 {
            content.splice(number * 5_000..number * 5_000 + 200, text(50 + number as u64, 300));
            versions.save(content.clone());
        }
        let kept = [1, 2, 4, 5, 7];
        versions.keep(&kept);
        let outcome = versions.gc(aggressive);
        assert!(outcome.layers_after > Some(1), "several steps: {outcome:?}");
        versions.check(&kept);
        versions.gc(!aggressive);
        versions.check(&kept);
    }
}

#[test]
fn versions_may_come_and_go_between_collections() {
    for seed in 0..16u64 {
        let settings = Settings {
            block_len: 9_000,
            layer_len: if seed % 3 == 0 { 30_000 } else { 1 << 20 },
            maintenance: seed % 2 == 0,
            snapshot_interval: 6,
            ..settings()
        };
        let chance = noise(seed + 100, 200);
        let mut versions = Versions::new(0, settings);
        let mut content = if seed % 2 == 0 { text(seed, 40_000) } else { noise(seed, 40_000) };
        let mut kept: Vec<usize> = Vec::new();
        for round in 0..5 {
            for step in 0..3 {
                let at = usize::from(chance[round * 7 + step]) * 100;
                content.splice(at..at + 50, text(1_000 + (round * 3 + step) as u64, 80));
                kept.push(versions.ids.len());
                versions.save(content.clone());
            }
            let newest = versions.ids.len() - 1;
            kept.retain(|number| *number == newest || chance[50 + round * 20 + number] > 90);
            versions.keep(&kept);
            versions.gc(chance[160 + round] > 200);
            versions.check(&kept);
        }
    }
}
