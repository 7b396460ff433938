//! Floor 7: the verbs.
//!
//! One file a verb, with its `Options`, its `Outcome` and one entry function
//! `verb(&Repository, &Options, &dyn Monitor) -> Result<Outcome, Error>`. Verbs know no flags and no terminal.

pub mod add;
pub mod checkout;
pub mod commit;
pub mod compare;
pub mod error;
pub mod ingest;
pub mod materialize;
pub mod mv;
pub mod rm;
pub mod scan;
pub mod status;

pub use error::Error;

/// The result of a verb.
pub type Result<T> = std::result::Result<T, Error>;
