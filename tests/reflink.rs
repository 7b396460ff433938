//! Snapshots by clones, on file systems that can and on those that cannot.
//!
//! XFS and btrfs are made in files and mounted, which takes root and their `mkfs`. Where that is not possible, the test says
//! so and why.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the work tree is changed by its user")]

mod common;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use digstore::base::monitor::Silent;
use digstore::format::bundle::encode_info;
use digstore::model::bundle::{Geometry, band_name};
use digstore::model::checkpoint::Area;
use digstore::model::path::RepoPath;
use digstore::ops::bundle::check;
use digstore::ops::checkpoint::{create, edit as change, restore, retention};
use digstore::repo::Repository;
use tempfile::TempDir;

const BUNDLE: &str = "disk.sparsebundle";
const BANDS: u64 = 12;
const BAND_LEN: usize = 4 << 20;

/// A file system in a file, mounted for as long as this lives.
struct Mount {
    folder: TempDir,
}

impl Mount {
    /// Needs root. XFS wants at least 300 MB.
    fn new(mkfs: &[&str]) -> Result<Self, String> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(600 << 20).unwrap();
        let mount = Self { folder };
        fs::create_dir(mount.at()).unwrap();
        run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).args([&image, &mount.at()]))?;
        Ok(mount)
    }

    fn at(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Bytes in use, once everything is written.
    fn used(&self) -> u64 {
        run(Command::new("sync").arg("-f").arg(self.at())).unwrap();
        let found = rustix::fs::statvfs(self.at()).unwrap();
        (found.f_blocks - found.f_bfree) * found.f_frsize
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(self.at()));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("{shown}: there is no such command")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn make_bundle(root: &Path) {
    fs::create_dir_all(root.join(BUNDLE).join("bands")).unwrap();
    let geometry = Geometry::new(64 << 20, BAND_LEN as u64).unwrap();
    fs::write(root.join(BUNDLE).join("Info.plist"), encode_info(&geometry).unwrap()).unwrap();
    for band in 0..BANDS {
        fs::write(band_at(root, band), noise(band, BAND_LEN)).unwrap();
    }
}

fn band_at(root: &Path, band: u64) -> PathBuf {
    root.join(BUNDLE).join("bands").join(band_name(band))
}

fn poke(root: &Path, bands: impl Iterator<Item = u64>) {
    for band in bands {
        File::options().write(true).open(band_at(root, band)).unwrap().write_all_at(&[7; 9000], 50_000).unwrap();
    }
}

fn save(repo: &Repository) -> create::Outcome {
    let area = Some(Area::Bundle(RepoPath::parse(BUNDLE.as_bytes()).unwrap()));
    create::create(repo, &create::Options { area, snapshot: true, ..create::Options::default() }, &Silent).unwrap()
}

fn go_to(repo: &Repository, number: u64) -> restore::Outcome {
    restore::restore(repo, &restore::Options { number, ..restore::Options::default() }, &Silent).unwrap()
}

fn is_as_made(root: &Path) -> bool {
    (0..BANDS).all(|band| fs::read(band_at(root, band)).unwrap() == noise(band, BAND_LEN))
}

fn clones_are_used(name: &str, mkfs: &[&str]) {
    let mount = match Mount::new(mkfs) {
        Ok(mount) => mount,
        Err(why) => {
            // Past the capture of the test runner: this must be seen.
            let _ = writeln!(io::stderr(), "SKIPPED, clones on {name} are not tested: {why}");
            return;
        }
    };
    let root = &mount.at();
    make_bundle(root);
    let repo = init_at(root);
    assert_eq!(check::info(&root.join(BUNDLE), &Silent).unwrap().can_clone, Some(true));
    let outcome = save(&repo);
    let first = outcome.checkpoint.unwrap().number;
    assert_eq!(outcome.snapshot, Some(true));
    let snapshot = root.join(".digstore/snapshots").join(first.to_string());
    assert_eq!(fs::read_dir(&snapshot).unwrap().count() as u64, BANDS);

    poke(root, 0..10);
    let second = save(&repo).checkpoint.unwrap().number;
    let before = mount.used();
    assert_eq!(go_to(&repo, first).written, 10);
    assert!(is_as_made(root));
    let grown = mount.used().saturating_sub(before);
    assert!(grown < 2 * BAND_LEN as u64, "{name}: ten bands were restored at the price of {grown} bytes");

    // What is in a snapshot is not believed.
    go_to(&repo, second);
    fs::write(snapshot.join("3"), noise(99, BAND_LEN)).unwrap();
    fs::write(snapshot.join("4"), "short").unwrap();
    fs::remove_file(snapshot.join("5")).unwrap();
    assert_eq!(go_to(&repo, first).failed, 0);
    assert!(is_as_made(root));

    change::delete(&repo, &[first], &Silent).unwrap();
    assert!(snapshot.exists(), "'undo' may bring it back");
    retention::compact(&repo, &retention::Options::default(), &Silent).unwrap();
    assert!(!snapshot.exists() && root.join(".digstore/snapshots").join(second.to_string()).exists());
    assert_clean(&repo);
}

#[test]
fn clones_are_used_on_xfs() {
    clones_are_used("XFS", &["mkfs.xfs", "-q"]);
}

#[test]
fn clones_are_used_on_btrfs() {
    clones_are_used("btrfs", &["mkfs.btrfs", "-q"]);
}

/// tmpfs cannot clone.
#[test]
fn nothing_depends_on_clones() {
    let folder = scratch();
    let root = folder.path();
    make_bundle(root);
    let repo = init_at(root);
    assert_ne!(check::info(&root.join(BUNDLE), &Silent).unwrap().can_clone, Some(true), "choose another place");
    let outcome = save(&repo);
    assert_eq!(outcome.snapshot, Some(false));
    assert_eq!(fs::read_dir(root.join(".digstore/snapshots")).unwrap().count(), 0);
    poke(root, 2..5);
    assert_eq!(go_to(&repo, outcome.checkpoint.unwrap().number).written, 3);
    assert!(is_as_made(root));
}
