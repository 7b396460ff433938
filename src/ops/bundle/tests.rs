use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::check::{Fault, info, verify};
use super::export::{ExportOptions, export};
use super::import::{ImportOptions, Imported, import};
use super::{CreateOptions, create};
use crate::base::monitor::{Recording, Silent};
use crate::base::pool::Pools;
use crate::model::bundle::{Geometry, band_name};
use crate::ops::Error;

const MIB: u64 = 1 << 20;

struct Place {
    folder: TempDir,
    pools: Pools,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), pools: Pools::new(2, 2) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An image of so many MiB with these bytes in it.
    fn image(&self, mib: u64, writes: &[(u64, &[u8])]) -> PathBuf {
        let file = File::create(self.at("image")).unwrap();
        file.set_len(mib * MIB).unwrap();
        writes.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
        self.at("image")
    }

    fn import(&self, replace: bool) -> Result<Imported, Error> {
        let (image, bundle) = (self.at("image"), self.at("b.sparsebundle"));
        let band_len = (!replace).then_some(MIB);
        import(&self.pools, &ImportOptions { image, bundle, band_len, replace }, &Silent)
    }

    fn export(&self) -> Vec<u8> {
        let (bundle, image) = (self.at("b.sparsebundle"), self.at("out"));
        export(&self.pools, &ExportOptions { bundle, image: image.clone(), force: true }, &Silent).unwrap();
        fs::read(image).unwrap()
    }

    fn faults(&self) -> Vec<Fault> {
        verify(&self.pools, &self.at("b.sparsebundle"), &Silent).unwrap().faults
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn bands(bundle: &Path) -> Vec<String> {
    let entries = fs::read_dir(bundle.join("bands")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_image_becomes_a_bundle_without_its_zeros_and_comes_back() {
    let place = Place::new();
    place.image(20, &[(0, b"a"), (3 * MIB - 1, b"bc"), (17 * MIB, &[0; 5000])]);
    let imported = place.import(false).unwrap();
    assert_eq!((imported.written, imported.unchanged, imported.removed), (3, 0, 0));
    assert_eq!(imported.geometry, Geometry { image_len: 20 * MIB, band_len: MIB });
    let bundle = place.at("b.sparsebundle");
    assert_eq!(bands(&bundle), ["0", "2", "3"]);
    assert!(place.export() == fs::read(place.at("image")).unwrap());
    assert!(place.at("out").metadata().unwrap().blocks() * 512 < 2 * MIB, "holes stay holes");
    let info = info(&bundle, &Silent).unwrap();
    assert_eq!((info.bands, info.max_bands, info.bands_len, info.foreign.len()), (3, 20, 3 * MIB, 0));
    assert!(place.faults().is_empty());
}

#[test]
fn replacing_writes_only_bands_that_differ() {
    let place = Place::new();
    place.image(20, &[(0, b"a"), (3 * MIB, b"b"), (5 * MIB, b"c")]);
    place.import(false).unwrap();
    let bundle = place.at("b.sparsebundle");
    let first = fs::metadata(bundle.join("bands/0")).unwrap().ino();
    assert!(matches!(place.import(false), Err(Error::Refused { .. })), "it is there");
    place.image(22, &[(0, b"a"), (3 * MIB, b"B"), (21 * MIB, b"d")]);
    let imported = place.import(true).unwrap();
    assert_eq!((imported.written, imported.unchanged, imported.removed), (2, 1, 1));
    assert_eq!(fs::metadata(bundle.join("bands/0")).unwrap().ino(), first);
    assert!(place.export() == fs::read(place.at("image")).unwrap());
    place.image(2, &[(0, b"a")]);
    assert_eq!(place.import(true).unwrap().removed, 2);
    assert!(place.export() == fs::read(place.at("image")).unwrap());
    assert!(place.faults().is_empty());
}

#[test]
fn what_is_no_band_is_not_taken_for_zeros() {
    let place = Place::new();
    place.image(2, &[(0, b"a"), (MIB, b"b")]);
    place.import(false).unwrap();
    fs::remove_file(place.at("b.sparsebundle/bands/1")).unwrap();
    symlink("0", place.at("b.sparsebundle/bands/1")).unwrap();
    place.image(2, &[(0, b"a")]);
    assert!(matches!(place.import(true), Err(Error::Refused { message, .. }) if message.contains("bands/1")));
}

#[test]
fn lengths_that_cannot_be_are_refused_and_leave_nothing() {
    let place = Place::new();
    let create = |image_len, band_len| {
        create(&CreateOptions { bundle: place.at("new.sparsebundle"), image_len, band_len }, &Silent)
    };
    for (image_len, band_len) in [(MIB, MIB - 512), (MIB, 65 * MIB), (100, MIB), (u64::MAX, MIB)] {
        assert!(matches!(create(image_len, band_len), Err(Error::Refused { .. })), "{image_len} {band_len}");
    }
    File::create(place.at("image")).unwrap().set_len(1000).unwrap();
    assert!(matches!(place.import(false), Err(Error::Refused { .. })), "no whole sectors");
    assert_eq!(place.names(), ["image"]);
    create(0, MIB).unwrap();
    assert!(matches!(create(MIB, MIB), Err(Error::Refused { .. })), "it is there");
    assert_eq!(place.names(), ["image", "new.sparsebundle"]);
}

#[test]
fn a_stopped_import_leaves_nothing() {
    let place = Place::new();
    place.image(8, &[(0, b"a"), (5 * MIB, b"b")]);
    let stop = Recording::default();
    stop.cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    let (image, bundle) = (place.at("image"), place.at("b.sparsebundle"));
    let options = ImportOptions { image, bundle, band_len: Some(MIB), replace: false };
    assert!(matches!(import(&place.pools, &options, &stop), Err(Error::Interrupted)));
    assert_eq!(place.names(), ["image"]);
}

#[test]
fn what_is_wrong_with_a_bundle_is_named() {
    /// Does something to a bundle of 4 bands of 1 MiB; then, where the faults are.
    type Case = (fn(&Path), &'static [&'static str]);
    let table: &[Case] = &[
        (|_| {}, &[]),
        (|bundle| fs::remove_file(bundle.join("bands/1")).unwrap(), &[]),
        (|bundle| fs::write(bundle.join("bands/notes.txt"), "x").unwrap(), &[]),
        (|bundle| symlink("/etc/passwd", bundle.join("bands/7")).unwrap(), &["bands/7"]),
        (|bundle| fs::write(bundle.join("bands/4"), "x").unwrap(), &["bands/4"]),
        (|bundle| fs::write(bundle.join("bands/1"), vec![1; MIB as usize + 1]).unwrap(), &["bands/1"]),
        (|bundle| fs::write(bundle.join("Info.bckup"), "x").unwrap(), &["Info.bckup"]),
        (|bundle| fs::write(bundle.join("Info.plist"), "x").unwrap(), &["Info.plist"]),
        (|bundle| fs::remove_file(bundle.join("Info.plist")).unwrap(), &["Info.plist"]),
        (|bundle| fs::remove_dir_all(bundle.join("bands")).unwrap(), &["bands"]),
    ];
    for (number, (harm, expected)) in table.iter().enumerate() {
        let place = Place::new();
        place.image(4, &[(0, b"a"), (MIB, b"b"), (4 * MIB - 1, b"c")]);
        place.import(false).unwrap();
        harm(&place.at("b.sparsebundle"));
        let found = place.faults();
        assert_eq!(found.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), *expected, "case {number}");
    }
}

#[test]
fn what_is_no_bundle_is_refused() {
    let place = Place::new();
    for name in ["empty", "half/bands", "other/bands"] {
        fs::create_dir_all(place.at(name)).unwrap();
    }
    fs::write(place.at("other/Info.plist"), "<plist><dict><key>a</key><string>b</string></dict></plist>").unwrap();
    for name in ["empty", "half", "other"] {
        assert!(matches!(info(&place.at(name), &Silent), Err(Error::Refused { .. })), "{name}");
    }
    let half = "<key>diskimage-bundle-type</key><string>com.apple.diskimage.sparsebundle</string>";
    fs::write(place.at("other/Info.plist"), format!("<plist><dict>{half}</dict></plist>")).unwrap();
    assert!(matches!(info(&place.at("other"), &Silent), Err(Error::Disk(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_bundle_follows_its_image(steps in proptest::collection::vec((1..6u64, proptest::collection::vec((0..6 * MIB, 0..3u8, 1..70_000usize), 0..5)), 1..4)) {
        let place = Place::new();
        for (number, (mib, writes)) in steps.iter().enumerate() {
            let image = place.image(*mib, &[]);
            let file = File::options().write(true).open(image).unwrap();
            for (at, byte, len) in writes {
                let at = at % (mib * MIB);
                let len = (*len).min((mib * MIB - at) as usize);
                file.write_all_at(&vec![*byte; len], at).unwrap();
            }
            place.import(number > 0).unwrap();
            prop_assert!(place.export() == fs::read(place.at("image")).unwrap());
            prop_assert!(place.faults().is_empty());
            for name in bands(&place.at("b.sparsebundle")) {
                let bytes = fs::read(place.at("b.sparsebundle/bands").join(&name)).unwrap();
                prop_assert!(bytes.iter().any(|byte| *byte != 0), "band {} is all zeros", name);
            }
        }
    }
}

#[test]
fn bands_shorter_than_they_may_be_read_as_zeros() {
    let place = Place::new();
    let bundle = place.at("b.sparsebundle");
    create(&CreateOptions { bundle: bundle.clone(), image_len: 3 * MIB, band_len: MIB }, &Silent).unwrap();
    fs::write(bundle.join("bands").join(band_name(1)), b"short").unwrap();
    let image = place.export();
    assert_eq!((image.len() as u64, &image[MIB as usize..MIB as usize + 5]), (3 * MIB, &b"short"[..]));
    assert_eq!(image.iter().filter(|byte| **byte != 0).count(), 5);
    fs::write(place.at("image"), &image).unwrap();
    assert_eq!(place.import(true).unwrap().unchanged, 1, "a short band is the same image");
}
