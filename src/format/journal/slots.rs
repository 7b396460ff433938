//! The hash slots of a snapshot: from a key to its record with two cache misses.
//!
//! A slot holds 24 bits of the key's CRC32 and 40 bits of its record's offset plus one; zero is an empty slot. A key
//! stands in the first free slot from its home on, at most [`PROBES`] further. Keys that find no room are left out,
//! which a reader notices: it has seen [`PROBES`] full slots, and searches by halves instead.

/// Slots that are looked at for a key; eight cache lines. At the load chosen below, nearly every search ends in the first.
pub const PROBES: usize = 64;
/// Slots for each two keys: a third stays empty, so that searches for what is not there end early.
const SLOTS_PER_TWO_KEYS: usize = 3;
const OFFSET_BITS: u32 = 40;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
/// Records longer than this altogether are searched by halves.
pub const MAX_RECORDS_LEN: u64 = OFFSET_MASK;

/// A slot as it lies in the file.
pub type Slot = [u8; 8];

/// What a snapshot's writer makes of its keys.
#[derive(Debug)]
pub struct SlotTable {
    slots: Vec<Slot>,
}

impl SlotTable {
    /// Room for `keys` keys.
    pub fn with_keys(keys: usize) -> Self {
        Self { slots: vec![[0; 8]; keys.saturating_mul(SLOTS_PER_TWO_KEYS).div_ceil(2)] }
    }

    /// Enters the key with this hash, whose record stands at `offset`.
    pub fn insert(&mut self, hash: u32, offset: u64) {
        let home = home(hash, self.slots.len());
        let Some(window) = self.slots.get_mut(home..) else { return };
        if let Some(free) = window.iter_mut().take(PROBES).find(|slot| **slot == [0; 8]) {
            *free = encode(hash, offset);
        }
    }

    /// The section's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.slots.as_flattened()
    }
}

/// The hash of a key.
pub fn hash(key: &[u8]) -> u32 {
    crc32fast::hash(key)
}

/// Where the search for a hash begins among `slots` slots. It does not wrap around: the last ones have shorter windows.
fn home(hash: u32, slots: usize) -> usize {
    ((u64::from(hash) * slots as u64) >> u32::BITS) as usize
}

fn encode(hash: u32, offset: u64) -> Slot {
    ((u64::from(hash) << OFFSET_BITS) | ((offset + 1) & OFFSET_MASK)).to_le_bytes()
}

/// What a search among the slots says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search<T> {
    /// This is it.
    Found(T),
    /// It is not there.
    Absent,
    /// The slots do not tell.
    Unknown,
}

/// Looks for a key by its hash; `is_it` says whether the record at an offset is the one that is meant.
pub fn search<T, E>(
    slots: &[Slot],
    hash: u32,
    mut is_it: impl FnMut(u64) -> Result<Option<T>, E>,
) -> Result<Search<T>, E> {
    let tag = encode(hash, 0);
    for slot in slots.get(home(hash, slots.len())..).unwrap_or_default().iter().take(PROBES) {
        let value = u64::from_le_bytes(*slot);
        if value == 0 {
            return Ok(Search::Absent);
        }
        if value >> OFFSET_BITS == u64::from_le_bytes(tag) >> OFFSET_BITS
            && let Some(found) = is_it((value & OFFSET_MASK).wrapping_sub(1))?
        {
            return Ok(Search::Found(found));
        }
    }
    Ok(Search::Unknown)
}
