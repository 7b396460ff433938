use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::disk::open_root;
use crate::base::monitor::{Monitor, Silent};
use crate::base::size::{KIB, MIB};
use crate::format::object::encode_recipe;
use crate::model::id::ObjectKind;
use crate::model::recipe::{Piece, Recipe};
use crate::model::tree::Content;
use crate::ops::testing::path;
use crate::repo::Repository;
use crate::repo::settings::{Settings, SizeClasses};
use crate::transform::chunker::tests::noise;
use crate::transform::chunker::{BAND_CHUNK_LEN, ChunkParams};

use super::sink::LAYERS_AT_ONCE;
use super::{Error, IngestStats, Sink, Source, ingest};

/// Files on both sides of every threshold that is used below, one with a hole and one that is all zeros.
fn contents() -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> =
        [0, 1, 3000, 5000, 20_000, 70_000, 300_000, 1_500_000].iter().map(|len| noise(*len as u64, *len)).collect();
    files.push([noise(1, 100_000), vec![0; 400_000], noise(2, 3_000_000)].concat());
    files.push(vec![0; 200_000]);
    files
}

fn ingested(settings: Settings) -> Vec<Content> {
    ingested_as(settings, super::Cut::Content)
}

fn ingested_as(settings: Settings, cut: super::Cut) -> Vec<Content> {
    let folder = tempfile::tempdir().unwrap();
    let work = open_root(folder.path()).unwrap();
    let mut sources = Vec::new();
    for (number, bytes) in contents().into_iter().enumerate() {
        let name = format!("f{number:02}");
        work.create(name.as_ref(), 0o644).unwrap().write_at(&bytes, 0).unwrap();
        sources.push(Source { path: path(&name), len: bytes.len() as u64, cut, before: None });
    }
    let repo = Repository::in_memory(work, settings).unwrap();
    let lock = repo.lock("test").unwrap();
    let mut sink = Sink::new(&repo, &lock);
    let files = ingest(&repo, &Arc::new(sources), &mut sink, &Silent).unwrap().files;
    sink.finish().unwrap();
    files.into_iter().map(|file| file.unwrap().content).collect()
}

#[test]
fn how_files_are_read_does_not_change_what_is_stored() {
    let all = |len: u64| SizeClasses { tiny: len, small: len, medium: len, large: len, huge: len };
    let steps = SizeClasses { tiny: 2 * KIB, small: 10 * KIB, medium: 100 * KIB, large: MIB, huge: 2 * MIB };
    for chunking in [ChunkParams::default(), ChunkParams { whole_len: 1 << 20, ..ChunkParams::default() }] {
        let settings = Settings { chunking, cpu_threads: 2, ..Settings::default() };
        let expected = ingested(settings.clone());
        for classes in [all(0), all(4 * KIB), all(MIB), all(u64::MAX), steps] {
            for in_flight_len in [1, 100_000, 8 << 20] {
                let small =
                    Settings { read_len: 64 << 10, large_read_len: 1 << 20, batch_files: 2, ..settings.clone() };
                let found = ingested(Settings { classes, in_flight_len, ..small });
                assert_eq!(found, expected, "{classes:?} {in_flight_len}");
            }
        }
    }
}

const BANDS_GOLDEN: u32 = 530787470;

#[test]
fn bands_are_cut_at_the_same_places_however_they_are_read() {
    let settings = Settings { cpu_threads: 2, ..Settings::default() };
    let band = super::Cut::Band;
    let whole = ingested_as(settings.clone(), band);
    let ids: String = whole.iter().map(|content| format!("{content:?}")).collect();
    assert_eq!(crc32fast::hash(ids.as_bytes()), BANDS_GOLDEN, "golden checksum of how bands are cut");
    assert_ne!(whole, ingested(settings.clone()), "they are cut differently from other files");
    let classes = SizeClasses { medium: 0, ..settings.classes };
    let streamed = ingested_as(Settings { classes, read_len: 64 << 10, in_flight_len: 1, ..settings }, band);
    assert_eq!(streamed, whole);
}

/// One file in a repository in memory.
struct Stored {
    folder: tempfile::TempDir,
    repo: Repository,
    cut: super::Cut,
}

impl Stored {
    fn new(settings: Settings, cut: super::Cut) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repository::in_memory(open_root(folder.path()).unwrap(), settings).unwrap();
        Self { folder, repo, cut }
    }

    fn store(&self, bytes: &[u8], before: Option<(Content, u64)>) -> (Content, IngestStats) {
        std::fs::write(self.folder.path().join("0"), bytes).unwrap();
        let source = Source { path: path("0"), len: bytes.len() as u64, cut: self.cut, before };
        let lock = self.repo.lock("test").unwrap();
        let mut sink = Sink::new(&self.repo, &lock);
        let content =
            ingest(&self.repo, &Arc::new(vec![source]), &mut sink, &Silent).unwrap().files.remove(0).unwrap().content;
        let (layers, stats) = sink.finish().unwrap();
        self.repo.commit(&lock, &layers, Vec::new()).unwrap();
        (content, stats)
    }
}

#[test]
fn a_changed_sector_of_a_band_costs_one_chunk() {
    let band = Stored::new(Settings::default(), super::Cut::Band);
    let chunk = BAND_CHUNK_LEN as usize;
    let mut bytes = noise(7, 4 << 20);
    bytes[64 * chunk..80 * chunk].fill(0);
    let (mut last, stats) = band.store(&bytes, None);
    assert_eq!((stats.chunks_new, stats.chunks_known), (240, 0));
    // What is written, and how many chunks that makes new; the chunks of one zero block are a hole until one of them is not.
    for (at, len, new) in [(0, 1, 1), (5 * chunk - 1, 2, 2), (70 * chunk, 512, 2), (bytes.len() - 1, 1, 1)] {
        bytes[at..at + len].iter_mut().for_each(|byte| *byte ^= 0x55);
        let (content, stats) = band.store(&bytes, Some((last, bytes.len() as u64)));
        assert_eq!(stats.chunks_new, new, "{at}");
        assert_eq!(content, band.store(&bytes, None).0, "what is known of it before changes nothing");
        last = content;
    }
    let (content, stats) = band.store(&bytes[..100_000], Some((last, bytes.len() as u64)));
    assert_eq!((stats.chunks_new, stats.chunks_known), (1, 6));
    assert_eq!(content, band.store(&bytes[..100_000], None).0);
}

#[test]
fn a_new_version_of_a_large_file_is_cut_only_where_it_differs() {
    let classes = SizeClasses { medium: 0, ..Settings::default().classes };
    let chunking = ChunkParams::with_average(4096);
    let settings = Settings { chunking, classes, read_len: 256 << 10, cpu_threads: 2, ..Settings::default() };
    let stored = Stored::new(settings.clone(), super::Cut::Content);
    let old = [noise(1, 3_000_000), vec![0; 400_000], noise(2, 3_000_000)].concat();
    let (first, stats) = stored.store(&old, None);
    let all = stats.chunks_new;
    let at = 1_000_000;
    let mut overwritten = old.clone();
    (at..old.len()).step_by(800_000).for_each(|at| overwritten[at] ^= 0x55);
    // What was done, and how many of the chunks are in place at least. Where content has moved, what is read ahead meanwhile
    // is not, nor the two chunks at the edges of a window, nor what is read while a hole ends.
    let cases: [(&str, Vec<u8>, f64); 9] = [
        ("nothing", old.clone(), 0.95),
        ("bytes overwritten", overwritten, 0.95),
        ("some put in", [&old[..at], &noise(3, 100_001), &old[at..]].concat(), 0.8),
        ("some put in at the start", [&noise(3, 70_000), &old[..]].concat(), 0.8),
        ("some taken out", [&old[..at], &old[at + 500_003..]].concat(), 0.75),
        ("the start taken out", old[at + 1..].to_vec(), 0.65),
        ("more at the end", [&old[..], &noise(4, 300_000)].concat(), 0.95),
        ("the end taken out", old[..at].to_vec(), 0.15),
        ("all of it", noise(5, old.len()), 0.0),
    ];
    for (what, new, least) in cases {
        let before = stored.repo.pools().meter().summary(Default::default(), 1, 1).chunks_in_place;
        let (content, _) = stored.store(&new, Some((first, old.len() as u64)));
        let in_place = stored.repo.pools().meter().summary(Default::default(), 1, 1).chunks_in_place - before;
        assert!(in_place as f64 >= least * all as f64, "{what}: {in_place} of {all}");
        let fresh = Stored::new(settings.clone(), super::Cut::Content);
        assert_eq!(content, fresh.store(&new, None).0, "{what}: what is known of it before changes nothing");
    }
}

#[test]
fn what_is_compared_ahead_never_waits_for_itself() {
    let classes = SizeClasses { medium: 0, ..Settings::default().classes };
    // Chunks, and a header before which nothing is cut, longer than what may be in flight.
    for (avg_len, header_len, in_flight_len) in
        [(4 << 10, 0, 1 << 20), (1 << 20, 0, 1 << 20), (64 << 10, 3 << 20, 2 << 20)]
    {
        let chunking = ChunkParams::with_average(avg_len);
        let settings = Settings { chunking, classes, in_flight_len, cpu_threads: 4, ..Settings::default() };
        let header = [r#"{"a":{"data_offsets":[0,4000000]}}"#, &" ".repeat(header_len)].concat();
        let old = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &noise(1, 12_000_000)].concat();
        let mut new = old.clone();
        new.iter_mut().skip(4_000_000).take(10).for_each(|byte| *byte ^= 0x55);
        let stored = Stored::new(settings.clone(), super::Cut::Content);
        let (first, _) = stored.store(&old, None);
        let (content, _) = stored.store(&new, Some((first, old.len() as u64)));
        assert_eq!(content, Stored::new(settings, super::Cut::Content).store(&new, None).0, "{avg_len} {header_len}");
    }
}

#[test]
fn an_older_version_that_was_cut_by_other_rules_changes_nothing() {
    let classes = SizeClasses { medium: 0, ..Settings::default().classes };
    for avg_len in [4096, 8192, 16384] {
        let chunking = ChunkParams::with_average(avg_len);
        let settings = Settings { chunking, classes, cpu_threads: 2, ..Settings::default() };
        let of = |cut, bytes: &[u8], before| Stored::new(settings.clone(), cut).store(bytes, before).0;
        let band = noise(3, 6_000_000);
        let header = r#"{"a":{"data_offsets":[0,4000000]}}"#;
        let array = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &noise(4, 5_000_000)].concat();
        let mut no_array = array.clone();
        no_array[8] = b'x';
        for (what, cut, old, new) in
            [("band", super::Cut::Band, &band, &band), ("array", super::Cut::Content, &array, &no_array)]
        {
            let mut stored = Stored::new(settings.clone(), cut);
            let (first, _) = stored.store(old, None);
            stored.cut = super::Cut::Content;
            let (content, _) = stored.store(new, Some((first, old.len() as u64)));
            assert_eq!(content, of(super::Cut::Content, new, None), "{what} {avg_len}");
        }
    }
}

/// Stops after so many bytes.
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
fn what_was_interrupted_after_many_layers_goes_on_from_there() {
    const LEN: usize = 8 << 20;
    let classes = SizeClasses { medium: 0, ..Settings::default().classes };
    let reads =
        Settings { classes, read_len: 64 << 10, large_read_len: 64 << 10, in_flight_len: 1, ..Settings::default() };
    let chunking = ChunkParams::with_average(4 << 10);
    let stored = Stored::new(
        Settings { layer_len: LEN as u64 / 64, block_len: 16 << 10, chunking, ..reads },
        super::Cut::Content,
    );
    let bytes = noise(1, LEN);
    std::fs::write(stored.folder.path().join("0"), &bytes).unwrap();
    let source = Source { path: path("0"), len: LEN as u64, cut: super::Cut::Content, before: None };
    let lock = stored.repo.lock("test").unwrap();
    let mut sink = Sink::new(&stored.repo, &lock);
    let stop = Until { len: LEN as u64 / 2, seen: AtomicU64::new(0) };
    assert!(matches!(ingest(&stored.repo, &Arc::new(vec![source]), &mut sink, &stop), Err(Error::Interrupted)));
    drop(sink);
    drop(lock);
    let kept = stored.repo.objects().layers().layers().to_vec();
    assert!(kept.len() >= LAYERS_AT_ONCE && kept.len() < 40, "{}", kept.len());
    let (content, first) = stored.store(&bytes, None);
    let (again, second) = stored.store(&bytes, None);
    assert_eq!((content, first.chunks_new + first.chunks_known, 0), (again, second.chunks_known, second.chunks_new));
    // What was kept came once.
    let objects: u64 = kept.iter().map(|(_, layer)| u64::from(layer.object_count)).sum();
    assert!((0..=2).contains(&(objects as i64 - first.chunks_known as i64)), "{objects} {first:?}");
}

#[test]
fn a_recipe_longer_than_any_file_is_no_older_version() {
    let classes = SizeClasses { medium: 0, ..Settings::default().classes };
    let stored = Stored::new(Settings { classes, ..Settings::default() }, super::Cut::Content);
    let pieces = vec![Piece::Hole { len: i64::MAX as u64 }; 3];
    let (id, bytes) = encode_recipe(&Recipe::Leaf(pieces));
    let lock = stored.repo.lock("test").unwrap();
    let mut sink = Sink::new(&stored.repo, &lock);
    sink.add(id.into(), ObjectKind::Recipe, &bytes, None).unwrap();
    let (layers, _) = sink.finish().unwrap();
    stored.repo.commit(&lock, &layers, Vec::new()).unwrap();
    drop(lock);
    let new = noise(1, 3_000_000);
    let (content, _) = stored.store(&new, Some((Content::Recipe(id), u64::MAX)));
    assert_eq!(content, stored.store(&new, None).0);
}
