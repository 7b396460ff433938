//! Checkpoints of sparse bundles.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::create::{self, Options, Outcome, Skipped};
use super::tests::{exported, imported};
use super::{edit, get, restore, retention, transfer};
use crate::base::disk::open_root;
use crate::base::monitor::{Monitor, Recording, Silent};
use crate::model::bundle::Geometry;
use crate::model::checkpoint::{Area, Checkpoint, Origin};
use crate::model::path::RepoPath;
use crate::ops::bundle::diff;
use crate::ops::capture::Change;
use crate::ops::testing::{TestRepo, path, settings};
use crate::ops::{Error, add, cat, fsck, undo};
use crate::repo::{Repository, Settings};
use crate::transform::chunker::BAND_CHUNK_LEN;
use crate::transform::chunker::tests::noise;
use crate::world::bundle::make_frame;

const BUNDLE: &str = "images/disk.sparsebundle";
const BAND_LEN: usize = 256 << 10;

/// A work tree with a bundle of 16 bands, of which 0 to 5 are there.
struct Bundle {
    repo: TestRepo,
}

type Bands = BTreeMap<String, Vec<u8>>;

impl Bundle {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        let bundle = Self { repo: TestRepo::on_disk_with(settings) };
        fs::create_dir_all(bundle.at("")).unwrap();
        let geometry = Geometry::new(16 * BAND_LEN as u64, BAND_LEN as u64).unwrap();
        make_frame(&open_root(&bundle.at("")).unwrap(), geometry).unwrap();
        for band in 0..6 {
            bundle.write(&format!("{band:x}"), &noise(band, BAND_LEN));
        }
        bundle
    }

    fn at(&self, name: &str) -> PathBuf {
        self.repo.folder.path().join(BUNDLE).join(name)
    }

    fn band(&self, name: &str) -> PathBuf {
        self.at("bands").join(name)
    }

    fn write(&self, band: &str, bytes: &[u8]) {
        fs::write(self.band(band), bytes).unwrap();
    }

    /// Overwrites a few bytes in place.
    fn poke(&self, band: &str, at: u64, byte: u8) {
        File::options().write(true).open(self.band(band)).unwrap().write_all_at(&[byte; 100], at).unwrap();
    }

    fn bands(&self) -> Bands {
        let entries = fs::read_dir(self.at("bands")).unwrap().map(Result::unwrap);
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    }

    fn options(&self) -> Options {
        Options { area: Some(Area::Bundle(path(BUNDLE))), ..Options::default() }
    }

    fn save(&self) -> Outcome {
        create::create(&self.repo, &self.options(), &Silent).unwrap()
    }

    fn number(&self) -> u64 {
        self.save().checkpoint.unwrap().number
    }

    fn go_to(&self, number: u64) -> restore::Outcome {
        restore::restore(&self.repo, &restore::Options { number, ..restore::Options::default() }, &Silent).unwrap()
    }
}

fn is_sound(repo: &Repository) -> bool {
    !fsck::fsck(repo, &fsck::Options { full: true }, &Silent).unwrap().is_damaged()
}

#[test]
fn only_changed_bands_are_read_and_only_changed_chunks_stored() {
    let bundle = Bundle::new();
    let first = bundle.save();
    // One more for Info.plist and its copy; the token is empty.
    assert_eq!(first.ingest.chunks_new, 6 * BAND_LEN as u64 / u64::from(BAND_CHUNK_LEN) + 1);
    let steps: [(&dyn Fn(), u64, u64); 5] = [
        (&|| {}, 0, 0),
        (&|| bundle.poke("3", 70_000, 1), 1, 1),
        (&|| bundle.poke("0", u64::from(BAND_CHUNK_LEN) - 50, 2), 1, 2),
        (&|| fs::remove_file(bundle.band("1")).unwrap(), 0, 0),
        (&|| bundle.write("f", &[9; 5000]), 1, 1),
    ];
    for (number, (step, files, chunks)) in steps.into_iter().enumerate() {
        step();
        let outcome = bundle.save();
        assert_eq!((outcome.ingest.files, outcome.ingest.chunks_new), (files, chunks), "step {number}");
        let changed = outcome.added.len() + outcome.modified.len() + outcome.removed.len();
        assert_eq!(changed, usize::from(number > 0), "step {number}");
    }
    let paranoid = Options { paranoid: true, only_if_changed: true, ..bundle.options() };
    let outcome = create::create(&bundle.repo, &paranoid, &Silent).unwrap();
    assert_eq!((outcome.skipped, outcome.ingest.files), (Some(Skipped::Unchanged), 0));
    let outcome = create::create(&bundle.repo, &Options { only_if_changed: false, ..paranoid }, &Silent).unwrap();
    // Six bands, Info.plist, its copy and the token.
    assert_eq!((outcome.ingest.files, outcome.ingest.chunks_new), (9, 0));
    assert_eq!(bundle.repo.folder.path().join("images").read_dir().unwrap().count(), 1);
}

#[test]
fn a_checkpoint_may_fill_many_layers() {
    let bundle = Bundle::with(Settings { layer_len: 40_000, maintenance: false, ..settings() });
    for area in [Area::Bundle(path(BUNDLE)), Area::WorkTree] {
        let stamp = if area == Area::WorkTree { 1 } else { 0 };
        for band in 0..6 {
            bundle.write(&format!("{band:x}"), &noise(10 * stamp + band, BAND_LEN));
        }
        let before = bundle.repo.objects().layers().layers().len();
        let options = Options { area: Some(area), ..Options::default() };
        let number = create::create(&bundle.repo, &options, &Silent).unwrap().checkpoint.unwrap().number;
        assert!(bundle.repo.objects().layers().layers().len() > before + 32);
        let bands = bundle.bands();
        fs::remove_file(bundle.band("3")).unwrap();
        bundle.write("4", b"");
        bundle.go_to(number);
        assert!(bundle.bands() == bands && is_sound(&bundle.repo));
    }
}

#[test]
fn an_edit_that_looks_like_none_is_found() {
    let bundle = Bundle::new();
    bundle.number();
    let file = File::options().write(true).open(bundle.band("2")).unwrap();
    let mtime = file.metadata().unwrap().modified().unwrap();
    // Right after the checkpoint, the same length, and the time put back.
    for byte in 1..20 {
        file.write_all_at(&[byte], 1234).unwrap();
        file.set_modified(mtime).unwrap();
        let number = bundle.number();
        bundle.go_to(number);
        assert_eq!(bundle.save().skipped, None);
        let at = format!("{BUNDLE}/bands/2");
        let modified = restored_byte(&bundle.repo, number, &at);
        assert_eq!(modified, byte);
    }
    // Two bands of the same length and time take each other's place.
    let (a, b) = (bundle.band("4"), bundle.band("5"));
    File::options().write(true).open(&b).unwrap().set_modified(fs::metadata(&a).unwrap().modified().unwrap()).unwrap();
    bundle.number();
    fs::rename(&a, bundle.at("x")).unwrap();
    fs::rename(&b, &a).unwrap();
    fs::rename(bundle.at("x"), &b).unwrap();
    assert_eq!(bundle.save().modified, [path(&format!("{BUNDLE}/bands/4")), path(&format!("{BUNDLE}/bands/5"))]);
}

/// The byte that is poked above, as a checkpoint has it.
fn restored_byte(repo: &Repository, number: u64, at: &str) -> u8 {
    let range = Some(cat::ByteRange::From { start: 1234, end: Some(1235) });
    let options = cat::Options { revision: Some(format!("@{number}")), path: path(at), range };
    let mut out = Vec::new();
    cat::cat(repo, &options, &mut out, &Silent).unwrap();
    out[0]
}

#[test]
fn a_restore_writes_only_bands_that_differ_and_can_be_undone() {
    let bundle = Bundle::new();
    let first = bundle.number();
    let then = bundle.bands();
    bundle.poke("2", 0, 7);
    bundle.write("9", &[1; 100]);
    fs::remove_file(bundle.band("4")).unwrap();
    let now = bundle.bands();
    let inode = |band: &str| fs::metadata(bundle.band(band)).unwrap().ino();
    let kept = [inode("0"), inode("5")];
    fs::write(bundle.repo.folder.path().join("other"), "not in it").unwrap();
    let outcome = bundle.go_to(first);
    assert_eq!((outcome.written, outcome.removed, outcome.failed), (2, 1, 0));
    assert_eq!(bundle.bands(), then);
    assert_eq!([inode("0"), inode("5")], kept);
    assert_eq!(fs::read(bundle.repo.folder.path().join("other")).unwrap(), b"not in it");
    undo::undo(&bundle.repo, &undo::Options::default(), &Silent).unwrap();
    assert_eq!(bundle.bands(), now);
    // All of it went, even what says that it is a bundle.
    fs::remove_dir_all(bundle.at("")).unwrap();
    assert!(matches!(create::create(&bundle.repo, &bundle.options(), &Silent), Err(Error::Disk(_))));
    bundle.go_to(first);
    assert_eq!(bundle.bands(), then);
    bundle.number();
    assert_eq!(bundle.save().ingest.files, 0, "what was restored is known, once its times prove something");
    assert!(is_sound(&bundle.repo));
}

#[test]
fn a_look_at_a_restore_changes_nothing() {
    let bundle = Bundle::new();
    let first = bundle.number();
    bundle.poke("2", 0, 7);
    bundle.write("9", &[1; 100]);
    let now = bundle.bands();
    let options = restore::Options { number: first, dry_run: true, ..restore::Options::default() };
    let outcome = restore::restore(&bundle.repo, &options, &Silent).unwrap();
    assert_eq!((outcome.written, outcome.removed, outcome.saved), (1, 1, None));
    assert_eq!(bundle.bands(), now);
}

#[test]
fn holes_and_absent_bands_stay_so() {
    let bundle = Bundle::new();
    File::create(bundle.band("a")).unwrap().set_len(BAND_LEN as u64).unwrap();
    File::create(bundle.band("b")).unwrap().write_all_at(b"end", BAND_LEN as u64 - 3).unwrap();
    let first = bundle.number();
    let then = bundle.bands();
    for name in ["a", "b", "c"] {
        bundle.write(name, &noise(1, BAND_LEN));
    }
    bundle.go_to(first);
    assert_eq!(bundle.bands(), then);
    assert!(!bundle.band("c").exists());
    assert!(fs::metadata(bundle.band("a")).unwrap().blocks() == 0);
    assert!(fs::metadata(bundle.band("b")).unwrap().blocks() * 512 <= 64 << 10);
}

#[test]
fn what_no_bundle_has_is_reported_and_left_alone() {
    let bundle = Bundle::new();
    let secret = bundle.repo.folder.path().join("secret");
    fs::write(&secret, noise(3, 3000)).unwrap();
    symlink(&secret, bundle.band("7")).unwrap();
    fs::write(bundle.band("notes.txt"), "x").unwrap();
    fs::create_dir_all(bundle.band("8/deep")).unwrap();
    fs::write(bundle.band("8/deep/0"), "x").unwrap();
    fs::write(bundle.at("lock"), "").unwrap();
    fs::create_dir(bundle.at(".DigStore")).unwrap();
    fs::write(bundle.at(".digstore"), "x").unwrap();
    let monitor = Recording::default();
    let outcome = create::create(&bundle.repo, &bundle.options(), &monitor).unwrap();
    let foreign = [".DigStore", ".digstore", "bands/notes.txt"].map(|name| format!("{BUNDLE}/{name}"));
    assert_eq!(outcome.foreign, foreign);
    // What stands where a band should is worse than foreign.
    assert_eq!(monitor.problems.lock().unwrap().len(), 2);
    let number = outcome.checkpoint.unwrap().number;
    bundle.poke("0", 0, 1);
    bundle.go_to(number);
    assert!(bundle.band("7").is_symlink() && bundle.band("notes.txt").exists() && bundle.band("8/deep/0").exists());
    assert!(bundle.at("lock").exists(), "a file beside the bands belongs to it");
}

#[test]
fn ignored_bundles_and_the_work_tree_do_not_disturb_each_other() {
    let bundle = Bundle::new();
    fs::write(bundle.repo.folder.path().join(".digignore"), "*.sparsebundle\n").unwrap();
    fs::write(bundle.repo.folder.path().join("notes"), "1").unwrap();
    let tree = || create::create(&bundle.repo, &Options::default(), &Silent).unwrap();
    bundle.number();
    let outcome = tree();
    assert!(outcome.added.iter().all(|path| !path.to_string().contains("sparsebundle")));
    for step in 0..3 {
        fs::write(bundle.repo.folder.path().join("notes"), format!("{step}")).unwrap();
        bundle.poke("1", 0, step);
        assert_eq!(bundle.save().ingest.files, 1);
        let outcome = tree();
        assert_eq!((outcome.modified, outcome.removed), (vec![path("notes")], vec![]));
    }
    let last = bundle.save().checkpoint.unwrap();
    let parent = get(&bundle.repo.journal().read(), last.number - 2).unwrap();
    assert_eq!(last.origin.parent, Some(parent.id), "its parent is of the same bundle");
}

#[test]
fn a_tree_with_a_bundle_shares_its_chunks() {
    let bundle = Bundle::new();
    bundle.number();
    let outcome = create::create(&bundle.repo, &Options::default(), &Silent).unwrap();
    assert_eq!((outcome.ingest.files, outcome.ingest.chunks_new), (9, 0));
    bundle.poke("3", 100, 5);
    let options = add::Options { paths: vec![RepoPath::root()], ..add::Options::default() };
    let added = add::add(&bundle.repo, &options, &Silent).unwrap();
    // What is pending is stored again in a layer: the frame and the changed chunk at most.
    assert!(added.ingest.chunks_new <= 4, "{}", added.ingest.chunks_new);
    bundle.poke("3", 200, 6);
    let added = add::add(&bundle.repo, &options, &Silent).unwrap();
    assert_eq!((added.ingest.files, added.ingest.chunks_new), (1, 1));
    bundle.poke("3", 300, 7);
    std::thread::sleep(Duration::from_millis(30));
    add::add(&bundle.repo, &options, &Silent).unwrap();
    assert_eq!(bundle.save().ingest.files, 0, "what staging knows is known");
}

#[test]
fn a_work_tree_that_is_a_bundle_is_saved_as_one() {
    let bundle = Bundle::new();
    let work = open_root(&bundle.at("")).unwrap();
    let repo = Repository::in_memory(work, settings()).unwrap();
    let checkpoint = create::create(&repo, &Options::default(), &Silent).unwrap().checkpoint.unwrap();
    assert_eq!(checkpoint.bundle(), Some(&RepoPath::root()));
    let recent = Options { min_interval: Some(Duration::from_secs(1000)), ..Options::default() };
    assert_eq!(create::create(&repo, &recent, &Silent).unwrap().skipped, Some(Skipped::Recent));
    bundle.poke("0", 0, 1);
    let now = bundle.bands();
    let options = restore::Options { number: checkpoint.number, ..restore::Options::default() };
    assert_eq!(restore::restore(&repo, &options, &Silent).unwrap().written, 1);
    undo::undo(&repo, &undo::Options::default(), &Silent).unwrap();
    assert_eq!(bundle.bands(), now);
}

/// Changes the bundle each time a file was stored, so many times.
struct Meddler<'a> {
    bundle: &'a Bundle,
    left: AtomicU64,
}

impl Monitor for Meddler<'_> {
    fn begin(&self, _: &str, _: Option<u64>, _: Option<u64>) {}
    fn advance(&self, items: u64, _: u64) {
        if items > 0 && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        {
            let step = self.left.load(Ordering::Relaxed);
            self.bundle.poke("0", 8 * step, step as u8);
            self.bundle.poke("5", 8 * step, step as u8);
        }
    }
    fn end(&self) {}
    fn problem(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn a_bundle_that_changes_while_it_is_read_is_read_again_or_refused() {
    for (changes, is_refused) in [(1, false), (3, false), (1000, true)] {
        let bundle = Bundle::new();
        bundle.number();
        bundle.poke("2", 0, 77);
        let meddler = Meddler { bundle: &bundle, left: AtomicU64::new(changes) };
        let made = create::create(&bundle.repo, &bundle.options(), &meddler);
        if is_refused {
            assert!(matches!(made, Err(Error::KeptChanging(_))));
            assert_eq!(bundle.number(), 2, "no number was given");
            continue;
        }
        let number = made.unwrap().checkpoint.unwrap().number;
        let then = bundle.bands();
        bundle.poke("1", 0, 1);
        bundle.go_to(number);
        assert_eq!(bundle.bands(), then, "it is the state after the last change");
    }
}

#[test]
fn what_a_deleted_checkpoint_held_is_given_back() {
    let bundle = Bundle::new();
    let first = bundle.number();
    bundle.write("9", &noise(99, BAND_LEN));
    let second = bundle.number();
    edit::delete(&bundle.repo, &[first, second], &Silent).unwrap();
    let outcome = retention::compact(&bundle.repo, &retention::Options::default(), &Silent).unwrap();
    assert!(outcome.freed_bytes >= 7 * BAND_LEN as u64, "{}", outcome.freed_bytes);
    let outcome = bundle.save();
    assert_eq!(outcome.ingest.files, 10, "nothing is known any more");
    assert!(is_sound(&bundle.repo));
    bundle.poke("9", 0, 0);
    bundle.go_to(outcome.checkpoint.unwrap().number);
    assert_eq!(bundle.bands()["9"], noise(99, BAND_LEN));
}

#[test]
fn a_bundle_is_exported_and_imported() {
    let bundle = Bundle::new();
    let number = bundle.number();
    let options = transfer::ExportOptions { numbers: vec![number], session: None, content: true };
    let document = exported(&bundle.repo, &options);
    let other = TestRepo::on_disk();
    imported(&other, &document).unwrap();
    restore::restore(&other, &restore::Options { number, ..restore::Options::default() }, &Silent).unwrap();
    let there = Bundle { repo: other };
    assert_eq!(there.bands(), bundle.bands());
}

/// What can happen to a bundle.
#[derive(Debug, Clone)]
enum Step {
    Write(u8, u32, u8, u16),
    Truncate(u8, u32),
    Remove(u8),
    Save,
    Restore(usize),
    Undo,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8u8, 0..BAND_LEN as u32, 0..3u8, 1..40_000u16).prop_map(|(band, at, byte, len)| Step::Write(band, at, byte, len)),
        1 => (0..8u8, 0..BAND_LEN as u32).prop_map(|(band, len)| Step::Truncate(band, len)),
        1 => (0..8u8).prop_map(Step::Remove),
        3 => Just(Step::Save),
        2 => (0..8usize).prop_map(Step::Restore),
        1 => Just(Step::Undo),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn checkpoints_are_what_was_there(steps in proptest::collection::vec(step(), 1..24)) {
        let bundle = Bundle::new();
        // What each checkpoint should hold, and what undo should bring back.
        let mut saved: Vec<(u64, Bands)> = Vec::new();
        let mut undoable: Vec<Bands> = Vec::new();
        for step in steps {
            match step {
                Step::Write(band, at, byte, len) => {
                    let file = File::options().create(true).truncate(false).write(true).open(bundle.band(&format!("{band:x}"))).unwrap();
                    let len = usize::from(len).min(BAND_LEN - at as usize);
                    file.write_all_at(&vec![byte; len], u64::from(at)).unwrap();
                }
                Step::Truncate(band, len) => {
                    let file = File::options().create(true).truncate(false).write(true).open(bundle.band(&format!("{band:x}"))).unwrap();
                    file.set_len(u64::from(len)).unwrap();
                }
                Step::Remove(band) => drop(fs::remove_file(bundle.band(&format!("{band:x}")))),
                Step::Save => saved.push((bundle.number(), bundle.bands())),
                Step::Restore(which) if !saved.is_empty() => {
                    let (number, bands) = saved[which % saved.len()].clone();
                    let before = bundle.bands();
                    bundle.go_to(number);
                    prop_assert!(bundle.bands() == bands, "restore of @{number}");
                    if before != bands {
                        undoable.push(before);
                    }
                }
                Step::Restore(_) => {}
                Step::Undo => {
                    if let Some(bands) = undoable.pop() {
                        undo::undo(&bundle.repo, &undo::Options::default(), &Silent).unwrap();
                        prop_assert!(bundle.bands() == bands, "undo");
                    }
                }
            }
        }
        prop_assert!(is_sound(&bundle.repo));
    }
}

fn differences(bundle: &Bundle, old: u64, new: Option<u64>) -> diff::Outcome {
    let options = diff::Options { old, new, bundle: path(BUNDLE), paths: Vec::new(), inside: false };
    diff::diff(&bundle.repo, &options, &Silent).unwrap()
}

#[test]
fn differences_are_named_by_band_and_sector() {
    let bundle = Bundle::new();
    let first = bundle.number();
    bundle.poke("3", 70_000, 1);
    bundle.poke("3", 0, 1);
    bundle.write("8", &[5; 700]);
    fs::remove_file(bundle.band("1")).unwrap();
    bundle.write("c", &[0; 2000]);
    fs::write(bundle.at("token"), "x").unwrap();
    let expected = [("1", Change::Removed), ("3", Change::Modified), ("8", Change::Added), ("c", Change::Added)];
    let on_disk = differences(&bundle, first, None);
    let second = bundle.number();
    let stored = differences(&bundle, first, Some(second));
    assert_eq!(on_disk, stored, "what is on disk is what was stored of it");
    let band = |name: &str| u64::from_str_radix(name, 16).unwrap() * BAND_LEN as u64;
    let found: Vec<(&str, Change)> =
        stored.bands.iter().map(|band| (std::str::from_utf8(band.path.file_name()).unwrap(), band.change)).collect();
    assert_eq!(found, expected);
    let ranges: Vec<Vec<(u64, u64)>> =
        stored.bands.iter().map(|band| band.ranges.iter().map(|range| (range.start, range.len)).collect()).collect();
    let sector = |at: u64| at / 512 * 512;
    assert_eq!(ranges[0], [(band("1"), BAND_LEN as u64)]);
    assert_eq!(ranges[1], [(band("3"), 512), (band("3") + sector(70_000), 512)]);
    assert_eq!(ranges[2], [(band("8"), 1024)]);
    assert!(ranges[3].is_empty(), "a band of zeros came: the image is the same there");
    assert_eq!(stored.frame, [(path(&format!("{BUNDLE}/token")), Change::Modified)]);
    let back = differences(&bundle, second, Some(first));
    assert_eq!(back.changed_bytes, stored.changed_bytes);
    assert_eq!(differences(&bundle, second, None), diff::Outcome { bundle: path(BUNDLE), ..diff::Outcome::default() });
}

#[test]
fn what_only_the_longer_image_has_differs() {
    let bundle = Bundle::new();
    bundle.write("f", &[7; 700]);
    let long = bundle.number();
    for name in ["Info.plist", "Info.bckup"] {
        let info = fs::read_to_string(bundle.at(name)).unwrap();
        let [before, after] = [16, 8].map(|bands| format!(">{}<", bands * BAND_LEN));
        assert!(info.contains(&before));
        fs::write(bundle.at(name), info.replace(&before, &after)).unwrap();
    }
    fs::remove_file(bundle.band("f")).unwrap();
    let short = bundle.number();
    for (old, new) in [(long, None), (long, Some(short)), (short, Some(long))] {
        let found = differences(&bundle, old, new);
        assert_eq!((found.bands.len(), found.changed_bytes, found.frame.len()), (1, 1024, 2));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn differences_are_all_and_only_what_differs(writes in proptest::collection::vec((0..8u8, 0..BAND_LEN as u32, 0..3u8, 1..9000u16), 0..6)) {
        let bundle = Bundle::new();
        let image = |bundle: &Bundle| {
            let mut image = vec![0; 16 * BAND_LEN];
            for (name, bytes) in bundle.bands() {
                let start = usize::from_str_radix(&name, 16).unwrap() * BAND_LEN;
                image[start..start + bytes.len()].copy_from_slice(&bytes);
            }
            image
        };
        let (first, then) = (bundle.number(), image(&bundle));
        for (band, at, byte, len) in writes {
            let file = File::options().create(true).truncate(false).write(true).open(bundle.band(&format!("{band:x}"))).unwrap();
            file.write_all_at(&vec![byte; usize::from(len).min(BAND_LEN - at as usize)], u64::from(at)).unwrap();
        }
        let now = image(&bundle);
        let differ = |at: usize| then[at..at + 512] != now[at..at + 512];
        let expected: Vec<usize> = (0..then.len()).step_by(512).filter(|at| differ(*at)).collect();
        for outcome in [differences(&bundle, first, None), differences(&bundle, first, Some(bundle.number()))] {
            let ranges = outcome.bands.iter().flat_map(|band| &band.ranges);
            let found: Vec<usize> = ranges.flat_map(|range| (range.start..range.start + range.len).step_by(512)).map(|at| at as usize).collect();
            prop_assert_eq!(&found, &expected);
        }
    }
}

#[test]
fn a_bundle_in_a_bundle_has_records_of_its_own() {
    let bundle = Bundle::new();
    let inner = path(&format!("{BUNDLE}/inner"));
    let at = bundle.at("inner");
    fs::create_dir(&at).unwrap();
    make_frame(&open_root(&at).unwrap(), Geometry::new(4 << 20, 1 << 20).unwrap()).unwrap();
    fs::write(at.join("bands/0"), noise(40, 5000)).unwrap();
    fs::write(at.join("bands/1"), noise(41, 5000)).unwrap();
    let save_inner = || {
        let options = Options { area: Some(Area::Bundle(inner.clone())), ..Options::default() };
        create::create(&bundle.repo, &options, &Silent).unwrap()
    };
    let first = save_inner().checkpoint.unwrap().number;
    let outer = bundle.save();
    assert_eq!((outer.removed.len(), outer.foreign.len()), (0, 1));
    fs::remove_file(at.join("bands/1")).unwrap();
    let second = save_inner();
    assert_eq!((second.removed.len(), second.added.len(), second.ingest.files), (1, 0, 0));
    assert_eq!(bundle.save().removed.len(), 0);
    bundle.go_to(first);
    assert_eq!(fs::read(at.join("bands/1")).unwrap(), noise(41, 5000));
    bundle.go_to(second.checkpoint.unwrap().number);
    assert!(!at.join("bands/1").exists());
}

#[test]
fn each_bundle_is_kept_for_itself() {
    let bundle = Bundle::new();
    let other = Options { area: Some(Area::WorkTree), ..Options::default() };
    let first = bundle.number();
    create::create(&bundle.repo, &other, &Silent).unwrap();
    create::create(&bundle.repo, &other, &Silent).unwrap();
    let recent = Options { min_interval: Some(Duration::from_secs(1000)), ..bundle.options() };
    assert_eq!(create::create(&bundle.repo, &recent, &Silent).unwrap().skipped, Some(Skipped::Recent));
    let policy = retention::Policy { newest: Some(1), ..retention::Policy::default() };
    let outcome =
        retention::compact(&bundle.repo, &retention::Options { policy, ..Default::default() }, &Silent).unwrap();
    assert_eq!((outcome.removed.len(), outcome.kept), (1, 2));
    assert!(get(&bundle.repo.journal().read(), first).is_ok());
    // Of one day long ago, one of each is kept.
    let old: Vec<Checkpoint> = [first, bundle.number()]
        .map(|number| get(&bundle.repo.journal().read(), number).unwrap())
        .into_iter()
        .chain([get(&bundle.repo.journal().read(), 3).unwrap()])
        .map(|one| Checkpoint { origin: Origin { time_ns: 1, ..one.origin }, ..one })
        .collect();
    let thin = retention::Policy { thin: true, ..retention::Policy::default() };
    assert_eq!(thin.select(&old, i64::MAX).len(), 1);
}

#[test]
fn long_holes_are_compared_without_reading_them() {
    let bundle = Bundle::new();
    let first = bundle.number();
    let file = File::create(bundle.band("8")).unwrap();
    file.set_len(1 << 42).unwrap();
    file.write_all_at(b"x", 3000).unwrap();
    fs::write(bundle.band("ffffffffffffffff"), "beyond").unwrap();
    let on_disk = differences(&bundle, first, None);
    let second = bundle.number();
    assert_eq!(differences(&bundle, first, Some(second)), on_disk);
    let found: Vec<usize> = on_disk.bands.iter().map(|band| band.ranges.len()).collect();
    assert_eq!((found, on_disk.changed_bytes), (vec![1, 0], 512));
}
