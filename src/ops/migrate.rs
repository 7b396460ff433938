//! `migrate`: bringing a repository of an earlier format forward, and taking that back.
//!
//! What is stored in the first format can be read and built upon as it is: the ids of its blocks are made from its tables. So
//! bringing it forward is one step, the exchange of the file `format`. Taking it back first writes every layer of the
//! second format as one of the first, and then exchanges the file: a stop in between leaves a repository of the second
//! format whose layers happen to be of the first.

use std::sync::Arc;

use serde::Serialize;

use super::{Error, Result};
use crate::base::monitor::Monitor;
use crate::format::layer::VERSION_WITHOUT_BASES;
use crate::format::manifest::{Manifest, VERSION};
use crate::repo::{Repository, WriteLock};
use crate::store::index::Located;
use crate::store::layer_writer::{LayerOptions, LayerWriter, SealedLayer};
use crate::store::objects::ObjectStore;

/// What to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Go back to the format before.
    pub undo: bool,
}

/// What was done, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The format before.
    pub from: u16,
    /// The format after.
    pub to: u16,
    /// Layers that had to be written anew.
    pub layers: u64,
    /// Bytes of their files before.
    pub bytes: u64,
    /// Was this a look only?
    pub dry_run: bool,
}

/// Changes the format of a repository.
pub fn migrate(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let lock = (!options.dry_run).then(|| repo.lock_and_reclaim("migrate")).transpose()?;
    let from = repo.manifest().version;
    let to = if options.undo { VERSION_WITHOUT_BASES } else { VERSION };
    let objects = repo.objects();
    let mut later = Vec::new();
    if to < from {
        for (number, (_, record)) in (0..).zip(objects.layers().layers()) {
            if objects.layers().reader(number)?.footer().version > to {
                later.push((number, record.file_len));
            }
        }
    }
    let (layers, bytes) = (later.len() as u64, later.iter().map(|(_, len)| len).sum());
    let outcome = Outcome { from, to, layers, bytes, dry_run: options.dry_run };
    let Some(lock) = lock.filter(|_| from != to) else { return Ok(outcome) };
    if to < from {
        monitor.begin("writing layers of the earlier format", Some(layers), Some(bytes));
        // Pending objects know older versions of themselves, which the first format has no place for.
        repo.move_pending(&lock, first_format(repo), &|_| true)?;
        for (number, len) in later {
            if monitor.cancelled() {
                return Err(Error::Stopped);
            }
            write_back(repo, &lock, &objects, number)?;
            monitor.advance(1, len);
        }
        monitor.end();
    }
    repo.write_manifest(&lock, &Manifest { version: to, ..repo.manifest().clone() })?;
    Ok(outcome)
}

fn first_format(repo: &Repository) -> LayerOptions {
    LayerOptions { version: VERSION_WITHOUT_BASES, ..repo.layer_options() }
}

/// Puts a layer of the first format in the place of a later one. Others may still need its blocks, so it keeps them whole.
fn write_back(repo: &Repository, lock: &WriteLock, objects: &Arc<ObjectStore>, number: u32) -> Result<()> {
    let reader = objects.layers().reader(number)?;
    let rows = reader.objects_by_place()?;
    // In the first format no object comes twice in a layer, so a block with one that did goes to another.
    let mut writers: Vec<LayerWriter> = Vec::new();
    for rows in rows.chunk_by(|a, b| a.place.block == b.place.block) {
        let block = objects.block_once(number, rows.first().map_or(0, |row| row.place.block))?;
        for object in rows {
            objects.verified(&Located { layer: number, object: *object }, &block)?;
        }
        let fits = |writer: &&mut LayerWriter| rows.iter().all(|row| !writer.contains(&row.id));
        match writers.iter_mut().find(fits) {
            Some(writer) => writer.recompress_block(block, rows, None)?,
            None => {
                let mut writer = repo.new_layer_with(Arc::clone(objects), first_format(repo))?;
                writer.recompress_block(block, rows, None)?;
                writers.push(writer);
            }
        }
    }
    let layers: Vec<SealedLayer> = writers.into_iter().map(LayerWriter::seal).collect::<std::result::Result<_, _>>()?;
    Ok(repo.replace_layers(lock, &layers, &[(reader.id(), reader.file_len())], Vec::new())?)
}
