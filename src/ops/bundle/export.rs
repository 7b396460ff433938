//! `bundle export`: from a bundle to a raw image.

use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use super::copy::{for_data, write_blocks};
use super::{as_text, exists, open, parent_of};
use crate::base::disk::{DiskFile, IoContext};
use crate::base::monitor::Monitor;
use crate::base::pool::Pools;
use crate::model::bundle::band_name;
use crate::ops::{Error, Result};
use crate::world::bundle::Bundle;
use crate::world::write::{Expect, NewFile};

/// Mode of a new file, before the umask.
const FILE_MODE: u32 = 0o666;

/// What to write out.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// A bundle.
    pub bundle: PathBuf,
    /// The raw image that it becomes.
    pub image: PathBuf,
    /// The image may be there: it is replaced.
    pub force: bool,
}

/// What was written out.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    /// The image.
    #[serde(serialize_with = "as_text")]
    pub image: PathBuf,
    /// Its length.
    pub image_len: u64,
    /// Bands that it was made of; the rest are holes.
    pub bands: u64,
}

/// Writes the image of a bundle to a file, with holes where it has no data. The file appears whole or not at all.
pub fn export(pools: &Pools, options: &ExportOptions, monitor: &dyn Monitor) -> Result<Exported> {
    let bundle = open(&options.bundle)?;
    let geometry = bundle.geometry();
    let (parent, name) = parent_of(&options.image)?;
    if !options.force && parent.stat(&name).on("look at", &options.image)?.is_some() {
        return Err(exists(&options.image, "choose another name, or replace it with --force"));
    }
    let listing = bundle.list().on("list the bundle", &options.bundle)?;
    if let Some(misfit) = listing.misfits.first() {
        return Err(Error::Refused {
            message: format!("'{}' cannot be exported: {misfit} is no regular file", options.bundle.display()),
            hint: "put the band in its place, or remove what is there: an absent band is zeros",
        });
    }
    let bands: Vec<u64> =
        listing.bands.iter().map(|(band, _)| *band).filter(|band| *band < geometry.band_count()).collect();
    let new = NewFile::create(Arc::clone(&parent), FILE_MODE).on("create", &options.image)?;
    new.file().set_len(geometry.image_len).on("extend", &options.image)?;
    let bytes = bands.iter().map(|band| geometry.len_of(*band)).sum();
    monitor.begin("exporting", Some(bands.len() as u64), Some(bytes));
    let copied = pools.io().install(|| {
        bands.par_iter().with_max_len(1).try_for_each(|band| {
            if monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            let at = || bundle.bands().path().join(band_name(*band));
            export_band(&bundle, *band, new.file()).on("export", at())?;
            monitor.advance(1, geometry.len_of(*band));
            Ok(())
        })
    });
    monitor.end();
    copied?;
    if bundle.list().on("list the bundle", &options.bundle)?.looks() != listing.looks() {
        return Err(Error::Refused {
            message: format!("'{}' was changed while it was read; nothing was written", options.bundle.display()),
            hint: "pause what writes to the image, or unmount it, and try again",
        });
    }
    new.file().sync().on("sync", &options.image)?;
    let mode = new.file().stat().on("look at", &options.image)?.mode;
    let expect = if options.force { Expect::Anything } else { Expect::Absent };
    new.finish(name.as_encoded_bytes(), mode, None, expect).on("create", &options.image)?;
    parent.sync().on("sync the folder of", &options.image)?;
    Ok(Exported { image: options.image.clone(), image_len: geometry.image_len, bands: bands.len() as u64 })
}

fn export_band(bundle: &Bundle, band: u64, image: &dyn DiskFile) -> std::io::Result<()> {
    let geometry = bundle.geometry();
    let start = band * geometry.band_len;
    let Some((file, stat)) = bundle.open_band(band)? else { return Ok(()) };
    let len = stat.len.min(geometry.len_of(band));
    for_data(&file, 0..len, &mut |at, bytes| write_blocks(image, bytes, start + at).map(|()| true))
}
