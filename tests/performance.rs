//! What an operation costs is measured, reported and bounded, in the real binary.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests set up files as a user would")]

mod support;

use std::fs;

use support::{Place, noise};

#[test]
fn the_summary_counts_what_was_done() {
    let place = Place::new();
    for number in 0..30 {
        place.write(&format!("d/{number}"), noise(number % 20, 10_000));
    }
    let run = place.run(&["--stats", "add", "."]);
    assert!(run.err.contains("30 files, ") && run.err.contains("20 new, 10 known"), "{}", run.err);
    for stage in ["scan", "read", "hash", "compress", "store", "commit", "memory"] {
        assert!(run.err.lines().any(|line| line.starts_with(stage)), "{stage}: {}", run.err);
    }
    place.ok(&["commit", "-m", "one"]);
    let found = place.json(&["--stats", "export", "HEAD", "--to", "out"])["performance"].clone();
    assert_eq!((found["files"].as_u64(), found["bytes"].as_u64()), (Some(30), Some(300_000)));
    assert!(
        found["memory_peak_bytes"].as_u64() >= found["memory_bytes"].as_u64()
            && found["wall_secs"].as_f64() > Some(0.0)
    );
    assert!(place.json(&["status"]).get("performance").is_none(), "only if it is asked for");
}

#[test]
fn what_passes_a_threshold_is_said_once_with_its_cause() {
    let place = Place::new();
    place.write("a", noise(1, 3_000_000));
    let notes = |settings: &str| {
        place.write("digstore.toml", settings);
        place.write("a", noise(settings.len() as u64, 3_000_000));
        let found = place.json(&["add", "a"]);
        let notes = found["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap().to_owned());
        notes.collect::<Vec<_>>()
    };
    assert!(notes("").is_empty());
    let found = notes("[alerts]\nmax_operation_time = '1ms'\nmax_memory = '1MB'\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("memory: ") && found[0].contains("max_memory_usage"), "{found:?}");
    assert!(found[1].starts_with("time: ") && found[1].contains(" the limit: "), "{found:?}");
    let off =
        "[performance]\nperformance_monitoring = false\n[alerts]\nmax_operation_time = '1ms'\nmax_memory = '1MB'\n";
    assert!(notes(off).is_empty());
}

#[test]
fn many_paths_are_counted_instead_of_listed() {
    let place = Place::new();
    place.write("digstore.toml", "[performance]\nquiet_mode_file_threshold = 3\n");
    ["a", "b"].iter().for_each(|name| place.write(name, *name));
    assert!(place.ok(&["add", "-v", "."]).contains("add a\n"));
    ["c", "d", "e", "f"].iter().for_each(|name| place.write(name, *name));
    let run = place.run(&["add", "-v", "."]);
    assert!(!run.out.contains("add c") && run.err.contains("quiet_mode_file_threshold"), "{}", run.err);
}

#[test]
fn tuning_measures_and_writes_only_what_it_proposes() {
    let place = Place::new();
    assert!(place.run(&["tune"]).err.contains("too few"));
    place.write("a", noise(1, 2_000_000));
    place.write("text", "words and words and other words\n".repeat(50_000));
    let found = place.json(&["tune", "--write"]);
    assert!(found["trials"].as_array().unwrap().len() >= 5 && found["write_mb_per_second"].as_f64() > Some(0.0));
    let proposals = found["proposals"].as_array().unwrap();
    let written = fs::read_to_string(place.tree.join("digstore.toml")).unwrap_or_default();
    assert_eq!(written.lines().filter(|line| line.contains('=')).count(), proposals.len());
    for proposal in proposals {
        let now = place.json(&["config", "get", proposal["key"].as_str().unwrap()]);
        assert_eq!(now["value"], proposal["value"]);
    }
}

/// More than a limit of 64 MiB could hold, of every kind: one file of noise, one of text, thousands of small ones.
#[test]
fn memory_stays_below_its_limit() {
    const MIB: u64 = 1 << 20;
    let place = Place::new();
    place.write("noise", noise(1, 100 << 20));
    place.write("text", "a line of text that is long enough\n".repeat(3 << 20));
    for number in 0..3_000 {
        place.write(&format!("small/{}/{number}", number % 50), noise(number, 6_000));
    }
    let mut sizes = Vec::new();
    for limit in [64, 256, 2048] {
        let store = format!("store-{limit}");
        place.write("digstore.toml", format!("[performance]\nmax_memory_usage = '{limit}MB'\n"));
        place.write(".digignore", "store-*\ndigstore.toml\nout-*\n");
        let peak = |args: &[&str]| {
            let args: Vec<&str> = ["--store", &store, "--stats"].iter().chain(args).copied().collect();
            place.json(&args)["performance"]["memory_peak_bytes"].as_u64().unwrap()
        };
        place.ok(&["--store", &store, "init"]);
        let out = format!("out-{limit}");
        for (what, peak) in [
            ("add", peak(&["add", "noise", "text", "small"])),
            ("commit", peak(&["commit", "-m", "all"])),
            ("export", peak(&["export", "HEAD", "--to", &out])),
            ("fsck", peak(&["fsck", "--full"])),
            ("gc", peak(&["gc", "--aggressive"])),
            ("status", peak(&["status"])),
            ("checkout", {
                fs::remove_dir_all(place.tree.join("small")).unwrap();
                fs::remove_file(place.tree.join("noise")).unwrap();
                peak(&["checkout", "--force", "HEAD"])
            }),
            ("checkpoint", {
                let fresh = format!("store-fresh-{limit}");
                place.ok(&["--store", &fresh, "init"]);
                let made = place.json(&["--store", &fresh, "--stats", "checkpoint", "create"]);
                made["performance"]["memory_peak_bytes"].as_u64().unwrap()
            }),
        ] {
            assert!(peak <= limit * MIB, "{what} took {} MiB of {limit}", peak / MIB);
        }
        assert!(fs::read(place.tree.join(&out).join("noise")).unwrap() == noise(1, 100 << 20));
        sizes.push(fs::metadata(place.tree.join(&out).join("text")).unwrap().len());
    }
    assert_eq!(sizes, [35 * 3 * MIB; 3]);
}
