//! One sealed layer, open for reading.

use std::sync::{Arc, OnceLock};

use super::StoreError;
use super::backend::{Backend, Blob};
use crate::base::disk::map::FileBytes;
use crate::format::layer::{BlockRow, FOOTER_LEN, Footer, HEADER_LEN, ObjectRow, Tables, decode_header};
use crate::format::staging::LayerRecord;
use crate::format::{FormatError, RepoId};
use crate::model::id::{BlockId, LayerId, ObjectId, ObjectKind};
use crate::transform::compress::{Codec, Opposite, decompress_start};
use crate::transform::filter::Filter;

/// The suffix of layer files.
const SUFFIX: &str = ".layer";

/// The name of a layer's file.
pub fn file_name(id: &LayerId) -> String {
    format!("{id}{SUFFIX}")
}

/// The layer that a file name belongs to.
pub fn id_of_file(name: &str) -> Option<LayerId> {
    name.strip_suffix(SUFFIX).and_then(LayerId::from_hex)
}

/// A layer whose header and footer were checked.
#[derive(Debug)]
pub struct LayerReader {
    id: LayerId,
    blob: Arc<dyn Blob>,
    footer: Footer,
    tables: FileBytes,
    /// Read when something is stored as a change of what is in this layer.
    block_ids: OnceLock<Vec<BlockId>>,
}

impl LayerReader {
    /// Opens a layer and checks that it is the one its name says, complete, and of this repository.
    pub fn open(backend: &dyn Backend, repo: &RepoId, id: LayerId) -> Result<Self, StoreError> {
        let name = file_name(&id);
        let subject = || format!("layers/{name}");
        let blob = backend.open(&name)?.ok_or(StoreError::MissingLayer(id))?;
        let wrong = |source| StoreError::Format { subject: subject(), source };
        let footer_at = blob.len().checked_sub(FOOTER_LEN as u64).filter(|at| *at >= HEADER_LEN as u64);
        let footer_at = footer_at.ok_or_else(|| wrong(FormatError::Foreign("layer")))?;
        let bytes = blob.read(footer_at, FOOTER_LEN)?;
        let (found, footer) = Footer::decode(&bytes).map_err(StoreError::format(subject()))?;
        let header = blob.read(0, HEADER_LEN)?;
        let (version, header_repo) = decode_header(&header).map_err(StoreError::format(subject()))?;
        if header_repo != *repo || footer.repo != *repo {
            return Err(wrong(FormatError::OtherRepository("layer")));
        }
        if version != footer.version || found != id || footer.file_len() != Some(blob.len()) {
            return Err(wrong(FormatError::Checksum("layer's name")));
        }
        let tables = blob.map(footer.blocks_end, footer.tables_len() as usize)?;
        Ok(Self { id, blob, footer, tables, block_ids: OnceLock::new() })
    }

    /// What was read of the tables is not needed soon.
    pub fn pass_all(&self) {
        self.tables.pass(0..self.tables.len());
    }

    /// The layer's id.
    pub fn id(&self) -> LayerId {
        self.id
    }

    /// The footer.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Length of the file.
    pub fn file_len(&self) -> u64 {
        self.blob.len()
    }

    /// What the journal says of the layer.
    pub fn record(&self) -> LayerRecord {
        let (object_count, block_count) = (self.footer.stored_objects(), self.footer.block_count);
        LayerRecord { file_len: self.file_len(), object_count, block_count }
    }

    fn subject(&self) -> String {
        format!("layers/{}", file_name(&self.id))
    }

    /// Adds this layer to a format error.
    pub fn wrong(&self, source: FormatError) -> StoreError {
        StoreError::Format { subject: self.subject(), source }
    }

    /// The tables.
    pub fn tables(&self) -> Result<Tables<'_>, StoreError> {
        Tables::new(&self.footer, &self.tables).map_err(|source| self.wrong(source))
    }

    /// The row of an object, if the layer has it.
    pub fn find(&self, id: &ObjectId) -> Result<Option<u32>, StoreError> {
        self.tables()?.find(id).map_err(|source| self.wrong(source))
    }

    /// The object in a row.
    pub fn object(&self, row: u32) -> Result<ObjectRow, StoreError> {
        self.tables()?.object(row).map_err(|source| self.wrong(source))
    }

    /// All objects in order of their ids, without the rows of whole blocks.
    pub fn stored_objects(&self) -> Result<Vec<ObjectRow>, StoreError> {
        let mut rows = Vec::with_capacity(self.footer.stored_objects() as usize);
        for row in self.tables()?.objects() {
            let row = row.map_err(|source| self.wrong(source))?;
            if row.place.kind != ObjectKind::Block {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// All objects as they lie in the file, those of a block together.
    pub fn objects_by_place(&self) -> Result<Vec<ObjectRow>, StoreError> {
        let mut rows = self.stored_objects()?;
        rows.sort_unstable_by_key(ObjectRow::place_order);
        Ok(rows)
    }

    /// A block's row.
    pub fn block(&self, number: u32) -> Result<BlockRow, StoreError> {
        self.tables()?.block(number).map_err(|source| self.wrong(source))
    }

    /// A block's stored bytes, with their checksum compared.
    pub fn read_stored(&self, row: &BlockRow) -> Result<Vec<u8>, StoreError> {
        let stored = self.blob.read(row.offset, row.stored_len as usize)?;
        if crc32fast::hash(&stored) == row.crc { Ok(stored) } else { Err(self.wrong(FormatError::Checksum("block"))) }
    }

    /// The ids of all blocks, in order.
    pub fn block_ids(&self) -> Result<&[BlockId], StoreError> {
        if let Some(ids) = self.block_ids.get() {
            return Ok(ids);
        }
        let ids = self.tables()?.block_ids().map_err(|source| self.wrong(source))?;
        Ok(self.block_ids.get_or_init(|| ids))
    }

    /// The first `wanted` bytes of a decoded block, or more. `base` is what it needs for that, if it needs something.
    pub fn read_start(&self, number: u32, base: Opposite<'_>, wanted: usize) -> Result<Vec<u8>, StoreError> {
        let row = self.block(number)?;
        self.decode(&row, self.read_stored(&row)?, base, wanted)
    }

    /// A block that does not have its checksum, decoded as well as it can be; it is for the objects' ids to say which of them
    /// are sound. None of a block that needs another one.
    pub fn read_damaged(&self, number: u32) -> Option<Vec<u8>> {
        let row = self.block(number).ok().filter(|row| row.base.is_none())?;
        let stored = self.blob.read(row.offset, row.stored_len as usize).ok()?;
        self.decode(&row, stored, Opposite::NONE, usize::MAX).ok()
    }

    fn decode(
        &self,
        row: &BlockRow,
        stored: Vec<u8>,
        base: Opposite<'_>,
        wanted: usize,
    ) -> Result<Vec<u8>, StoreError> {
        if row.codec == Codec::Raw && row.filter == Filter::None && stored.len() == row.raw_len as usize {
            return Ok(stored);
        }
        let raw_len = row.raw_len as usize;
        decompress_start(row.codec, row.filter, &stored, raw_len, base, wanted.min(raw_len)).map_err(|error| {
            StoreError::Format {
                subject: self.subject(),
                source: crate::base::bytes::DecodeError::Invalid { what: "a block", why: error.to_string() }.into(),
            }
        })
    }
}
