//! Floor 1: what any storage program needs.
//!
//! Disk access behind a seam that tests can break, bounded decoding, progress, pools, sizes and time. This room knows
//! nothing of chunks, commits or repositories, and imports nothing of this crate but itself.

pub mod bytes;
pub mod clock;
pub mod disk;
pub mod kind;
pub mod memo;
pub mod memory;
pub mod meter;
pub mod metrics;
pub mod monitor;
pub mod pool;
pub mod process;
pub mod size;
