use super::*;
use crate::base::monitor::Silent;
use crate::model::id::LayerId;
use crate::ops::testing::{TestRepo, What, file, path};
use crate::store::layer_reader::file_name;
use crate::transform::chunker::tests::noise;

fn sample() -> (TestRepo, LayerId, LayerId) {
    let repo = TestRepo::on_disk();
    let layer_of_newest = |known: &[LayerId]| {
        let objects = repo.objects();
        let ids: Vec<LayerId> = objects.layers().layers().iter().map(|(id, _)| *id).collect();
        ids.into_iter().find(|id| !known.contains(id)).unwrap()
    };
    let one = [("d/big", file(noise(1, 20_000))), ("d/small", file("same")), ("l", What::Link(b"x".to_vec()))];
    repo.commit(&one, "one");
    let first = layer_of_newest(&[]);
    repo.commit(&[&one[..], &[("e/new", file(noise(2, 9_000)))]].concat(), "two");
    let second = layer_of_newest(&[first]);
    (repo, first, second)
}

fn run(repo: &TestRepo, full: bool) -> Outcome {
    fsck(repo, &Options { full }, &Silent).unwrap()
}

fn layer_path(repo: &TestRepo, id: &LayerId) -> std::path::PathBuf {
    repo.folder.path().join(".digstore/layers").join(file_name(id))
}

#[test]
fn a_sound_repository_is_clean_and_counted() {
    let (repo, ..) = sample();
    for full in [false, true] {
        let found = run(&repo, full);
        assert_eq!(found.findings, []);
        assert_eq!((found.layers, found.commits, found.leftovers), (2, 2, 0));
        // Root twice, d once, e once; two files of d once, e/new once, and three staged.
        assert_eq!((found.trees, found.files), (4, 6));
        assert_eq!(found.bytes_hashed > 29_000, full);
        assert_eq!(found.blocks_read >= 6, full);
    }
}

#[test]
fn a_flipped_bit_in_a_block_is_told_by_path_and_commit() {
    let (repo, _, second) = sample();
    let repo = {
        let at = layer_path(&repo, &second);
        let mut bytes = std::fs::read(&at).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&at, bytes).unwrap();
        repo.reopen()
    };
    assert!(!run(&repo, false).is_damaged(), "tables and trees are sound");
    let found = run(&repo, true);
    let head = repo.head_commit().unwrap();
    let committed = found.findings.iter().find(|finding| finding.commit.is_some()).unwrap();
    assert_eq!((committed.path.clone(), committed.commit), (Some(path("e/new")), head));
    assert!(found.findings.iter().all(|finding| finding.path == Some(path("e/new"))), "{:?}", found.findings);
    assert_eq!(found.damaged, 2, "in HEAD and in staging");
}

#[test]
fn a_missing_layer_is_told_with_all_that_needs_it_and_the_rest_is_still_checked() {
    let (repo, first, _) = sample();
    std::fs::remove_file(layer_path(&repo, &first)).unwrap();
    let repo = repo.reopen();
    let found = run(&repo, false);
    assert!(found.findings[0].problem.contains("missing"), "{:?}", found.findings);
    let paths: Vec<String> = found.findings.iter().filter_map(|f| f.path.as_ref()).map(ToString::to_string).collect();
    assert!(paths.contains(&"d".to_owned()), "the folder's tree was in it: {paths:?}");
    assert!(!paths.iter().any(|path| path.starts_with("e")), "the second layer is sound: {paths:?}");
    assert!(found.findings.iter().any(|f| f.path.is_none() && f.commit.is_some()), "the first commit is gone");
}

#[test]
fn leftovers_are_no_damage() {
    let (repo, first, _) = sample();
    let folder = repo.folder.path().join(".digstore/layers");
    std::fs::write(folder.join(".digstore-tmp-1-1"), b"12345").unwrap();
    let mut name = file_name(&first);
    name.replace_range(..4, "0123");
    std::fs::write(folder.join(name), b"123").unwrap();
    let found = run(&repo, true);
    assert!(!found.is_damaged());
    assert_eq!((found.leftovers, found.leftover_bytes), (2, 8));
}
