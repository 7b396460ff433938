//! Versions stored as what changed, through the real binary: what the user's document asks of them, by its names, and its edge
//! cases. How chains are made and collected is tested where it is done, in `ops::gc`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::*;

/// A file of several chunks.
const MEDIUM_LEN: usize = 1_000_000;

/// Blocks of all layers: (depth, bytes when decoded, bytes in the file).
fn blocks(place: &Place) -> Vec<(u64, u64, u64)> {
    let mut blocks = Vec::new();
    for layer in place.json(&["layer", "list"])["layers"].as_array().unwrap() {
        let shown = place.json(&["layer", "show", layer["id"].as_str().unwrap()]);
        for block in shown["blocks"].as_array().unwrap() {
            let number = |name: &str| block[name].as_u64().unwrap();
            blocks.push((number("depth"), number("plain_bytes"), number("stored_bytes")));
        }
    }
    blocks
}

fn stored_bytes(place: &Place) -> u64 {
    place.files("layers").iter().map(|path| path.metadata().unwrap().len()).sum()
}

/// `count` pieces of `len` bytes overwritten, spread over the whole.
fn overwritten(bytes: &[u8], count: usize, len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for number in 0..count {
        let at = number * (bytes.len() / count) + 100;
        bytes[at..at + len].copy_from_slice(&noise(seed + number as u64, len));
    }
    bytes
}

#[test]
fn binary_diffs_end_to_end() {
    let place = Place::new();
    let old = noise(1, MEDIUM_LEN);
    let new = overwritten(&old, 20, 100, 50);
    place.write("file", &old);
    place.commit("created");
    let first = stored_bytes(&place);
    place.write("file", &new);
    place.commit("modified");
    assert!(stored_bytes(&place) - first < 20 * 100 + 8_000, "{} bytes more", stored_bytes(&place) - first);
    assert!(blocks(&place).iter().any(|(depth, plain, stored)| *depth == 1 && stored * 20 < *plain));
    place.ok(&["checkout", "HEAD~1"]);
    assert_eq!(place.read("file"), old);
    place.ok(&["checkout", "main"]);
    assert_eq!(place.read("file"), new);
}

/// A repository of the format before deltas.
fn format_1(place: &Place) {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1.tar.zst");
    let tar = zstd::Decoder::new(fs::File::open(packed).unwrap()).unwrap();
    tar::Archive::new(tar).unpack(&place.tree).unwrap();
    place.ok(&["checkout", "--force", "main"]);
}

#[test]
fn migration_from_whole_versions_to_diffs() {
    let place = Place::empty();
    format_1(&place);
    let change = |seed: u64| {
        place.write("large", overwritten(&place.read("large"), 1, 50, seed));
        place.commit("changed");
        blocks(&place).iter().filter(|(depth, ..)| *depth > 0).count()
    };
    assert_eq!(change(70), 0, "before: whole chunks");
    assert!(place.ok(&["migrate", "-n"]).contains("Would go from format 1 to format 2"));
    place.ok(&["migrate"]);
    assert_eq!(place.ok(&["migrate"]), "The repository has format 2, as it should: nothing to do.\n");
    assert!(change(80) > 0, "after: what changed");
    let large = place.read("large");
    assert!(place.ok(&["fsck", "--full"]).contains("No damage found"));
    assert!(place.ok(&["migrate", "--undo"]).contains("from format 2 to format 1"));
    assert!(place.ok(&["fsck", "--full"]).contains("No damage found"));
    place.ok(&["checkout", "HEAD~2"]);
    place.ok(&["checkout", "main"]);
    assert_eq!(place.read("large"), large);
}

#[test]
fn multi_version_diff_chain() {
    let place = Place::new();
    let mut versions = vec![noise(1, 200_000)];
    for number in 1..15 {
        versions.push(overwritten(versions.last().unwrap(), 3, 40, 100 * number));
    }
    for version in &versions {
        place.write("file", version);
        place.commit("a version");
    }
    let deepest = blocks(&place).iter().map(|(depth, ..)| *depth).max();
    assert_eq!(deepest, Some(7), "eight to a chain");
    for (age, version) in versions.iter().rev().enumerate() {
        place.ok(&["restore", "--source", &format!("HEAD~{age}"), "--force", "file"]);
        assert_eq!(&place.read("file"), version, "{age} versions back");
    }
}

#[test]
fn large_file_chunking() {
    let place = Place::new();
    let bytes = noise(1, 10 << 20);
    place.write("file", &bytes);
    place.commit("large");
    let chunks = place.json(&["stats"])["objects"]["chunk"]["count"].as_u64().unwrap();
    // 64 KiB on average, 16 at least, 256 at most.
    assert!((80..400).contains(&chunks), "{chunks} chunks");
    let out = place.tree.join("../out");
    place.ok(&["export", "HEAD", "--to", "../out"]);
    assert!(fs::read(out.join("file")).unwrap() == bytes);
}

#[test]
fn merkle_integrity() {
    let place = Place::new();
    place.write("a/first", noise(1, 200_000));
    place.write("second", "text\n".repeat(1000));
    place.commit("sound");
    let commit = place.json(&["log"])["commits"][0]["id"].as_str().unwrap().to_owned();
    place.ok(&["fsck", "--full"]);
    place.ok(&["proof", "create", "HEAD:a/first", "--bytes", "1000-1999", "--to", "proof.json"]);
    let verify = ["proof", "verify", "proof.json", "--root", &commit];
    place.ok(&[&verify[..], &["--to", "range"]].concat());
    assert_eq!(place.read("range"), noise(1, 200_000)[1000..2000]);
    // Whoever checks has no repository.
    let elsewhere = Place::empty();
    elsewhere.write("proof.json", place.read("proof.json"));
    assert!(elsewhere.ok(&verify).contains("Proven: 'a/first', bytes 1,000 to 1,999 of 200,000"));
    let text = String::from_utf8(place.read("proof.json")).unwrap();
    elsewhere.write("proof.json", text.replacen("\"chunks\": [\n    \"", "\"chunks\": [\n    \"AAAA", 1));
    assert_eq!(elsewhere.run(&verify).code, 4, "a changed byte");
    let other = "0".repeat(64);
    assert_eq!(place.run(&["proof", "verify", "proof.json", "--root", &other]).code, 4, "another root");
    for layer in place.files("layers") {
        let good = fs::read(&layer).unwrap();
        for part in 0..16 {
            let mut bytes = good.clone();
            bytes[part * (good.len() - 1) / 15] ^= 1;
            fs::write(&layer, bytes).unwrap();
            let run = place.run(&["fsck", "--full"]);
            assert_eq!(run.code, 4, "{part}/15 of {}: {run:?}", layer.display());
        }
        fs::write(&layer, good).unwrap();
    }
    place.ok(&["fsck", "--full"]);
}

#[test]
fn cas_deduplication() {
    let place = Place::new();
    place.write("one", noise(1, 40_000));
    place.write("two", noise(1, 40_000));
    place.commit("the same twice");
    let stats = place.json(&["stats"]);
    assert_eq!(stats["objects"].get("block"), None, "a block is no object");
    assert_eq!(stats["objects"]["chunk"]["count"], 1, "one copy");
    assert_eq!(stats["head"]["files"], 2, "two references");
    place.ok(&["rm", "one"]);
    place.ok(&["commit", "-m", "one reference"]);
    place.ok(&["gc", "--prune", "--now"]);
    place.ok(&["checkout", "HEAD~1"]);
    assert_eq!(place.read("one"), place.read("two"));
}

#[test]
fn snapshot_interval() {
    let place = Place::new();
    place.write("digstore.toml", "[performance]\nsnapshot_interval = 4\n");
    let mut bytes = noise(1, 100_000);
    for number in 0..12 {
        bytes = overwritten(&bytes, 1, 30, 1000 + number);
        place.write("file", &bytes);
        place.commit("a version");
    }
    let content: Vec<u64> = blocks(&place).iter().filter(|block| block.1 > 20_000).map(|block| block.0).collect();
    assert_eq!(content.iter().max(), Some(&3));
    assert_eq!(content.iter().filter(|depth| **depth == 0).count(), 3, "a whole one in four: {content:?}");
    assert!(place.ok(&["fsck", "--full"]).contains("No damage found"));
}

#[test]
fn a_file_that_grows_and_shrinks() {
    let place = Place::new();
    let long = noise(1, MEDIUM_LEN);
    // One chunk, many chunks, one again, none.
    let versions = [&long[..1_000], &long[..500_000], &long, &long[300_000..], &long[..2_000], &[]];
    for version in versions {
        place.write("file", version);
        place.commit("another length");
    }
    for (age, version) in versions.iter().rev().enumerate() {
        place.ok(&["restore", "--source", &format!("HEAD~{age}"), "--force", "file"]);
        assert!(place.read("file") == *version, "{age} versions back");
    }
}

/// The layers that hold the only large blocks: first of the old version, then of the new one.
fn two_versions(place: &Place) -> [PathBuf; 2] {
    place.write("file", noise(1, 60_000));
    place.commit("one");
    let first = largest(place, &[]);
    place.write("file", overwritten(&noise(1, 60_000), 2, 3_000, 9));
    place.commit("two");
    let second = largest(place, std::slice::from_ref(&first));
    [first, second]
}

fn largest(place: &Place, but: &[PathBuf]) -> PathBuf {
    let layers = place.files("layers").into_iter().filter(|path| !but.contains(path));
    layers.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[test]
fn a_damaged_delta_and_a_missing_base_are_told_by_path_and_repaired() {
    type Damage = fn(&[PathBuf; 2]);
    let flip = |layer: &PathBuf| {
        let mut bytes = fs::read(layer).unwrap();
        bytes[60] ^= 1;
        fs::write(layer, bytes).unwrap();
    };
    let delta: Damage = |layers| {
        let mut bytes = fs::read(&layers[1]).unwrap();
        bytes[60] ^= 1;
        fs::write(&layers[1], bytes).unwrap();
    };
    let missing: Damage = |layers| fs::remove_file(&layers[0]).unwrap();
    for (what, damage) in [("damaged delta", delta), ("missing base", missing)] {
        let place = Place::new();
        let layers = two_versions(&place);
        damage(&layers);
        let run = place.run(&["cat", "HEAD:file"]);
        assert_eq!((run.code, run.err.contains("fsck")), (4, true), "{what}: {run:?}");
        let run = place.run(&["fsck", "--full"]);
        assert_eq!((run.code, run.out.contains("file: ")), (4, true), "{what}: {run:?}");
        let sound = place.read("file");
        let run = place.run(&["fsck", "--repair"]);
        assert!(run.out.contains("Brought back"), "{what}: {run:?}");
        place.ok(&["restore", "--source", "HEAD", "--force", "file"]);
        assert_eq!(place.read("file"), sound, "{what}");
    }
    // What comes from a copy of the repository.
    let place = Place::new();
    let layers = two_versions(&place);
    let copied =
        Command::new("cp").arg("-a").arg(place.tree.join(".digstore")).arg(place.tree.join("../copy")).status();
    assert!(copied.unwrap().success());
    flip(&layers[0]);
    assert_eq!(place.run(&["fsck", "--full"]).code, 4);
    let out = place.ok(&["fsck", "--repair", "--from", "../copy"]);
    assert!(out.contains("No damage found"), "{out}");
}

#[test]
fn whoever_lost_the_newest_commit_is_told_the_way_back() {
    let place = Place::new();
    place.write("file", b"one");
    place.write("gone", b"one");
    place.commit("one");
    let known = place.files("layers");
    place.write("file", b"two");
    fs::remove_file(place.tree.join("gone")).unwrap();
    place.commit("two");
    // The commit and its tree.
    let newest = place
        .files("layers")
        .into_iter()
        .filter(|path| !known.contains(path))
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    fs::remove_file(newest.unwrap()).unwrap();
    let run = place.run(&["fsck"]);
    assert_eq!((run.code, run.out.contains("fsck --repair")), (4, true), "{run:?}");
    let run = place.run(&["fsck", "--repair"]);
    assert_eq!((run.code, run.out.contains("digstore undo")), (4, true), "{run:?}");
    // Staging says what it had, and so what it had removed.
    place.ok(&["undo"]);
    place.ok(&["commit", "-m", "two again"]);
    assert_eq!((place.ok(&["cat", "HEAD:file"]), place.ok(&["ls", "-r"])), ("two".to_owned(), "file\n".to_owned()));
    let out = place.ok(&["fsck", "--full"]);
    assert!(out.contains("No damage found"), "{out}");
}

#[test]
fn a_repository_without_its_journal_is_made_anew() {
    let place = Place::new();
    two_versions(&place);
    fs::remove_dir_all(place.tree.join(".digstore/journal")).unwrap();
    assert_ne!(place.run(&["log"]).code, 0);
    let out = place.ok(&["fsck", "--repair"]);
    assert!(out.contains("The journal could not be read") && out.contains("No damage found"), "{out}");
    assert_eq!(place.json(&["log"])["commits"].as_array().unwrap().len(), 2);
    assert_eq!(place.ok(&["status", "--short"]), "", "the work tree is as the newest commit says");
}

fn signal(child: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", "kill -$0 $1", name, &child.to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn gc_waits_for_an_add_that_is_paused_and_loses_nothing() {
    let place = Place::new();
    place.write("old", noise(1, 100_000));
    place.commit("one");
    for number in 0..200 {
        place.write(&format!("many/{number}"), noise(number, 60_000));
    }
    let mut add = place.command(&["add", "-A"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Stopped once it has the lock, which it notes, or when it is done.
    let lock = place.tree.join(".digstore/lock");
    let start = Instant::now();
    while !fs::read_to_string(&lock).unwrap_or_default().contains(&add.id().to_string())
        && add.try_wait().unwrap().is_none()
        && start.elapsed() < Duration::from_secs(10)
    {
        std::thread::yield_now();
    }
    signal(add.id(), "STOP");
    let is_running = add.try_wait().unwrap().is_none();
    let run = place.run(&["gc", "--now", "--lock-timeout", "1"]);
    assert_eq!(run.code, if is_running { 5 } else { 0 }, "{run:?}");
    signal(add.id(), "CONT");
    assert_eq!(ended(add).code, 0);
    place.ok(&["gc", "--now"]);
    place.ok(&["commit", "-m", "two"]);
    assert!(place.ok(&["fsck", "--full"]).contains("No damage found"));
    assert_eq!(place.ok(&["status", "--short"]), "");
}

#[test]
fn a_reader_goes_on_while_layers_are_replaced() {
    let place = Place::new();
    for number in 0..6 {
        place.write("file", noise(number, 500_000));
        place.commit("a version");
    }
    let out = place.json(&["gc"]);
    assert_eq!((out["freed_bytes"].as_u64(), out["layers_after"].as_u64()), (Some(0), Some(1)), "{out}");
    assert!(out["waiting_bytes"].as_u64().unwrap() > 0);
    assert!(place.files("layers").len() > 1, "the old files are there for those who read them");
    let out = place.json(&["gc", "--now"]);
    assert!(out["freed_bytes"].as_u64().unwrap() > 0);
    assert_eq!(place.files("layers").len(), 1);
    assert!(place.ok(&["fsck", "--full"]).contains("No damage found"));
}
