//! The image of a bundle at one point: as a checkpoint has it, or as it is on disk.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::disk::real::next_data;
use crate::base::disk::{IoContext, Stat};
use crate::format::bundle::{MAX_INFO_LEN, decode_info};
use crate::model::bundle::{BANDS_NAME, Geometry, INFO_NAME, band_name, parse_band_name};
use crate::model::checkpoint::Area;
use crate::model::id::ChunkId;
use crate::model::path::RepoPath;
use crate::model::recipe::Piece;
use crate::model::staging::StagedNode;
use crate::model::tree::{Content, Entry, Node, Tree};
use crate::ops::Result;
use crate::ops::scan::{list_bundle, open_bundle};
use crate::repo::{Repository, trees};
use crate::store::objects::ObjectStore;
use crate::store::pieces::Pieces;
use crate::store::{StoreError, worktable};
use crate::world::bundle::Bundle;
use crate::world::read;

/// Where the bytes of a band are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BandAt {
    /// In the repository.
    Stored(Content, u64),
    /// On disk only, as far as is known.
    Disk(u64),
}

impl BandAt {
    /// Length of the band's file.
    pub fn len(&self) -> u64 {
        match self {
            Self::Stored(_, len) | Self::Disk(len) => *len,
        }
    }
}

/// Bytes of a band that are no hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// A chunk of this length.
    Chunk(ChunkId, u32),
    /// So many bytes of which nothing is known.
    OnDisk(u64),
}

impl Data {
    /// How many bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Chunk(_, len) => u64::from(*len),
            Self::OnDisk(len) => *len,
        }
    }

    /// Is it known what they are?
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Chunk(..))
    }
}

/// An image.
#[derive(Debug)]
pub struct Image {
    objects: Arc<ObjectStore>,
    /// On disk.
    bundle: Option<Bundle>,
    /// How it is divided, if it says so.
    pub geometry: Option<Geometry>,
    /// Its bands.
    pub bands: BTreeMap<u64, BandAt>,
    /// The files beside the bands.
    pub frame: BTreeMap<RepoPath, BandAt>,
}

impl Image {
    /// The image of a bundle in a stored tree; without any band if the bundle is not in it.
    pub fn stored(repo: &Repository, tree: &Arc<Tree>, bundle: &RepoPath) -> Result<Self> {
        let objects = repo.objects();
        let mut image = Self {
            objects: Arc::clone(&objects),
            bundle: None,
            geometry: None,
            bands: BTreeMap::new(),
            frame: BTreeMap::new(),
        };
        let inside = match trees::lookup(&objects, tree, bundle)? {
            Some(Entry { node: Node::Dir { tree }, .. }) => objects.tree(&tree)?,
            None if bundle.is_root() => Arc::clone(tree),
            _ => return Ok(image),
        };
        for Entry { name, node, .. } in inside.entries() {
            match node {
                Node::File { len, content } => {
                    image.frame.insert(bundle.join(name)?, BandAt::Stored(*content, *len));
                }
                Node::Dir { tree } if name == BANDS_NAME.as_bytes() => {
                    for Entry { name, node, .. } in objects.tree(tree)?.entries() {
                        if let (Some(band), Node::File { len, content }) = (parse_band_name(name), node) {
                            image.bands.insert(band, BandAt::Stored(*content, *len));
                        }
                    }
                }
                _ => {}
            }
        }
        if let Some(BandAt::Stored(content, len)) = image.frame.get(&bundle.join(INFO_NAME.as_bytes())?)
            && *len <= MAX_INFO_LEN
        {
            let mut bytes = Vec::new();
            read_stored(&objects, content, *len, 0, *len as usize, &mut bytes)?;
            image.geometry = decode_info(&bytes).ok();
        }
        Ok(image)
    }

    /// The image as it is on disk. Bands that look as they did when they were stored are taken from the repository.
    pub fn on_disk(repo: &Repository, path: &RepoPath) -> Result<Self> {
        let bundle = open_bundle(repo, path)?;
        let state = repo.journal().read();
        let area = Area::Bundle(path.clone());
        let listing = list_bundle(repo, path)?;
        let place = |path: &RepoPath, stat: &Stat| -> Result<BandAt> {
            let known = worktable::known(&state, &area, path)?.filter(|known| known.is_unchanged(stat));
            Ok(match known.map(|known| known.node) {
                Some(StagedNode::File { len, content }) => BandAt::Stored(content, len),
                _ => BandAt::Disk(stat.len),
            })
        };
        let (mut bands, mut frame) = (BTreeMap::new(), BTreeMap::new());
        let folder = path.join(BANDS_NAME.as_bytes())?;
        for (band, stat) in &listing.bands {
            bands.insert(*band, place(&folder.join(band_name(*band).as_bytes())?, stat)?);
        }
        for (name, stat) in &listing.frame {
            let path = path.join(name.as_bytes())?;
            let at = place(&path, stat)?;
            frame.insert(path, at);
        }
        let geometry = Some(bundle.geometry());
        Ok(Self { objects: repo.objects(), bundle: Some(bundle), geometry, bands, frame })
    }

    /// What a band has beside holes, by its place.
    pub fn data(&self, band: u64) -> Result<BTreeMap<u64, Data>> {
        let mut found = BTreeMap::new();
        match (self.bands.get(&band), &self.bundle) {
            (Some(BandAt::Stored(content, len)), _) => {
                let mut at = 0u64;
                self.objects.pieces(content, *len, &mut |piece| {
                    if let Piece::Chunk { id, len } = piece {
                        found.insert(at, Data::Chunk(id, len));
                    }
                    at = at.saturating_add(piece.len());
                    Ok(())
                })?;
            }
            (Some(BandAt::Disk(_)), Some(bundle)) => {
                let shown = bundle.bands().path();
                if let Some((file, stat)) = bundle.open_band(band).on("read a band in", shown)? {
                    let mut at = 0;
                    while let Some((start, end)) = next_data(&file, at, stat.len).on("read a band in", shown)? {
                        found.insert(start, Data::OnDisk(end - start));
                        at = end;
                    }
                }
            }
            _ => {}
        }
        Ok(found)
    }

    /// Appends bytes of a band; what is not there reads as zeros.
    pub fn read_band(&self, band: u64, at: u64, len: usize, into: &mut Vec<u8>) -> Result<()> {
        let start = into.len();
        let there = |of: u64| of.saturating_sub(at).min(len as u64) as usize;
        match (self.bands.get(&band), &self.bundle) {
            (Some(BandAt::Stored(content, of)), _) => {
                read_stored(&self.objects, content, *of, at, there(*of), into)?;
            }
            (Some(BandAt::Disk(_)), Some(bundle)) => {
                let shown = bundle.bands().path();
                if let Some((file, stat)) = bundle.open_band(band).on("read a band in", shown)? {
                    read::append_range(&file, at, there(stat.len), into).on("read a band in", shown)?;
                }
            }
            _ => {}
        }
        into.resize(start + len, 0);
        Ok(())
    }
}

/// Appends a range of a stored file, which lies within it.
fn read_stored(
    objects: &ObjectStore,
    content: &Content,
    of: u64,
    at: u64,
    len: usize,
    into: &mut Vec<u8>,
) -> std::result::Result<(), StoreError> {
    let end = at + len as u64;
    let mut pieces = Pieces::new(objects, content, of, at..end)?;
    while let Some((start, piece)) = pieces.next()? {
        let range = at.max(start) - start..end.min(start + piece.len()) - start;
        match piece {
            Piece::Hole { .. } => into.resize(into.len() + (range.end - range.start) as usize, 0),
            Piece::Chunk { id, .. } => {
                let bytes = objects.chunk(&id)?;
                into.extend_from_slice(bytes.get(range.start as usize..range.end as usize).unwrap_or_default());
            }
        }
    }
    Ok(())
}

/// Bytes of an image that are read at a time by who looks into its file system, and kept.
const PAGE_LEN: u64 = 16 << 10;
/// Pages kept: 64 MiB hold the inodes and directories of a few hundred thousand files.
const PAGES_KEPT: usize = 4096;

/// An image as one stretch of bytes, for readers of file systems.
pub struct Whole {
    image: Image,
    geometry: Geometry,
    pages: HashMap<u64, Vec<u8>>,
}

impl Whole {
    /// Of an image that says how it is divided.
    pub fn new(image: Image, geometry: Geometry) -> Self {
        Self { image, geometry, pages: HashMap::new() }
    }

    fn page(&mut self, page: u64) -> Result<&[u8]> {
        if self.pages.len() >= PAGES_KEPT {
            self.pages.clear();
        }
        if !self.pages.contains_key(&page) {
            let (mut bytes, mut at) = (Vec::new(), page * PAGE_LEN);
            let end = at + PAGE_LEN;
            while at < end {
                let (band, inside) = (at / self.geometry.band_len, at % self.geometry.band_len);
                let len = (end - at).min(self.geometry.band_len - inside);
                self.image.read_band(band, inside, len as usize, &mut bytes)?;
                at += len;
            }
            self.pages.insert(page, bytes);
        }
        Ok(self.pages.get(&page).map(Vec::as_slice).unwrap_or_default())
    }

    fn read(&mut self, start: u64, into: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < into.len() {
            let at = start.saturating_add(done as u64);
            let offset = (at % PAGE_LEN) as usize;
            let page = self.page(at / PAGE_LEN)?;
            let from = page.get(offset..).unwrap_or_default();
            let len = from.len().min(into.len() - done);
            if let (Some(to), Some(from)) = (into.get_mut(done..done + len), from.get(..len)) {
                to.copy_from_slice(from);
            }
            done += len;
        }
        Ok(())
    }
}

impl ext4_view::Ext4Read for Whole {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let end = start_byte.checked_add(dst.len() as u64);
        if end.is_none_or(|end| end > self.geometry.image_len) {
            return Err("it lies beyond the end of the image".into());
        }
        Ok(self.read(start_byte, dst)?)
    }
}
