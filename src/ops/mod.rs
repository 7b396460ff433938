//! Floor 7: the verbs.
//!
//! One file a verb, with its `Options`, its `Outcome` and one entry function
//! `verb(&Repository, &Options, &dyn Monitor) -> Result<Outcome, Error>`. Verbs know no flags and no terminal.

pub mod add;
pub mod bundle;
pub mod capture;
pub mod cat;
pub mod checkout;
pub mod checkpoint;
pub mod commit;
pub mod compare;
pub mod content;
pub mod diff;
pub mod error;
pub mod export;
pub mod fsck;
pub mod gc;
pub mod ingest;
pub mod layer;
pub mod log;
pub mod ls;
pub mod materialize;
pub mod migrate;
mod moved;
pub mod mv;
pub mod proof;
pub mod reach;
pub mod refs;
pub mod rm;
pub mod scan;
pub mod session;
pub mod show;
pub mod stats;
pub mod status;
#[cfg(test)]
pub mod testing;
pub mod tune;
pub mod undo;
mod worklist;

pub use error::Error;

/// The result of a verb.
pub type Result<T> = std::result::Result<T, Error>;
