//! The layers that belong to the repository, opened when needed.

use std::sync::{Arc, Mutex};

use lru::LruCache;

use super::StoreError;
use super::backend::Backend;
use super::cache::MAX_OPEN_LAYERS;
use super::layer_reader::LayerReader;
use crate::base::pool::lock;
use crate::format::RepoId;
use crate::format::staging::LayerRecord;
use crate::model::id::LayerId;

/// The layers that the journal names, in a fixed order; their places in it serve as short names within a process.
#[derive(Debug)]
pub struct LayerSet {
    backend: Arc<dyn Backend>,
    repo: RepoId,
    layers: Vec<(LayerId, LayerRecord)>,
    open: Mutex<LruCache<u32, Arc<LayerReader>>>,
}

impl LayerSet {
    /// The set of these layers, in order of their ids; none is opened yet.
    pub fn new(backend: Arc<dyn Backend>, repo: RepoId, layers: Vec<(LayerId, LayerRecord)>) -> Self {
        Self { backend, repo, layers, open: Mutex::new(LruCache::new(MAX_OPEN_LAYERS)) }
    }

    /// Where the files are.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The repository's id.
    pub fn repo(&self) -> &RepoId {
        &self.repo
    }

    /// All layers and what the journal says of them.
    pub fn layers(&self) -> &[(LayerId, LayerRecord)] {
        &self.layers
    }

    /// The place of a layer.
    pub fn number_of(&self, id: &LayerId) -> Option<u32> {
        self.layers.binary_search_by(|(layer, _)| layer.cmp(id)).ok().map(|at| at as u32)
    }

    /// What was read of the tables of open layers is not needed soon.
    pub fn pass_all(&self) {
        lock(&self.open).iter().for_each(|(_, reader)| reader.pass_all());
    }

    /// A layer, open.
    pub fn reader(&self, number: u32) -> Result<Arc<LayerReader>, StoreError> {
        if let Some(reader) = lock(&self.open).get(&number) {
            return Ok(Arc::clone(reader));
        }
        let (id, _) = self
            .layers
            .get(number as usize)
            .ok_or_else(|| StoreError::Internal(format!("there is no layer number {number}")))?;
        let reader = Arc::new(LayerReader::open(self.backend.as_ref(), &self.repo, *id)?);
        lock(&self.open).put(number, Arc::clone(&reader));
        Ok(reader)
    }
}
