//! What benches share.
#![allow(dead_code, reason = "each bench takes a part of it")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use digstore::base::disk::open_root;
use digstore::base::monitor::Silent;
use digstore::model::id::{ObjectId, ObjectKind};
use digstore::model::path::{CONTROL_DIR, RepoPath};
use digstore::model::staging::{SeenStat, StagedEntry, StagedNode};
use digstore::model::tree::{Content, Meta};
use digstore::ops::{add, commit};
use digstore::repo::{Repository, Settings, init};
use digstore::transform::chunker::{ChunkParams, Chunker};
use digstore::transform::hash::chunk_id;
use tempfile::TempDir;

/// Bytes that do not shrink, the same for the same seed: xorshift64*.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut word = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    (0..len.div_ceil(8)).flat_map(|_| word().to_le_bytes()).take(len).collect()
}

/// Text with the redundancy of source code.
pub fn text(seed: usize, len: usize) -> Vec<u8> {
    let words = ["static ", "int ", "return ", "struct device ", "*dev, ", "if (", ") {\n", "}\n", "0x", "unsigned "];
    let mut state = seed as u64 * 2 + 1;
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(words[(state >> 33) as usize % words.len()].as_bytes());
        out.extend_from_slice(format!("{:x}", state >> 50).as_bytes());
    }
    out.truncate(len);
    out
}

/// Into how many chunks the bytes are cut.
pub fn cut(chunker: &Chunker, mut rest: &[u8]) -> usize {
    let mut chunks = 0;
    while !rest.is_empty() {
        rest = rest.get(chunker.next_len(rest)..).unwrap_or_default();
        chunks += 1;
    }
    chunks
}

/// A new repository in a folder, which is its work tree.
pub fn create(folder: &Path, settings: Settings) -> Repository {
    let work = open_root(folder).unwrap();
    let (dir, _) = init::create(work.as_ref(), OsStr::new(CONTROL_DIR), ChunkParams::default()).unwrap();
    Repository::open(dir, work, settings).unwrap()
}

/// A new repository in a folder of its own.
pub fn fresh() -> (TempDir, Repository) {
    let folder = tempfile::tempdir().unwrap();
    let repo = create(folder.path(), Settings::default());
    (folder, repo)
}

/// Stores objects in a layer of their own, durable.
pub fn put_objects(repo: &Repository, contents: impl Iterator<Item = (ObjectId, impl AsRef<[u8]>)>) {
    let lock = repo.lock("bench").unwrap();
    let mut layer = repo.new_layer().unwrap();
    for (id, bytes) in contents {
        layer.add(id, ObjectKind::Chunk, bytes.as_ref(), None).unwrap();
    }
    repo.commit(&lock, &[layer.seal().unwrap()], Vec::new()).unwrap();
}

/// A staged file, made up, and its path: a hundred to a folder.
pub fn staged_file(number: usize) -> (RepoPath, StagedEntry) {
    let entry = StagedEntry {
        node: StagedNode::File { len: 1000, content: Content::Chunk(chunk_id(&number.to_le_bytes())) },
        meta: Meta { mode: 0o644, mtime_ns: number as i64 },
        seen: SeenStat::default(),
        racy: false,
        generation: 1,
    };
    (RepoPath::parse(format!("d{:03}/f{number:06}.txt", number / 100).as_bytes()).unwrap(), entry)
}

/// Another handle for it, with a work tree elsewhere.
pub fn open_for(folder: &Path, work: &Path) -> Repository {
    let control = open_root(folder).unwrap().open_dir(OsStr::new(CONTROL_DIR)).unwrap();
    Repository::open(control, open_root(work).unwrap(), Settings::default()).unwrap()
}

/// Stores the whole work tree.
pub fn add_all(repo: &Repository) -> add::Outcome {
    add::add(repo, &add::Options { paths: vec![RepoPath::root()], ..add::Options::default() }, &Silent).unwrap()
}

/// Commits what is staged.
pub fn commit_all(repo: &Repository) {
    let options = commit::Options {
        message: "bench".to_owned(),
        author: "Bench <bench@example.org>".to_owned(),
        time_ns: 1,
        utc_offset_minutes: 0,
        all: false,
        allow_empty: true,
    };
    commit::commit(repo, &options, &Silent).unwrap();
}

/// Where [`write_files`] puts a file.
pub fn file_path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("d{:03}/f{:02}.txt", number / 100, number % 100))
}

/// Writes text files, a hundred to a folder, with lengths from `least` to `most`.
pub fn write_files(folder: &Path, count: usize, least: usize, most: usize) -> u64 {
    let mut total = 0;
    for number in 0..count {
        let path = file_path(folder, number);
        if number % 100 == 0 {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        let len = least + number * 7919 % (most - least + 1);
        fs::write(path, text(number, len)).unwrap();
        total += len as u64;
    }
    total
}
