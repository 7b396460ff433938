use crate::base::disk::open_root;
use crate::base::monitor::Silent;
use crate::base::size::{KIB, MIB};
use crate::model::tree::Content;
use crate::ops::testing::path;
use crate::repo::Repository;
use crate::repo::settings::{Settings, SizeClasses};
use crate::transform::chunker::ChunkParams;
use crate::transform::chunker::tests::noise;

use super::{Sink, Source, ingest};

/// Files on both sides of every threshold that is used below, one with a hole and one that is all zeros.
fn contents() -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> =
        [0, 1, 3000, 5000, 20_000, 70_000, 300_000, 1_500_000].iter().map(|len| noise(*len as u64, *len)).collect();
    files.push([noise(1, 100_000), vec![0; 400_000], noise(2, 3_000_000)].concat());
    files.push(vec![0; 200_000]);
    files
}

fn ingested(settings: Settings) -> Vec<Content> {
    let folder = tempfile::tempdir().unwrap();
    let work = open_root(folder.path()).unwrap();
    let mut sources = Vec::new();
    for (number, bytes) in contents().into_iter().enumerate() {
        let name = format!("f{number:02}");
        work.create(name.as_ref(), 0o644).unwrap().write_at(&bytes, 0).unwrap();
        sources.push(Source { path: path(&name), len: bytes.len() as u64 });
    }
    let repo = Repository::in_memory(work, settings).unwrap();
    let mut sink = Sink::new(&repo);
    let files = ingest(&repo, sources, &mut sink, &Silent).unwrap().files;
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
