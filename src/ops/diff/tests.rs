use super::*;
use crate::base::monitor::{Recording, Silent};
use crate::format::object::{encode_commit, encode_tree};
use crate::model::commit::Commit;
use crate::model::id::{ObjectKind, TreeId};
use crate::model::refs::RefName;
use crate::model::tree::{Node, Tree};
use crate::ops::checkout::{RestoreOptions, restore};
use crate::ops::testing::{TestRepo, What, file, path, settings};
use crate::repo::Settings;
use crate::store::refs::{self, RefKind};
use crate::transform::chunker::tests::noise;

fn names(repo: &TestRepo, old: Side, new: Side) -> Vec<String> {
    let outcome = diff(repo, &Options { content: false, ..Options::new(old, new) }, &Silent).unwrap();
    outcome.files.iter().map(|f| format!("{} {}", f.change, f.path)).collect()
}

fn rev(text: &str) -> Side {
    Side::Revision(text.to_owned())
}

#[test]
fn revisions_are_compared() {
    let repo = TestRepo::in_memory();
    repo.commit(&[("a", file("1")), ("d/x", file("1")), ("gone/y", file("1")), ("t", file("1"))], "one");
    let two = [
        ("a", What::File(b"1".to_vec(), 0o755)),
        ("d/x", file("2")),
        ("e", What::Dir(0o755)),
        ("n/m/z", file("1")),
        ("t", What::Link(b"a".to_vec())),
    ];
    repo.commit(&two, "two");
    let expected = ["mode a", "modified d/x", "added e", "removed gone/y", "added n/m/z", "type t"];
    assert_eq!(names(&repo, rev("HEAD~"), rev("HEAD")), expected);
    assert_eq!(names(&repo, Side::Empty, rev("HEAD~")), ["added a", "added d/x", "added gone/y", "added t"]);
    assert!(names(&repo, rev("HEAD"), rev("HEAD")).is_empty());
    let options =
        Options { paths: vec![path("n"), path("a")], content: false, ..Options::new(rev("HEAD~"), rev("HEAD")) };
    let found = diff(&repo, &options, &Silent).unwrap().files;
    assert_eq!(found.iter().map(|f| f.path.to_string()).collect::<Vec<_>>(), ["a", "n/m/z"]);
}

/// Commits HEAD's tree with other content of a folder, of which nothing is stored.
fn lose(repo: &TestRepo, name: &str) {
    let head = repo.objects().commit(&repo.head_commit().unwrap().unwrap()).unwrap();
    let mut entries = repo.root_tree(repo.head_commit().unwrap().as_ref()).unwrap().entries().to_vec();
    let folder = entries.iter_mut().find(|entry| entry.name == name.as_bytes()).unwrap();
    folder.node = Node::Dir { tree: TreeId::from_digest([9; 32]) };
    let (tree, tree_bytes) = encode_tree(&Tree::from_sorted(entries).unwrap());
    let (id, commit_bytes) = encode_commit(&Commit { tree, message: "lost".to_owned(), ..head });
    let mut layer = repo.new_layer().unwrap();
    layer.add(tree.into(), ObjectKind::Tree, &tree_bytes, None).unwrap();
    layer.add(id.into(), ObjectKind::Commit, &commit_bytes, None).unwrap();
    let ops = vec![refs::set_op(RefKind::Branch, &RefName::parse("main").unwrap(), &id)];
    repo.repo.commit(&repo.lock("test").unwrap(), &[layer.seal().unwrap()], ops).unwrap();
}

#[test]
fn what_is_stored_outside_of_the_paths_is_not_read() {
    let repo = TestRepo::in_memory();
    repo.commit(&[("d/b", file("1")), ("d/c/x", file("1")), ("e/y", file("1"))], "one");
    repo.set_ref(RefKind::Tag, "one", &repo.head_commit().unwrap().unwrap());
    repo.commit(&[("d/b", file("2")), ("d/c/x", file("2")), ("e/y", file("1"))], "two");
    lose(&repo, "e");
    repo.write_work(&[("d/b", b"1"), ("d/c/x", b"3"), ("e/y", b"1")]);
    for (new, expected) in [
        (rev("HEAD"), &["d/b", "d/c/x"][..]),
        (Side::Staging, &["d/b", "d/c/x"]),
        (Side::WorkTree, &["d/c/x"]),
        (Side::Disk, &["d/c/x"]),
    ] {
        for sides in [(rev("one"), new.clone()), (new, rev("one"))] {
            let options = Options { content: false, ..Options::new(sides.0, sides.1) };
            let within = |name: &str| Options { paths: vec![path(name)], ..options.clone() };
            let found = diff(&repo, &within("d"), &Silent).unwrap().files;
            assert_eq!(found.iter().map(|f| f.path.to_string()).collect::<Vec<_>>(), expected, "{options:?}");
            let found = diff(&repo, &within("d/c"), &Silent).unwrap().files;
            assert_eq!(found.iter().map(|f| f.path.to_string()).collect::<Vec<_>>(), ["d/c/x"], "{options:?}");
        }
    }
    let whole = Options { content: false, ..Options::new(rev("HEAD"), Side::WorkTree) };
    assert!(diff(&repo, &whole, &Silent).is_err());
    let of_head = |name: &str| RestoreOptions {
        paths: vec![path(name)],
        source: Some("HEAD".to_owned()),
        force: true,
        ..RestoreOptions::default()
    };
    assert_eq!(restore(&repo, &of_head("d/c"), &Silent).unwrap().written, 1);
    assert_eq!(std::fs::read(repo.folder.path().join("d/c/x")).unwrap(), b"2");
    assert_eq!(std::fs::read(repo.folder.path().join("d/b")).unwrap(), b"1");
    assert!(restore(&repo, &of_head("e"), &Silent).is_err());
}

#[test]
fn staging_is_compared_with_any_commit() {
    let repo = TestRepo::in_memory();
    repo.commit(&[("a", file("0")), ("b", file("0"))], "zero");
    repo.commit(&[("a", file("1")), ("b", file("1"))], "one");
    assert!(names(&repo, rev("HEAD"), Side::Staging).is_empty());
    repo.stage(&[("a", None), ("b", Some(file("2"))), ("c", Some(file("1")))]);
    assert_eq!(names(&repo, rev("HEAD"), Side::Staging), ["removed a", "modified b", "added c"]);
    assert_eq!(names(&repo, rev("HEAD~"), Side::Staging), ["removed a", "modified b", "added c"]);
    assert_eq!(names(&repo, Side::Staging, rev("HEAD")), ["added a", "modified b", "removed c"]);
}

#[test]
fn the_work_tree_is_compared_by_content() {
    let repo = TestRepo::in_memory();
    let big = noise(5, 9_000);
    let files =
        [("a", file("same")), ("b", file("old")), ("big", file(&big)), ("gone", file("x")), ("l", file("was a file"))];
    repo.commit(&files, "one");
    let mut changed = big.clone();
    changed[8_999] ^= 1;
    repo.write_work(&[("a", b"same"), ("b", b"new"), ("big", &changed), ("untracked", b"")]);
    std::os::unix::fs::symlink("a", repo.folder.path().join("l")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    for name in ["a", "b", "big"] {
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(repo.folder.path().join(name), mode).unwrap();
    }
    let expected = ["modified b", "modified big", "removed gone", "type l"];
    assert_eq!(names(&repo, Side::Staging, Side::WorkTree), expected);
    assert_eq!(names(&repo, rev("HEAD"), Side::WorkTree), expected);
    std::fs::write(repo.folder.path().join("big"), &big).unwrap();
    std::fs::set_permissions(repo.folder.path().join("a"), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(names(&repo, Side::Staging, Side::WorkTree)[..2], ["mode a", "modified b"]);
    let monitor = Recording::default();
    monitor.cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    let cancelled = diff(&repo, &Options::new(Side::Staging, Side::WorkTree), &monitor);
    assert!(matches!(cancelled, Err(Error::Interrupted)));
}

#[test]
fn text_is_shown_as_git_shows_it() {
    let repo = TestRepo::in_memory();
    repo.commit(&[("a", file("1\n2\n3\n4\n5\n")), ("e\n", file("x\r\ny")), ("same", file("s"))], "one");
    repo.commit(
        &[("a", file("1\n2\n3\nfour\n5\n")), ("e\n", file(b"x\r\n\xff")), ("n", file("n\n")), ("same", file("s"))],
        "two",
    );
    let options = Options { context_lines: 1, ..Options::new(rev("HEAD~"), rev("HEAD")) };
    let files = diff(&repo, &options, &Silent).unwrap().files;
    let hunks: Vec<&str> = files.iter().filter_map(|f| f.hunks.as_deref()).collect();
    assert_eq!(
        hunks,
        [
            "--- a/a\n+++ b/a\n@@ -3,3 +3,3 @@\n 3\n-4\n+four\n 5\n",
            "--- a/e\\n\n+++ b/e\\n\n@@ -1,2 +1,2 @@\n x\r\n-y\n\\ No newline at end of file\n+\\xff\n\\ No newline at end of file\n",
            "--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+n\n",
        ]
    );
    let lines: Vec<_> = files.iter().map(|f| (f.added_lines, f.removed_lines, f.old_bytes, f.new_bytes)).collect();
    assert_eq!(lines[0], (Some(1), Some(1), Some(10), Some(13)));
    assert_eq!(lines[2], (Some(1), Some(0), None, Some(2)));
}

#[test]
fn binary_files_tell_what_they_share() {
    let repo = TestRepo::in_memory();
    let mut bytes = noise(6, 5_500);
    bytes[3] = 0;
    repo.commit(&[("b", file(&bytes))], "one");
    bytes[2_500] ^= 1;
    repo.commit(&[("b", file(&bytes))], "two");
    let found = diff(&repo, &Options::new(rev("HEAD~"), rev("HEAD")), &Silent).unwrap().files;
    assert!(found[0].is_binary && found[0].hunks.is_none());
    assert_eq!(found[0].chunks_in_common, Some(ChunksInCommon { count: 5, bytes: 4_500 }));
}

#[test]
fn long_texts_are_not_compared_where_memory_is_short() {
    let files = [("long", file("line\n".repeat(5_000))), ("short", file("line\n"))];
    for (in_flight_len, is_compared) in [(1 << 20, true), (10_000, false)] {
        let repo = TestRepo::on_disk_with(Settings { in_flight_len, ..settings() });
        repo.commit(&files, "one");
        let found = diff(&repo, &Options::new(Side::Empty, rev("HEAD")), &Silent).unwrap().files;
        assert_eq!(found.iter().map(|file| file.hunks.is_some()).collect::<Vec<_>>(), [is_compared, true]);
    }
}
