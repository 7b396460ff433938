//! Arguments about the repository itself, and of what stands around it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use digstore::ops::cat::ByteRange;

#[derive(Debug, Clone, Args)]
pub struct FsckArgs {
    /// Read and hash every stored byte
    #[arg(long)]
    pub full: bool,
    /// Check every byte, set aside what is broken, and bring back what is lost from the work tree
    #[arg(long)]
    pub repair: bool,
    /// With --repair: another repository that may have what is lost here; its folder, or that of its work tree
    #[arg(long, value_name = "DIR", requires = "repair")]
    pub from: Option<PathBuf>,
}

pub const GC_HELP: &str = "\
What branches, tags, HEAD, staging and checkpoints refer to stays, and what the last hundred operations could bring back
with undo, unless --prune is given.
It works in steps: what was done before an interruption stays done. Files of layers that were replaced stay for
core.gc_grace, for commands that began to read before; the next change after that removes them.";

#[derive(Debug, Clone, Args)]
pub struct GcArgs {
    /// Only say what would be done, and what it would bring
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Compress everything anew, at level 12: slower and smaller
    #[arg(long)]
    pub aggressive: bool,
    /// Forget all that 'digstore undo' could take back, and give up what only that could bring back
    #[arg(long)]
    pub prune: bool,
    /// Remove the files of replaced layers at once, though another command may be reading them
    #[arg(long)]
    pub now: bool,
}

pub const MIGRATE_HELP: &str = "\
Format 2 stores a new version of a file as what changed, and arrays of numbers by significance. Migrating takes one step and
copies nothing: what is stored stays as it is, and 'digstore gc --aggressive' makes it smaller. An earlier digstore does not open
a repository of format 2. --undo writes what was stored since as format 1 and goes back to it.";

#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// Only say what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Go back to the format before
    #[arg(long)]
    pub undo: bool,
}

pub const TUNE_HELP: &str = "\
It reads, hashes and compresses up to 64 MiB of the work tree as 'add' would, and writes as much to a temporary file where the
repository is. A setting is proposed only where it makes storing a tenth faster or smaller, and nothing worse by a fiftieth.";

#[derive(Debug, Clone, Args)]
pub struct TuneArgs {
    /// Write what is proposed to digstore.toml
    #[arg(long)]
    pub write: bool,
    #[command(flatten)]
    pub file: ConfigFile,
}

#[derive(Debug, Clone, Args)]
pub struct StatsArgs {
    /// Count the files of every commit, not only of HEAD
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Clone, Args)]
pub struct UndoArgs {
    /// Only list what can be taken back, the last first
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub enum LayerCommand {
    /// List all layers
    List,
    /// Show what is in one
    Show {
        /// Its id, or the first digits
        #[arg(value_name = "LAYER")]
        id: String,
    },
}

pub const PROOF_HELP: &str = "\
A proof is a file of JSON with the objects on the way from the commit to the bytes, each named by its hash in the one
before. Whoever has the commit's id from a source that they trust can check it without the repository.

  digstore proof create HEAD:data/model.bin --bytes 0-4095 --to proof.json
  digstore proof verify proof.json --root COMMIT";

#[derive(Debug, Clone, Subcommand)]
pub enum ProofCommand {
    /// Write a proof
    Create {
        /// The file, as REV:PATH from the root of the work tree
        #[arg(value_name = "REV:PATH")]
        target: OsString,
        /// Only of these bytes, which the proof then holds; 64 MiB at most
        #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
        bytes: Option<ByteRange>,
        /// Write it to this file instead of stdout
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Check a proof; needs no repository
    Verify {
        /// The proof
        #[arg(value_name = "FILE")]
        proof: PathBuf,
        /// The id of the commit that is trusted, all 64 digits
        #[arg(long, value_name = "ID")]
        root: String,
        /// A file that is said to be the proven one, or the proven range
        #[arg(long, value_name = "FILE")]
        content: Option<PathBuf>,
        /// Write the proven bytes of a range to this file
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Args)]
pub struct ConfigFile {
    /// Change the user's file instead of the project's
    #[arg(long)]
    pub user: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Show all settings, their values and where these come from
    List,
    /// List the profiles
    Profiles,
    /// Print the value of a setting
    Get {
        /// Such as core.durability
        key: String,
    },
    /// Write a setting to digstore.toml
    Set {
        /// Such as core.durability
        key: String,
        /// Its new value
        value: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Remove a setting from digstore.toml
    Unset {
        /// Such as core.durability
        key: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print a digstore.toml with all settings, their defaults and what they do
    Example,
}

#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// A folder to use; by default one that every Rust machine has
    pub dir: Option<PathBuf>,
    /// Leave the temporary folder there, and say where
    #[arg(long)]
    pub keep: bool,
}
