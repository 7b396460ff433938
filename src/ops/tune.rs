//! `tune`: measures this machine on what is in this work tree, and says which settings would do better.
//!
//! Nothing is stored. A sample of the tree is read, hashed and compressed in blocks as `add` would, at several levels and block
//! lengths, on all threads; a file as large as the sample is written and synced where the repository is. A setting is proposed
//! only where it is clearly better in one way and not worse in the other.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use super::scan::walk_tree;
use super::{Error, Result};
use crate::base::disk::{FileKind, IoContext, temp_name};
use crate::base::monitor::Monitor;
use crate::base::size::{KIB, MIB};
use crate::model::scopes::Scopes;
use crate::repo::Repository;
use crate::transform::compress::{Codec, compress_plain};
use crate::transform::hash::chunk_id;
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::read;

/// As much as is looked at of the work tree: half a second of compression on two threads.
const SAMPLE_LEN: u64 = 64 * MIB;
/// Of one file at most so much, so that many are seen.
const FILE_SHARE: u64 = MIB;
/// Less than this says nothing.
const LEAST_SAMPLE_LEN: u64 = MIB;
/// Levels that are tried. Beyond 12 it takes minutes for a gigabyte.
const LEVELS: [i32; 5] = [1, 3, 6, 9, 12];
const BLOCK_LENS: [usize; 3] = [256 * KIB as usize, 512 * KIB as usize, MIB as usize];
/// Hashed in pieces of the length of an average chunk.
const CHUNK_LEN: usize = 64 * KIB as usize;
/// A gain below this, one part in ten, is within the noise of a machine.
const LEAST_GAIN: f64 = 0.10;
/// A loss below this, one part in fifty, is none.
const NO_LOSS: f64 = 0.02;
/// A sync is measured so often; the median counts.
const SYNCS: usize = 15;
const MEGABYTE: f64 = 1e6;

/// What was measured with one choice of level and block length.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Trial {
    /// The level of zstd.
    pub level: i32,
    /// Bytes compressed together.
    pub block_len: usize,
    /// Plain megabytes (10^6) a second, on all threads.
    pub mb_per_second: f64,
    /// Stored bytes for each plain byte.
    pub ratio: f64,
}

/// A setting that would do better.
#[derive(Debug, Clone, Serialize)]
pub struct Proposal {
    /// Its key.
    pub key: &'static str,
    /// What it should be.
    pub value: String,
    /// What it is.
    pub now: String,
    /// Of the time that storing takes now, what it would take.
    pub time: f64,
    /// Of the bytes that are stored now, what would be.
    pub size: f64,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Files in the work tree.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were looked at.
    pub sample_bytes: u64,
    /// Threads that compute.
    pub threads: usize,
    /// Reading the sample, megabytes (10^6) a second; from memory if it was read lately.
    pub read_mb_per_second: f64,
    /// Hashing on one thread.
    pub hash_mb_per_second: f64,
    /// Hashing on all threads.
    pub hash_all_mb_per_second: f64,
    /// Writing and syncing where the repository is.
    pub write_mb_per_second: f64,
    /// A small write and its sync, milliseconds.
    pub sync_ms: f64,
    /// What was tried, the present setting first.
    pub trials: Vec<Trial>,
    /// What would do better; none if all is well.
    pub proposals: Vec<Proposal>,
}

/// Measures and proposes.
pub fn tune(repo: &Repository, monitor: &dyn Monitor) -> Result<Outcome> {
    monitor.begin("reading a sample", None, None);
    let started = Instant::now();
    let (sample, files, bytes) = sample(repo, monitor)?;
    let read_mb_per_second = rate(sample.len(), started);
    if (sample.len() as u64) < LEAST_SAMPLE_LEN {
        let message = format!("there are {} bytes to look at, too few to say anything", sample.len());
        return Err(Error::Refused { message, hint: "run it where there is work to be stored" });
    }
    monitor.begin("hashing", None, None);
    let hash = |threads: usize| {
        let started = Instant::now();
        let pieces: Vec<&[u8]> = sample.chunks(CHUNK_LEN).collect();
        let hash = |piece: &&[u8]| {
            std::hint::black_box(chunk_id(piece));
        };
        if threads == 1 {
            pieces.iter().for_each(hash);
        } else {
            repo.pools().cpu().install(|| pieces.par_iter().for_each(hash));
        }
        rate(sample.len(), started)
    };
    let threads = repo.pools().cpu_threads();
    let (hash_mb_per_second, hash_all_mb_per_second) = (hash(1), hash(threads));
    monitor.begin("writing", None, None);
    let (write_mb_per_second, sync_ms) = written(repo, &sample)?;
    let settings = repo.settings();
    let now = (settings.level, settings.block_len);
    let levels = LEVELS.iter().map(|level| (*level, settings.block_len));
    let lens = BLOCK_LENS.iter().map(|len| (settings.level, *len));
    let mut choices = vec![now];
    choices.extend(levels.chain(lens).filter(|choice| *choice != now));
    monitor.begin("compressing", Some(choices.len() as u64), None);
    let mut trials = Vec::new();
    for (level, block_len) in choices {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        // Whatever else the machine does makes a trial slower, never quicker.
        let (one, other) = (trial(repo, &sample, level, block_len)?, trial(repo, &sample, level, block_len)?);
        trials.push(if one.mb_per_second > other.mb_per_second { one } else { other });
        monitor.advance(1, 0);
    }
    monitor.end();
    let speed = Speed { hash: hash_all_mb_per_second, write: write_mb_per_second };
    let proposals = propose(&trials, speed);
    let sample_bytes = sample.len() as u64;
    Ok(Outcome {
        files,
        bytes,
        sample_bytes,
        threads,
        read_mb_per_second,
        hash_mb_per_second,
        hash_all_mb_per_second,
        write_mb_per_second,
        sync_ms,
        trials,
        proposals,
    })
}

fn rate(bytes: usize, started: Instant) -> f64 {
    bytes as f64 / MEGABYTE / started.elapsed().as_secs_f64().max(f64::EPSILON)
}

/// Bytes from all over the work tree, in path order; and how many files and bytes there are.
fn sample(repo: &Repository, monitor: &dyn Monitor) -> Result<(Vec<u8>, u64, u64)> {
    let walked = walk_tree(repo, &repo.journal().read(), &Scopes::everything(), monitor)?;
    let files: Vec<_> = walked.entries.into_iter().filter(|entry| entry.stat.kind == FileKind::File).collect();
    let bytes: u64 = files.iter().map(|file| file.stat.len).sum();
    let wanted: u64 = files.iter().map(|file| file.stat.len.min(FILE_SHARE)).sum();
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let (mut sample, mut due) = (Vec::new(), 0u64);
    for file in &files {
        // Evenly: each file brings its share closer, and is read once that is more than what was taken.
        due += file.stat.len.min(FILE_SHARE) * SAMPLE_LEN.min(wanted) / wanted.max(1);
        if due <= sample.len() as u64 {
            continue;
        }
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let opened = folders.open_parent(&file.path, IfAbsent::Fail);
        let opened = opened.and_then(|dir| read::open(dir.as_ref(), &file.path));
        // What cannot be read now is no part of a sample.
        let Ok((open, stat)) = opened else { continue };
        let before = sample.len();
        if read::append_range(&open, 0, stat.len.min(FILE_SHARE) as usize, &mut sample).is_err() {
            sample.truncate(before);
        }
    }
    Ok((sample, files.len() as u64, bytes))
}

/// Megabytes a second with a sync at the end, and milliseconds of a small write with its sync.
fn written(repo: &Repository, sample: &[u8]) -> Result<(f64, f64)> {
    let Some(dir) = repo.dir() else { return Ok((f64::INFINITY, 0.0)) };
    let name = temp_name();
    let path = dir.path().join(&name);
    let file = dir.create(&name, 0o600).on("create", &path)?;
    let measure = || {
        let started = Instant::now();
        file.write_at(sample, 0)?;
        file.sync()?;
        let write = rate(sample.len(), started);
        let mut syncs = Vec::with_capacity(SYNCS);
        for number in 0..SYNCS {
            let started = Instant::now();
            file.write_at(&[0; 100], number as u64 * 4096)?;
            file.sync()?;
            syncs.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        syncs.sort_unstable_by(f64::total_cmp);
        Ok((write, syncs.get(SYNCS / 2).copied().unwrap_or_default()))
    };
    let measured: std::io::Result<(f64, f64)> = measure();
    dir.remove_file(OsStr::from_bytes(name.as_bytes())).on("remove", &path)?;
    Ok(measured.on("write", &path)?)
}

fn trial(repo: &Repository, sample: &[u8], level: i32, block_len: usize) -> Result<Trial> {
    let started = Instant::now();
    let blocks: Vec<&[u8]> = sample.chunks(block_len).collect();
    let stored: std::io::Result<Vec<usize>> = repo.pools().cpu().install(|| {
        let stored = |block: &&[u8]| {
            let (codec, bytes) = compress_plain(block, level)?;
            Ok(if codec == Codec::Raw { block.len() } else { bytes.len() })
        };
        blocks.par_iter().map(stored).collect()
    });
    let mb_per_second = rate(sample.len(), started);
    let stored: usize = stored.on("compress", "a sample")?.iter().sum();
    Ok(Trial { level, block_len, mb_per_second, ratio: stored as f64 / sample.len() as f64 })
}

/// Megabytes a second on all threads.
#[derive(Debug, Clone, Copy)]
struct Speed {
    hash: f64,
    write: f64,
}

impl Speed {
    /// Seconds for a megabyte: hashing and compressing share the processors, and writing goes on meanwhile.
    fn time(self, trial: &Trial) -> f64 {
        (1.0 / self.hash + 1.0 / trial.mb_per_second).max(trial.ratio / self.write)
    }
}

/// The best level and the best block length, if they are better than the present ones, which come first.
fn propose(trials: &[Trial], speed: Speed) -> Vec<Proposal> {
    let Some((now, others)) = trials.split_first() else { return Vec::new() };
    let compared = |other: &Trial| (speed.time(other) / speed.time(now), other.ratio / now.ratio.max(f64::EPSILON));
    let best = |is_candidate: fn(&Trial, &Trial) -> bool| {
        let candidates = others.iter().filter(|other| is_candidate(now, other)).map(|other| (other, compared(other)));
        let better = candidates.filter(|(_, (time, size))| {
            let no_loss = *time <= 1.0 + NO_LOSS && *size <= 1.0 + NO_LOSS;
            no_loss && (*time <= 1.0 - LEAST_GAIN || *size <= 1.0 - LEAST_GAIN)
        });
        better.min_by(|(_, a), (_, b)| (a.0 * a.1).total_cmp(&(b.0 * b.1)))
    };
    let level = best(|now, other| other.block_len == now.block_len);
    let block = best(|now, other| other.level == now.level);
    let level = level.map(|(found, (time, size))| Proposal {
        key: "performance.compression_level",
        value: found.level.to_string(),
        now: now.level.to_string(),
        time,
        size,
    });
    let block = block.map(|(found, (time, size))| Proposal {
        key: "performance.block_size",
        value: crate::base::size::ByteSize(found.block_len as u64).to_config(),
        now: crate::base::size::ByteSize(now.block_len as u64).to_config(),
        time,
        size,
    });
    level.into_iter().chain(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monitor::Silent;
    use crate::ops::testing::TestRepo;
    use crate::transform::chunker::tests::noise;

    #[test]
    fn only_what_is_better_without_loss_is_proposed() {
        let trial = |level, block_len, mb_per_second, ratio| Trial { level, block_len, mb_per_second, ratio };
        let now = trial(3, 512, 400.0, 0.30);
        let speed = Speed { hash: 2000.0, write: 1000.0 };
        let keys = |others: &[Trial], speed: Speed| -> Vec<String> {
            let trials: Vec<Trial> = std::iter::once(now).chain(others.iter().copied()).collect();
            propose(&trials, speed).into_iter().map(|proposal| format!("{}={}", proposal.key, proposal.value)).collect()
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(keys(&[trial(1, 512, 800.0, 0.33), trial(9, 512, 60.0, 0.27)], speed), none);
        assert_eq!(keys(&[trial(1, 512, 800.0, 0.30)], speed), ["performance.compression_level=1"]);
        // Where writing is the limit, a higher level costs nothing.
        let slow = Speed { hash: 2000.0, write: 10.0 };
        let levels = [trial(1, 512, 800.0, 0.33), trial(9, 512, 60.0, 0.26), trial(12, 512, 20.0, 0.25)];
        assert_eq!(keys(&levels, slow), ["performance.compression_level=9"]);
        assert_eq!(keys(&[trial(3, 1024, 410.0, 0.26)], speed), ["performance.block_size=1KB"]);
        assert!(propose(&[], speed).is_empty());
    }

    #[test]
    fn a_tree_is_measured_and_nothing_is_left() {
        let repo = TestRepo::on_disk();
        assert!(tune(&repo, &Silent).unwrap_err().to_string().contains("too few"));
        let text = b"some words that come again and again\n".repeat(40_000);
        repo.write_work(&[("a", &noise(1, 900_000)), ("d/text", &text), ("empty", b"")]);
        let found = tune(&repo, &Silent).unwrap();
        assert_eq!((found.files, found.bytes), (3, 900_000 + text.len() as u64));
        assert!(found.sample_bytes >= 1 << 20 && found.trials.len() >= LEVELS.len());
        assert!(found.trials.iter().all(|trial| trial.mb_per_second > 0.0 && (0.3..0.95).contains(&trial.ratio)));
        let left = std::fs::read_dir(repo.folder.path().join(".digstore")).unwrap().flatten();
        assert!(left.map(|entry| entry.file_name()).all(|name| !name.to_string_lossy().contains("tmp")));
    }
}
