//! Floor 5, outside the repository: the work tree, and sparse bundles.
//!
//! Walking with ignore rules, reading files without following links, writing them back. This room never opens anything
//! in the repository's folder and knows nothing of layers or the journal.

pub mod bundle;
pub mod dirs;
pub mod globs;
pub mod ignore;
pub mod read;
pub mod walk;
pub mod write;
