//! `bundle info` and `bundle verify`: what a bundle is, and whether it is sound.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use super::copy::for_data;
use super::{as_text, open};
use crate::base::disk::real::can_clone;
use crate::base::disk::{Dir, IoContext, Stat, open_root};
use crate::base::monitor::Monitor;
use crate::base::pool::Pools;
use crate::model::bundle::{Geometry, INFO_COPY_NAME, INFO_NAME, band_name};
use crate::ops::{Error, Result};
use crate::transform::chunker::is_zero;
use crate::world::bundle::{Bundle, Listing, read_info};

/// What a bundle is.
#[derive(Debug, Clone, Serialize)]
pub struct Info {
    /// Where.
    #[serde(serialize_with = "as_text")]
    pub bundle: PathBuf,
    /// How its image is divided.
    #[serde(flatten)]
    pub geometry: Geometry,
    /// Bands that are there.
    pub bands: u64,
    /// Bands that the image has room for.
    pub max_bands: u64,
    /// Lengths of the bands that are there.
    pub bands_len: u64,
    /// Bytes that they occupy.
    pub allocated_bytes: u64,
    /// Names in its folder that no bundle has.
    pub foreign: Vec<String>,
    /// Can its file system clone files, so that snapshots are instant? `None`: it could not be tried.
    pub can_clone: Option<bool>,
}

/// Describes a bundle; reads no band.
pub fn info(bundle: &Path, _: &dyn Monitor) -> Result<Info> {
    let opened = open(bundle)?;
    let Listing { bands, foreign, .. } = opened.list().on("list the bundle", bundle)?;
    let geometry = opened.geometry();
    Ok(Info {
        bundle: bundle.to_path_buf(),
        geometry,
        bands: bands.len() as u64,
        max_bands: geometry.band_count(),
        bands_len: bands.iter().map(|(_, stat)| stat.len).sum(),
        allocated_bytes: bands.iter().map(|(_, stat)| stat.allocated_bytes).sum(),
        foreign: foreign.iter().map(ToString::to_string).collect(),
        can_clone: can_clone(bundle).ok(),
    })
}

/// Something wrong with a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where in the bundle.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verified {
    /// Where.
    #[serde(serialize_with = "as_text")]
    pub bundle: PathBuf,
    /// Bands read.
    pub bands: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bands that hold nothing but zeros: they could be left out.
    pub zero_bands: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// Names in its folder that no bundle has. They do no harm.
    pub foreign: Vec<String>,
}

/// Checks a bundle: what it says of itself, the names and lengths of its bands, and that every byte can be read.
pub fn verify(pools: &Pools, at: &Path, monitor: &dyn Monitor) -> Result<Verified> {
    let dir = open_root(at).on("open the bundle", at)?;
    let mut outcome = Verified { bundle: at.to_path_buf(), ..Verified::default() };
    let geometry = check_info(dir.as_ref(), at, &mut outcome.faults)?;
    let bundle = Bundle::with_geometry(dir, geometry).on("read the bundle", at)?;
    let Some(bundle) = bundle else {
        outcome.faults.push(Fault { path: "bands".to_owned(), what: "there is no such folder".to_owned() });
        return Ok(outcome);
    };
    let listing = bundle.list().on("list the bundle", at)?;
    let before = listing.looks();
    let foreign = listing.foreign.iter().map(ToString::to_string).collect();
    let bytes = listing.bands.iter().map(|(_, stat)| stat.len).sum();
    monitor.begin("checking", Some(listing.bands.len() as u64), Some(bytes));
    let checked: Vec<(Option<String>, bool)> = pools.io().install(|| {
        let check = |(band, stat): &(u64, Stat)| {
            if monitor.cancelled() {
                return (None, false);
            }
            let checked = check_band(&bundle, *band);
            monitor.advance(1, stat.len);
            checked.unwrap_or_else(|error| (Some(format!("it cannot be read: {error}")), false))
        };
        listing.bands.par_iter().with_max_len(1).map(check).collect()
    });
    monitor.end();
    if monitor.cancelled() {
        return Err(Error::Interrupted);
    }
    for ((band, _), (what, is_zero)) in listing.bands.iter().zip(checked) {
        outcome.zero_bands += u64::from(is_zero);
        outcome.faults.extend(what.map(|what| Fault { path: format!("bands/{}", band_name(*band)), what }));
    }
    for misfit in &listing.misfits {
        let what = "it has the name of a band and is no regular file".to_owned();
        outcome.faults.push(Fault { path: misfit.to_string(), what });
    }
    if bundle.list().on("list the bundle", at)?.looks() != before {
        return Err(Error::Refused {
            message: format!("'{}' was changed while it was checked", at.display()),
            hint: "pause what writes to the image, or unmount it, and try again",
        });
    }
    Ok(Verified { bands: listing.bands.len() as u64, bytes, foreign, ..outcome })
}

/// What the bundle says of itself, and its copy of that.
fn check_info(dir: &dyn Dir, at: &Path, faults: &mut Vec<Fault>) -> Result<Geometry> {
    let [info, copy] = [INFO_NAME, INFO_COPY_NAME].map(|name| read_info(dir, name).on("read", at.join(name)));
    let fault = |path: &str, what: String| Fault { path: path.to_owned(), what };
    match (info?, copy?) {
        (Some(Ok(info)), copy) => {
            faults.extend(match copy {
                Some(Ok(copy)) if copy != info => Some(fault(INFO_COPY_NAME, format!("it is no copy of {INFO_NAME}"))),
                Some(Err(error)) => Some(fault(INFO_COPY_NAME, error.to_string())),
                _ => None,
            });
            Ok(info)
        }
        (info, Some(Ok(copy))) => {
            let why = info.and_then(std::result::Result::err);
            let what = why.map_or("it is missing".to_owned(), |why| why.to_string());
            faults.push(fault(INFO_NAME, format!("{what}; {INFO_COPY_NAME} is a copy that can take its place")));
            Ok(copy)
        }
        (Some(Err(error)), _) => Err(Error::Refused {
            message: format!("'{}' cannot be understood: {error}", at.join(INFO_NAME).display()),
            hint: "restore the bundle from a checkpoint, or write its Info.plist anew",
        }),
        (None, _) => open(at).map(|bundle| bundle.geometry()),
    }
}

/// What is wrong with a band, and whether it is all zeros.
fn check_band(bundle: &Bundle, band: u64) -> io::Result<(Option<String>, bool)> {
    let geometry = bundle.geometry();
    let Some((file, stat)) = bundle.open_band(band)? else { return Ok((None, false)) };
    let is_zero = reads_as_zeros(&file, stat.len)?;
    let what = if geometry.len_of(band) == 0 {
        Some(format!("it lies beyond the end of the image, which has {} bytes", geometry.image_len))
    } else if stat.len > geometry.band_len {
        Some(format!("it has {} bytes, a band has {}", stat.len, geometry.band_len))
    } else {
        None
    };
    Ok((what, is_zero))
}

/// Reads all of a file: are there only zeros in it?
fn reads_as_zeros(file: &File, len: u64) -> io::Result<bool> {
    let mut all = true;
    for_data(file, 0..len, &mut |_, bytes| {
        all &= is_zero(bytes);
        Ok(true)
    })?;
    Ok(all)
}
