//! The real binary as a user meets it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests set up files as a user would")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Place, Run, noise};

#[test]
fn a_first_round() {
    let place = Place::new();
    place.write("a.txt", "one\n");
    place.write("d/b.bin", noise(1, 300_000));
    assert!(place.ok(&["status"]).contains("Untracked"));
    assert_eq!(place.ok(&["status", "--short"]), "?? a.txt\n?? d\n");
    assert!(place.ok(&["add", "."]).contains("3 new"));
    assert_eq!(place.ok(&["status", "--short"]), "A  a.txt\nA  d\nA  d/b.bin\n");
    place.ok(&["commit", "-m", "first"]);
    assert_eq!(place.ok(&["status", "--short"]), "");
    assert!(place.ok(&["status"]).contains("clean"));
    place.write("a.txt", "one\ntwo\n");
    assert_eq!(place.ok(&["status", "--short"]), " M a.txt\n");
    assert!(place.ok(&["diff"]).contains("\n+two\n"));
    place.ok(&["commit", "-a", "-m", "second"]);
    assert_eq!(place.json(&["log"])["commits"].as_array().unwrap().len(), 2);
    assert!(place.ok(&["show"]).contains("\n+two\n"));
    place.ok(&["checkout", "HEAD~1"]);
    assert_eq!(place.read("a.txt"), b"one\n");
    place.ok(&["switch", "main"]);
    assert_eq!(place.read("a.txt"), b"one\ntwo\n");
    place.ok(&["fsck", "--full"]);
    assert_eq!(place.ok(&["cat", "HEAD~1:a.txt"]), "one\n");
    assert_eq!(place.ok(&["cat", "HEAD:a.txt", "--bytes", "4-6"]), "two");
}

#[test]
fn add_all_is_everything_unless_paths_narrow_it() {
    let place = Place::new();
    place.write("d/gone", "1");
    place.write("d/kept", "1");
    place.write("other", "1");
    place.ok(&["add", "-A"]);
    place.ok(&["commit", "-m", "first"]);
    fs::remove_file(place.tree.join("d/gone")).unwrap();
    place.write("d/new", "1");
    place.write("other", "2");
    place.ok(&["-C", "d", "add", "-A", "."]);
    assert_eq!(place.ok(&["status", "--short"]), "D  d/gone\nA  d/new\n M other\n");
    place.ok(&["-C", "d", "add", "--all"]);
    assert_eq!(place.ok(&["status", "--short"]), "D  d/gone\nA  d/new\nM  other\n");
}

#[test]
fn every_verb_prints_one_json_object_that_names_its_schema() {
    let place = Place::new();
    place.write("a", "1");
    let layer = || place.json(&["layer", "list"])["layers"][0]["id"].as_str().unwrap_or_default().to_owned();
    let steps: [(&str, &[&str]); 51] = [
        ("init", &["init"]),
        ("add", &["add", "."]),
        ("commit", &["commit", "-m", "m"]),
        ("status", &["status"]),
        ("log", &["log"]),
        ("show", &["show"]),
        ("diff", &["diff"]),
        ("checkout", &["checkout", "HEAD"]),
        ("branch", &["branch", "other"]),
        ("branch", &["branch"]),
        ("switch", &["switch", "other"]),
        ("tag", &["tag", "v1"]),
        ("tag", &["tag"]),
        ("restore", &["restore", "a"]),
        ("restore", &["restore", "--staged", "a"]),
        ("export", &["export", "--to", "../exported"]),
        ("cat", &["cat", "HEAD:a"]),
        ("ls", &["ls", "-r"]),
        ("fsck", &["fsck", "--full"]),
        ("stats", &["stats", "--all"]),
        ("layer", &["layer", "list"]),
        ("config", &["config", "list"]),
        ("config", &["config", "get", "core.durability"]),
        ("config", &["config", "set", "core.durability", "buffered"]),
        ("config", &["config", "unset", "core.durability"]),
        ("config", &["config", "example"]),
        ("completions", &["completions", "bash"]),
        ("man", &["man"]),
        ("mv", &["mv", "a", "b"]),
        ("rm", &["rm", "b", "--cached"]),
        ("session-begin", &["session", "begin", "s"]),
        ("session-put", &["session", "put", "s", "k", "v"]),
        ("session-get", &["session", "get", "s", "k"]),
        ("session-cas", &["session", "cas", "s", "k", "--expect", "v", "w"]),
        ("session-append", &["session", "append", "s", "note"]),
        ("session-events", &["session", "events", "s"]),
        ("session-replay", &["session", "replay", "s"]),
        ("session-diff", &["session", "diff", "s", "s"]),
        ("session-list", &["session", "list"]),
        ("checkpoint-create", &["checkpoint", "create", "--session", "s"]),
        ("checkpoint-list", &["checkpoint", "list"]),
        ("checkpoint-show", &["checkpoint", "show", "1"]),
        ("checkpoint-diff", &["checkpoint", "diff", "1"]),
        ("checkpoint-tag", &["checkpoint", "tag", "1", "t"]),
        ("checkpoint-annotate", &["checkpoint", "annotate", "1", "-m", "m"]),
        ("checkpoint-restore", &["checkpoint", "restore", "1"]),
        ("undo", &["undo"]),
        ("checkpoint-delete", &["checkpoint", "delete", "1"]),
        ("checkpoint-compact", &["checkpoint", "compact"]),
        ("session-del", &["session", "del", "s", "k"]),
        ("session-end", &["session", "end", "s"]),
    ];
    for (verb, args) in steps {
        let object = place.json(args);
        assert_eq!(object["schema"], format!("digstore.{verb}/1"), "{args:?}");
        assert_eq!(object["problems"], Value::Array(vec![]), "{args:?}");
    }
    assert_eq!(place.json(&["layer", "show", &layer()])["schema"], "digstore.layer/1");
}

// ---- What cannot be done ----

/// A name, what to do in a repository with one commit of `a` and `d/b` beforehand, a call, and how it must end.
type Bad = (&'static str, fn(&Place), &'static [&'static str], i32, &'static str);

fn first_byte_of_every_file(place: &Place, part: &str, at: usize, change: fn(&mut u8)) {
    for file in place.files(part) {
        let mut bytes = fs::read(&file).unwrap();
        change(&mut bytes[at]);
        fs::write(file, bytes).unwrap();
    }
}

const BAD: [Bad; 42] = [
    ("more threads than make sense", |_| {}, &["--threads", "60000", "status"], 2, "from 0 to 1024"),
    (
        "no repository",
        |p| fs::remove_dir_all(p.tree.join(".digstore")).unwrap(),
        &["status"],
        1,
        "no digstore repository",
    ),
    ("a store that is none", |_| {}, &["--store", "d", "status"], 1, "not a digstore repository"),
    ("a store that is not there", |_| {}, &["--store", "nowhere", "status"], 1, "not a digstore repository"),
    ("a folder that is not there", |_| {}, &["-C", "nowhere", "status"], 1, "nowhere"),
    ("a path that is not there", |_| {}, &["add", "nothing"], 1, "'nothing' is not in the work tree"),
    ("an ignored path", |p| p.write(".digignore", "x\n"), &["add", "x"], 1, "'x' is"),
    ("a path outside", |_| {}, &["add", "/etc/passwd"], 1, "outside the work tree"),
    ("a path that climbs out", |_| {}, &["add", "../../x"], 1, "outside the work tree"),
    ("the repository itself", |_| {}, &["add", ".digstore"], 1, ".digstore"),
    ("nothing to commit", |_| {}, &["commit", "-m", "m"], 1, "nothing to commit"),
    ("an empty message", |p| p.write("c", "1"), &["commit", "-m", " "], 1, "message"),
    ("no message", |_| {}, &["commit"], 2, "--message"),
    ("an unknown revision", |_| {}, &["checkout", "nosuch"], 1, "'nosuch' is not a branch"),
    ("an unknown id", |_| {}, &["show", "0123456789abcdef"], 1, "is not a branch"),
    ("a revision before the first", |_| {}, &["show", "HEAD~5"], 1, "HEAD~5"),
    ("a revision that is none", |_| {}, &["show", "HEAD~x"], 2, "HEAD~x"),
    ("an unknown checkpoint", |_| {}, &["show", "@3"], 1, "@3"),
    ("an unknown branch", |_| {}, &["switch", "nosuch"], 1, "no branch 'nosuch'"),
    ("a branch that exists", |_| {}, &["branch", "main"], 1, "exists already"),
    ("a bad branch name", |_| {}, &["branch", "a..b"], 2, "a..b"),
    ("the current branch", |_| {}, &["branch", "-d", "main"], 1, "current branch"),
    ("a tag that is not there", |_| {}, &["tag", "-d", "nosuch"], 1, "no tag 'nosuch'"),
    ("an unknown stored path", |_| {}, &["cat", "HEAD:nosuch"], 1, "'nosuch' is not in HEAD"),
    ("a folder to print", |_| {}, &["cat", "HEAD:d"], 1, "folder"),
    ("no stored path", |_| {}, &["cat", "HEAD"], 2, "names no path"),
    ("a range beyond the end", |_| {}, &["cat", "HEAD:a", "--bytes", "99-"], 1, "beyond the end"),
    ("a range that is none", |_| {}, &["cat", "HEAD:a", "--bytes", "9-1"], 2, "range of bytes"),
    ("an untracked path to restore", |p| p.write("c", "1"), &["restore", "c"], 1, "'c' is not tracked"),
    ("an untracked path to remove", |p| p.write("c", "1"), &["rm", "c"], 1, "'c' is not"),
    ("a changed path to remove", |p| p.write("a", "unsaved"), &["rm", "a"], 1, "a"),
    ("a target that exists", |p| p.write("c", "1"), &["mv", "a", "c"], 1, "'c' exists already"),
    ("an export over something", |_| {}, &["export", "--to", "d"], 1, "not empty"),
    ("an unknown layer", |_| {}, &["layer", "show", "0123456789"], 1, "0123456789"),
    (
        "an unknown setting",
        |p| p.write("digstore.toml", "[core]\ndurabilty = 'strict'\n"),
        &["status"],
        2,
        "durability",
    ),
    (
        "a bad setting",
        |p| p.write("digstore.toml", "[performance]\nblock_size = 'much'\n"),
        &["status"],
        2,
        "block_size",
    ),
    ("settings that are no TOML", |p| p.write("digstore.toml", "[[[\n"), &["status"], 2, "digstore.toml"),
    ("an unknown profile", |_| {}, &["--profile", "source_cod", "status"], 2, "source_code"),
    ("an unknown verb", |_| {}, &["comit"], 2, "commit"),
    (
        "a repository of the future",
        |p| {
            let file = p.tree.join(".digstore/format");
            let text = fs::read_to_string(&file).unwrap();
            let future = text.replacen("version = 2", "version = 99", 1);
            assert_ne!(future, text);
            fs::write(file, future).unwrap();
        },
        &["status"],
        1,
        "newer digstore",
    ),
    ("damaged layers", |p| first_byte_of_every_file(p, "layers", 40, |byte| *byte ^= 1), &["cat", "HEAD:a"], 4, "fsck"),
    ("a damaged journal", |p| first_byte_of_every_file(p, "journal", 0, |byte| *byte ^= 1), &["status"], 4, "journal"),
];

#[test]
fn bad_input_is_a_clear_error_with_its_exit_code_and_nothing_is_lost() {
    for (name, prepare, args, code, words) in BAD {
        let place = Place::new();
        place.write("a", "content of a");
        place.write("d/b", "content of b");
        place.commit("first");
        prepare(&place);
        let before = fs::read(place.tree.join("a")).unwrap();
        let run = place.run(args);
        assert_eq!(run.code, code, "{name}: {run:?}");
        assert!(run.err.contains(words), "{name}: {run:?}");
        assert!(run.err.starts_with("error: ") && !run.err.contains("panicked"), "{name}: {run:?}");
        assert_eq!(run.out, "", "{name}");
        assert_eq!(fs::read(place.tree.join("a")).unwrap(), before, "{name}");
    }
}

#[test]
fn errors_are_json_too() {
    for (args, exit, words) in [
        (&["status", "--json"][..], 1, "repository"),
        (&["--json", "stats", "--nope"], 2, "unexpected argument '--nope'"),
        (&["nope", "--json"], 2, "'nope'"),
    ] {
        let run = Place::empty().run(args);
        let error: Value = serde_json::from_str(&run.err).unwrap();
        assert_eq!((error["schema"].as_str(), error["exit"].as_i64()), (Some("digstore.error/1"), Some(exit)));
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(words) && !message.starts_with("error:") && !message.contains("Usage"), "{run:?}");
        assert_eq!((i64::from(run.code), run.out.as_str()), (exit, ""));
    }
    // Behind `--` it is no option.
    assert!(Place::empty().run(&["add", "--nope", "--", "--json"]).err.starts_with("error: "));
}

#[test]
fn what_is_stored_nowhere_is_not_overwritten() {
    let place = Place::new();
    place.write("a", "first");
    place.write("gone", "later");
    place.commit("first");
    place.write("a", "second");
    fs::remove_file(place.tree.join("gone")).unwrap();
    place.commit("second");
    place.write("a", "unsaved");
    place.write("gone", "unsaved too");
    for args in [&["checkout", "HEAD~1"][..], &["restore", "--source", "HEAD~1", "."]] {
        let run = place.run(args);
        assert_eq!(run.code, 1, "{run:?}");
        assert!(
            run.err.contains("\n  a\n") && run.err.contains("\n  gone\n") && run.err.contains("--force"),
            "{run:?}"
        );
        assert_eq!((place.read("a"), place.read("gone")), (b"unsaved".to_vec(), b"unsaved too".to_vec()));
    }
    let run = place.run(&["checkout", "--force", "HEAD~1"]);
    assert!(run.out.contains("Given up by force:\n  a\n  gone\n"), "{run:?}");
    assert_eq!((place.read("a"), place.read("gone")), (b"first".to_vec(), b"later".to_vec()));
}

#[test]
fn an_unreadable_file_is_named_and_the_rest_goes_on() {
    let place = Place::new();
    place.write("a", "1");
    place.write("secret", "2");
    place.write("d/deep", "3");
    let mode = |name: &str, mode| fs::set_permissions(place.tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    mode("secret", 0o000);
    mode("d", 0o000);
    let place = place.unprivileged();
    let run = place.run(&["add", "."]);
    fs::set_permissions(place.tree.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run.code, 3, "{run:?}");
    for word in ["secret", "warning: ", "d"] {
        assert!(run.err.contains(word), "{run:?}");
    }
    place.ok(&["commit", "-m", "what could be read"]);
    assert_eq!(place.ok(&["ls", "HEAD", "-r"]), "a\nd/\n");
    // What cannot be looked at is not called removed.
    fs::remove_file(place.tree.join("secret")).unwrap();
    place.ok(&["checkpoint", "create"]);
    fs::set_permissions(place.tree.join("d"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::remove_file(place.tree.join("a")).unwrap();
    let run = place.run(&["checkpoint", "diff", "@1", "--name-only"]);
    fs::set_permissions(place.tree.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!((run.out.as_str(), run.err.contains("cannot")), ("a\nd\n", true), "{run:?}");
}

#[test]
fn what_is_left_out_is_told_and_hides_nothing_else() {
    let place = Place::new();
    place.write("a", "1");
    place.write("gone", "1");
    place.commit("first");
    place.ok(&["checkpoint", "create"]);
    // A name that file systems may take for the repository's, and a line that is no pattern.
    place.write(".Digstore", "x");
    place.write(".digignore", "[z-a]\n");
    fs::remove_file(place.tree.join("gone")).unwrap();
    for call in [&["status", "-s"][..], &["add", "-A"], &["checkpoint", "create"], &["checkpoint", "restore", "@1"]] {
        let run = place.run(call);
        assert_eq!((run.code, run.err.matches("warning: ").count()), (3, 2), "{call:?}: {run:?}");
        if call[0] == "status" {
            assert_eq!(run.out, "?? .digignore\n D gone\n");
        }
    }
    assert_eq!(place.read("gone"), b"1");
}

#[test]
fn a_repository_that_may_not_be_written_is_still_read() {
    let place = Place::new();
    place.write("a", "1");
    place.commit("first");
    place.ok(&["checkpoint", "create"]);
    let place = place.unprivileged();
    let control = place.tree.join(".digstore");
    let set = |mode_of: fn(bool) -> u32| {
        let mut waiting = vec![control.clone()];
        while let Some(path) = waiting.pop() {
            let is_dir = path.is_dir();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode_of(is_dir))).unwrap();
            if is_dir {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    };
    set(|is_dir| if is_dir { 0o500 } else { 0o400 });
    let reading: [&[&str]; 6] = [&["status"], &["log"], &["diff"], &["fsck", "--full"], &["cat", "HEAD:a"], &["stats"]];
    for args in reading {
        place.ok(args);
    }
    place.write("b", "2");
    // Who only asks what would be done changes nothing, and waits for nobody.
    let asking: [&[&str]; 10] = [
        &["add", "."],
        &["rm", "a"],
        &["mv", "a", "c"],
        &["checkout", "HEAD"],
        &["checkpoint", "restore", "@1"],
        &["checkpoint", "compact", "--keep", "0"],
        &["undo"],
        &["gc"],
        &["gc", "--aggressive"],
        &["migrate", "--undo"],
    ];
    for args in asking {
        place.ok(&[args, &["-n"]].concat());
    }
    let run = place.run(&["add", "b"]);
    set(|is_dir| if is_dir { 0o700 } else { 0o600 });
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.err.contains("ermission") && run.err.contains("hint: "), "{run:?}");
}

#[test]
fn a_full_disk_is_said_and_nothing_recorded_is_lost() {
    // A small file system of its own needs a user namespace; where these are forbidden, the fault tests have to do.
    let script = "mount -t tmpfs -o size=3m none \"$1\" && cd \"$1\" && mkdir t && cd t && \
        \"$0\" init && echo kept > kept && \"$0\" add . && \"$0\" commit -m kept && \
        head -c 1500000 /dev/urandom > big1 && head -c 900000 /dev/urandom > big2 && \"$0\" add big1 big2; \
        echo \"code $?\"; \"$0\" fsck --full && \"$0\" cat HEAD:kept && rm big1 && \"$0\" add . && \"$0\" commit -m more && \
        \"$0\" fsck --full && echo all well";
    let place = Place::empty();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_digstore")]);
    command.arg(&place.tree).env("DIGSTORE_AUTHOR", "A");
    let run = match command.output() {
        Ok(output) => Run::of(output),
        Err(error) => return eprintln!("SKIPPED a_full_disk: unshare cannot be run: {error}"),
    };
    if !run.out.contains("Made an empty repository") {
        return eprintln!("SKIPPED a_full_disk: no small file system can be mounted here: {run:?}");
    }
    assert!(run.out.contains("code 1"), "{run:?}");
    assert!(run.err.contains("No space left") && run.err.contains("make room"), "{run:?}");
    assert!(run.out.contains("kept\n") && run.out.ends_with("all well\n"), "{run:?}");
}

// ---- Other processes ----

#[test]
fn a_second_writer_is_told_who_holds_the_lock_and_readers_go_on() {
    let place = Place::new();
    place.write("a", "1");
    place.commit("first");
    let lock = fs::File::options().read(true).write(true).open(place.tree.join(".digstore/lock")).unwrap();
    lock.lock().unwrap();
    place.write("b", "2");
    let refused = |holder: &str| {
        let run = place.run(&["--lock-timeout", "0.2", "add", "."]);
        assert!(run.code == 5 && run.err.contains(holder), "{run:?}");
        run
    };
    // Who has just come has not said yet who it is, and the one before has left nothing to say.
    refused("locked by another process");
    lock.write_all_at(b"digstore commit, process 7\nits mark\n", 0).unwrap();
    let run = refused("locked by digstore commit, process 7");
    assert!(run.err.contains("--lock-timeout"), "{run:?}");
    assert_eq!(place.ok(&["status", "--short"]), "?? b\n");
    place.ok(&["fsck"]);
    // A writer that waits goes on as soon as it can.
    let waiting = place.command(&["--lock-timeout", "60", "add", "."]).stdout(Stdio::piped()).spawn().unwrap();
    sleep(Duration::from_millis(100));
    drop(lock);
    assert!(waiting.wait_with_output().unwrap().status.success());
    assert_eq!(place.ok(&["status", "--short"]), "A  b\n");
}

/// Starts `add` of a large tree and waits until it has begun to write.
fn add_under_way(place: &Place) -> std::process::Child {
    const FILES: usize = 400;
    for number in 0..FILES {
        place.write(&format!("d{}/f{number}", number % 7), noise(number as u64, 200_000));
    }
    let child = place.command(&["add", "."]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while !place.files("layers").iter().any(|file| file.metadata().is_ok_and(|meta| meta.len() > 1_000_000)) {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is being written");
        sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn a_killed_add_leaves_a_working_repository_and_its_stray_data_is_reclaimed() {
    let place = Place::new();
    place.write("first", "1");
    place.commit("first");
    let mut child = add_under_way(&place);
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it was killed before it was done");
    let found = place.json(&["fsck", "--full"]);
    assert_eq!(found["damaged"], 0);
    assert!(found["leftovers"].as_u64().unwrap() >= 1, "{found}");
    assert_eq!(place.ok(&["ls", "-r"]), "first\n");
    place.commit("second");
    let found = place.json(&["fsck", "--full"]);
    assert_eq!((found["damaged"].as_u64(), found["leftovers"].as_u64()), (Some(0), Some(0)));
    assert_eq!(place.ok(&["status", "--short"]), "");
}

#[test]
fn an_interrupted_add_says_so_and_records_nothing() {
    let place = Place::new();
    let mut child = add_under_way(&place);
    let sent = Command::new("sh").args(["-c", "kill -INT \"$0\"", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("interrupted; nothing was recorded"), "{said}");
    assert!(place.ok(&["status", "--short"]).starts_with("?? d0"));
    place.commit("after all");
    place.ok(&["fsck", "--full"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    place.write("big", noise(3, 3_000_000));
    place.commit("first");
    for args in [&["cat", "HEAD:big"][..], &["log"]] {
        let mut child = place.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let run = Run::of(child.wait_with_output().unwrap());
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{args:?}");
    }
}

// ---- Round trips ----

#[test]
fn everything_that_is_promised_survives_and_what_is_not_kept_is_said() {
    let place = Place::new();
    let name = |bytes: &[u8]| place.tree.join(OsStr::from_bytes(bytes));
    fs::write(name(b"not \xff utf-8"), "1").unwrap();
    fs::write(name(&[b'n'; 255]), "2").unwrap();
    fs::create_dir_all(name(b"empty/er")).unwrap();
    fs::write(name(b"nothing"), "").unwrap();
    symlink("no/such/\u{1}place", name(b"link")).unwrap();
    let modes = [("tool", 0o755), ("mine", 0o600), ("fixed", 0o444)];
    for (file, mode) in modes {
        place.write(file, file);
        fs::set_permissions(place.tree.join(file), fs::Permissions::from_mode(mode)).unwrap();
    }
    let sparse = fs::File::create(place.tree.join("sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    sparse.write_at(b"in the middle", 20 << 20).unwrap();
    drop(sparse);
    fs::hard_link(place.tree.join("tool"), place.tree.join("tool2")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.tree.join("socket")).unwrap();
    let run = place.run(&["add", "."]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.err.contains("1 left out: devices, pipes and sockets"), "{run:?}");
    assert!(run.err.contains("hard links"), "{run:?}");
    place.ok(&["commit", "-m", "everything"]);
    fs::remove_file(place.tree.join("socket")).unwrap();

    let store = place.tree.join(".digstore");
    let out = place.tree.parent().unwrap().join("out");
    fs::create_dir(&out).unwrap();
    let exported = place.tree.parent().unwrap().join("exported");
    place.ok(&["--store", store.to_str().unwrap(), "-C", out.to_str().unwrap(), "checkout", "--times", "main"]);
    place.ok(&["export", "--to", exported.to_str().unwrap()]);
    for copy in [&out, &exported] {
        let mut diff = Command::new("diff");
        let diff = diff.args(["-r", "--no-dereference", "-x", ".digstore"]).args([&place.tree, copy]).output().unwrap();
        assert_eq!((Run::of(diff).out, ""), (String::new(), ""));
        // Modes, links and times, by a program that knows nothing of digstore.
        let mut rsync = Command::new("rsync");
        let rsync = rsync.args(["-nrlptci", "--delete", "--omit-dir-times", "--exclude=.digstore"]);
        let rsync = rsync.arg(format!("{}/", place.tree.display())).arg(format!("{}/", copy.display())).output();
        let rsync = Run::of(rsync.expect("rsync is needed for this test"));
        assert_eq!((rsync.code, rsync.out.as_str()), (0, ""), "{}", copy.display());
        let meta = copy.join("sparse").metadata().unwrap();
        assert!(meta.blocks() * 512 < 1 << 20, "holes are holes again: {} blocks", meta.blocks());
    }
}

#[test]
fn a_store_elsewhere_needs_nothing_in_the_tree_and_follows_no_path() {
    let place = Place::empty();
    place.write("a", "1");
    let store = place.tree.parent().unwrap().join("deep/store");
    let at = |tree: &str, args: &[&str]| {
        let args = [&["--store", store.to_str().unwrap(), "-C", tree], args].concat();
        let run = Run::of(place.command(&args).current_dir(place.tree.parent().unwrap()).output().unwrap());
        assert_eq!(run.code, 0, "{run:?}");
        run.out
    };
    at("tree", &["init"]);
    at("tree", &["add", "."]);
    at("tree", &["commit", "-m", "first"]);
    fs::rename(&place.tree, place.tree.parent().unwrap().join("moved")).unwrap();
    assert_eq!(at("moved", &["status", "--short"]), "");
    assert_eq!(fs::read_dir(place.tree.parent().unwrap().join("moved")).unwrap().count(), 1);
}

#[test]
fn paths_are_relative_to_where_one_stands() {
    let place = Place::new();
    place.write("d/e/f", "1");
    place.write("x", "2");
    place.ok(&["-C", "d/e", "add", "f", "../../x"]);
    assert_eq!(place.ok(&["-C", "d/e", "status", "--short"]), "A  ..\nA  .\nA  f\nA  ../../x\n");
    place.ok(&["-C", "d", "commit", "-m", "from below"]);
    place.write("d/e/f", "changed");
    place.ok(&["-C", "d", "restore", "--force", "e"]);
    assert_eq!(place.read("d/e/f"), b"1");
}

#[test]
fn ignored_files_stay_out_of_every_verb_that_walks() {
    let place = Place::new();
    place.write(".digignore", "*.log\n/build/\n");
    place.write("a.log", "1");
    place.write("build/out", "2");
    place.write("keep", "3");
    place.write("d/.digignore", "!special.log\n");
    place.write("d/special.log", "4");
    place.write("d/other.log", "5");
    assert_eq!(place.ok(&["status", "--short"]), "?? .digignore\n?? d\n?? keep\n");
    place.commit("first");
    assert_eq!(place.ok(&["ls", "-r"]), ".digignore\nd/\nd/.digignore\nd/special.log\nkeep\n");
    place.ok(&["checkout", "--force", "HEAD"]);
    assert_eq!(place.read("a.log"), b"1", "ignored files are not removed");
    place.ok(&["add", "--force", "a.log"]);
    assert_eq!(place.ok(&["status", "--short"]), "A  a.log\n");
}

#[test]
fn the_demonstration_runs_and_leaves_nothing_behind() {
    let place = Place::empty();
    for number in 0..30 {
        place.write(&format!("d{}/file{number}.txt", number % 3), format!("line {number}\n").repeat(500));
    }
    let before = fs::read_dir(&place.tree).unwrap().count();
    let temp = place.tree.parent().unwrap().join("temp");
    fs::create_dir(&temp).unwrap();
    let output = place.command(&["demo", "."]).env("TMPDIR", &temp).output().unwrap();
    let run = Run::of(output);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.out.contains("30 files") && run.out.contains("every byte, mode and link is the same"), "{run:?}");
    assert!(run.out.contains("+A line that the demonstration added."), "{run:?}");
    assert_eq!(fs::read_dir(&temp).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&place.tree).unwrap().count(), before);
}

#[test]
fn a_repository_is_not_its_own_work_tree() {
    let place = Place::new();
    place.write("a", "1");
    place.commit("first");
    for args in [
        &["-C", ".digstore", "--store", ".", "checkout", "--force", "HEAD"][..],
        &["-C", ".digstore/layers", "--store", "..", "add", "."],
    ] {
        let run = place.run(args);
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.err.contains("lies in the repository itself"), "{run:?}");
    }
    place.ok(&["fsck", "--full"]);
}

#[test]
fn a_folder_with_something_unsaved_in_it_does_not_give_way_to_a_file() {
    let place = Place::new();
    place.write("p", "a file");
    place.commit("first");
    fs::remove_file(place.tree.join("p")).unwrap();
    place.write("p/t", "in a folder");
    place.commit("second");
    place.write("p/unsaved", "precious");
    place.write(".digignore", "*.log\n");
    place.write("p/q/ignored.log", "precious too");
    for args in [&["checkout", "HEAD~1"][..], &["checkout", "-n", "HEAD~1"], &["restore", "-s", "HEAD~1", "p"]] {
        let run = place.run(args);
        assert_eq!(run.code, 1, "{args:?} {run:?}");
        assert!(run.err.contains("\n  p/q/ignored.log\n  p/unsaved\n"), "{args:?} {run:?}");
        assert_eq!((place.read("p/t"), place.read("p/unsaved")), (b"in a folder".to_vec(), b"precious".to_vec()));
    }
    let run = place.run(&["restore", "--force", "-s", "HEAD~1", "p"]);
    assert_eq!((run.code, place.read("p")), (0, b"a file".to_vec()), "{run:?}");
    assert!(run.out.contains("Given up by force:\n  p/q/ignored.log\n  p/unsaved\n"), "{run:?}");
}

#[test]
fn what_mends_the_settings_works_while_they_are_broken() {
    let place = Place::new();
    place.write("digstore.toml", "[core]\nprofile = \"nope\"\n");
    assert_eq!(place.run(&["status"]).code, 2);
    place.ok(&["config", "unset", "core.profile"]);
    place.ok(&["status"]);
    assert!(place.ok(&["config"]).contains("core.durability"));
}

#[test]
fn a_repository_in_a_folder_below_is_left_alone() {
    let place = Place::new();
    place.write("sub/file", "1");
    place.ok(&["init", "sub"]);
    place.ok(&["add", "."]);
    assert_eq!(place.ok(&["status", "--short"]), "A  sub\nA  sub/file\n");
}

#[test]
fn folders_above_what_is_staged_are_staged_with_it() {
    // A file that became a folder, of which one file is named.
    let place = Place::new();
    place.write("z", b"z");
    place.write("c", b"1");
    place.commit("one");
    fs::remove_file(place.tree.join("c")).unwrap();
    place.write("c/f", b"x");
    place.ok(&["add", "c/f"]);
    assert_eq!(place.ok(&["status", "--short"]), "M  c\nA  c/f\n");
    place.ok(&["commit", "-m", "two"]);
    assert_eq!(place.ok(&["ls", "-r", "HEAD"]), "c/\nc/f\nz\n");
    assert_eq!(place.ok(&["status", "--short"]), "");

    // What was removed from staging as a whole comes back in part.
    place.write("c/g", b"2");
    place.commit("three");
    place.ok(&["rm", "-r", "--cached", "c"]);
    place.ok(&["restore", "--staged", "c/f"]);
    assert_eq!(place.json(&["diff", "--cached"])["files"].as_array().unwrap().len(), 1);
    place.ok(&["commit", "-m", "four"]);
    assert_eq!(place.ok(&["ls", "-r", "HEAD"]), "c/\nc/f\nz\n");
    assert_eq!(place.ok(&["status", "--short"]), "?? c/g\n");

    // The same where a file was staged in the folder's place.
    fs::remove_dir_all(place.tree.join("c")).unwrap();
    place.write("c", b"now a file");
    place.ok(&["add", "-A"]);
    place.ok(&["restore", "--staged", "c/f"]);
    let run = place.run(&["commit", "-m", "nothing is left to commit"]);
    assert_eq!(run.code, 1, "{run:?}");
    place.ok(&["restore", "--force", "."]);
    assert_eq!((place.read("c/f"), place.ok(&["status", "--short"])), (b"x".to_vec(), String::new()));

    // A new folder that something is moved into.
    fs::create_dir(place.tree.join("b")).unwrap();
    place.ok(&["mv", "z", "b/z"]);
    place.ok(&["commit", "-m", "five"]);
    assert_eq!(place.ok(&["ls", "-r", "HEAD"]), "b/\nb/z\nc/\nc/f\n");
    assert_eq!(place.ok(&["status", "--short"]), "");
}

#[test]
fn what_would_be_staged_is_what_differs() {
    let place = Place::new();
    place.write("touched", b"1");
    place.write("changed", b"1");
    place.commit("one");
    let later = std::time::SystemTime::now() + Duration::from_secs(9);
    fs::File::options().append(true).open(place.tree.join("touched")).unwrap().set_modified(later).unwrap();
    place.write("changed", b"2");
    place.write("new", b"3");
    let foretold = place.json(&["add", "-A", "-n"]);
    let staged = place.json(&["add", "-A"]);
    for list in ["added", "modified", "deleted"] {
        assert_eq!(foretold[list], staged[list], "{list}");
    }
    assert_eq!(foretold["modified"].as_array().unwrap().len(), 1);
}

#[test]
fn a_word_that_names_nothing_is_refused() {
    let place = Place::new();
    place.write("a", b"1");
    place.write("gone", b"1");
    place.commit("one");
    fs::remove_file(place.tree.join("gone")).unwrap();
    place.commit("two");
    // A call, how it ends, and a word of what is said.
    let table: [(&[&str], i32, &str); 10] = [
        (&["diff", "a", "nope"], 2, "'nope'"),
        (&["diff", "HEAD", "a", "nope"], 2, "'nope'"),
        (&["diff", "HEAD", "HEAD", "HEAD"], 2, "'HEAD'"),
        (&["diff", "HEAD..HEAD~1"], 2, "two words"),
        (&["diff", ""], 2, "empty"),
        (&["log", ""], 2, "empty"),
        (&["diff", "nope"], 1, "nope"),
        (&["diff", "HEAD~1", "HEAD", "gone"], 0, ""),
        (&["diff", "a", "--", "nope"], 0, ""),
        (&["-C", "a", "status"], 1, "a"),
    ];
    for (call, code, word) in table {
        let run = place.run(call);
        assert_eq!((run.code, run.err.contains(word)), (code, true), "{call:?}: {run:?}");
    }
    assert!(place.ok(&["help", "add"]).contains("Usage: digstore add"));
    assert!(place.ok(&["status", "no-such-path"]).contains("work tree is clean"));
}

// ---- What is not lost on the way ----

#[test]
fn a_checkout_keeps_modes_of_folders_and_staged_removals() {
    let place = Place::new();
    for name in ["d/a", "b", "c"] {
        place.write(name, name);
    }
    place.commit("first");
    place.write("c", "other");
    place.commit("second");
    place.ok(&["rm", "--cached", "b"]);
    let mode = || fs::metadata(place.tree.join("d")).unwrap().mode() & 0o777;
    let set_mode = |mode| fs::set_permissions(place.tree.join("d"), fs::Permissions::from_mode(mode)).unwrap();
    set_mode(0o700);
    // A new branch at HEAD leaves alone what was deleted, too.
    fs::remove_file(place.tree.join("c")).unwrap();
    for call in [&["switch", "-c", "y"][..], &["undo"]] {
        place.ok(call);
        assert_eq!(place.ok(&["status", "--short"]), "D  b\n?? b\n D c\n m d\n", "{call:?}");
    }
    place.ok(&["restore", "c"]);
    let before = place.ok(&["status", "--short"]);
    assert_eq!(before, "D  b\n?? b\n m d\n");
    for args in [&["switch", "-c", "x"][..], &["checkout", "HEAD~1"]] {
        for call in [args, &["undo"]] {
            place.ok(call);
            assert_eq!((mode(), place.ok(&["status", "--short"])), (0o700, before.clone()), "{args:?}, {call:?}");
        }
    }
    // What is given up by force comes back.
    assert!(place.ok(&["checkout", "-f", "HEAD"]).contains("  d\n"));
    assert_eq!(mode(), 0o755);
    place.ok(&["undo"]);
    assert_eq!(mode(), 0o700);
}

#[test]
fn undo_of_a_commit_or_branch_stays_on_its_branch() {
    let place = Place::new();
    place.write("a", "1");
    place.commit("first");
    place.ok(&["branch", "other"]);
    place.write("a", "2");
    place.commit("second");
    place.write("a", "3");
    place.ok(&["checkout", "-f", "other"]);
    place.ok(&["checkpoint", "compact", "--keep", "0"]);
    let refused = |words: &str| {
        let run = place.run(&["undo"]);
        assert!(run.code == 1 && run.err.contains(words), "{run:?}");
    };
    refused("its space was given back");
    refused("is gone");
    // These are forgotten, and what is next was done on another branch.
    refused("HEAD is elsewhere");
    refused("HEAD is on 'other'");
    refused("HEAD is elsewhere");
    refused("nothing to undo");
    assert_eq!(place.ok(&["log", "--oneline", "main"]).lines().count(), 2);
    assert_eq!(place.ok(&["status", "--short"]), "");
}

#[test]
fn a_repaired_journal_knows_all_that_head_has() {
    let place = Place::new();
    for name in ["a", "bbbbbbbb", "c"] {
        place.write(name, name);
        place.commit(name);
    }
    let log = place.tree.join(".digstore/journal/log-0000000000000000");
    let mut bytes = fs::read(&log).unwrap();
    let at = bytes.windows(8).position(|window| window == b"bbbbbbbb").unwrap();
    bytes[at] ^= 1;
    fs::write(&log, bytes).unwrap();
    let run = place.run(&["status"]);
    assert!(run.code == 4 && run.err.contains("fsck --repair"), "{run:?}");
    place.ok(&["fsck", "--repair"]);
    assert_eq!(place.ok(&["status", "--short"]), "");
    fs::remove_file(place.tree.join("bbbbbbbb")).unwrap();
    assert_eq!(place.ok(&["status", "--short"]), " D bbbbbbbb\n");
    place.commit("gone");
    assert_eq!(place.ok(&["ls"]), "a\nc\n");
}

#[test]
fn long_link_targets_stay_as_they_are_in_tar_files() {
    let place = Place::new();
    let targets =
        ["a//".repeat(50), "./".repeat(60), format!("{}/b", "x".repeat(99)), "y".repeat(100), "z".repeat(101)];
    for (target, name) in targets.iter().zip('a'..) {
        symlink(target, place.tree.join(name.to_string())).unwrap();
    }
    place.commit("links");
    let tar = place.tree.parent().unwrap().join("links.tar");
    place.ok(&["export", "HEAD", "--to", tar.to_str().unwrap()]);
    let out = tempfile::tempdir().unwrap();
    let status = Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(out.path()).status().unwrap();
    assert!(status.success());
    fs::remove_file(&tar).unwrap();
    for (target, name) in targets.iter().zip('a'..) {
        assert_eq!(fs::read_link(out.path().join(name.to_string())).unwrap().to_str(), Some(target.as_str()));
    }
}

#[test]
fn json_tells_paths_that_are_no_text() {
    let place = Place::new();
    let odd = OsStr::from_bytes(b"\xff.sparsebundle");
    let create = ["--json", "bundle", "create", "--size", "1MB"].map(OsStr::new);
    let run = place.run(&[&create[..], &[odd]].concat());
    let json: Value = serde_json::from_str(&run.out).unwrap();
    assert!(json["bundle"].as_str().unwrap().ends_with("\\xff.sparsebundle"), "{run:?}");
}
