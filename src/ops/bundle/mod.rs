//! `bundle`: sparse bundles made, filled, read and checked. These verbs need no repository.
//!
//! A bundle is a disk image kept as a folder of files of one size. What makes checkpoints of them quick is elsewhere: in
//! `capture` and `ingest`.

pub mod check;
mod copy;
pub mod diff;
pub mod export;
mod image;
pub mod import;
pub mod inside;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Error, Result};
use crate::base::disk::{Dir, FileKind, IoContext, is_abandoned, open_root, temp_name};
use crate::base::monitor::Monitor;
use crate::model::bundle::{Geometry, MAX_NEW_BAND_LEN, MIN_NEW_BAND_LEN};
use crate::model::path::escape;
use crate::world::bundle::{Bundle, make_frame};

/// Mode of a bundle's folder, before the umask.
const DIR_MODE: u32 = 0o777;

/// What to make.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Where; nothing may be there.
    pub bundle: PathBuf,
    /// Length of the image in bytes.
    pub image_len: u64,
    /// Length of a band in bytes.
    pub band_len: u64,
}

/// A path in JSON, which need not be UTF-8.
fn as_text<S: Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&escape(path.as_os_str().as_bytes()))
}

/// A bundle that was made.
#[derive(Debug, Clone, Serialize)]
pub struct Created {
    /// Where.
    #[serde(serialize_with = "as_text")]
    pub bundle: PathBuf,
    /// How its image is divided.
    #[serde(flatten)]
    pub geometry: Geometry,
}

/// Makes a bundle whose image is all zeros. It appears whole or not at all.
pub fn create(options: &CreateOptions, _: &dyn Monitor) -> Result<Created> {
    let geometry = new_geometry(options.image_len, options.band_len)?;
    make(&options.bundle, geometry, &mut |_| Ok(()))?;
    Ok(Created { bundle: options.bundle.clone(), geometry })
}

/// Checks the lengths of a bundle that is to be made.
fn new_geometry(image_len: u64, band_len: u64) -> Result<Geometry> {
    if !(MIN_NEW_BAND_LEN..=MAX_NEW_BAND_LEN).contains(&band_len) {
        return Err(Error::Refused {
            message: format!("bands of {band_len} bytes cannot be made"),
            hint: "a band has from 1 MiB to 64 MiB; 4 MiB and 8 MiB are usual",
        });
    }
    Geometry::new(image_len, band_len)
        .map_err(|message| Error::Refused { message, hint: "lengths of images and bands are multiples of 512 bytes" })
}

/// Makes a bundle under a temporary name, fills it, and gives it its own.
fn make(at: &Path, geometry: Geometry, fill: &mut dyn FnMut(&Bundle) -> Result<()>) -> Result<()> {
    let (parent, name) = parent_of(at)?;
    if parent.stat(&name).on("look at", at)?.is_some() {
        return Err(exists(at, "choose another name, or remove it first"));
    }
    // What a killed import left may be as large as an image.
    for item in parent.list().on("list the folder of", at)?.iter().filter(|item| is_abandoned(&item.name)) {
        if item.kind == FileKind::Dir {
            remove_all(parent.as_ref(), &item.name);
        }
    }
    let temp = temp_name();
    parent.create_dir(&temp, DIR_MODE).on("create", at)?;
    let made = parent.open_dir(&temp).and_then(|dir| make_frame(&dir, geometry)).on("create", at);
    let filled = made.map_err(Error::from).and_then(|bundle| fill(&bundle));
    let named = filled.and_then(|()| Ok(parent.rename_new(&temp, &name).on("create", at)?));
    if named.is_err() {
        remove_all(parent.as_ref(), &temp);
    }
    named.and_then(|()| Ok(parent.sync().on("sync the folder of", at)?))
}

fn exists(at: &Path, hint: &'static str) -> Error {
    Error::Refused { message: format!("'{}' exists already", at.display()), hint }
}

/// Removes what could not be finished; what cannot be removed is recognised by its name.
fn remove_all(parent: &dyn Dir, name: &OsStr) {
    let Ok(dir) = parent.open_dir(name) else { return };
    for item in dir.list().unwrap_or_default() {
        if dir.remove_file(&item.name).is_err() {
            remove_all(dir.as_ref(), &item.name);
        }
    }
    let _ = parent.remove_dir(name);
}

/// The folder that a path is in, and its name there.
fn parent_of(at: &Path) -> Result<(Arc<dyn Dir>, OsString)> {
    let name = at.file_name().ok_or_else(|| Error::Refused {
        message: format!("'{}' names no file", at.display()),
        hint: "give the path of a file or folder",
    })?;
    let parent = at.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    Ok((open_root(parent).on("open", parent)?, name.to_owned()))
}

/// Opens the bundle at a path.
fn open(at: &Path) -> Result<Bundle> {
    let dir = open_root(at).on("open the bundle", at)?;
    Bundle::open(dir).on("read the bundle", at)?.ok_or_else(|| Error::Refused {
        message: format!("'{}' is no sparse bundle: it has no Info.plist of one, or no bands", at.display()),
        hint: "'digstore bundle create' and 'bundle import' make one",
    })
}
