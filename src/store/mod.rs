//! Floor 5, inside the repository: layers of objects, their index, the journal.
//!
//! This room reads and writes the repository's own folder and nothing else. It never looks at a work tree, knows no
//! verb, and takes locks from its caller instead of making them.

pub mod backend;
pub mod cache;
pub mod checkpoints;
pub mod error;
pub mod folders;
pub mod index;
pub mod journal;
pub mod layer_reader;
pub mod layer_writer;
pub mod layers;
pub mod objects;
pub mod operations;
pub mod pending;
pub mod refs;
pub mod sessions;
pub mod staging;
pub mod worktable;

pub use error::StoreError;
