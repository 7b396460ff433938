//! `checkpoint diff` of a bundle: which bands and bytes of the image differ, and which files inside it.

use std::collections::BTreeSet;
use std::ops::Range;

use rayon::prelude::*;
use serde::Serialize;

use super::image::{BandAt, Image, Whole};
use super::inside::{FileInside, differing};
use crate::base::monitor::Monitor;
use crate::model::bundle::{BANDS_NAME, Geometry, SECTOR_LEN, band_name};
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::ops::capture::Change;
use crate::ops::compare::same_content;
use crate::ops::{Error, Result};
use crate::repo::Repository;
use crate::transform::chunker::ZERO_BLOCK_LEN;

/// What to compare.
#[derive(Debug, Clone)]
pub struct Options {
    /// A checkpoint.
    pub old: u64,
    /// Another one; `None`: the bundle on disk.
    pub new: Option<u64>,
    /// The bundle.
    pub bundle: RepoPath,
    /// Only these bands; all if empty.
    pub paths: Vec<RepoPath>,
    /// Look into the file system of the image as well.
    pub inside: bool,
}

/// Bytes of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ImageRange {
    /// Where they begin in the image.
    pub start: u64,
    /// How many.
    pub len: u64,
}

/// A band that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BandChange {
    /// Its path in the work tree.
    pub path: RepoPath,
    /// Its number.
    pub band: u64,
    /// How.
    pub change: Change,
    /// Which bytes of the image differ, in whole sectors of 512 bytes. None, if the band came or went with zeros.
    pub ranges: Vec<ImageRange>,
}

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The bundle.
    pub bundle: RepoPath,
    /// Bands.
    pub bands: Vec<BandChange>,
    /// Bytes of the image that differ.
    pub changed_bytes: u64,
    /// Files of the bundle beside the bands.
    pub frame: Vec<(RepoPath, Change)>,
    /// Files inside the image; `None` if they were not looked for or cannot be read.
    pub files: Option<Vec<FileInside>>,
    /// Why the files inside cannot be read.
    pub files_unreadable: Option<String>,
}

/// Compares a bundle at two points.
pub fn diff(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let path = &options.bundle;
    let side = |number: u64| {
        let tree = repo.tree_of(&repo.resolve_point(&format!("@{number}"))?)?;
        Image::stored(repo, &tree, path)
    };
    let old = side(options.old)?;
    let new = options.new.map_or_else(|| Image::on_disk(repo, path), side)?;
    // Of an image that has shrunk, or grown, also what only one of the two has.
    let longer = [old.geometry, new.geometry].into_iter().flatten().max_by_key(|geometry| geometry.image_len);
    let geometry = longer.ok_or_else(|| Error::Refused {
        message: format!("neither of the two says how the image of '{path}' is divided: Info.plist is missing"),
        hint: "'digstore cat @N:PATH' reads single bands",
    })?;
    if [old.geometry, new.geometry].into_iter().flatten().any(|side| side.band_len != geometry.band_len) {
        return Err(Error::Refused {
            message: format!("the image of '{path}' is divided into bands of another length at the two points"),
            hint: "restore the older point elsewhere, and compare the images that 'bundle export' writes",
        });
    }
    let scopes = Scopes::or_everything(&options.paths);
    let numbers: BTreeSet<u64> = old.bands.keys().chain(new.bands.keys()).copied().collect();
    let differ = |band: &u64| old.bands.get(band) != new.bands.get(band) || is_on_disk(new.bands.get(band));
    let suspects: Vec<u64> = numbers.into_iter().filter(differ).collect();
    let bytes = suspects.iter().map(|band| geometry.len_of(*band)).sum();
    monitor.begin("comparing", Some(suspects.len() as u64), Some(bytes));
    let compare = |band: &u64| -> Result<Option<BandChange>> {
        let path = path.join(BANDS_NAME.as_bytes())?.join(band_name(*band).as_bytes())?;
        if monitor.cancelled() || !scopes.contains(&path) {
            return Ok(None);
        }
        // A band beyond the end of the image has no bytes of it.
        let mut ranges = ranges_of_band([&old, &new], *band, geometry, monitor)?;
        ranges.iter_mut().for_each(|range| range.start += band * geometry.band_len);
        monitor.advance(1, geometry.len_of(*band));
        let change = match (old.bands.get(band), new.bands.get(band)) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            (Some(a), Some(b)) if ranges.is_empty() && a.len() == b.len() => return Ok(None),
            _ => Change::Modified,
        };
        Ok(Some(BandChange { path, band: *band, change, ranges }))
    };
    let compared: Vec<Option<BandChange>> =
        repo.pools().cpu().install(|| suspects.par_iter().with_max_len(1).map(compare).collect::<Result<_>>())?;
    monitor.end();
    if monitor.cancelled() {
        return Err(Error::Interrupted);
    }
    let bands: Vec<BandChange> = compared.into_iter().flatten().collect();
    let changed_bytes = bands.iter().flat_map(|band| &band.ranges).map(|range| range.len).sum();
    let frame = frame_changes(repo, &old, &new, &scopes)?;
    let mut outcome = Outcome { bundle: path.clone(), bands, changed_bytes, frame, ..Outcome::default() };
    if options.inside && outcome.changed_bytes > 0 {
        let [old, new] = [old, new].map(|image| Whole::new(image, geometry));
        match differing(old, new, monitor) {
            _ if monitor.cancelled() => return Err(Error::Interrupted),
            Ok(files) => outcome.files = Some(files),
            Err(why) => outcome.files_unreadable = Some(why),
        }
    }
    Ok(outcome)
}

fn is_on_disk(at: Option<&BandAt>) -> bool {
    matches!(at, Some(BandAt::Disk(_)))
}

/// The sectors of a band that differ, as far as the image reaches.
fn ranges_of_band(sides: [&Image; 2], band: u64, geometry: Geometry, monitor: &dyn Monitor) -> Result<Vec<ImageRange>> {
    let [before, after] = [sides[0].data(band)?, sides[1].data(band)?];
    let most = geometry.len_of(band);
    // What is in neither is zeros in both.
    let mut suspects: Vec<Range<u64>> = Vec::new();
    for (own, other) in [(&before, &after), (&after, &before)] {
        for (at, data) in own {
            let same = data.is_stored() && other.get(at) == Some(data);
            let end = at.saturating_add(data.len()).min(most).next_multiple_of(SECTOR_LEN);
            suspects.extend((!same).then(|| at - at % SECTOR_LEN..end));
        }
    }
    suspects.sort_unstable_by_key(|range| range.start);
    let (mut found, mut a, mut b) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = 0;
    for suspect in suspects {
        let mut at = suspect.start.max(done);
        while at < suspect.end {
            if monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            let len = (suspect.end - at).min(ZERO_BLOCK_LEN as u64) as usize;
            a.clear();
            b.clear();
            sides[0].read_band(band, at, len, &mut a)?;
            sides[1].read_band(band, at, len, &mut b)?;
            add_differing_sectors(at, &a, &b, &mut found);
            at += len as u64;
        }
        done = done.max(suspect.end);
    }
    Ok(found)
}

fn add_differing_sectors(at: u64, a: &[u8], b: &[u8], found: &mut Vec<ImageRange>) {
    let sector = SECTOR_LEN as usize;
    for (number, (a, b)) in a.chunks(sector).zip(b.chunks(sector)).enumerate() {
        if a == b {
            continue;
        }
        let (start, len) = (at + (number * sector) as u64, a.len() as u64);
        match found.last_mut() {
            Some(last) if last.start + last.len == start => last.len += len,
            _ => found.push(ImageRange { start, len }),
        }
    }
}

/// Files beside the bands that differ.
fn frame_changes(repo: &Repository, old: &Image, new: &Image, scopes: &Scopes) -> Result<Vec<(RepoPath, Change)>> {
    let paths: BTreeSet<&RepoPath> = old.frame.keys().chain(new.frame.keys()).collect();
    let mut changes = Vec::new();
    for path in paths.into_iter().filter(|path| scopes.contains(path)) {
        let change = match (old.frame.get(path), new.frame.get(path)) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            (Some(a), Some(b)) if a == b => continue,
            (Some(BandAt::Stored(content, len)), Some(BandAt::Disk(_)))
                if same_content(&repo.objects(), repo.work(), path, content, *len)? =>
            {
                continue;
            }
            _ => Change::Modified,
        };
        changes.push((path.clone(), change));
    }
    Ok(changes)
}
