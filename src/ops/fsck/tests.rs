use super::*;
use crate::base::monitor::Silent;
use std::sync::Arc;

use crate::model::id::{LayerId, ObjectKind};
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

#[test]
fn leftovers_are_looked_for_after_someone_who_may_have_died_and_by_gc() {
    let repo = sample().0.reopen();
    drop(repo.lock("test").unwrap());
    let leave = |folder: &std::path::Path| {
        std::fs::write(folder.join(".digstore/layers/.digstore-tmp-1-1"), b"12345").unwrap();
    };
    leave(repo.folder.path());
    let next = repo.another();
    let TestRepo { folder, repo: ended } = repo;
    drop(ended);
    drop(next.lock("test").unwrap());
    assert_eq!(run(&next, false).leftovers, 1, "whoever ends says that nothing is left");
    crate::ops::gc::gc(&next, &crate::ops::gc::Options::default(), &Silent).unwrap();
    assert_eq!(run(&next, false).leftovers, 0);
    leave(folder.path());
    let last = next.another();
    let _dead = std::mem::ManuallyDrop::new(next.repo);
    drop(last.lock("test").unwrap());
    assert_eq!(run(&last, false).leftovers, 0, "who was killed says nothing");
}

/// A repository of the real verbs: a file of two versions, the second stored as what changed, and a small one.
fn deltas() -> (TestRepo, Vec<u8>, Vec<u8>) {
    let repo = TestRepo::on_disk_with(wide());
    let old = noise(1, 50_000);
    let new = [&old[..20_000], b"changed", &old[20_000..]].concat();
    for content in [&old, &new] {
        repo.write_work(&[("big", content), ("small", b"small")]);
        add_and_commit(&repo);
    }
    (repo, old, new)
}

fn add_and_commit(repo: &TestRepo) {
    crate::ops::add::add(repo, &all_paths(), &Silent).unwrap();
    let options = crate::ops::commit::Options {
        message: "more".to_owned(),
        author: "A <a@example.org>".to_owned(),
        time_ns: 1,
        utc_offset_minutes: 0,
        all: false,
        allow_empty: false,
    };
    crate::ops::commit::commit(repo, &options, &Silent).unwrap();
}

/// A block for each file.
fn wide() -> crate::repo::Settings {
    crate::repo::Settings { block_len: 100_000, maintenance: false, ..crate::ops::testing::settings() }
}

/// A block for each object.
fn narrow() -> crate::repo::Settings {
    crate::repo::Settings { block_len: 1, ..wide() }
}

fn all_paths() -> crate::ops::add::Options {
    crate::ops::add::Options { paths: vec![RepoPath::root()], ..Default::default() }
}

/// The layer with the only block that needs another, and the layer of that one; both with the place of the block in the file.
fn chain(repo: &TestRepo) -> [(LayerId, u64); 2] {
    let objects = repo.objects();
    let (mut delta, mut base) = (None, None);
    for number in 0..objects.layers().layers().len() as u32 {
        let reader = objects.layers().reader(number).unwrap();
        for block in 0..reader.footer().block_count {
            let row = reader.block(block).unwrap();
            if row.raw_len >= 50_000 {
                *if row.base.is_some() { &mut delta } else { &mut base } = Some((reader.id(), row.offset));
            }
        }
    }
    [delta.unwrap(), base.unwrap()]
}

fn flip(repo: &TestRepo, layer: &LayerId, at: u64) {
    let path = layer_path(repo, layer);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at as usize] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

fn repaired(repo: &TestRepo, other: Option<&Repository>) -> Outcome {
    repair(repo, other, &Silent).unwrap()
}

#[test]
fn a_flipped_bit_in_any_part_of_a_layer_is_found_and_named() {
    let (repo, ..) = deltas();
    let [(layer, block), _] = chain(&repo);
    let objects = repo.objects();
    let reader = objects.layers().reader(objects.layers().number_of(&layer).unwrap()).unwrap();
    let (len, blocks_end) = (reader.file_len(), reader.footer().blocks_end);
    drop((reader, objects));
    let footer = crate::format::layer::FOOTER_LEN as u64;
    // Header, block, every byte of the tables, footer.
    let places =
        [9, 20, block, block + 10].into_iter().chain(blocks_end..len - footer).chain([len - footer + 9, len - 1]);
    let mut repo = repo;
    for at in places {
        flip(&repo, &layer, at);
        repo = repo.reopen_with(wide());
        let found = run(&repo, true);
        assert!(found.is_damaged(), "byte {at} of {len}");
        let named = found
            .findings
            .iter()
            .any(|finding| finding.path == Some(path("big")) || finding.problem.contains(&layer.short()));
        assert!(named, "byte {at}: {:?}", found.findings);
        flip(&repo, &layer, at);
        repo = repo.reopen_with(wide());
    }
    assert!(!run(&repo, true).is_damaged());
}

#[test]
fn damage_is_repaired_from_the_work_tree() {
    // The block of the new version, the block that it needs, the tables, the whole file; and which versions come back.
    for (what, comes_back) in [("delta", [true, true]), ("base", [false, true]), ("tables", [true, true])] {
        let (repo, old, new) = deltas();
        let commits = [repo.resolve("HEAD~1").unwrap(), repo.resolve("HEAD").unwrap()];
        let [(delta, delta_at), (base, base_at)] = chain(&repo);
        match what {
            "delta" => flip(&repo, &delta, delta_at + 5),
            "base" => flip(&repo, &base, base_at + 5),
            _ => {
                let len = std::fs::metadata(layer_path(&repo, &delta)).unwrap().len();
                flip(&repo, &delta, len - 200);
            }
        }
        let repo = repo.reopen_with(wide());
        let outcome = repaired(&repo, None);
        let done = outcome.repair.clone().unwrap();
        assert!((done.healed > 0 || what == "tables") && !done.set_aside.is_empty(), "{what}: {outcome:?}");
        assert_eq!(outcome.is_damaged(), comes_back.contains(&false), "{what}: {:?}", outcome.findings);
        let repo = repo.reopen_with(wide());
        for ((commit, content), comes_back) in commits.iter().zip([&old, &new]).zip(comes_back) {
            if comes_back {
                assert_eq!(&repo.stored(commit, "big"), content, "{what}");
            }
        }
        let aside: Vec<_> = std::fs::read_dir(repo.folder.path().join(".digstore/layers")).unwrap().flatten().collect();
        let aside = aside.iter().filter(|entry| entry.path().extension().is_some_and(|end| end == "damaged")).count();
        assert_eq!(aside, done.set_aside.len(), "{what}: nothing is thrown away");
        assert_eq!(run(&repo, true).is_damaged(), outcome.is_damaged());
        let again = repaired(&repo, None).repair.unwrap();
        assert_eq!(again.set_aside, [], "{what}: what was set aside is not touched again");
    }
}

#[test]
fn what_is_lost_comes_from_another_repository() {
    for what in ["base", "missing layer", "all layers"] {
        let (repo, old, new) = deltas();
        let commits = [repo.resolve("HEAD~1").unwrap(), repo.resolve("HEAD").unwrap()];
        let copy = tempfile::tempdir().unwrap();
        let control = repo.folder.path().join(".digstore");
        let copied = std::process::Command::new("cp").arg("-a").arg(control).arg(copy.path()).status().unwrap();
        assert!(copied.success());
        let root = crate::base::disk::open_root(copy.path()).unwrap();
        let other = Repository::open(root.open_dir(".digstore".as_ref()).unwrap(), root, wide()).unwrap();
        let [_, (base, base_at)] = chain(&repo);
        let layers: Vec<LayerId> = repo.objects().layers().layers().iter().map(|(id, _)| *id).collect();
        match what {
            "base" => flip(&repo, &base, base_at + 5),
            "missing layer" => std::fs::remove_file(layer_path(&repo, &base)).unwrap(),
            _ => layers.iter().for_each(|id| std::fs::remove_file(layer_path(&repo, id)).unwrap()),
        }
        repo.write_work(&[("big", b"the work tree is of no help"), ("small", b"nor here")]);
        let repo = repo.reopen_with(wide());
        let outcome = repaired(&repo, Some(&other));
        assert_eq!(outcome.findings, [], "{what}");
        let done = outcome.repair.unwrap();
        assert_eq!((done.lost, done.lost > 0), (done.healed, true), "{what}");
        for (commit, content) in commits.iter().zip([&old, &new]) {
            assert_eq!(&repo.stored(commit, "big"), content, "{what}");
        }
    }
}

#[test]
fn what_is_sound_in_a_damaged_block_is_kept() {
    let repo = TestRepo::on_disk_with(wide());
    let (one, two) = (noise(11, 9_000), noise(12, 9_000));
    let commit = repo.commit(&[("one", file(&one)), ("two", file(&two))], "neighbours");
    let id = repo.objects().layers().layers()[0].0;
    let layer = std::fs::read(layer_path(&repo, &id)).unwrap();
    let place = layer.windows(64).position(|window| window == &one[..64]).unwrap();
    flip(&repo, &id, place as u64 + 10);
    let repo = repo.reopen_with(wide());
    let outcome = repaired(&repo, None);
    let done = outcome.repair.unwrap();
    assert_eq!((done.lost, done.healed, done.set_aside), (1, 0, vec![id]));
    let lost: Vec<_> = outcome.findings.iter().filter_map(|finding| finding.path.as_ref()).collect();
    assert!(!lost.is_empty() && lost.iter().all(|found| **found == path("one")), "{lost:?}");
    assert_eq!(repo.stored(&commit, "two"), two);
}

#[test]
fn the_trees_of_head_are_built_anew_from_staging() {
    for is_staged in [false, true] {
        let repo = TestRepo::on_disk_with(narrow());
        repo.write_work(&[("d/e/one", b"1"), ("f/two", b"2"), ("three", b"3")]);
        add_and_commit(&repo);
        if is_staged {
            repo.write_work(&[("f/two", b"another two")]);
            crate::ops::add::add(&repo, &all_paths(), &Silent).unwrap();
        }
        std::fs::remove_dir_all(repo.folder.path().join("d")).unwrap();
        for (layer, block) in blocks_of_trees(&repo) {
            flip(&repo, &layer, block + 5);
        }
        let repo = repo.reopen_with(narrow());
        let outcome = repaired(&repo, None);
        let done = outcome.repair.clone().unwrap();
        let expected = if is_staged { (1, 0) } else { (4, 4) };
        assert_eq!((done.lost, done.healed), expected, "{outcome:?}");
        assert_eq!(outcome.is_damaged(), is_staged, "the root held what `f` was");
        if !is_staged {
            assert_eq!(repo.stored(&repo.resolve("HEAD").unwrap(), "d/e/one"), b"1");
        }
    }
}

/// Where blocks with trees begin.
fn blocks_of_trees(repo: &TestRepo) -> Vec<(LayerId, u64)> {
    let objects = repo.objects();
    let mut found = std::collections::BTreeSet::new();
    for number in 0..objects.layers().layers().len() as u32 {
        let reader = objects.layers().reader(number).unwrap();
        for row in reader.stored_objects().unwrap().iter().filter(|row| row.place.kind == ObjectKind::Tree) {
            found.insert((reader.id(), reader.block(row.place.block).unwrap().offset));
        }
    }
    found.into_iter().collect()
}

#[test]
fn a_sound_repository_is_left_as_it_is() {
    let (repo, ..) = deltas();
    let before: Vec<LayerId> = repo.objects().layers().layers().iter().map(|(id, _)| *id).collect();
    let outcome = repaired(&repo, None);
    assert_eq!((outcome.is_damaged(), outcome.repair), (false, Some(Repair::default())));
    let after: Vec<LayerId> = repo.objects().layers().layers().iter().map(|(id, _)| *id).collect();
    assert_eq!(before, after);
}

#[test]
fn a_journal_is_made_anew_from_what_can_be_read_of_it_and_from_the_layers() {
    // What becomes of the journal's files, and whether names survive.
    type Damage = fn(&std::path::Path);
    let remove: Damage = |journal| std::fs::remove_dir_all(journal).unwrap();
    let overwrite: Damage = |journal| {
        for entry in std::fs::read_dir(journal).unwrap().flatten() {
            std::fs::write(entry.path(), b"this is no journal").unwrap();
        }
    };
    let middle: Damage = |journal| {
        for entry in std::fs::read_dir(journal).unwrap().flatten() {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            // In the first record of the second commit: the first one is whole, and whole records follow.
            let at = bytes.windows(4).rposition(|four| four == b"more").unwrap() - 300;
            bytes[at] ^= 1;
            std::fs::write(entry.path(), bytes).unwrap();
        }
    };
    for (what, damage) in [("removed", remove), ("overwritten", overwrite), ("damaged", middle)] {
        let (repo, old, new) = deltas();
        let commits = [repo.resolve("HEAD~1").unwrap(), repo.resolve("HEAD").unwrap()];
        let TestRepo { folder, repo } = repo;
        drop(repo);
        damage(&folder.path().join(".digstore/journal"));
        let root = crate::base::disk::open_root(folder.path()).unwrap();
        let control = root.open_dir(".digstore".as_ref()).unwrap();
        let open = || Repository::open(Arc::clone(&control), Arc::clone(&root), wide());
        assert!(open().is_err_and(|error| Error::from(error).is_journal()), "{what}");
        let rebuilt = crate::repo::rebuild::rebuild(&control, &wide()).unwrap().unwrap();
        // Of a journal that is only damaged, the record that names the branch is found behind the damage.
        assert_eq!(rebuilt.branches.len(), usize::from(what != "damaged"), "{what}: {rebuilt:?}");
        let branch = rebuilt.branches.first().map_or("main", String::as_str);
        let repo = TestRepo { repo: open().unwrap(), folder };
        assert_eq!(repo.resolve(branch).unwrap(), commits[1], "{what}: the newest commit is found again");
        let found = run(&repo, true);
        assert_eq!(found.findings, [], "{what}");
        for (commit, content) in commits.iter().zip([&old, &new]) {
            assert_eq!(&repo.stored(commit, "big"), content, "{what}");
        }
        let kept = std::fs::read_dir(repo.folder.path().join(".digstore/journal")).unwrap().flatten();
        let kept = kept.filter(|entry| entry.file_name().to_string_lossy().starts_with("damaged-")).count();
        assert_eq!(kept > 0, what != "removed", "{what}: nothing is thrown away");
        assert_eq!(crate::repo::rebuild::rebuild(&control, &wide()).unwrap(), None, "{what}: what opens is left alone");
        repo.write_work(&[("big", b"and life goes on")]);
        crate::ops::add::add(&repo, &all_paths(), &Silent).unwrap();
    }
}

#[test]
fn a_layer_that_comes_out_as_it_was_takes_the_place_of_the_damaged_file() {
    // Damage of the tables and of a block of a layer whose content is all in the work tree, and its loss.
    for what in ["tables", "block", "lost"] {
        let repo = TestRepo::on_disk_with(wide());
        let files = [("a", &noise(1, 3_000)[..]), ("b", &noise(2, 4_000)), ("c", &noise(3, 5_000))];
        repo.write_work(&files);
        crate::ops::add::add(&repo, &all_paths(), &Silent).unwrap();
        let [layer] =
            repo.objects().layers().layers().iter().map(|(id, _)| *id).collect::<Vec<_>>().try_into().unwrap();
        let len = std::fs::metadata(layer_path(&repo, &layer)).unwrap().len();
        match what {
            "tables" => flip(&repo, &layer, len - 300),
            "block" => flip(&repo, &layer, 500),
            _ => std::fs::remove_file(layer_path(&repo, &layer)).unwrap(),
        }
        let repo = repo.reopen_with(wide());
        assert!(run(&repo, true).is_damaged());
        let outcome = repaired(&repo, None);
        assert_eq!(outcome.findings, [], "{what}: {:?}", outcome.repair);
        let repo = repo.reopen_with(wide());
        assert_eq!(run(&repo, true).findings, [], "{what}");
    }
}

#[test]
fn records_behind_damage_are_salvaged() {
    let repo = TestRepo::on_disk_with(wide());
    let mut commits = Vec::new();
    for number in 0..6 {
        commits.push(repo.commit(&[("a", file(format!("version {number}")))], "more"));
        repo.set_ref(crate::store::refs::RefKind::Tag, &format!("t{number}"), commits.last().unwrap());
    }
    let TestRepo { folder, repo } = repo;
    drop(repo);
    let journal = folder.path().join(".digstore/journal");
    let log = std::fs::read_dir(&journal).unwrap().flatten().map(|entry| entry.path()).max().unwrap();
    let good = std::fs::read(&log).unwrap();
    // A flipped bit in the first record, and a length that was overwritten with zeros.
    for zeros in [false, true] {
        let mut bytes = good.clone();
        let first = crate::format::journal::LOG_HEADER_LEN;
        if zeros {
            bytes[first..first + 4].fill(0);
        } else {
            bytes[first + 20] ^= 1;
        }
        std::fs::write(&log, bytes).unwrap();
        let root = crate::base::disk::open_root(folder.path()).unwrap();
        let control = root.open_dir(".digstore".as_ref()).unwrap();
        assert!(Repository::open(Arc::clone(&control), Arc::clone(&root), wide()).is_err(), "zeros: {zeros}");
        crate::repo::rebuild::rebuild(&control, &wide()).unwrap();
        let repo = Repository::open(control, root, wide()).unwrap();
        for (number, commit) in commits.iter().enumerate().skip(1) {
            assert_eq!(repo.resolve(&format!("t{number}")).unwrap(), *commit, "zeros: {zeros}");
        }
        drop(repo);
        for entry in std::fs::read_dir(&journal).unwrap().flatten() {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}
