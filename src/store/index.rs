//! Chunk index: from an object's id to its place in a layer.
//!
//! Layers carry their own sorted tables, so a new layer needs no index to be found; when several have piled up, an index
//! file over them takes over, and small index files are merged into larger ones. Everything here is derived: an
//! index that names a layer which is gone is ignored, and an entry counts only if the layer's own table confirms it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;

use super::StoreError;
use super::layers::LayerSet;
use crate::base::disk::map::{self, FileBytes};
use crate::base::disk::{Dir, IoContext, is_temp_name, write_atomic};
use crate::format::index::{IndexEntry, IndexHeader, IndexView, decode_header, encode};
use crate::format::layer::ObjectRow;
use crate::format::table::prefix_of;
use crate::model::id::{LayerId, ObjectId};

/// The suffix of index files.
const SUFFIX: &str = ".idx";
/// This many layers in no index are worth one: a lookup that misses costs about 0.1 us a table.
pub const LAYERS_PER_INDEX: usize = 8;
/// An index is merged with the next when it is at most this many times larger, so that few are left and each entry is
/// rewritten a logarithmic number of times.
const MERGE_RATIO: u64 = 4;

/// Objects that are looked up together: enough that memory has something to do, and that what was read is still in the
/// processor's cache when it is compared.
const ASKED_AT_ONCE: usize = 128;

/// An object and the layer that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// The layer's place in the set.
    pub layer: u32,
    /// The object.
    pub object: ObjectRow,
}

#[derive(Debug)]
struct IndexFile {
    name: String,
    header: IndexHeader,
    bytes: FileBytes,
    /// From the place in this index's list to the place in the layer set.
    layers: Vec<Option<u32>>,
}

/// Finds objects.
#[derive(Debug)]
pub struct ChunkIndex {
    dir: Option<Arc<dyn Dir>>,
    files: Vec<IndexFile>,
    /// Layers that no index covers.
    loose: Vec<u32>,
}

impl ChunkIndex {
    /// What was read of the index files is not needed soon.
    pub fn pass_all(&self) {
        self.files.iter().for_each(|file| file.bytes.pass(0..file.bytes.len()));
    }

    /// Opens the index files in `dir` that are valid for `layers`. Cost: one open and one header a file.
    pub fn open(dir: Option<Arc<dyn Dir>>, layers: &LayerSet) -> Result<Self, StoreError> {
        let mut files = Vec::new();
        let numbers: BTreeMap<LayerId, u32> = layers.layers().iter().zip(0..).map(|((id, _), n)| (*id, n)).collect();
        if let Some(dir) = &dir {
            for name in index_names(dir.as_ref())? {
                // A damaged index is as good as none: the layers' own tables answer.
                if let Some(file) = open_file(dir.as_ref(), name, layers, &numbers)? {
                    files.push(file);
                }
            }
        }
        let mut covered = vec![false; layers.layers().len()];
        for number in files.iter().flat_map(|file| file.layers.iter().flatten()) {
            if let Some(slot) = covered.get_mut(*number as usize) {
                *slot = true;
            }
        }
        let loose = covered.iter().zip(0..).filter(|(covered, _)| !**covered).map(|(_, n)| n).collect();
        Ok(Self { dir, files, loose })
    }

    /// Where an object is; the layer's own table was asked.
    ///
    /// # Errors
    /// A layer that cannot be read is an error only if the object is in no other.
    pub fn find(&self, layers: &LayerSet, id: &ObjectId) -> Result<Option<Located>, StoreError> {
        let mut failure = None;
        for &layer in &self.loose {
            match find_in(layers, layer, id) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(error) => failure = Some(error),
            }
        }
        for file in self.files.iter().rev() {
            let view = file.view()?;
            for entry in view.find(prefix_of(id.digest())) {
                let Some(&Some(layer)) = file.layers.get(entry.layer as usize) else { continue };
                match layers.reader(layer).map(|reader| reader.object(entry.row)) {
                    Ok(Ok(object)) if object.id == *id => return Ok(Some(Located { layer, object })),
                    // A row that the layer does not have is a wrong hint, no damage of the layer.
                    Ok(_) => {}
                    Err(error) => failure = Some(error),
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Which of many objects are there: what [`Self::find`] says of each, and fails where it fails. Much is read before the
    /// first is compared, so that memory answers several at a time: among ten million objects this takes half the time
    /// (`cargo bench --bench requirements -- finding`).
    pub fn contains_each(&self, layers: &LayerSet, ids: &[ObjectId]) -> Result<Vec<bool>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(ASKED_AT_ONCE) {
            match self.look_up(layers, ids) {
                Some(there) => found.extend(there),
                // Something is damaged: what is there all the same, and what is wrong, is found one by one.
                None => {
                    for id in ids {
                        found.push(self.find(layers, id)?.is_some());
                    }
                }
            }
        }
        Ok(found)
    }

    /// Which of these are there; `None` if anything is not as it should be.
    fn look_up(&self, layers: &LayerSet, ids: &[ObjectId]) -> Option<Vec<bool>> {
        // Layer, row, and which of the objects may be there.
        let mut hints = Vec::with_capacity(ids.len());
        for &layer in &self.loose {
            let rows = layers.reader(layer).ok()?.tables().ok()?.find_each(ids)?;
            hints.extend(rows.into_iter().map(|(number, row)| (layer, row, number)));
        }
        let prefixes: Vec<u64> = ids.iter().map(|id| prefix_of(id.digest())).collect();
        for file in &self.files {
            let layer_of = |entry: &IndexEntry| *file.layers.get(entry.layer as usize)?;
            let entries = file.view().ok()?.find_each(&prefixes)?;
            hints.extend(entries.iter().filter_map(|(number, entry)| Some((layer_of(entry)?, entry.row, *number))));
        }
        hints.sort_unstable();
        let mut found = vec![false; ids.len()];
        for hints in hints.chunk_by(|(one, ..), (other, ..)| one == other) {
            let reader = layers.reader(hints.first()?.0).ok()?;
            let asked = hints.iter().filter_map(|(_, row, number)| Some((*row, *ids.get(*number)?)));
            let held = reader.tables().ok()?.hold_each(&asked.collect::<Vec<_>>())?;
            for ((.., number), is_held) in hints.iter().zip(held) {
                *found.get_mut(*number)? |= is_held;
            }
        }
        Some(found)
    }

    /// Where an object is, by the layers' own tables alone: for an object that must be there but was not found.
    pub fn search_layers(layers: &LayerSet, id: &ObjectId) -> Option<Located> {
        (0..layers.layers().len() as u32).find_map(|layer| find_in(layers, layer, id).ok().flatten())
    }

    /// Is there a folder for index files?
    pub fn has_dir(&self) -> bool {
        self.dir.is_some()
    }

    /// Number of index files and of layers that none covers.
    pub fn shape(&self) -> (usize, usize) {
        (self.files.len(), self.loose.len())
    }

    /// Removes damaged files; lookups go through the layers until a writer makes new ones. Says how many.
    pub fn remove_damaged(&self) -> Result<u64, StoreError> {
        let Some(dir) = &self.dir else { return Ok(0) };
        let damaged = self.verify();
        for name in &damaged {
            dir.remove_file(OsStr::new(name)).on("remove", dir.path().join(name))?;
        }
        Ok(damaged.len() as u64)
    }

    /// Checks every index file; gives the names of those that are damaged.
    pub fn verify(&self) -> Vec<String> {
        let bad = |file: &&IndexFile| file.view().and_then(|view| view.verify().map_err(|e| file.wrong(e))).is_err();
        self.files.iter().filter(bad).map(|file| file.name.clone()).collect()
    }

    /// Writes an index over the loose layers if there are at least `least` of them, taking in smaller indexes. Needs the writer lock.
    ///
    /// The order is: new file durable, then old files removed. A crash between leaves both, which agree.
    pub fn maintain(&self, layers: &LayerSet, least: usize) -> Result<bool, StoreError> {
        let Some(dir) = &self.dir else { return Ok(false) };
        if self.loose.len() < least {
            return Ok(false);
        }
        let mut entry_count: u64 = 0;
        for &number in &self.loose {
            entry_count += u64::from(layers.reader(number)?.footer().object_count);
        }
        let mut merged: Vec<&IndexFile> = self.files.iter().collect();
        merged.sort_by_key(|file| file.header.entry_count);
        merged.retain(|file| {
            let is_stale = file.layers.iter().all(Option::is_none);
            let small = is_stale || u64::from(file.header.entry_count) <= entry_count.saturating_mul(MERGE_RATIO);
            entry_count += if small { u64::from(file.header.entry_count) } else { 0 };
            small
        });
        self.write(dir.as_ref(), layers, &merged)?;
        Ok(true)
    }

    fn write(&self, dir: &dyn Dir, layers: &LayerSet, merged: &[&IndexFile]) -> Result<(), StoreError> {
        let mut numbers: Vec<u32> = self.loose.clone();
        numbers.extend(merged.iter().flat_map(|file| file.layers.iter().flatten()));
        numbers.sort_unstable();
        numbers.dedup();
        let place: BTreeMap<u32, u32> = numbers.iter().copied().zip(0..).collect();
        let mut entries = Vec::new();
        let is_sound = |file: &&&IndexFile| file.view().is_ok_and(|view| view.verify().is_ok());
        // What a damaged index has lost would be lost for good under the new one's checksum: its layers are asked instead.
        let (sound, damaged): (Vec<&IndexFile>, Vec<&IndexFile>) = merged.iter().partition(is_sound);
        for &number in self.loose.iter().chain(damaged.iter().flat_map(|file| file.layers.iter().flatten())) {
            let reader = layers.reader(number)?;
            let layer = place.get(&number).copied().unwrap_or_default();
            let rows = reader.tables()?.ids().iter().zip(0..);
            entries.extend(rows.map(|(id, row)| IndexEntry { prefix: prefix_of(id), layer, row }));
        }
        for file in sound {
            let layer_of = |old: u32| place.get(file.layers.get(old as usize)?.as_ref()?).copied();
            let view = file.view()?;
            let moved = view.entries().filter_map(|entry| Some(IndexEntry { layer: layer_of(entry.layer)?, ..entry }));
            entries.extend(moved);
        }
        entries.sort_unstable();
        let ids: Vec<LayerId> =
            numbers.iter().filter_map(|n| layers.layers().get(*n as usize)).map(|(id, _)| *id).collect();
        let name = next_name(dir)?;
        let bytes = encode(layers.repo(), &ids, &entries);
        write_atomic(dir, OsStr::new(&name), 0o600, &bytes).on("write", dir.path().join(&name))?;
        for file in merged {
            dir.remove_file(OsStr::new(&file.name)).on("remove", dir.path().join(&file.name))?;
        }
        Ok(())
    }
}

fn find_in(layers: &LayerSet, layer: u32, id: &ObjectId) -> Result<Option<Located>, StoreError> {
    let reader = layers.reader(layer)?;
    let Some(row) = reader.find(id)? else { return Ok(None) };
    Ok(Some(Located { layer, object: reader.object(row)? }))
}

impl IndexFile {
    fn view(&self) -> Result<IndexView<'_>, StoreError> {
        IndexView::new(&self.header, &self.bytes).map_err(|source| self.wrong(source))
    }

    fn wrong(&self, source: crate::format::FormatError) -> StoreError {
        StoreError::Format { subject: format!("index/{}", self.name), source }
    }
}

/// The index files' names, oldest first.
fn index_names(dir: &dyn Dir) -> Result<Vec<String>, StoreError> {
    let items = dir.list().on("list", dir.path())?;
    let mut names: Vec<(u64, String)> = items
        .into_iter()
        .filter(|item| !is_temp_name(&item.name))
        .filter_map(|item| item.name.into_string().ok())
        .filter_map(|name| Some((name.strip_suffix(SUFFIX)?.parse().ok()?, name)))
        .collect();
    names.sort();
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

fn next_name(dir: &dyn Dir) -> Result<String, StoreError> {
    let last = index_names(dir)?.into_iter().next_back();
    let last = last.and_then(|name| name.strip_suffix(SUFFIX)?.parse::<u64>().ok()).unwrap_or(0);
    Ok(format!("{}{SUFFIX}", last + 1))
}

/// Opens an index if it is sound and names live layers only.
fn open_file(
    dir: &dyn Dir,
    name: String,
    layers: &LayerSet,
    numbers: &BTreeMap<LayerId, u32>,
) -> Result<Option<IndexFile>, StoreError> {
    let Ok(file) = dir.open(OsStr::new(&name)) else { return Ok(None) };
    let path = dir.path().join(&name);
    let len = file.metadata().on("read", &path)?.len();
    let bytes = map::map(&file, 0, len as usize).on("map", &path)?;
    let Ok(header) = decode_header(layers.repo(), &bytes) else { return Ok(None) };
    let layers = header.layers.iter().map(|id| numbers.get(id).copied()).collect();
    Ok(Some(IndexFile { name, header, bytes, layers }))
}
