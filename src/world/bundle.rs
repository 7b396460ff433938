//! Sparse bundles: what a folder of bands is, and its image read and written.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::dirs::{Folders, IfAbsent};
use crate::base::disk::{Dir, FileKind};
use crate::format::FormatError;
use crate::format::bundle::{MAX_INFO_LEN, decode_info};
use crate::model::bundle::{BANDS_NAME, Geometry, INFO_NAME, parse_band_name};
use crate::model::path::RepoPath;

/// An open bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: Arc<dyn Dir>,
    bands: Arc<dyn Dir>,
    geometry: Geometry,
}

impl Bundle {
    /// Opens the bundle that a folder is; `None` if it is none. What it holds besides is not looked at.
    ///
    /// # Errors
    /// It cannot be read, or it says that it is a bundle and does not say how long.
    pub fn open(dir: Arc<dyn Dir>) -> io::Result<Option<Self>> {
        let Some(bands) = present(dir.open_dir(OsStr::new(BANDS_NAME)))? else { return Ok(None) };
        let Some(file) = present(dir.open(OsStr::new(INFO_NAME)))? else { return Ok(None) };
        match decode_info(&read_bounded(&file)?) {
            Ok(geometry) => Ok(Some(Self { dir, bands, geometry })),
            Err(FormatError::Foreign(_)) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// The folder.
    pub fn dir(&self) -> &Arc<dyn Dir> {
        &self.dir
    }

    /// The folder of bands.
    pub fn bands(&self) -> &Arc<dyn Dir> {
        &self.bands
    }

    /// How the image is divided.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }
}

/// What is not there, or is another kind of file, is none.
fn present<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_bounded(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_INFO_LEN + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Which part of a bundle a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The folder itself, the folder of bands, or a file beside it.
    Frame,
    /// A band.
    Band(u64),
    /// Something that no bundle has: it is neither looked into nor stored with it.
    Foreign,
}

/// Which part of the bundle at `bundle` the path below it is.
pub fn part_of(bundle: &RepoPath, path: &RepoPath, kind: FileKind) -> Part {
    let mut names = path.names().skip(bundle.names().count());
    match (names.next(), names.next(), names.next(), kind) {
        (None, _, _, FileKind::Dir) => Part::Frame,
        (Some(name), None, _, FileKind::Dir) if name == BANDS_NAME.as_bytes() => Part::Frame,
        (Some(name), None, _, FileKind::File) if name != BANDS_NAME.as_bytes() => Part::Frame,
        (Some(folder), Some(name), None, FileKind::File) if folder == BANDS_NAME.as_bytes() => {
            parse_band_name(name).map_or(Part::Foreign, Part::Band)
        }
        _ => Part::Foreign,
    }
}

/// Tells which files of a work tree are bands. Paths are asked for in tree order, so one bundle is looked at once.
#[derive(Debug)]
pub struct BandPaths {
    folders: Folders,
    last: Option<(RepoPath, bool)>,
}

impl BandPaths {
    /// For files below `root`.
    pub fn new(root: &Arc<dyn Dir>) -> Self {
        Self { folders: Folders::new(Arc::clone(root)), last: None }
    }

    /// Is the file a band of a bundle? What cannot be looked at is none.
    pub fn contain(&mut self, path: &RepoPath) -> bool {
        let Some(bands) = path.parent().filter(|bands| bands.file_name() == BANDS_NAME.as_bytes()) else {
            return false;
        };
        if parse_band_name(path.file_name()).is_none() {
            return false;
        }
        let bundle = bands.parent().unwrap_or_else(RepoPath::root);
        match &self.last {
            Some((last, is_bundle)) if *last == bundle => *is_bundle,
            _ => {
                let opened = self.folders.open(&bundle, IfAbsent::Fail).and_then(Bundle::open);
                let is_bundle = opened.is_ok_and(|bundle| bundle.is_some());
                self.last = Some((bundle, is_bundle));
                is_bundle
            }
        }
    }
}
