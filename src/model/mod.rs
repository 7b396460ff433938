//! Floor 2: the nouns of version control.
//!
//! Ids, paths, trees, recipes, commits, refs and staging entries, as values whose constructors refuse nonsense. This
//! room does no I/O, computes no hash and knows no byte layout.

pub mod bundle;
pub mod checkpoint;
pub mod commit;
pub mod id;
pub mod merkle;
pub mod operation;
pub mod path;
pub mod recipe;
pub mod refs;
pub mod scopes;
pub mod session;
pub mod staging;
pub mod tree;
