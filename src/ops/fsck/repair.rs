//! `fsck --repair`: what is broken is set aside, what is lost is looked for elsewhere, what is derived is made anew.
//!
//! Lost objects are looked for in another repository, if one is given; trees are built anew from staging, which says what the
//! folders of HEAD hold; and files of the work tree at the paths that need lost objects are cut again. What has the id of a lost
//! object is stored. Then every layer with damage is written anew without it, and the old file gets a name under which it is kept
//! and not used.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serde::Serialize;

use super::{Found, stop_if_cancelled};
use crate::base::disk::FileKind;
use crate::base::monitor::Monitor;
use crate::format::layer::ObjectRow;
use crate::format::object::encode_tree;
use crate::model::id::{BlockId, LayerId, ObjectId, ObjectKind, TreeId};
use crate::model::path::RepoPath;
use crate::model::staging::StagedNode;
use crate::model::tree::{Node, Tree};
use crate::ops::commit::build;
use crate::ops::gc::mark::{Undoable, roots};
use crate::ops::ingest::{Sink, Source, ingest};
use crate::ops::reach::{Reference, content_reference, references};
use crate::ops::{Error, Result};
use crate::repo::rebuild::Rebuilt;
use crate::repo::{Repository, WriteLock};
use crate::store::StoreError;
use crate::store::layer_reader::file_name;
use crate::store::layer_writer::{LayerWriter, SealedLayer};
use crate::store::objects::ObjectStore;
use crate::store::staging::Packed;
use crate::store::{retired, staging};
use crate::transform::hash::sha256;
use crate::world::bundle::BandPaths;
use crate::world::dirs::Folders;

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// Lost or damaged objects that something refers to.
    pub lost: u64,
    /// Of these, how many were found elsewhere and are stored again.
    pub healed: u64,
    /// Layer files that were set aside; they are beside the others with `.damaged` behind their names.
    pub set_aside: Vec<LayerId>,
    /// Index files that were removed, to be made anew.
    pub index_files: u64,
    /// The journal did not open and was made anew; none if it did.
    pub journal: Option<Rebuilt>,
}

/// Repairs what `found` says. `other`: a repository that may have what is lost here.
pub(super) fn repair(
    repo: &Repository,
    lock: &WriteLock,
    found: &Found,
    other: Option<&Repository>,
    monitor: &dyn Monitor,
) -> Result<Repair> {
    let mut repair = Repair { index_files: repo.objects().index().remove_damaged()?, ..Repair::default() };
    let objects = repo.objects();
    let mut search = Search {
        objects: &objects,
        other: other.map(Repository::objects),
        found,
        staged: Staged { repo, trees: None },
        seen: HashSet::new(),
        elsewhere: BTreeMap::new(),
        rebuilt: BTreeMap::new(),
        lost: HashSet::new(),
        paths: HashSet::new(),
    };
    search.run(repo, monitor)?;
    let Search { elsewhere, rebuilt, lost, paths, .. } = search;
    repair.lost = (elsewhere.len() + rebuilt.len() + lost.len()) as u64;
    let wanted: HashSet<ObjectId> = elsewhere.keys().chain(rebuilt.keys()).copied().chain(lost).collect();
    let mut sink = Sink::healing(repo, lock, wanted);
    if let Some(other) = other.map(Repository::objects) {
        for (id, kind) in elsewhere {
            stop_if_cancelled(monitor)?;
            sink.add(id, kind, &other.read(&id, kind)?, None)?;
        }
    }
    for (id, bytes) in rebuilt {
        sink.add(id, ObjectKind::Tree, &bytes, None)?;
    }
    let sources = sources(repo, paths);
    ingest(repo, &Arc::new(sources), &mut sink, monitor)?;
    repair.healed = sink.healed();
    let (mut new, _) = sink.finish()?;
    let old = rewrite(repo, &objects, found, &mut new, monitor)?;
    repo.replace_layers(lock, &new, &old, Vec::new())?;
    // A layer that came out as it was before it was damaged has the name of the damaged file and has taken its place.
    let is_back = |id: &LayerId| new.iter().any(|layer| layer.id == *id);
    for (id, _) in old.into_iter().filter(|(id, _)| !is_back(id)) {
        if repo.backend().set_aside(&file_name(&id))? {
            repair.set_aside.push(id);
        }
        repo.commit(lock, &[], vec![retired::forget_op(&id)])?;
    }
    Ok(repair)
}

/// Goes through everything that is referred to, and notes what is not there or not sound.
struct Search<'a> {
    objects: &'a ObjectStore,
    other: Option<Arc<ObjectStore>>,
    found: &'a Found,
    staged: Staged<'a>,
    /// A second path may lead to the same object, and its file may still have what is lost.
    seen: HashSet<(Reference, RepoPath)>,
    /// Objects that the other repository has.
    elsewhere: BTreeMap<ObjectId, ObjectKind>,
    /// Trees that staging has.
    rebuilt: BTreeMap<ObjectId, Vec<u8>>,
    /// Objects that are nowhere yet.
    lost: HashSet<ObjectId>,
    /// Files that need lost objects.
    paths: HashSet<RepoPath>,
}

impl Search<'_> {
    fn run(&mut self, repo: &Repository, monitor: &dyn Monitor) -> Result<()> {
        let mut waiting: Vec<(Reference, RepoPath)> = Vec::new();
        roots(repo, &[], Undoable::All, &mut |root| waiting.push((root, RepoPath::root())))?;
        let state = repo.journal().read();
        let mut entries = staging::entries(&state)?;
        while let Some((path, entry)) = entries.next()? {
            if let StagedNode::File { content, .. } = &entry.node {
                waiting.extend(content_reference(content).map(|reference| (reference, path)));
            }
        }
        while let Some((reference, path)) = waiting.pop() {
            stop_if_cancelled(monitor)?;
            if self.lost.contains(&reference.0) {
                self.paths.insert(path);
            } else if self.seen.insert((reference, path.clone())) {
                self.follow(reference, path, &mut waiting)?;
            }
        }
        Ok(())
    }

    fn follow(
        &mut self,
        (id, kind): Reference,
        path: RepoPath,
        waiting: &mut Vec<(Reference, RepoPath)>,
    ) -> Result<()> {
        let Some(bytes) = self.bytes(id, kind)? else {
            self.lost.insert(id);
            self.paths.insert(path);
            return Ok(());
        };
        if kind == ObjectKind::Tree
            && let Ok(tree) = crate::format::object::decode_tree(&bytes)
        {
            for entry in tree.entries() {
                let Ok(below) = path.join(&entry.name) else { continue };
                let reference = match &entry.node {
                    Node::Dir { tree } => Some(((*tree).into(), ObjectKind::Tree)),
                    Node::File { content, .. } => content_reference(content),
                    Node::Symlink { .. } => None,
                };
                waiting.extend(reference.map(|reference| (reference, below)));
            }
            return Ok(());
        }
        waiting.extend(references(kind, &bytes).unwrap_or_default().into_iter().map(|next| (next, path.clone())));
        Ok(())
    }

    /// The bytes of an object that is sound here or can be had elsewhere; none of a chunk, which refers to nothing.
    fn bytes(&mut self, id: ObjectId, kind: ObjectKind) -> Result<Option<Vec<u8>>> {
        let here = if self.found.damage.contains_key(&id) { self.saved(id, kind) } else { self.here(id, kind) };
        match here {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Disk(error)) => Err(error.into()),
            Err(_) => self.there(id, kind),
        }
    }

    /// The bytes that are here. Those of a chunk are not needed; where its layer was checked, neither are they read.
    fn here(&self, id: ObjectId, kind: ObjectKind) -> std::result::Result<Vec<u8>, StoreError> {
        let located = self.objects.locate(&id, kind)?;
        let layer = self.objects.layers().layers().get(located.layer as usize);
        let is_checked = layer.is_none_or(|(layer, _)| !self.found.bad_layers.contains(layer));
        if kind == ObjectKind::Chunk && is_checked {
            return Ok(Vec::new());
        }
        Ok(self.objects.read_at(&located)?.to_vec())
    }

    /// The bytes of an object that is sound though its block is damaged.
    fn saved(&self, id: ObjectId, kind: ObjectKind) -> std::result::Result<Vec<u8>, StoreError> {
        let located = self.objects.locate_sealed(&id, kind)?;
        let block = decoded(self.objects, located.layer, located.object.place.block)?;
        let plain = block.ok_or(StoreError::Missing { kind, id })?;
        Ok(self.objects.verified(&located, &plain)?.to_vec())
    }

    fn there(&mut self, id: ObjectId, kind: ObjectKind) -> Result<Option<Vec<u8>>> {
        if let Some(Ok(bytes)) = self.other.as_ref().map(|other| other.read(&id, kind)) {
            self.elsewhere.insert(id, kind);
            return Ok(Some(bytes.to_vec()));
        }
        if kind != ObjectKind::Tree {
            return Ok(None);
        }
        let Some(bytes) = self.staged.tree(id)? else { return Ok(None) };
        self.rebuilt.insert(id, bytes.clone());
        Ok(Some(bytes.clone()))
    }
}

/// The trees of what staging records, built when the first one is asked for. Those of folders in which nothing is staged are the
/// trees of HEAD.
struct Staged<'a> {
    repo: &'a Repository,
    trees: Option<HashMap<ObjectId, Vec<u8>>>,
}

impl Staged<'_> {
    fn tree(&mut self, id: ObjectId) -> Result<Option<&Vec<u8>>> {
        let trees = match self.trees.take() {
            Some(trees) => trees,
            None => self.build()?,
        };
        Ok(self.trees.insert(trees).get(&id))
    }

    fn build(&self) -> Result<HashMap<ObjectId, Vec<u8>>> {
        let state = self.repo.journal().read();
        let mut entries = staging::entries(&state)?;
        let mut all = Packed::default();
        while let Some(entry) = entries.next_encoded()? {
            all.copy(entry);
        }
        let mut trees = HashMap::new();
        let mut keep = |tree: &Tree, _: Option<TreeId>| {
            let (id, bytes) = encode_tree(tree);
            trees.insert(id.into(), bytes);
            Ok(id)
        };
        let nothing = Tree::default();
        match build(self.repo, &mut keep, (encode_tree(&nothing).0, &nothing), all.entries()) {
            // Whatever cannot be committed is no tree of HEAD.
            Ok(_) | Err(Error::Refused { .. }) => Ok(trees),
            Err(error) => Err(error),
        }
    }
}

/// The files of the work tree at these paths.
fn sources(repo: &Repository, paths: HashSet<RepoPath>) -> Vec<Source> {
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let mut bands = BandPaths::new(repo.work());
    let mut paths: Vec<RepoPath> = paths.into_iter().filter(|path| !path.is_root()).collect();
    paths.sort_unstable();
    let mut source = |path: RepoPath| {
        let stat = folders.stat(&path).ok()??;
        (stat.kind == FileKind::File).then(|| Source::new(path, stat.len, None, &mut bands))
    };
    paths.into_iter().filter_map(&mut source).collect()
}

/// Writes what is sound in damaged layers into new ones. Gives the layers that are replaced.
fn rewrite(
    repo: &Repository,
    objects: &Arc<ObjectStore>,
    found: &Found,
    new: &mut Vec<SealedLayer>,
    monitor: &dyn Monitor,
) -> Result<Vec<(LayerId, u64)>> {
    let (mut damaged, kept) = sort_blocks(objects, found)?;
    let mut old = Vec::new();
    for (number, (id, record)) in (0..).zip(objects.layers().layers()) {
        stop_if_cancelled(monitor)?;
        let is_bad = found.bad_layers.contains(id);
        let is_touched = is_bad || damaged.contains_key(&number) || needs_others(objects, number, &kept)?;
        if !is_touched {
            continue;
        }
        let mut writer = repo.new_layer()?;
        if is_bad {
            salvage(objects, number, &mut writer)?;
        } else {
            copy_sound(objects, number, &damaged.remove(&number).unwrap_or_default(), &kept, &mut writer)?;
        }
        if writer.object_count() > 0 {
            new.push(writer.seal()?);
        }
        old.push((*id, record.file_len));
    }
    Ok(old)
}

/// Numbers of the blocks with damaged objects, by layer, and the ids of all blocks that stay.
fn sort_blocks(objects: &ObjectStore, found: &Found) -> Result<(HashMap<u32, HashSet<u32>>, HashSet<BlockId>)> {
    let (mut damaged, mut kept) = (HashMap::<u32, HashSet<u32>>::new(), HashSet::new());
    for (number, (id, _)) in (0..).zip(objects.layers().layers()) {
        if found.bad_layers.contains(id) {
            continue;
        }
        let reader = objects.layers().reader(number)?;
        for row in reader.stored_objects()?.iter().filter(|row| found.damage.contains_key(&row.id)) {
            damaged.entry(number).or_default().insert(row.place.block);
        }
        let own = damaged.get(&number);
        let stays = |block: &u32| own.is_none_or(|own| !own.contains(block));
        kept.extend((0..).zip(reader.block_ids()?).filter(|(block, _)| stays(block)).map(|(_, id)| *id));
    }
    Ok((damaged, kept))
}

/// Does a block of the layer need one that does not stay?
fn needs_others(objects: &ObjectStore, layer: u32, kept: &HashSet<BlockId>) -> Result<bool> {
    let reader = objects.layers().reader(layer)?;
    for block in 0..reader.footer().block_count {
        if reader.block(block)?.base.is_some_and(|base| !kept.contains(&base.id)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes over all objects of a layer that have their ids, whatever its tables are worth.
fn salvage(objects: &Arc<ObjectStore>, layer: u32, writer: &mut LayerWriter) -> Result<()> {
    let Ok(reader) = objects.layers().reader(layer) else { return Ok(()) };
    let mut rows: Vec<ObjectRow> =
        (0..reader.footer().object_count).filter_map(|row| reader.object(row).ok()).collect();
    rows.retain(|row| row.place.kind != ObjectKind::Block);
    rows.sort_unstable_by_key(ObjectRow::place_order);
    for rows in rows.chunk_by(|a, b| a.place.block == b.place.block) {
        let block = rows.first().map_or(0, |row| row.place.block);
        if let Some(plain) = decoded(objects, layer, block)? {
            add_sound(&plain, rows, writer)?;
        }
    }
    Ok(())
}

/// A block, decoded as well as it can be; none if it cannot.
fn decoded(objects: &ObjectStore, layer: u32, block: u32) -> std::result::Result<Option<Vec<u8>>, StoreError> {
    match objects.decode_block(layer, block) {
        Ok(plain) => Ok(Some(plain)),
        Err(StoreError::Disk(error)) => Err(error.into()),
        Err(_) => Ok(objects.layers().reader(layer)?.read_damaged(block)),
    }
}

/// Adds those of the objects that have their ids.
fn add_sound(plain: &[u8], rows: &[ObjectRow], writer: &mut LayerWriter) -> Result<()> {
    for object in rows {
        let Some(bytes) = object.place.bytes_in(plain) else { continue };
        if sha256(&[bytes]) == *object.id.digest() {
            writer.add(object.id, object.place.kind, bytes, None)?;
        }
    }
    Ok(())
}

/// Takes over a layer without what is damaged in it.
fn copy_sound(
    objects: &Arc<ObjectStore>,
    layer: u32,
    damaged: &HashSet<u32>,
    kept: &HashSet<BlockId>,
    writer: &mut LayerWriter,
) -> Result<()> {
    let reader = objects.layers().reader(layer)?;
    let rows = reader.objects_by_place()?;
    for rows in rows.chunk_by(|a, b| a.place.block == b.place.block) {
        let number = rows.first().map_or(0, |row| row.place.block);
        let row = reader.block(number)?;
        if damaged.contains(&number) {
            if let Some(plain) = decoded(objects, layer, number)? {
                add_sound(&plain, rows, writer)?;
            }
        } else if row.base.is_none_or(|base| kept.contains(&base.id)) {
            writer.copy_block(&row, &reader.read_stored(&row)?, rows)?;
        } else if let Some(plain) = decoded(objects, layer, number)? {
            writer.recompress_block(Arc::new(plain), rows, None)?;
        }
    }
    Ok(())
}
