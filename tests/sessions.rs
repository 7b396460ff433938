//! Sessions through the real binary.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests set up files as a user would")]

mod support;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::{Place, ended, finish, interrupt};

/// A repository with a session `s`.
fn begun() -> Place {
    let place = Place::new();
    place.ok(&["session", "begin", "s"]);
    place
}

/// Keys and values of `session get` or `session replay`.
fn values(object: &Value) -> Vec<(String, String)> {
    let text = |pair: &Value, name: &str| pair[name].as_str().unwrap().to_owned();
    object["values"].as_array().unwrap().iter().map(|pair| (text(pair, "key"), text(pair, "value"))).collect()
}

/// A call, how it ends, and what it says.
const BAD: [(&[&str], i32, &str); 25] = [
    (&["session"], 2, "Usage"),
    (&["session", "begin", "s"], 1, "exists already"),
    (&["session", "begin", "a b"], 2, "a space"),
    (&["session", "begin", "x", "--resume"], 1, "no session 'x'"),
    (&["session", "begin", "x", "--owner", "999999999"], 1, "no process"),
    (&["session", "show", "x"], 1, "no session 'x'"),
    (&["session", "replay", "x"], 1, "no session 'x'"),
    (&["session", "replay", "s", "--at", "9"], 1, "no event 9"),
    (&["session", "diff", "s", "x"], 1, "no session 'x'"),
    (&["session", "events", "x", "--follow"], 1, "no session 'x'"),
    (&["session", "put", "s", "k"], 2, "--file"),
    (&["session", "put", "s", "k", "v", "--file", "f"], 2, "cannot be used with"),
    (&["session", "put", "s", "", "v"], 1, "a key must have"),
    (&["session", "put", "s", "k", "--file", "nosuch"], 1, "nosuch"),
    (&["session", "get", "s", "k"], 1, "no key 'k'"),
    (&["session", "get", "s", "k", "--prefix", "p"], 2, "cannot be used with"),
    (&["session", "del", "s", "k"], 1, "no key 'k'"),
    (&["session", "cas", "s", "k", "v"], 2, "--absent"),
    (&["session", "cas", "s", "k", "--absent"], 2, "--delete"),
    (&["session", "cas", "s", "k", "--absent", "--expect", "x", "v"], 2, "cannot be used with"),
    (&["session", "cas", "s", "k", "--absent", "v", "--delete"], 2, "cannot be used with"),
    (&["session", "cas", "s", "k", "--expect", "x", "v"], 5, "it is not set"),
    (&["session", "append", "s", "two words"], 1, "cannot be the type"),
    (&["session", "append", "s", "end"], 1, "by digstore itself"),
    (&["session", "append", "s", "x", "p", "--file", "f"], 2, "cannot be used with"),
];

#[test]
fn bad_requests_are_clear_and_change_nothing() {
    let place = begun();
    for (args, code, words) in BAD {
        let run = place.run(args);
        assert_eq!((run.code, run.err.contains(words)), (code, true), "{args:?}: {run:?}");
        assert_eq!(run.out, "", "{args:?}");
    }
    assert_eq!(place.json(&["session", "show", "s"])["session"]["events"], 1);
    assert_eq!(place.json(&["session", "list"])["sessions"].as_array().unwrap().len(), 1);
}

#[test]
fn a_session_ends_once_and_stays_as_it_was() {
    for (end, status) in
        [(&["session", "end", "s"][..], "completed"), (&["session", "abort", "s", "-m", "no good"], "aborted")]
    {
        let place = begun();
        place.ok(&["session", "put", "s", "k", "v"]);
        place.ok(end);
        let words = format!("the session 's' is not active: it is {status}");
        let refused: [&[&str]; 7] = [
            end,
            &["session", "put", "s", "k", "w"],
            &["session", "cas", "s", "k", "--expect", "v", "w"],
            &["session", "del", "s", "k"],
            &["session", "append", "s", "x"],
            &["session", "begin", "s", "--resume"],
            &["checkpoint", "create", "--session", "s"],
        ];
        for args in refused {
            let run = place.run(args);
            assert_eq!((run.code, run.err.contains(&words)), (1, true), "{args:?}: {run:?}");
        }
        assert_eq!(place.ok(&["session", "get", "s", "k"]), "v");
        let shown = place.json(&["session", "show", "s"]);
        assert_eq!((&shown["session"]["status"], &shown["session"]["events"]), (&json!(status), &json!(3)));
        assert!(place.ok(&["session", "list"]).contains(status));
    }
}

#[test]
fn any_bytes_are_values() {
    let place = begun();
    let odd = OsStr::from_bytes(b"a\xff\nb");
    place.ok(&[OsStr::new("session"), OsStr::new("put"), OsStr::new("s"), odd, odd]);
    let get = [OsStr::new("session"), OsStr::new("get"), OsStr::new("s"), odd];
    assert_eq!(place.command(&get).output().unwrap().stdout, odd.as_bytes());
    assert_eq!(place.json(&["session", "get", "s"])["values"][0]["value"], json!({ "base64": "Yf8KYg==" }));
    assert_eq!(place.ok(&["session", "get", "s"]), "a\\xff\\nb = a\\xff\\nb\n");
    place.write("f", "from a file\n");
    for (value, args) in [
        ("-1", &["-1"][..]),
        ("--json", &["--", "--json"]),
        ("", &[""]),
        ("from a file\n", &["--file", "f"]),
        ("piped", &["--file", "-"]),
    ] {
        let args = [&["session", "put", "s", "k"], args].concat();
        let mut child = place.command(&args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"piped").unwrap();
        assert!(child.wait().unwrap().success(), "{args:?}");
        assert_eq!(place.ok(&["session", "get", "s", "k"]), value, "{args:?}");
    }
}

#[test]
fn compare_and_swap_lets_one_win() {
    let place = begun();
    // What to do to the key `k`, how it ends, and its value afterwards.
    let steps: [(&[&str], i32, Option<&str>); 7] = [
        (&["--absent", "1"], 0, Some("1")),
        (&["--absent", "2"], 5, Some("1")),
        (&["--expect", "1", "2"], 0, Some("2")),
        (&["--expect", "1", "3"], 5, Some("2")),
        (&["--expect", "2", "2"], 0, Some("2")),
        (&["--expect", "1", "--delete"], 5, Some("2")),
        (&["--expect", "2", "--delete"], 0, None),
    ];
    for (args, code, value) in steps {
        assert_eq!(place.run(&[&["session", "cas", "s", "k"], args].concat()).code, code, "{args:?}");
        assert_eq!(place.run(&["session", "get", "s", "k"]).out, value.unwrap_or_default(), "{args:?}");
    }
    const PROCESSES: usize = 8;
    let args = |process: usize| {
        ["session", "cas", "s", "lock", "--absent"].map(str::to_owned).into_iter().chain([process.to_string()])
    };
    let start = |process| place.command(&args(process).collect::<Vec<_>>()).stderr(Stdio::null()).spawn().unwrap();
    let children: Vec<_> = (0..PROCESSES).map(start).collect();
    let codes: Vec<_> = children.into_iter().map(|mut child| child.wait().unwrap().code().unwrap()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| [0, 5].contains(code)), "{codes:?}");
}

#[test]
fn replay_of_any_event_is_what_get_said_then() {
    let place = begun();
    let steps: [&[&str]; 9] = [
        &["session", "put", "s", "a", "1"],
        &["session", "put", "s", "b", "2"],
        &["session", "append", "s", "note", "hello"],
        &["session", "cas", "s", "a", "--expect", "1", "3"],
        &["checkpoint", "create", "--session", "s"],
        &["session", "del", "s", "b"],
        &["checkpoint", "restore", "@1"],
        &["checkpoint", "delete", "@1"],
        &["session", "end", "s"],
    ];
    let mut seen = vec![values(&place.json(&["session", "get", "s"]))];
    for args in steps {
        place.ok(args);
        seen.push(values(&place.json(&["session", "get", "s"])));
    }
    for (at, expected) in seen.iter().enumerate() {
        let view = place.json(&["session", "replay", "s", "--at", &(at + 1).to_string()]);
        assert_eq!(&values(&view), expected, "{at}");
        let checkpoints = if (5..8).contains(&at) { json!([1]) } else { json!([]) };
        assert_eq!(view["checkpoints"], checkpoints, "{at}");
        assert_eq!(view["status"], if at == 9 { "completed" } else { "active" }, "{at}");
    }
    let words: Vec<String> = place.json(&["session", "events", "s"])["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect();
    let expected = ["begin", "put", "put", "note", "put", "checkpoint", "del", "restore", "checkpoint-delete", "end"];
    assert_eq!(words, expected);
    let of = |args: &[&str]| place.json(&[&["session", "events", "s"], args].concat())["events"].clone();
    assert_eq!(of(&["--type", "note"])[0]["payload"], "hello");
    assert_eq!((of(&["--from", "9", "-n", "1"])[0]["number"].as_u64(), of(&["--from", "11"])), (Some(9), json!([])));
    let found = place.json(&["session", "diff", "s", "s", "--at-a", "3"]);
    assert_eq!((&found["removed"][0]["key"], &found["changed"][0]["new"]), (&json!("b"), &json!("3")));
    assert!(
        place
            .ok(&["session", "diff", "s", "s", "--at-a", "3"])
            .contains("~ a = 1 -> 3\n0 added, 1 removed, 1 changed, 0 the same\n")
    );
    let document: Value = serde_json::from_str(&place.ok(&["session", "export", "s"])).unwrap();
    assert_eq!((document["events"].as_array().unwrap().len(), &document["state"][0]["value"]), (10, &json!("3")));
    place.ok(&["session", "export", "s", "--to", "../s.json"]);
    assert_eq!(serde_json::from_slice::<Value>(&place.read("../s.json")).unwrap(), document);
}

#[test]
fn a_follower_sees_every_event_of_another_process_and_ends_with_the_session() {
    let place = begun();
    let follow = |more: &[&str]| {
        let args = [&["session", "events", "s", "--follow", "--json"], more].concat();
        place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (mut all, notes, stopped) = (follow(&[]), follow(&["--type", "note", "-n", "3"]), follow(&[]));
    let mut first = String::new();
    let mut lines = BufReader::new(all.stdout.take().unwrap());
    lines.read_line(&mut first).unwrap();
    assert!(first.contains("\"begin\""), "a line is printed at once: {first}");
    for number in 0..10 {
        place.ok(&["session", "append", "s", "note", &number.to_string()]);
    }
    interrupt(&stopped);
    assert_eq!(ended(stopped).code, 0);
    let run = ended(notes);
    assert_eq!((run.code, run.out.lines().count()), (0, 3), "{run:?}");
    place.ok(&["session", "end", "s"]);
    finish(&mut all);
    let numbers: Vec<u64> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (2..=12).collect::<Vec<u64>>());
    assert_eq!(all.wait().unwrap().code(), Some(0));
}

#[test]
fn a_session_whose_owner_died_is_an_orphan_until_it_is_taken_over() {
    let place = Place::new();
    let mut owner = Command::new("sleep").arg("600").spawn().unwrap();
    place.ok(&["session", "begin", "s", "--owner", &owner.id().to_string()]);
    place.ok(&["session", "put", "s", "k", "v"]);
    owner.kill().unwrap();
    owner.wait().unwrap();
    let status = |expected: &str| {
        assert_eq!(place.json(&["session", "list"])["sessions"][0]["status"], expected);
        assert_eq!(place.json(&["session", "show", "s"])["session"]["status"], expected);
    };
    status("orphaned");
    let run = place.run(&["session", "put", "s", "k", "w"]);
    assert_eq!((run.code, run.err.contains("orphaned") && run.err.contains("--resume")), (1, true), "{run:?}");
    place.ok(&["session", "begin", "other"]);
    status("orphaned");
    place.ok(&["session", "begin", "s", "--resume", "--owner", &std::process::id().to_string()]);
    status("active");
    place.ok(&["session", "put", "s", "k", "w"]);
    let counts = place.json(&["session", "replay", "s"])["counts"].clone();
    assert_eq!(counts, json!({ "begin": 1, "orphan": 1, "put": 2, "resume": 1 }));
}
