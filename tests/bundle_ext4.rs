//! Bundles that hold a real file system: an ext4 made by `mke2fs` and edited by `debugfs`, both of e2fsprogs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the work tree is changed by its user")]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use digstore::base::monitor::Silent;
use digstore::base::pool::Pools;
use digstore::model::checkpoint::Area;
use digstore::model::path::RepoPath;
use digstore::ops::bundle::diff;
use digstore::ops::bundle::import::{ImportOptions, import};
use digstore::ops::capture::Change;
use digstore::ops::checkpoint::create;
use digstore::repo::Repository;
use tempfile::TempDir;

const IMAGE_LEN: u64 = 16 << 20;
const BAND_LEN: u64 = 1 << 20;

/// An image, its bundle, and a repository beside it.
struct Disk {
    folder: TempDir,
    repo: Repository,
    pools: Pools,
}

impl Disk {
    fn new() -> Self {
        let folder = scratch();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("src/deep")).unwrap();
        for number in 0..40 {
            fs::write(tree.join(format!("src/file{number}")), noise(number, 3000 + 100 * number as usize)).unwrap();
        }
        fs::write(tree.join("src/deep/notes"), "first").unwrap();
        File::create(folder.path().join("image")).unwrap().set_len(IMAGE_LEN).unwrap();
        run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).args([&tree, &folder.path().join("image")]));
        fs::create_dir(folder.path().join("work")).unwrap();
        let repo = init_at(&folder.path().join("work"));
        let disk = Self { folder, repo, pools: Pools::new(2, 2) };
        disk.import(false);
        disk
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn import(&self, replace: bool) {
        let bundle = self.folder.path().join("work/disk.sparsebundle");
        let band_len = (!replace).then_some(BAND_LEN);
        import(&self.pools, &ImportOptions { image: self.image(), bundle, band_len, replace }, &Silent).unwrap();
    }

    fn save(&self) -> u64 {
        let options = create::Options { area: Some(Area::Bundle(bundle())), ..create::Options::default() };
        create::create(&self.repo, &options, &Silent).unwrap().checkpoint.unwrap().number
    }

    /// Runs commands of `debugfs` and brings the image in.
    fn edit(&self, commands: &str) {
        let script = self.folder.path().join("script");
        fs::write(&script, commands).unwrap();
        run(Command::new("debugfs").args(["-w", "-f"]).args([&script, &self.image()]));
        self.import(true);
    }

    fn diff(&self, old: u64, new: Option<u64>) -> diff::Outcome {
        let options = diff::Options { old, new, bundle: bundle(), paths: Vec::new(), inside: true };
        diff::diff(&self.repo, &options, &Silent).unwrap()
    }
}

fn bundle() -> RepoPath {
    RepoPath::parse(b"disk.sparsebundle").unwrap()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; install e2fsprogs"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn files(outcome: &diff::Outcome) -> Vec<(&str, Change)> {
    outcome.files.as_ref().unwrap().iter().map(|file| (file.path.as_str(), file.change)).collect()
}

#[test]
fn files_inside_an_image_are_named() {
    let disk = Disk::new();
    let first = disk.save();
    let put = |name: &str, text: &str| -> String {
        let at = disk.folder.path().join(name);
        fs::write(&at, text).unwrap();
        at.display().to_string()
    };
    let (a, b) = (put("a", "second"), put("b", "new"));
    disk.edit(&format!(
        "rm /src/deep/notes\nwrite {a} /src/deep/notes\nwrite {b} /src/new\nrm /src/file7\nmkdir /src/sub\n"
    ));
    let expected = [
        ("/src/deep/notes", Change::Modified),
        ("/src/file7", Change::Removed),
        ("/src/new", Change::Added),
        ("/src/sub", Change::Added),
    ];
    assert_eq!(files(&disk.diff(first, None)), expected);
    let second = disk.save();
    let outcome = disk.diff(first, Some(second));
    assert_eq!(files(&outcome), expected);
    assert!(outcome.changed_bytes < 100_000, "{} bytes of a few files", outcome.changed_bytes);
    let back = disk.diff(second, Some(first));
    assert_eq!(files(&back)[2], ("/src/new", Change::Removed));
}

#[test]
fn an_image_without_a_known_file_system_has_bytes_only() {
    let disk = Disk::new();
    File::options().write(true).open(disk.image()).unwrap().write_all_at(&noise(1, 8192), 0).unwrap();
    disk.import(true);
    let first = disk.save();
    File::options().write(true).open(disk.image()).unwrap().write_all_at(&noise(2, 100), 5 << 20).unwrap();
    disk.import(true);
    let outcome = disk.diff(first, None);
    assert_eq!((outcome.bands.len(), outcome.files.is_none(), outcome.files_unreadable.is_some()), (1, true, true));
}

/// Whatever a damaged or hostile image says, looking into it ends, and without a panic.
#[test]
fn damaged_file_systems_do_no_harm() {
    let disk = Disk::new();
    let first = disk.save();
    let sound = fs::read(disk.image()).unwrap();
    // Superblock, descriptors, bitmaps, inodes and directories are in the first part of so small an image.
    let random = noise(5, 4096);
    for case in 0..60usize {
        let mut image = sound.clone();
        for number in 0..1 + case % 8 {
            let word: [u8; 4] = random[16 * case + 4 * number % 64..][..4].try_into().unwrap();
            let at = u32::from_le_bytes(word) as usize % if case % 3 == 0 { 4096 } else { 2 << 20 };
            image[at] ^= word[0] | 1;
        }
        fs::write(disk.image(), &image).unwrap();
        disk.import(true);
        let outcome = disk.diff(first, None);
        assert!(outcome.files.is_some() != outcome.files_unreadable.is_some() || outcome.changed_bytes == 0);
    }
    assert!(Path::new(&disk.image()).exists());
}
