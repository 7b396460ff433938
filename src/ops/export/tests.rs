use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;
use crate::base::monitor::Silent;
use crate::ops::testing::{MTIME_NS, TestRepo, What, file, path};
use crate::transform::chunker::tests::noise;

fn sample() -> (TestRepo, Vec<u8>, String) {
    let repo = TestRepo::in_memory();
    let mut big = noise(7, 20_000);
    big[5_000..15_000].fill(0);
    let deep = format!("{}/{}", "n".repeat(120), "m".repeat(200));
    let files = [
        ("d/big", What::File(big.clone(), 0o640)),
        ("d/empty", file("")),
        ("e", What::Dir(0o500)),
        ("l", What::Link(b"./d//big".to_vec())),
        ("long", What::Link(vec![b'x'; 300])),
        (deep.as_str(), file("deep")),
    ];
    repo.commit(&files, "one");
    (repo, big, deep)
}

fn to(repo: &TestRepo, at: &str, target: Target) -> Result<Outcome> {
    export(repo, &Options { revision: None, path: path(at), target }, &Silent)
}

fn same_time(path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    assert_eq!(meta.mtime() * 1_000_000_000 + meta.mtime_nsec(), MTIME_NS, "{}", path.display());
}

#[test]
fn a_folder_has_modes_links_and_times() {
    let (repo, big, deep) = sample();
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("new/target");
    let outcome = to(&repo, "", Target::Dir(target.clone())).unwrap();
    assert_eq!(outcome, Outcome { files: 3, links: 2, dirs: 3, bytes: 20_004, failed: 0, damaged: 0 });
    assert_eq!(fs::read(target.join("d/big")).unwrap(), big);
    assert_eq!(fs::read_link(target.join("l")).unwrap(), Path::new("./d//big"));
    let mode = |name: &str| fs::symlink_metadata(target.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("d/big"), mode("d"), mode("e"), mode("d/empty")), (0o640, 0o755, 0o500, 0o644));
    ["d", "d/big", "d/empty", "e", "l", &deep].iter().for_each(|name| same_time(&target.join(name)));
    assert!(matches!(to(&repo, "", Target::Dir(target)), Err(Error::Refused { .. })));
}

#[test]
fn a_subtree_or_one_file_is_exported() {
    let (repo, big, _) = sample();
    let out = tempfile::tempdir().unwrap();
    to(&repo, "d", Target::Dir(out.path().join("sub"))).unwrap();
    assert_eq!(fs::read(out.path().join("sub/big")).unwrap(), big);
    to(&repo, "d/big", Target::Dir(out.path().join("one"))).unwrap();
    assert_eq!(fs::read(out.path().join("one/big")).unwrap(), big);
    assert!(matches!(to(&repo, "none", Target::Dir(out.path().join("x"))), Err(Error::NoSuchPath { .. })));
    assert!(!out.path().join("x").exists());
}

#[test]
fn an_archive_holds_the_same() {
    let (repo, big, deep) = sample();
    let out = tempfile::tempdir().unwrap();
    for zstd in [false, true] {
        let target = out.path().join(format!("a{zstd}"));
        to(&repo, "", Target::Tar { path: target.clone(), zstd }).unwrap();
        let bytes = fs::read(&target).unwrap();
        let bytes = if zstd { zstd::decode_all(&bytes[..]).unwrap() } else { bytes };
        let mut found = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let link = entry.link_name_bytes().map(|link| String::from_utf8(link.into_owned()).unwrap());
            let header = entry.header();
            assert_eq!(header.mtime().unwrap() as i64, MTIME_NS / 1_000_000_000);
            found.push((name, header.mode().unwrap(), content, link));
        }
        let names: Vec<&str> = found.iter().map(|f| f.0.as_str()).collect();
        let (folder, _) = deep.split_once('/').unwrap();
        assert_eq!(names, ["d/", "d/big", "d/empty", "e/", "l", "long", &format!("{folder}/"), &deep]);
        assert_eq!((found[1].1, &found[1].2), (0o640, &big));
        assert_eq!((found[4].3.as_deref(), found[5].3.clone()), (Some("./d//big"), Some("x".repeat(300))));
        assert_eq!(found[7].2, b"deep");
        assert!(matches!(to(&repo, "", Target::Tar { path: target, zstd }), Err(Error::Refused { .. })));
    }
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 2, "nothing unfinished is left");
}
