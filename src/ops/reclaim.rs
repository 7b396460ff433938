//! Giving back the space of what nothing refers to any more.
//!
//! First everything that is referred to is found: from HEAD, branches, tags, staging, checkpoints, and the operations that can
//! be undone. Layers of which enough is dead are written anew with what lives. The new layers are durable before the
//! one record that puts them in the place of the old ones; only then are the old files removed.

use hashbrown::HashSet;

use super::reach::{Reference, content_reference, reach, stored_references};
use super::{Error, Result};
use crate::base::monitor::Monitor;
use crate::model::checkpoint::{Area, Checkpoint};
use crate::model::id::{ObjectId, ObjectKind, TreeId};
use crate::model::refs::Head;
use crate::model::staging::StagedNode;
use crate::repo::{Repository, WriteLock};
use crate::store::checkpoints::{self, Listing};
use crate::store::index::Located;
use crate::store::layer_writer::SealedLayer;
use crate::store::objects::ObjectStore;
use crate::store::pending::PENDING_LAYER;
use crate::store::{operations, refs, staging, worktable};

/// A layer is written anew when this share of it is dead, one part in eight: then copying costs at most seven bytes
/// for each that comes back.
const MIN_DEAD_SHARE: u64 = 8;

/// What is referred to.
pub struct Live {
    ids: HashSet<ObjectId>,
}

/// What can be given back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survey {
    /// Bytes of files that nothing refers to, as they are stored. Blocks are compressed as a whole, so this is shared out
    /// by the length of what is in them.
    pub dead_bytes: u64,
}

/// Finds what is referred to, without the checkpoints `leave_out`.
pub fn mark(repo: &Repository, leave_out: &[u64], monitor: &dyn Monitor) -> Result<Live> {
    let objects = repo.objects();
    let ids = reach(roots(repo, leave_out)?, monitor, &mut |reference| stored_references(&objects, reference))?;
    Ok(Live { ids })
}

fn roots(repo: &Repository, leave_out: &[u64]) -> Result<Vec<Reference>> {
    let leave_out: HashSet<u64> = leave_out.iter().copied().collect();
    let state = repo.journal().read();
    let mut commits = refs::tips(&state)?;
    let bundles = worktable::bundles(&state)?;
    let areas: Vec<Area> = bundles.into_iter().map(|(path, _)| Area::Bundle(path)).chain([Area::WorkTree]).collect();
    let mut trees: Vec<TreeId> = Vec::new();
    for area in &areas {
        trees.extend(worktable::base(&state, area)?);
    }
    for operation in operations::list(&state)? {
        commits.extend(operation.refs.iter().flat_map(|step| [step.before, step.after]).flatten());
        for head in operation.head.iter().flat_map(|(before, after)| [before, after]) {
            commits.extend(if let Head::Detached(id) = head { Some(*id) } else { None });
        }
        trees.extend(operation.dropped.iter().filter_map(Checkpoint::tree));
    }
    checkpoints::visit_back(&state, &Listing::All, None, &mut |checkpoint| {
        trees.extend(checkpoint.tree().filter(|_| !leave_out.contains(&checkpoint.number)));
        Ok(true)
    })?;
    let commits = commits.into_iter().map(|id| (id.into(), ObjectKind::Commit));
    let mut roots: Vec<Reference> = commits.chain(trees.into_iter().map(|id| (id.into(), ObjectKind::Tree))).collect();
    let tables = areas.iter().map(|area| worktable::entries(&state, area)).chain([staging::entries(&state)]);
    for entries in tables {
        let mut entries = entries?;
        while let Some((_, entry)) = entries.next()? {
            roots.extend(match &entry.node {
                StagedNode::File { content, .. } => content_reference(content),
                _ => None,
            });
        }
    }
    Ok(roots)
}

/// How much of a layer is dead: plain bytes, and all of them.
fn dead_share(objects: &ObjectStore, layer: u32, live: &Live) -> Result<(u64, u64)> {
    let reader = objects.layers().reader(layer)?;
    let (mut dead, mut all) = (0u64, 0u64);
    for object in reader.stored_objects()? {
        let len = u64::from(object.place.len);
        all += len;
        dead += if live.ids.contains(&object.id) { 0 } else { len };
    }
    Ok((dead, all))
}

/// Counts what can be given back.
pub fn survey(repo: &Repository, live: &Live) -> Result<Survey> {
    let objects = repo.objects();
    let mut survey = Survey::default();
    for (number, (_, record)) in (0..).zip(objects.layers().layers()) {
        let (dead, all) = dead_share(&objects, number, live)?;
        survey.dead_bytes += if dead == all { record.file_len } else { share(record.file_len, dead, all) };
    }
    let pending = objects.pending();
    let (mut dead, mut all) = (0u64, 0u64);
    for object in pending.objects() {
        let len = u64::from(object.place.len);
        all += len;
        dead += if live.ids.contains(&object.id) { 0 } else { len };
    }
    survey.dead_bytes += share(pending.stored_bytes(), dead, all);
    Ok(survey)
}

fn share(whole: u64, part: u64, of: u64) -> u64 {
    let share = u128::from(whole) * u128::from(part) / u128::from(of.max(1));
    u64::try_from(share).unwrap_or(whole)
}

/// Gives back what is dead. Returns how many bytes the files in the repository lost.
pub fn sweep(repo: &Repository, lock: &WriteLock, live: &Live, monitor: &dyn Monitor) -> Result<u64> {
    let objects = repo.objects();
    let before: u64 = objects.layers().layers().iter().map(|(_, record)| record.file_len).sum();
    let before = before + objects.pending().stored_bytes();
    let mut old = Vec::new();
    for number in 0..objects.layers().layers().len() as u32 {
        let (dead, all) = dead_share(&objects, number, live)?;
        if dead > 0 && dead * MIN_DEAD_SHARE >= all || all == 0 {
            old.push(number);
        }
    }
    let pending = objects.pending().objects();
    let has_dead_pending = pending.iter().any(|object| !live.ids.contains(&object.id));
    if old.is_empty() && !has_dead_pending {
        return Ok(0);
    }
    monitor.begin("giving space back", Some(old.len() as u64), None);
    let mut copier = Copier { repo, objects: &objects, live, old: &old, writer: None, sealed: Vec::new() };
    for number in &old {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        copier.layer(*number)?;
        monitor.advance(1, 0);
    }
    let mut ops = Vec::new();
    if has_dead_pending {
        for object in pending {
            copier.object(Located { layer: PENDING_LAYER, object })?;
        }
        ops.extend(objects.pending().clear_ops());
    }
    let layers = copier.finish()?;
    let gone: Vec<_> = old.iter().filter_map(|number| objects.layers().layers().get(*number as usize)).collect();
    // What lives in an old layer alone may have become the same file again, if nothing of it was dead after all.
    let gone: Vec<_> = gone.into_iter().filter(|(id, _)| layers.iter().all(|layer| layer.id != *id)).collect();
    ops.extend(gone.iter().map(|(id, _)| refs::forget_layer_op(id)));
    repo.commit(lock, &layers, ops)?;
    repo.remove_strays(lock)?;
    monitor.end();
    let objects = repo.objects();
    let after: u64 = objects.layers().layers().iter().map(|(_, record)| record.file_len).sum();
    Ok(before.saturating_sub(after + objects.pending().stored_bytes()))
}

/// Writes what lives into new layers.
struct Copier<'a> {
    repo: &'a Repository,
    objects: &'a ObjectStore,
    live: &'a Live,
    /// Layers that will go.
    old: &'a [u32],
    writer: Option<crate::store::layer_writer::LayerWriter>,
    sealed: Vec<SealedLayer>,
}

impl Copier<'_> {
    fn layer(&mut self, number: u32) -> Result<()> {
        let reader = self.objects.layers().reader(number)?;
        let mut rows = reader.stored_objects()?;
        // Neighbours stay neighbours.
        rows.sort_unstable_by_key(|row| (row.place.block, row.place.offset));
        for object in rows {
            self.object(Located { layer: number, object })?;
        }
        Ok(())
    }

    fn object(&mut self, located: Located) -> Result<()> {
        let id = located.object.id;
        let elsewhere = match self.objects.find(&id)? {
            Some(found) => found.layer != located.layer && !self.old.contains(&found.layer),
            None => false,
        };
        if !self.live.ids.contains(&id) || elsewhere || self.is_copied(&id)? {
            return Ok(());
        }
        if self.writer.as_ref().is_some_and(|writer| writer.plain_bytes() >= self.repo.settings().layer_len) {
            self.seal()?;
        }
        let bytes = self.objects.read_at(&located)?;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(self.repo.new_layer()?),
        };
        writer.add(id, located.object.place.kind, &bytes, None)?;
        Ok(())
    }

    fn is_copied(&self, id: &ObjectId) -> Result<bool> {
        if self.writer.as_ref().is_some_and(|writer| writer.contains(id)) {
            return Ok(true);
        }
        for layer in &self.sealed {
            if layer.reader.find(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn seal(&mut self) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            self.sealed.push(writer.seal()?);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<SealedLayer>> {
        self.seal()?;
        Ok(self.sealed)
    }
}
