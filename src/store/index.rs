//! Chunk index: from an object's id to its place in a layer.
//!
//! Layers carry their own sorted tables, so a new layer needs no index to be found; when several have piled up, an index
//! file over them takes over, and small index files are merged into larger ones. Everything here is derived: an
//! index that names a layer which is gone is ignored, and an entry counts only if the layer's own table confirms it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::StoreError;
use super::layers::LayerSet;
use crate::base::disk::map::{self, FileBytes};
use crate::base::disk::{Dir, DiskError, IoContext, is_temp_name, write_atomic_with};
use crate::format::index::{Encoder, IndexEntry, IndexHeader, IndexView, decode_header};
use crate::format::layer::ObjectRow;
use crate::format::table::{bucket_of, fanout_bits, prefix_of};
use crate::format::{FormatError, RepoId};
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

/// Entries of a new index that are sorted and written together: 16 MiB of them. Prefixes are spread evenly.
const ENTRIES_AT_ONCE: usize = 1 << 20;

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
    /// Files that cannot be read as an index.
    unreadable: Vec<String>,
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
        let (mut files, mut unreadable) = (Vec::new(), Vec::new());
        let numbers: BTreeMap<LayerId, u32> = layers.layers().iter().zip(0..).map(|((id, _), n)| (*id, n)).collect();
        if let Some(dir) = &dir {
            for name in index_names(dir.as_ref())? {
                // A writer may have taken it into another one.
                let Ok(file) = dir.open(OsStr::new(&name)) else { continue };
                let path = dir.path().join(&name);
                match read_file(&file, name, layers.repo(), &numbers).on("read", path)? {
                    Ok(file) => files.push(file),
                    // A damaged index is as good as none: the layers' own tables answer.
                    Err(name) => unreadable.push(name),
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
        Ok(Self { dir, files, unreadable, loose })
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
        let damaged = self.files.iter().filter(bad).map(|file| &file.name);
        damaged.chain(&self.unreadable).cloned().collect()
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
        self.write(dir.as_ref(), layers, &merged, ENTRIES_AT_ONCE)?;
        Ok(true)
    }

    fn write(&self, dir: &dyn Dir, layers: &LayerSet, merged: &[&IndexFile], at_once: usize) -> Result<(), StoreError> {
        let mut numbers: Vec<u32> = self.loose.clone();
        numbers.extend(merged.iter().flat_map(|file| file.layers.iter().flatten()));
        numbers.sort_unstable();
        numbers.dedup();
        let place: BTreeMap<u32, u32> = numbers.iter().copied().zip(0..).collect();
        let is_sound = |file: &&&IndexFile| file.view().is_ok_and(|view| view.verify().is_ok());
        // What a damaged index has lost would be lost for good under the new one's checksum: its layers are asked instead.
        let (sound, damaged): (Vec<&IndexFile>, Vec<&IndexFile>) = merged.iter().partition(is_sound);
        let asked = self.loose.iter().chain(damaged.iter().flat_map(|file| file.layers.iter().flatten()));
        let sources = Sources { set: layers, layers: asked.copied().collect(), files: sound, place };
        let ids: Vec<LayerId> =
            numbers.iter().filter_map(|n| layers.layers().get(*n as usize)).map(|(id, _)| *id).collect();
        let name = next_name(dir)?;
        let path = dir.path().join(&name);
        let wrap = |source| StoreError::from(DiskError { action: "write", path: path.clone(), source });
        write_atomic_with(dir, OsStr::new(&name), 0o600, wrap, |out| {
            let buckets = sources.count()?;
            let (mut encoder, start) = Encoder::start(layers.repo(), &ids, &buckets);
            out.write(&start).map_err(wrap)?;
            let mut entries = Vec::new();
            for prefixes in parts(&buckets, at_once) {
                entries.clear();
                sources.visit(prefixes, &mut |entry| entries.push(entry))?;
                entries.sort_unstable();
                out.write(&encoder.entries(&entries)).map_err(wrap)?;
            }
            out.write(&encoder.end()).map_err(wrap)
        })?;
        for name in merged.iter().map(|file| &file.name).chain(&self.unreadable) {
            dir.remove_file(OsStr::new(name)).on("remove", dir.path().join(name))?;
        }
        Ok(())
    }
}

/// What a new index is made of.
struct Sources<'a> {
    set: &'a LayerSet,
    /// Layers whose own tables are asked.
    layers: Vec<u32>,
    /// Indexes that are taken in.
    files: Vec<&'a IndexFile>,
    /// From the place of a layer in the set to that in the new index's list.
    place: BTreeMap<u32, u32>,
}

impl Sources<'_> {
    /// Calls `each` with all entries whose prefix is in a range, source by source.
    fn visit(&self, prefixes: RangeInclusive<u64>, each: &mut dyn FnMut(IndexEntry)) -> Result<(), StoreError> {
        let is_in = |entry: &IndexEntry| entry.prefix <= *prefixes.end();
        for number in &self.layers {
            let reader = self.set.reader(*number)?;
            let layer = self.place.get(number).copied().unwrap_or_default();
            let ids = reader.tables()?.ids();
            let first = ids.partition_point(|id| prefix_of(id) < *prefixes.start());
            let rows = ids.iter().zip(0..).skip(first);
            let entries = rows.map(|(id, row)| IndexEntry { prefix: prefix_of(id), layer, row });
            entries.take_while(is_in).for_each(&mut *each);
        }
        for file in &self.files {
            let layer_of = |old: u32| self.place.get(file.layers.get(old as usize)?.as_ref()?).copied();
            let entries = file.view()?.entries_from(*prefixes.start()).take_while(is_in);
            let moved = entries.filter_map(|entry| Some(IndexEntry { layer: layer_of(entry.layer)?, ..entry }));
            moved.for_each(&mut *each);
        }
        Ok(())
    }

    /// How many entries fall into each bucket of a fan-out. Ids that are out of order would be counted here and not be found
    /// again part by part, so they are an error.
    fn count(&self) -> Result<Vec<u32>, StoreError> {
        let mut most: usize = self.files.iter().map(|file| file.header.entry_count as usize).sum();
        for number in &self.layers {
            let reader = self.set.reader(*number)?;
            if !reader.tables()?.ids().is_sorted() {
                return Err(reader.wrong(FormatError::Checksum("layer's tables")));
            }
            most += reader.footer().object_count as usize;
        }
        let bits = fanout_bits(most);
        let mut buckets = vec![0; 1 << bits];
        self.visit(0..=u64::MAX, &mut |entry| {
            if let Some(count) = buckets.get_mut(bucket_of(entry.prefix, bits)) {
                *count += 1;
            }
        })?;
        Ok(buckets)
    }
}

/// Ranges of prefixes in ascending order, each with `at_once` entries at most, or one bucket.
fn parts(buckets: &[u32], at_once: usize) -> Vec<RangeInclusive<u64>> {
    let bits = buckets.len().ilog2();
    let start_of = |bucket: usize| (bucket as u64).checked_shl(u64::BITS - bits).unwrap_or(0);
    let (mut parts, mut start, mut entries) = (Vec::new(), 0, 0);
    for (bucket, count) in buckets.iter().enumerate() {
        let with = entries + *count as usize;
        if with > at_once && entries > 0 && *count > 0 {
            parts.push(start..=start_of(bucket) - 1);
            (start, entries) = (start_of(bucket), 0);
        }
        entries += *count as usize;
    }
    parts.push(start..=u64::MAX);
    parts
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

    fn wrong(&self, source: FormatError) -> StoreError {
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

/// Reads an index file's header; gives back the name of one that is damaged.
fn read_file(
    file: &File,
    name: String,
    repo: &RepoId,
    numbers: &BTreeMap<LayerId, u32>,
) -> io::Result<Result<IndexFile, String>> {
    let bytes = map::map(file, 0, file.metadata()?.len() as usize)?;
    let Ok(header) = decode_header(repo, &bytes) else { return Ok(Err(name)) };
    let layers = header.layers.iter().map(|id| numbers.get(id).copied()).collect();
    Ok(Ok(IndexFile { name, header, bytes, layers }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::open_root;
    use crate::base::pool::Pools;
    use crate::format::layer::VERSION;
    use crate::format::staging::LayerRecord;
    use crate::model::id::ObjectKind;
    use crate::store::backend::{Backend, MemoryBackend};
    use crate::store::layer_reader::{LayerReader, file_name};
    use crate::store::layer_writer::{LayerOptions, LayerWriter};
    use crate::store::objects::ObjectStore;
    use crate::transform::hash::chunk_id;

    const REPO: [u8; 16] = [1; 16];
    const OBJECTS: u64 = 300;

    fn bytes(layer: u64, object: u64) -> [u8; 16] {
        (u128::from(layer) << 64 | u128::from(object)).to_le_bytes()
    }

    /// Some layers; each pair of neighbours shares an object.
    fn layers(backend: &MemoryBackend, numbers: std::ops::Range<u64>) -> Vec<(LayerId, LayerRecord)> {
        let stored = Arc::new(ObjectStore::in_memory(Arc::new(backend.clone()), REPO, Vec::new()));
        let layer = |number: u64| {
            let options = LayerOptions { block_len: 1000, level: 1, version: VERSION };
            let (backend, pools) = (Arc::new(backend.clone()), Arc::new(Pools::new(1, 1)));
            let mut writer = LayerWriter::new(backend, REPO, pools, Arc::clone(&stored), options).unwrap();
            for bytes in (0..OBJECTS).map(|object| bytes(number, object)).chain([bytes(number + 1, 0)]) {
                writer.add(chunk_id(&bytes).into(), ObjectKind::Chunk, &bytes, None).unwrap();
            }
            let sealed = writer.seal().unwrap();
            (sealed.id, sealed.reader.record())
        };
        numbers.map(layer).collect()
    }

    #[test]
    fn an_index_written_in_parts_is_the_same_and_has_everything() {
        let backend = MemoryBackend::default();
        let set = |mut layers: Vec<(LayerId, LayerRecord)>| {
            layers.sort_unstable_by_key(|(id, _)| *id);
            LayerSet::new(Arc::new(backend.clone()), REPO, layers)
        };
        let (first, more) = (layers(&backend, 0..4), layers(&backend, 4..9));
        let before = set(first.clone());
        // Later one of the first is gone, and others have come.
        let after = set([&first[1..], &more[..]].concat());
        let mut files = Vec::new();
        for at_once in [1, 40, 1000, usize::MAX] {
            let folder = tempfile::tempdir().unwrap();
            let dir = open_root(folder.path()).unwrap();
            let open = |set: &LayerSet| ChunkIndex::open(Some(Arc::clone(&dir)), set).unwrap();
            open(&before).write(dir.as_ref(), &before, &[], at_once).unwrap();
            let one = open(&after);
            assert_eq!(one.shape(), (1, 5));
            one.write(dir.as_ref(), &after, &one.files.iter().collect::<Vec<_>>(), at_once).unwrap();
            let merged = open(&after);
            assert_eq!((merged.shape(), merged.verify()), ((1, 0), Vec::new()));
            for (layer, object) in (0..9).flat_map(|layer| (0..OBJECTS).map(move |object| (layer, object))) {
                let id = chunk_id(&bytes(layer, object)).into();
                let is_there = layer > 0;
                assert_eq!(merged.find(&after, &id).unwrap().is_some(), is_there, "{layer} {object}");
            }
            let name = index_names(dir.as_ref()).unwrap().remove(0);
            files.push(std::fs::read(folder.path().join(name)).unwrap());
        }
        assert!(files.iter().all(|file| *file == files[0]));
    }

    #[test]
    fn a_layer_with_ids_out_of_order_gets_no_index_and_unreadable_ones_go() {
        let backend = MemoryBackend::default();
        let mut all = layers(&backend, 0..3);
        all.sort_unstable_by_key(|(id, _)| *id);
        let folder = tempfile::tempdir().unwrap();
        let dir = open_root(folder.path()).unwrap();
        let open = |set: &LayerSet| ChunkIndex::open(Some(Arc::clone(&dir)), set).unwrap();
        let set = LayerSet::new(Arc::new(backend.clone()), REPO, all.clone());
        open(&set).write(dir.as_ref(), &set, &[], ENTRIES_AT_ONCE).unwrap();
        // Too short for what its header says.
        let file = folder.path().join("1.idx");
        let bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        write_atomic_with(dir.as_ref(), "1.idx".as_ref(), 0o600, |e| e, |out| out.write(&bytes[..bytes.len() - 16]))
            .unwrap();
        let index = open(&set);
        assert_eq!((index.shape(), index.verify()), ((0, 3), vec!["1.idx".to_owned()]));
        assert!(index.maintain(&set, 1).unwrap());
        assert_eq!((open(&set).shape(), index_names(dir.as_ref()).unwrap()), ((1, 0), vec!["2.idx".to_owned()]));
        dir.remove_file("2.idx".as_ref()).unwrap();
        // The first byte of an id in the middle.
        let (id, record) = all[1];
        let ids = LayerReader::open(&backend, &REPO, id).unwrap().tables().unwrap().ids().to_vec();
        let blob = backend.open(&file_name(&id)).unwrap().unwrap();
        let mut bytes = blob.read(0, blob.len() as usize).unwrap();
        let at = bytes.windows(32).position(|window| window == ids[ids.len() / 2]).unwrap();
        bytes[at] ^= 0x80;
        let mut upload = backend.create().unwrap();
        upload.append(&bytes).unwrap();
        upload.finish(&file_name(&id)).unwrap();
        let set = LayerSet::new(Arc::new(backend.clone()), REPO, all.clone());
        assert!(record.object_count > 0 && open(&set).maintain(&set, 1).is_err());
        assert_eq!(index_names(dir.as_ref()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn parts_cover_all_prefixes() {
        assert_eq!(parts(&[5], 1), [0..=u64::MAX]);
        let quarter = 1 << 62;
        assert_eq!(parts(&[1, 1, 1, 1], 2), [0..=2 * quarter - 1, 2 * quarter..=u64::MAX]);
        assert_eq!(parts(&[9, 0, 9, 0], 2), [0..=2 * quarter - 1, 2 * quarter..=u64::MAX]);
        assert_eq!(parts(&[0, 0, 0, 3], 2), [0..=u64::MAX]);
    }
}
