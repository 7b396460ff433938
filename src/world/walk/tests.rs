use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::listing::{FOLDERS_AT_ONCE, MAX_OPEN, NAMES_AHEAD, NAMES_PER_TASK};
use super::*;
use crate::base::disk::open_root;
use crate::base::monitor::Silent;

fn walk_with<T>(folder: &std::path::Path, options: &WalkOptions<'_>, look: impl FnOnce(&mut Found) -> T) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    walk(&open_root(folder).unwrap(), options, &pool, &Meter::default(), look).unwrap()
}

/// Leaves out nothing.
fn all(scopes: &Scopes) -> WalkOptions<'_> {
    WalkOptions {
        is_tracked: &|_| false,
        include_ignored: false,
        skip: None,
        scopes,
        known: None,
        keeps_listings: false,
        monitor: &Silent,
    }
}

fn walk_at(folder: &std::path::Path, tracked: &[&str], include_ignored: bool) -> Vec<String> {
    let is_tracked = |path: &RepoPath| tracked.iter().any(|t| t.as_bytes() == path.as_bytes());
    let scopes = Scopes::everything();
    let options = WalkOptions { is_tracked: &is_tracked, include_ignored, ..all(&scopes) };
    let walked = walk_with(folder, &options, Found::rest);
    assert!(walked.entries.is_sorted_by(|a, b| a.path < b.path), "tree order");
    walked.entries.iter().map(|entry| entry.path.to_string()).collect()
}

fn make(folder: &std::path::Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn everything_is_found_in_tree_order_but_the_repository() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &[("a/b", ""), ("a.c", ""), ("a0", ""), (".digstore/format", ""), ("z/y/x", "")]);
    for n in 0..300 {
        make(folder.path(), &[(&format!("many/{n:03}"), "")]);
    }
    let found = walk_at(folder.path(), &[], false);
    assert_eq!(found[..5], ["a", "a/b", "a.c", "a0", "many"]);
    assert_eq!(found.len(), 5 + 300 + 3);
}

/// Everything below a folder in tree order, found the plain way.
fn model(folder: &std::path::Path, at: &RepoPath, found: &mut Vec<String>) {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let path = at.join(name.as_bytes()).unwrap();
        found.push(path.to_string());
        if folder.join(&name).is_dir() {
            model(&folder.join(&name), &path, found);
        }
    }
}

#[test]
fn long_wide_and_deep_folders_come_in_tree_order() {
    let folder = tempfile::tempdir().unwrap();
    // More names than one task looks at, with folders among them, at the ends of tasks too.
    for number in 0..2 * NAMES_PER_TASK + 3 {
        let inside = if number % 100 == 0 || number % NAMES_PER_TASK == 0 { "/in/side" } else { "" };
        make(folder.path(), &[(&format!("long/{number:05}{inside}"), "")]);
    }
    // More open folders with something still to be listed than are kept open.
    for number in 0..MAX_OPEN + 50 {
        make(folder.path(), &[(&format!("wide/{number:04}/a/b/c"), ""), (&format!("wide/{number:04}/a0"), "")]);
    }
    make(folder.path(), &[(&format!("{}end", "deep/".repeat(400)), "")]);
    let mut expected = Vec::new();
    model(folder.path(), &RepoPath::root(), &mut expected);
    assert_eq!(walk_at(folder.path(), &[], false), expected);
}

#[test]
fn no_more_is_listed_ahead_than_a_few_rounds() {
    let folder = tempfile::tempdir().unwrap();
    let rounds = ROUNDS_WAITING + 2;
    let count = 2 * rounds * FOLDERS_AT_ONCE;
    for number in 0..count {
        fs::create_dir_all(folder.path().join(format!("{:02}/{number:05}", number / 1000))).unwrap();
    }
    let listed = AtomicUsize::new(0);
    let known = |_: &RepoPath, _: &Stat| {
        listed.fetch_add(1, Ordering::Relaxed);
        None
    };
    let scopes = Scopes::everything();
    let options = WalkOptions { known: Some(&known), ..all(&scopes) };
    let first = walk_with(folder.path(), &options, |found| {
        let first = found.pop().unwrap().path.to_string();
        // Whoever looks no further lets it end.
        std::thread::sleep(std::time::Duration::from_millis(100));
        first
    });
    assert_eq!(first, "00");
    assert!(listed.into_inner() <= rounds * FOLDERS_AT_ONCE, "{count} folders in all");
}

#[test]
fn what_goes_away_is_left_out_and_what_cannot_be_read_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let too_long = "#".repeat((1 << 20) + 1);
    make(folder.path(), &[("a/x", ""), ("b/x", ""), ("c/.digignore", &too_long), ("c/x", ""), ("d", "")]);
    // Of two folders, the one that is come to later goes away before.
    let known = |path: &RepoPath, _: &Stat| {
        match path.as_bytes() {
            b"a" => drop(fs::remove_dir_all(folder.path().join("b"))),
            b"b" => drop(fs::remove_dir_all(folder.path().join("a"))),
            _ => {}
        }
        None
    };
    let scopes = Scopes::everything();
    let options = WalkOptions { known: Some(&known), ..all(&scopes) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (paths, problems) = walk(&open_root(folder.path()).unwrap(), &options, &pool, &Meter::default(), |found| {
        let paths: Vec<String> = std::iter::from_fn(|| found.pop()).map(|entry| entry.path.to_string()).collect();
        assert!(found.hides(&RepoPath::parse(b"c/x").unwrap()) && !found.hides(&RepoPath::parse(b"d").unwrap()));
        (paths, found.rest().problems().cloned().collect::<Vec<_>>())
    })
    .unwrap();
    assert!(paths == ["a", "a/x", "c", "d"] || paths == ["b", "b/x", "c", "d"], "{paths:?}");
    assert!(problems.len() == 1 && problems.iter().all(|problem| problem.contains("c/.digignore")), "{problems:?}");
}

#[test]
fn a_long_folder_that_goes_away_takes_nothing_else_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = vec!["0".to_owned()];
    for number in 0..3 * NAMES_PER_TASK {
        make(folder.path(), &[(&format!("0/{number:05}"), "")]);
    }
    for number in 0..2 * MAX_OPEN {
        let path = format!("a{number:02}/in/side");
        make(folder.path(), &[(&path, "")]);
        expected.extend([path[..3].to_owned(), path[..6].to_owned(), path]);
    }
    // One thread comes to the long folder when too many others are kept open, and then into those before it again.
    let known = |path: &RepoPath, _: &Stat| {
        if path.as_bytes().ends_with(b"/in") {
            let _ = fs::remove_dir_all(folder.path().join("0"));
        }
        None
    };
    let scopes = Scopes::everything();
    let options = WalkOptions { known: Some(&known), ..all(&scopes) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let found = walk(&open_root(folder.path()).unwrap(), &options, &pool, &Meter::default(), Found::rest).unwrap();
    let paths: Vec<String> = found.entries.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(paths, expected);
}

#[test]
fn behind_a_deep_folder_no_more_is_listed_than_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &[(&format!("0/{}end", "deep/".repeat(100)), "")]);
    for number in 0..4 * FOLDERS_AT_ONCE {
        make(folder.path(), &[(&format!("a/{:02}/{number:05}/x", number / 100), "")]);
    }
    let (listed, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let known = |path: &RepoPath, _: &Stat| {
        if path.as_bytes().starts_with(b"a") {
            listed.fetch_add(1, Ordering::Relaxed);
        } else {
            most.fetch_max(listed.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        None
    };
    let scopes = Scopes::everything();
    let options = WalkOptions { known: Some(&known), ..all(&scopes) };
    let found = walk_with(folder.path(), &options, Found::rest);
    assert_eq!(found.entries.len(), 1 + 100 + 1 + 1 + 41 + 2 * 4 * FOLDERS_AT_ONCE);
    // Each of them counts as two names and more.
    assert!(most.into_inner() <= NAMES_AHEAD / 2);
}

#[test]
fn ignore_rules_nest_and_tracked_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    make(
        folder.path(),
        &[
            (".digignore", "*.log\n/build/\n!keep.log\ndeep/**/x\n\\#odd\n"),
            ("a.log", ""),
            ("keep.log", ""),
            ("build/out", ""),
            ("sub/build/out", ""),
            ("sub/a.log", ""),
            ("sub/.digignore", "!a.log\nsecret\n"),
            ("sub/secret", ""),
            ("secret", ""),
            ("deep/1/2/x", ""),
            ("#odd", ""),
            ("b.txt", ""),
        ],
    );
    let expected = [
        ".digignore",
        "b.txt",
        "deep",
        "deep/1",
        "deep/1/2",
        "keep.log",
        "secret",
        "sub",
        "sub/.digignore",
        "sub/a.log",
        "sub/build",
        "sub/build/out",
    ];
    assert_eq!(walk_at(folder.path(), &[], false), expected);
    let tracked = walk_at(folder.path(), &["build", "build/out", "a.log"], false);
    assert!(tracked.contains(&"build/out".to_owned()) && tracked.contains(&"a.log".to_owned()));
    assert_eq!(walk_at(folder.path(), &[], true).len(), 18);
}

#[test]
fn an_ignore_file_may_begin_with_a_mark_and_is_not_read_by_half() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &[(".digignore", "\u{feff}*.log\r\n"), ("a.log", ""), ("b", "")]);
    assert_eq!(walk_at(folder.path(), &[], false), [".digignore", "b"]);
    let found = |text: &str| {
        make(folder.path(), &[(".digignore", text)]);
        let scopes = Scopes::everything();
        let walked = walk_with(folder.path(), &all(&scopes), Found::rest);
        let paths: Vec<String> = walked.entries.iter().map(|entry| entry.path.to_string()).collect();
        (paths.join(" "), walked.problems().count(), walked.unreadable.len())
    };
    assert_eq!(found(&format!("*.log\n#{}\n", "x".repeat(1 << 20))), (String::new(), 1, 1));
    // As in git, a line that is no pattern is left out, and braces are letters.
    assert_eq!(found("[z-a]\n*.log\nb\\\n"), (".digignore b".to_owned(), 2, 0));
    assert_eq!(found("b\t\n*.log  \n"), (".digignore b".to_owned(), 0, 0));
    assert_eq!(found("{b,*.log}\n"), (".digignore a.log b".to_owned(), 0, 0));
}
