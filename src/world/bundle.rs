//! Sparse bundles: what a folder of bands is, and its image read and written.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rayon::prelude::*;

use super::dirs::{Folders, IfAbsent};
use crate::base::disk::real::stat_of_file;
use crate::base::disk::{Dir, DirItem, FileKind, Stat, ensure_dir, is_temp_name, write_atomic};
use crate::format::FormatError;
use crate::format::bundle::{MAX_INFO_LEN, decode_info, encode_info};
use crate::model::bundle::{BANDS_NAME, Geometry, INFO_COPY_NAME, INFO_NAME, TOKEN_NAME, band_name, parse_band_name};
use crate::model::path::{CONTROL_DIR, NameError, RepoPath, escape};
use crate::model::staging::SeenStat;

/// Modes of what is made, before the umask.
const NEW_DIR_MODE: u32 = 0o777;
const NEW_FILE_MODE: u32 = 0o666;

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
        match read_info(dir.as_ref(), INFO_NAME)? {
            Some(Ok(geometry)) => Ok(Some(Self { dir, bands, geometry })),
            None | Some(Err(FormatError::Foreign(_))) => Ok(None),
            Some(Err(error)) => Err(io::Error::other(error)),
        }
    }

    /// One that is as it is whatever its `Info.plist` says; `None` if it has no bands.
    pub fn with_geometry(dir: Arc<dyn Dir>, geometry: Geometry) -> io::Result<Option<Self>> {
        let bands = present(dir.open_dir(OsStr::new(BANDS_NAME)))?;
        Ok(bands.map(|bands| Self { dir, bands, geometry }))
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

/// Reads the `Info.plist` of a folder, or its copy; `None` if it is not there.
pub fn read_info(dir: &dyn Dir, name: &str) -> io::Result<Option<Result<Geometry, FormatError>>> {
    let Some(file) = present(dir.open(OsStr::new(name)))? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MAX_INFO_LEN + 1).read_to_end(&mut bytes)?;
    Ok(Some(decode_info(&bytes)))
}

/// A name in a bundle's folder, or in its folder of bands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inner {
    /// It is in the folder of bands.
    pub in_bands: bool,
    /// The name.
    pub name: OsString,
}

impl Inner {
    /// Its path, given that of the bundle.
    pub fn path(&self, bundle: &RepoPath) -> Result<RepoPath, NameError> {
        let folder = if self.in_bands { &bundle.join(BANDS_NAME.as_bytes())? } else { bundle };
        folder.join(self.name.as_bytes())
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = escape(self.name.as_bytes());
        if self.in_bands { write!(f, "{BANDS_NAME}/{name}") } else { f.write_str(&name) }
    }
}

/// What is in a bundle's folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The folder of bands.
    pub folder: Option<Stat>,
    /// Regular files beside it, in the order of their names.
    pub frame: Vec<(OsString, Stat)>,
    /// Bands in the order of their names, and what they look like.
    pub bands: Vec<(u64, Stat)>,
    /// What no bundle has: it is not looked into.
    pub foreign: Vec<Inner>,
    /// What stands where a band should and is no regular file. It is not followed.
    pub misfits: Vec<Inner>,
    /// Unfinished files of stopped processes, and what kind of file they are.
    pub leftovers: Vec<(Inner, FileKind)>,
}

impl Listing {
    /// What two looks at the same unchanged bundle have in common.
    pub fn looks(&self) -> (Vec<(u64, u32, SeenStat)>, Vec<(&OsString, u32, SeenStat)>) {
        let bands = self.bands.iter().map(|(band, stat)| (*band, stat.mode, SeenStat::from(stat)));
        let frame = self.frame.iter().map(|(name, stat)| (name, stat.mode, SeenStat::from(stat)));
        (bands.collect(), frame.collect())
    }
}

/// Does everything look as it did? Names are listed again only if the times of folders do not tell when they come and go.
pub fn is_unchanged(dir: &dyn Dir, before: &Listing, trusts_folder_times: bool) -> io::Result<bool> {
    if !trusts_folder_times {
        return Ok(list(dir)?.looks() == before.looks());
    }
    let now = list_frame(dir)?;
    let times = |stat: Option<Stat>| stat.map(|stat| SeenStat::from(&stat));
    if times(now.folder) != times(before.folder) || now.looks().1 != before.looks().1 {
        return Ok(false);
    }
    let Some(bands) = present(dir.open_dir(OsStr::new(BANDS_NAME)))? else { return Ok(before.bands.is_empty()) };
    let same = |(band, was): &(u64, Stat)| -> io::Result<bool> {
        let now = bands.stat(OsStr::new(&band_name(*band)))?;
        Ok(now.is_some_and(|now| now.mode == was.mode && SeenStat::from(&now) == SeenStat::from(was)))
    };
    let all: io::Result<Vec<bool>> = if before.bands.len() > BANDS_PER_TASK {
        before.bands.par_iter().with_min_len(BANDS_PER_TASK / 2).map(same).collect()
    } else {
        before.bands.iter().map(same).collect()
    };
    Ok(all?.into_iter().all(|same| same))
}

/// Bands that a thread looks at in one go; a `lstat` takes about two microseconds.
const BANDS_PER_TASK: usize = 512;

/// Looks at everything in a bundle's folder, whether it is a bundle or not; large ones by the threads of the current pool.
pub fn list(dir: &dyn Dir) -> io::Result<Listing> {
    let mut listing = list_frame(dir)?;
    let Some(bands) = present(dir.open_dir(OsStr::new(BANDS_NAME)))? else { return Ok(listing) };
    let mut found: Vec<(OsString, u64)> = Vec::new();
    for DirItem { name, kind } in bands.list()? {
        match parse_band_name(name.as_bytes()) {
            Some(band) if kind == FileKind::File => found.push((name, band)),
            Some(_) => listing.misfits.push(Inner { in_bands: true, name }),
            _ if is_temp_name(&name) => listing.leftovers.push((Inner { in_bands: true, name }, kind)),
            _ => listing.foreign.push(Inner { in_bands: true, name }),
        }
    }
    found.sort_unstable();
    let look = |(name, band): &(OsString, u64)| Ok(bands.stat(name)?.map(|stat| (*band, stat)));
    let looked: io::Result<Vec<Option<(u64, Stat)>>> = if found.len() > BANDS_PER_TASK {
        found.par_iter().with_min_len(BANDS_PER_TASK / 2).map(look).collect()
    } else {
        found.iter().map(look).collect()
    };
    listing.bands = looked?.into_iter().flatten().collect();
    listing.foreign.sort_unstable();
    listing.misfits.sort_unstable();
    Ok(listing)
}

/// What is beside the folder of bands, and the looks of that folder before anything in it is looked at.
fn list_frame(dir: &dyn Dir) -> io::Result<Listing> {
    let mut listing = Listing { folder: dir.stat(OsStr::new(BANDS_NAME))?, ..Listing::default() };
    listing.folder = listing.folder.filter(|stat| stat.kind == FileKind::Dir);
    for DirItem { name, kind } in dir.list()? {
        let is_bands = name == BANDS_NAME;
        match kind {
            FileKind::Dir if is_bands || name == CONTROL_DIR => {}
            _ if is_temp_name(&name) => listing.leftovers.push((Inner { in_bands: false, name }, kind)),
            FileKind::File if !is_bands && RepoPath::root().join(name.as_bytes()).is_ok() => {
                listing.frame.extend(dir.stat(&name)?.map(|stat| (name, stat)));
            }
            _ => listing.foreign.push(Inner { in_bands: false, name }),
        }
    }
    listing.frame.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(listing)
}

impl Bundle {
    /// Looks at everything.
    pub fn list(&self) -> io::Result<Listing> {
        list(self.dir.as_ref())
    }

    /// Opens a band; `None` if it is not there.
    pub fn open_band(&self, band: u64) -> io::Result<Option<(File, Stat)>> {
        let Some(file) = present(self.bands.open(OsStr::new(&band_name(band))))? else { return Ok(None) };
        let stat = stat_of_file(&file)?;
        match stat.kind {
            FileKind::File => Ok(Some((file, stat))),
            _ => Err(io::Error::other(format!("the band {} is not a regular file", band_name(band)))),
        }
    }
}

/// Makes the frame of a bundle in an empty folder: everything but its bands. `Info.plist`, which makes it a bundle, comes
/// last.
pub fn make_frame(dir: &Arc<dyn Dir>, geometry: Geometry) -> io::Result<Bundle> {
    let info = encode_info(&geometry).map_err(io::Error::other)?;
    let bands = ensure_dir(dir.as_ref(), OsStr::new(BANDS_NAME), NEW_DIR_MODE)?;
    write_atomic(dir.as_ref(), OsStr::new(TOKEN_NAME), NEW_FILE_MODE, &[])?;
    for name in [INFO_COPY_NAME, INFO_NAME] {
        write_atomic(dir.as_ref(), OsStr::new(name), NEW_FILE_MODE, &info)?;
    }
    Ok(Bundle { dir: Arc::clone(dir), bands, geometry })
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
