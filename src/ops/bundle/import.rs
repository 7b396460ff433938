//! `bundle import`: from a raw image to a bundle.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::copy::{for_data, write_blocks};
use super::{as_text, exists, make, new_geometry, open, parent_of};
use crate::base::disk::real::{next_data, stat_of_file};
use crate::base::disk::{FileKind, IoContext, Stat, write_atomic};
use crate::base::monitor::Monitor;
use crate::base::pool::Pools;
use crate::format::bundle::encode_info;
use crate::model::bundle::{DEFAULT_BAND_LEN, Geometry, INFO_COPY_NAME, INFO_NAME, band_name};
use crate::model::staging::SeenStat;
use crate::ops::{Error, Result};
use crate::transform::chunker::is_zero;
use crate::world::bundle::Bundle;
use crate::world::read;
use crate::world::write::{Expect, NewFile};

/// Modes of new files, before the umask.
const FILE_MODE: u32 = 0o666;

/// What to bring in.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// A raw image.
    pub image: PathBuf,
    /// The bundle that it becomes.
    pub bundle: PathBuf,
    /// Length of a band in bytes; by default that of the bundle, if it is there.
    pub band_len: Option<u64>,
    /// The bundle may be there: it is made equal to the image.
    pub replace: bool,
}

/// What was brought in.
#[derive(Debug, Clone, Serialize)]
pub struct Imported {
    /// The bundle.
    #[serde(serialize_with = "as_text")]
    pub bundle: PathBuf,
    /// How its image is divided.
    #[serde(flatten)]
    pub geometry: Geometry,
    /// Bands written.
    pub written: u64,
    /// Bands that were as they should be.
    pub unchanged: u64,
    /// Bands removed: they are zeros in the image.
    pub removed: u64,
}

/// Work done on bands, counted by many threads.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    unchanged: AtomicU64,
    removed: AtomicU64,
}

/// Makes a bundle of a raw image, or a bundle that is there equal to one. Bands that are all zeros are left out, those that
/// are right already are not touched, and each of the others is replaced in one step.
pub fn import(pools: &Pools, options: &ImportOptions, monitor: &dyn Monitor) -> Result<Imported> {
    let (file, stat) = open_image(&options.image)?;
    let counts = Counts::default();
    let there = options.bundle.symlink_metadata().is_ok();
    if there && !options.replace {
        let hint = "--replace makes it equal to the image; a checkpoint of it keeps what it holds now";
        return Err(exists(&options.bundle, hint));
    }
    let geometry = if there {
        let bundle = open(&options.bundle)?;
        let old = bundle.geometry();
        if options.band_len.is_some_and(|band_len| band_len != old.band_len) {
            return Err(Error::Refused {
                message: format!("the bands of '{}' have {} bytes", options.bundle.display(), old.band_len),
                hint: "leave --band-size out, or import into a new bundle",
            });
        }
        if let Some(misfit) = bundle.list().on("list the bundle", &options.bundle)?.misfits.first() {
            return Err(Error::Refused {
                message: format!("'{}' cannot be made equal: {misfit} is no regular file", options.bundle.display()),
                hint: "remove it first; its band comes from the image",
            });
        }
        let new = Geometry::new(stat.len, old.band_len).map_err(not_sectors)?;
        replace(pools, &bundle, new, (&file, &options.image), &counts, monitor)?;
        new
    } else {
        let geometry = new_geometry(stat.len, options.band_len.unwrap_or(DEFAULT_BAND_LEN))?;
        make(&options.bundle, geometry, &mut |bundle| {
            fill(pools, bundle, geometry, (&file, &options.image), &counts, monitor)?;
            unchanged(&file, &stat, &options.image)
        })?;
        geometry
    };
    if there {
        unchanged(&file, &stat, &options.image)?;
    }
    let Counts { written, unchanged, removed } = counts;
    let count = |counter: AtomicU64| counter.into_inner();
    Ok(Imported {
        bundle: options.bundle.clone(),
        geometry,
        written: count(written),
        unchanged: count(unchanged),
        removed: count(removed),
    })
}

fn not_sectors(message: String) -> Error {
    Error::Refused { message, hint: "the length of an image is a multiple of 512 bytes; 'truncate' can extend it" }
}

fn open_image(at: &Path) -> Result<(File, Stat)> {
    // A link that the user names is meant.
    let (parent, name) = parent_of(&at.canonicalize().on("find the image", at)?)?;
    let file = parent.open(&name).on("open the image", at)?;
    let stat = stat_of_file(&file).on("look at the image", at)?;
    if stat.kind != FileKind::File {
        return Err(Error::Refused {
            message: format!("'{}' is not a regular file", at.display()),
            hint: "copy a device into a file first, such as with 'dd conv=sparse'",
        });
    }
    Ok((file, stat))
}

/// An image that changed while it was read makes no image of any moment.
fn unchanged(file: &File, before: &Stat, at: &Path) -> Result<()> {
    if read::is_same(file, before).on("look at the image", at)? {
        return Ok(());
    }
    Err(Error::Refused {
        message: format!("'{}' was changed while it was read; the bundle does not hold it", at.display()),
        hint: "pause what writes to it, and import again",
    })
}

/// Makes a bundle that is there equal to an image.
fn replace(
    pools: &Pools,
    bundle: &Bundle,
    new: Geometry,
    image: (&File, &Path),
    counts: &Counts,
    monitor: &dyn Monitor,
) -> Result<()> {
    let shown = bundle.dir().path();
    // While it has two lengths it has the longer one: no band is ever beyond the end.
    if new.image_len > bundle.geometry().image_len {
        write_info(bundle, new)?;
    }
    fill(pools, bundle, new, image, counts, monitor)?;
    for (band, _) in bundle.list().on("list the bundle", shown)?.bands {
        if band >= new.band_count() {
            bundle.bands().remove_file(OsStr::new(&band_name(band))).on("remove a band of", shown)?;
            counts.removed.fetch_add(1, Ordering::Relaxed);
        }
    }
    if new.image_len < bundle.geometry().image_len {
        write_info(bundle, new)?;
    }
    Ok(())
}

fn write_info(bundle: &Bundle, geometry: Geometry) -> Result<()> {
    let shown = bundle.dir().path();
    let info = encode_info(&geometry).map_err(std::io::Error::other).on("write", shown)?;
    for name in [INFO_COPY_NAME, INFO_NAME] {
        write_atomic(bundle.dir().as_ref(), OsStr::new(name), FILE_MODE, &info).on("write", shown.join(name))?;
    }
    Ok(())
}

/// Makes the bands of a bundle equal to an image, on all threads.
fn fill(
    pools: &Pools,
    bundle: &Bundle,
    geometry: Geometry,
    (image, shown): (&File, &Path),
    counts: &Counts,
    monitor: &dyn Monitor,
) -> Result<()> {
    let there = bundle.list().on("list the bundle", shown)?.bands;
    let wanted = bands_with_data(image, geometry).on("read the image", shown)?;
    let mut bands: Vec<u64> =
        there.iter().map(|(band, _)| *band).filter(|band| *band < geometry.band_count()).collect();
    bands.extend(wanted);
    bands.sort_unstable();
    bands.dedup();
    let bytes = bands.iter().map(|band| geometry.len_of(*band)).sum();
    monitor.begin("importing", Some(bands.len() as u64), Some(bytes));
    let done = pools.io().install(|| {
        bands.par_iter().with_max_len(1).try_for_each(|band| {
            if monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            let at = || bundle.bands().path().join(band_name(*band));
            import_band(bundle, geometry, image, *band, counts).on("import into", at())?;
            monitor.advance(1, geometry.len_of(*band));
            Ok(())
        })
    });
    monitor.end();
    done?;
    Ok(bundle.bands().sync().on("sync the bands of", bundle.bands().path())?)
}

/// The bands in which the image has data, as far as its file system knows.
fn bands_with_data(image: &File, geometry: Geometry) -> std::io::Result<Vec<u64>> {
    let (mut bands, mut at) = (Vec::new(), 0);
    while let Some((start, end)) = next_data(image, at, geometry.image_len)? {
        bands.extend(start / geometry.band_len..end.div_ceil(geometry.band_len));
        at = end;
    }
    Ok(bands)
}

fn import_band(bundle: &Bundle, geometry: Geometry, image: &File, band: u64, counts: &Counts) -> std::io::Result<()> {
    let start = band * geometry.band_len;
    let range = start..start + geometry.len_of(band);
    let old = bundle.open_band(band)?;
    let name = band_name(band);
    let mut is_empty = true;
    let mut same = old.is_some();
    let mut beside = Vec::new();
    for_data(image, range.clone(), &mut |at, bytes| {
        is_empty &= is_zero(bytes);
        if let (true, Some((old, stat))) = (same, &old) {
            read_padded(old, stat.len, at - start, bytes.len(), &mut beside)?;
            same = beside == bytes;
        }
        // What is known to be neither needs no further look.
        Ok(is_empty || same)
    })?;
    if let (true, Some((old, stat))) = (same && !is_empty, &old) {
        // What is a hole in the image must be zeros in the band.
        for_data(old, 0..stat.len, &mut |at, bytes| {
            if at < geometry.len_of(band) {
                read_padded(image, range.end, start + at, bytes.len(), &mut beside)?;
                same = beside == bytes;
            } else {
                same = is_zero(bytes);
            }
            Ok(same)
        })?;
    }
    match (is_empty, old) {
        (true, None) => {}
        (true, Some(_)) => {
            bundle.bands().remove_file(OsStr::new(&name))?;
            counts.removed.fetch_add(1, Ordering::Relaxed);
        }
        (false, Some(_)) if same => {
            counts.unchanged.fetch_add(1, Ordering::Relaxed);
        }
        (false, old) => {
            let new = NewFile::create(Arc::clone(bundle.bands()), FILE_MODE)?;
            new.file().set_len(geometry.len_of(band))?;
            for_data(image, range, &mut |at, bytes| write_blocks(new.file(), bytes, at - start).map(|()| true))?;
            new.file().sync()?;
            let mode = match &old {
                Some((_, stat)) => stat.mode,
                None => new.file().stat()?.mode,
            };
            let expect = old.map_or(Expect::Absent, |(_, stat)| Expect::Seen(SeenStat::from(&stat)));
            new.finish(name.as_bytes(), mode, None, expect)?;
            counts.written.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Reads a range of a file of `file_len` bytes; what is beyond reads as zeros.
fn read_padded(file: &File, file_len: u64, at: u64, len: usize, into: &mut Vec<u8>) -> std::io::Result<()> {
    into.clear();
    let there = file_len.saturating_sub(at).min(len as u64) as usize;
    read::append_range(file, at, there, into)?;
    into.resize(len, 0);
    Ok(())
}
