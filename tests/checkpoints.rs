//! Checkpoints and `undo`, through the real binary.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests set up files as a user would")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;
use support::{Place, ended, interrupt, noise};

/// Every file of the work tree and what is in it.
fn content(place: &Place) -> BTreeMap<Vec<u8>, Vec<u8>> {
    fn below(folder: &Path, root: &Path, found: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            if path.is_dir() && name != b".digstore" {
                below(&path, root, found);
            } else if path.is_file() {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    below(&place.tree, &place.tree, &mut found);
    found
}

/// Bytes of the repository.
fn stored_bytes(place: &Place) -> u64 {
    let parts = ["layers", "journal", "index"];
    parts.iter().flat_map(|part| place.files(part)).map(|file| file.metadata().unwrap().len()).sum()
}

fn numbers(list: &Value) -> Vec<u64> {
    list["checkpoints"].as_array().unwrap().iter().map(|line| line["number"].as_u64().unwrap()).collect()
}

/// Three checkpoints: `a` and `d/b`; `a` changed and `c` new; `d/b` gone.
fn three() -> Place {
    let place = Place::new();
    place.write("a", "one\n");
    place.write("d/b", "two\n");
    place.ok(&["checkpoint", "create", "-m", "first", "--tag", "kept"]);
    place.write("a", "one\nmore\n");
    place.write("c", "three\n");
    place.ok(&["checkpoint", "create", "-m", "second", "--state", "{\"step\": 2}"]);
    fs::remove_file(place.tree.join("d/b")).unwrap();
    place.ok(&["checkpoint", "create"]);
    place
}

#[test]
fn what_is_printed_about_checkpoints() {
    let place = three();
    let table: [(&[&str], &[&str]); 15] = [
        (&["checkpoint", "list"], &["@3 ", "@2 ", "second", "#kept", "1 changed"]),
        (&["checkpoint", "list", "-n", "1"], &["@3 "]),
        (&["checkpoint", "list", "--tag", "kept"], &["@1 "]),
        (&["checkpoint", "list", "--before", "@2"], &["@1 "]),
        (&["checkpoint", "list", "--since", "1h", "--until", "2020-01-01"], &[]),
        (
            &["checkpoint", "show", "@2"],
            &["checkpoint @2", "parent      @1", "second", "{\"step\": 2}", "2 paths changed"],
        ),
        (&["checkpoint", "show", "2", "--state"], &["{\"step\": 2}\n"]),
        (&["checkpoint", "diff", "@1", "@2"], &["+more", "added c"]),
        (&["checkpoint", "diff", "@1", "--name-only"], &["a\nc\nd/b\n"]),
        (&["checkpoint", "diff", "@1", "@2", "a", "--stat"], &["a | +1 -0", "1 file changed"]),
        (&["checkpoint", "diff", "@1", "@2", "--", "c"], &["added c"]),
        (&["cat", "@1:a"], &["one\n"]),
        (&["diff", "@1", "@2"], &["+more", "added c"]),
        (&["diff", "@3", "--", "nosuch"], &[]),
        (&["ls", "@1", "-r"], &["a\nd/\nd/b\n"]),
    ];
    for (args, words) in table {
        let out = place.ok(args);
        assert!(words.iter().all(|word| out.contains(word)) && (out.is_empty() == words.is_empty()), "{args:?}: {out}");
    }
    assert_eq!(place.json(&["checkpoint", "show", "2"])["state"]["step"], 2);
    assert_eq!(numbers(&place.json(&["checkpoint", "list"])), [3, 2, 1]);
    for number in 4..=22 {
        assert!(place.ok(&["checkpoint", "create", "--no-tree"]).starts_with(&format!("@{number} ")));
    }
    let run = place.run(&["checkpoint", "list"]);
    assert_eq!(run.out.lines().count(), 20);
    assert!(run.err.contains("--before @3"), "{run:?}");
    assert_eq!(place.ok(&["checkpoint", "list", "--all"]).lines().count(), 22);
    assert_eq!(numbers(&place.json(&["checkpoint", "list"])).len(), 22);
}

#[test]
fn create_says_what_changed_or_why_not() {
    let place = three();
    let table: [(&[&str], &str); 5] = [
        (&["--auto"], "Skipped: everything is as it was"),
        (&["--auto", "--kind", "tool-call", "--min-interval", "1000"], "Skipped: the last checkpoint is younger"),
        (&["--scheduled", "--min-interval", "0"], "@4 no path changed"),
        (&["--no-tree", "--state-file", "s.json"], "@5 recorded, without the work tree"),
        (&["--auto", "--kind", "tool-call"], "@6 2 paths changed: 1 added, 1 modified"),
    ];
    for (at, (args, words)) in table.into_iter().enumerate() {
        if at == 3 {
            place.write("s.json", "[1]");
            place.write("a", "two");
        }
        let run = place.run(&[&["checkpoint", "create"], args].concat());
        assert_eq!((run.code, run.out.starts_with(words)), (0, true), "{args:?}: {run:?}");
    }
    assert_eq!(place.json(&["checkpoint", "create", "--auto"])["skipped"], "unchanged");
    let shown = place.json(&["checkpoint", "show", "@5"]);
    assert_eq!((shown["state"][0].as_u64(), shown["held"].as_str()), (Some(1), Some("nothing")));
    assert_eq!(place.json(&["checkpoint", "show", "@6"])["trigger"]["automatic"], "tool-call");
}

#[test]
fn restore_whole_a_folder_and_a_file_saves_first_and_undo_goes_back() {
    // Paths asked for, and the files that are then as in the first checkpoint; `c` goes away only with everything.
    let table: [(&[&str], &[&str]); 4] =
        [(&[], &["a", "c", "d/b"]), (&["."], &["a", "c", "d/b"]), (&["d"], &["d/b"]), (&["a"], &["a"])];
    for (paths, back) in table {
        let place = three();
        place.write("a", "unsaved");
        let (before, look) = (content(&place), place.json(&[&["checkpoint", "restore", "@1", "-n"], paths].concat()));
        assert_eq!(content(&place), before, "a look changes nothing");
        let done = place.json(&[&["checkpoint", "restore", "@1"], paths].concat());
        assert_eq!(done["saved"], 4, "{paths:?}");
        for count in ["written", "removed"] {
            assert_eq!(look[count], done[count], "{paths:?}: {count}");
        }
        let first: BTreeMap<&str, &[u8]> = BTreeMap::from([("a", &b"one\n"[..]), ("d/b", b"two\n")]);
        for (name, now) in [("a", &b"unsaved"[..]), ("c", b"three\n")] {
            let expected = if back.contains(&name) { first.get(name).copied() } else { Some(now) };
            assert_eq!(fs::read(place.tree.join(name)).ok().as_deref(), expected, "{paths:?}: {name}");
        }
        assert_eq!(place.tree.join("d/b").exists(), back.contains(&"d/b"), "{paths:?}");
        assert!(place.ok(&["undo"]).contains("restore of checkpoint @1"));
        assert_eq!(content(&place), before, "{paths:?}");
    }
}

#[test]
fn names_that_are_no_text_and_ignored_files() {
    let place = Place::new();
    let odd = place.tree.join(std::ffi::OsString::from_vec(b"odd \xff\n".to_vec()));
    fs::write(&odd, "1").unwrap();
    place.write(".digignore", "*.tmp\n");
    place.write("x.tmp", "not kept");
    place.ok(&["checkpoint", "create"]);
    assert_eq!(place.ok(&["diff", "@1", "--name-only"]), "", "what is not tracked is looked at, too");
    fs::remove_file(&odd).unwrap();
    assert!(place.ok(&["checkpoint", "diff", "@1", "--name-only"]).contains("odd \\xff\\n"));
    place.ok(&["checkpoint", "restore", "@1"]);
    assert_eq!((fs::read(&odd).unwrap(), place.read("x.tmp")), (b"1".to_vec(), b"not kept".to_vec()));
}

#[test]
fn tags_remarks_and_deletion() {
    let place = three();
    assert_eq!(place.ok(&["checkpoint", "tag", "@1", "green", "-d", "kept"]), "@1 green\n");
    place.ok(&["checkpoint", "annotate", "@1", "-m", "look here", "--severity", "critical"]);
    let shown = place.json(&["checkpoint", "show", "@1"]);
    assert_eq!(
        (shown["tags"][0].as_str(), shown["annotations"][0]["severity"].as_str()),
        (Some("green"), Some("critical"))
    );
    assert_eq!(place.json(&["checkpoint", "delete", "@1", "@3", "@1"])["numbers"], serde_json::json!([1, 3]));
    assert_eq!(numbers(&place.json(&["checkpoint", "list"])), [2]);
    place.ok(&["undo"]);
    assert_eq!(place.json(&["checkpoint", "show", "@1"]), shown);
    place.ok(&["checkpoint", "create"]);
    assert_eq!(numbers(&place.json(&["checkpoint", "list"])), [4, 3, 2, 1], "numbers are not given again");
}

#[test]
fn compaction_keeps_what_it_should_and_gives_space_back() {
    let place = Place::new();
    for number in 1..=6u64 {
        place.write("big", noise(number, 600_000));
        let tag: &[&str] = if number == 2 { &["--tag", "good"] } else { &[] };
        place.ok(&[&["checkpoint", "create"], tag].concat());
    }
    let before = stored_bytes(&place);
    let look = place.json(&["checkpoint", "compact", "--keep", "1", "--keep-tagged", "-n"]);
    assert_eq!((numbers(&place.json(&["checkpoint", "list"])).len(), stored_bytes(&place)), (6, before));
    place.ok(&["checkpoint", "compact", "--keep", "1", "--keep-tag", "good", "--later"]);
    assert_eq!(numbers(&place.json(&["checkpoint", "list"])), [6, 2]);
    place.ok(&["undo"]);
    let done = place.json(&["checkpoint", "compact", "--keep", "1", "--keep-tagged"]);
    assert_eq!(numbers(&place.json(&["checkpoint", "list"])), [6, 2]);
    assert_eq!(look["removed"], done["removed"]);
    assert!(done["freed_bytes"].as_u64().unwrap() > 4 * 600_000, "{done}");
    let run = place.run(&["undo"]);
    assert_eq!((run.code, run.err.contains("space was given back")), (1, true), "{run:?}");
    for number in [2u64, 6] {
        place.ok(&["checkpoint", "restore", &format!("@{number}")]);
        assert_eq!(place.read("big"), noise(number, 600_000));
    }
    place.ok(&["fsck", "--full"]);
}

#[test]
fn compaction_gives_space_back_on_disk() {
    let place = Place::new();
    for number in 1..=6 {
        place.write("big", noise(number, 600_000));
        place.ok(&["checkpoint", "create"]);
    }
    let before = stored_bytes(&place);
    place.ok(&["checkpoint", "compact", "--keep", "1"]);
    let after = stored_bytes(&place);
    assert!(after < before / 3, "{before} {after}");
}

#[test]
fn export_and_import() {
    let from = three();
    from.write("big", noise(7, 300_000));
    from.ok(&["checkpoint", "create"]);
    from.ok(&["checkpoint", "delete", "@2"]);
    let out = from.ok(&["checkpoint", "export", "--content"]);
    assert_eq!(
        from.ok(&["checkpoint", "export", "--content", "--to", "../all.json"]),
        "Wrote 3 checkpoints to ../all.json.\n"
    );
    let file = from.tree.join("../all.json");
    let to = Place::new();
    let run = to.run(&["checkpoint", "import", file.to_str().unwrap()]);
    assert_eq!((run.code, run.err.contains("1 checkpoint in the middle")), (0, true), "{run:?}");
    let again = to.json(&["checkpoint", "import", file.to_str().unwrap()]);
    assert_eq!((again["known"].as_u64(), again["numbers"].as_array().unwrap().len()), (Some(3), 0));
    assert_eq!(numbers(&to.json(&["checkpoint", "list"])), [4, 3, 1]);
    to.ok(&["checkpoint", "restore", "@4"]);
    assert_eq!(content(&to), content(&from));
    let piped = Place::new();
    let mut import = piped.command(&["checkpoint", "import", "-"]);
    let done = import.stdin(fs::File::open(&file).unwrap()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(numbers(&piped.json(&["checkpoint", "list"])), [4, 3, 1]);

    // What is wrong with a document, and what is said of it. Nothing of it is taken in.
    let lean = from.ok(&["checkpoint", "export", "@1"]);
    let letter = out.find("\"data\":\"").unwrap() + 9;
    let mut broken = out.clone();
    broken.replace_range(letter..=letter, if &out[letter..=letter] == "A" { "B" } else { "A" });
    let checksum = out.rfind("\"checksum\":\"").unwrap() + 12;
    let mut wrong_sum = out.clone();
    wrong_sum.replace_range(checksum..=checksum, if &out[checksum..=checksum] == "0" { "1" } else { "0" });
    let table = [
        ("a wrong checksum", wrong_sum, "its checksum is wrong"),
        ("a changed byte", broken, "object"),
        ("a changed message", out.replacen("first", "worst", 1), "beside its record"),
        ("a newer version", out.replacen("\"version\":1", "\"version\":2", 1), "reads up to 1"),
        ("something else", "{\"format\":\"x\",\"version\":1}".to_owned(), "something else"),
        ("no JSON", "hello".to_owned(), "not an export"),
        ("no content", lean, "--content"),
        ("cut short", out[..out.len() / 2].to_owned(), "not an export"),
        ("nothing", String::new(), "not an export"),
    ];
    let other = Place::new();
    for (name, document, words) in table {
        other.write("../in.json", document);
        let run = other.run(&["checkpoint", "import", "../in.json"]);
        assert_eq!((run.code, run.err.contains(words)), (1, true), "{name}: {run:?}");
        assert_eq!(numbers(&other.json(&["checkpoint", "list"])).len(), 0, "{name}");
    }
}

/// A call, how it ends, and what it says.
const BAD: [(&[&str], i32, &str); 26] = [
    (&["checkpoint"], 2, "Usage"),
    (&["checkpoint", "show", "@0"], 2, "such as @12"),
    (&["checkpoint", "show", "x"], 2, "such as @12"),
    (&["checkpoint", "show", "@9"], 1, "no checkpoint @9"),
    (&["checkpoint", "show", "@1", "--state"], 1, "no state document"),
    (&["checkpoint", "create", "--state", "{oops"], 1, "the state is not JSON"),
    (&["checkpoint", "create", "--state", "1", "--state-file", "x"], 2, "cannot be used with"),
    (&["checkpoint", "create", "--state-file", "nosuch"], 1, "nosuch"),
    (&["checkpoint", "create", "--tag", "a b"], 1, "cannot be a tag"),
    (&["checkpoint", "create", "--session", "nosuch"], 1, "no session 'nosuch'"),
    (&["checkpoint", "create", "--kind", "x"], 2, "--auto"),
    (&["checkpoint", "create", "--auto", "--scheduled"], 2, "cannot be used with"),
    (&["checkpoint", "create", "--auto", "--no-tree"], 2, "cannot be used with"),
    (&["checkpoint", "create", "--min-interval", "soon"], 2, "number of seconds"),
    (&["checkpoint", "list", "--since", "tomorrow"], 2, "how long ago"),
    (&["checkpoint", "diff", "@1", "@9"], 1, "@9"),
    (&["checkpoint", "diff", "@1", "@4"], 1, "does not hold the work tree"),
    (&["checkpoint", "restore", "@4"], 1, "does not hold the work tree"),
    (&["checkpoint", "restore", "@1", "nosuch"], 1, "'nosuch' is not in @1"),
    (&["checkpoint", "restore", "@1", "../x"], 1, "outside the work tree"),
    (&["checkpoint", "tag", "@1"], 2, "<TAG>"),
    (&["checkpoint", "annotate", "@1", "-m", " "], 1, "remark"),
    (&["checkpoint", "delete", "@1", "@9"], 1, "no checkpoint @9"),
    (&["checkpoint", "compact", "--later"], 2, "--keep N"),
    (&["checkpoint", "compact", "--keep-tagged", "--keep-tag", "x"], 2, "cannot be used with"),
    (&["switch", "-c", "x", "@1"], 1, "@1"),
];

#[test]
fn bad_requests_are_clear_and_change_nothing() {
    let place = three();
    place.ok(&["checkpoint", "create", "--no-tree"]);
    let (files, list) = (content(&place), place.json(&["checkpoint", "list"]));
    for (args, code, words) in BAD {
        let run = place.run(args);
        assert_eq!((run.code, run.err.contains(words)), (code, true), "{args:?}: {run:?}");
        assert_eq!((content(&place), place.json(&["checkpoint", "list"])), (files.clone(), list.clone()), "{args:?}");
    }
    assert!(place.run(&["undo"]).err.contains("nothing to undo"));
}

#[test]
fn undo_takes_operations_back_the_last_first() {
    // What is done, and a part of what `undo` says of it. The repository has two commits and a branch `side` at the first.
    // What a forced checkout gave up comes back into the work tree, but what was staged is not staged again.
    let table: [(&[&str], &str); 7] = [
        (&["commit", "-m", "third"], "commit"),
        (&["checkout", "HEAD~1", "--force"], "checkout"),
        (&["switch", "side", "--force"], "side"),
        (&["restore", "--source", "HEAD~1", "--force", "a"], "restore"),
        (&["branch", "-d", "-f", "side"], "branch"),
        (&["tag", "v1"], "tag"),
        (&["checkpoint", "restore", "@1"], "restore of checkpoint"),
    ];
    for (args, words) in table {
        let place = Place::new();
        place.write("a", "first");
        place.commit("first");
        place.ok(&["branch", "side"]);
        place.ok(&["checkpoint", "create"]);
        place.write("a", "second");
        place.write("b", "new");
        place.commit("second");
        place.write("c", "staged");
        place.ok(&["add", "c"]);
        place.write("a", "unsaved");
        let state = || {
            let staged = if args[0] == "commit" { place.ok(&["status"]) } else { String::new() };
            (staged, ["log", "branch", "tag"].map(|verb| place.ok(&[verb])), content(&place))
        };
        let before = state();
        place.ok(args);
        assert_ne!(state(), before, "{args:?}");
        let can = place.json(&["undo", "-n"]);
        let summary = can["operations"][0]["summary"].as_str().unwrap_or_default().to_owned();
        assert!(summary.contains(words), "{args:?}: {can}");
        let run = place.run(&["undo"]);
        assert_eq!((run.code, run.out.contains(&summary)), (0, true), "{args:?}: {run:?}");
        assert_eq!(state(), before, "{args:?}");
        place.ok(&["fsck", "--full"]);
    }
}

// ---- Several processes ----

#[test]
fn two_processes_number_their_checkpoints_together() {
    const EACH: usize = 20;
    let place = Place::new();
    let made = |name: &str| {
        (0..EACH)
            .map(|step| {
                place.write(&format!("{name}/{step}"), format!("{name} {step}"));
                place.json(&["--lock-timeout", "120", "checkpoint", "create"])["checkpoint"]["number"].as_u64().unwrap()
            })
            .collect::<Vec<u64>>()
    };
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(|| made("x"));
        (made("y"), other.join().unwrap())
    });
    for own in [&one, &two] {
        assert!(own.is_sorted(), "{own:?}");
    }
    let all: BTreeSet<u64> = one.into_iter().chain(two).collect();
    assert_eq!(all.into_iter().collect::<Vec<_>>(), (1..=2 * EACH as u64).collect::<Vec<_>>());
    assert_eq!(place.ok(&["checkpoint", "diff", "@40", "--name-only"]), "");
}

/// Starts a watcher and waits until it says so.
fn watcher(place: &Place, more: &[&str]) -> Child {
    let args = [&["checkpoint", "watch", "--interval", "0.02"], more].concat();
    let mut child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("watching"), "{line}");
    child
}

#[test]
fn watching_makes_a_checkpoint_when_something_changed_and_ends_when_told() {
    let place = three();
    let child = watcher(&place, &["--count", "1", "-m", "seen", "--tag", "auto"]);
    place.write("a", "edited while it is watched");
    let run = ended(child);
    assert_eq!((run.code, run.out.starts_with("@4 1 path changed")), (0, true), "{run:?}");
    assert_eq!(place.json(&["checkpoint", "show", "@4"])["tags"][0], "auto");
    let child = watcher(&place, &[]);
    interrupt(&child);
    let run = ended(child);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "", ""));
    assert_eq!(numbers(&place.json(&["checkpoint", "list"])).len(), 4);
}
