//! What may be written on the command line, and its help. Here is what holds for every command; the files beside it have
//! the arguments of each kind of command. Nothing here does anything.

pub mod bundle;
pub mod checkpoint;
pub mod history;
pub mod parse;
pub mod session;
pub mod store;
pub mod work;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use self::bundle::BundleCommand;
use self::checkpoint::CheckpointCommand;
use self::history::{BranchArgs, CatArgs, DiffArgs, ExportArgs, LogArgs, LsArgs, ShowArgs, TagArgs};
use self::session::SessionCommand;
use self::store::{
    ConfigCommand, DemoArgs, FsckArgs, GcArgs, LayerCommand, MigrateArgs, ProofCommand, StatsArgs, TuneArgs, UndoArgs,
};
use self::work::{AddArgs, CheckoutArgs, CommitArgs, InitArgs, MvArgs, RestoreArgs, RmArgs, StatusArgs, SwitchArgs};
use super::config::THREADS;

const AFTER_HELP: &str = "\
A first round:
  digstore init                      make this folder a repository
  digstore add .                     store what is in it
  digstore commit -m 'first'         record it
  digstore status                    see what changed since
  digstore checkout HEAD~1           go back
  digstore checkpoint create         save everything as it is right now, on no branch
  digstore checkpoint restore @12    go back to that
  digstore undo                      take back the last commit, checkout, restore, ...

A revision (REV) is a branch, a tag, HEAD, HEAD~3, or the first digits of a commit's id.
To look at something, a checkpoint's number is one, too: digstore cat @12:notes.txt

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some inputs could not be read, 4 damage found,
5 locked by another process or conflicting, 130 interrupted.";

/// Version control for big files and whole working trees at the speed of the disk.
#[derive(Debug, Parser)]
#[command(name = "digstore", version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Do these arguments ask for JSON, whatever else they say?
pub fn asks_for_json(args: impl Iterator<Item = OsString>) -> bool {
    args.take_while(|arg| arg != "--").any(|arg| arg == "--json")
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Run as if started in DIR
    #[arg(short = 'C', value_name = "DIR", global = true)]
    pub start: Option<PathBuf>,
    /// Use the repository in DIR; the work tree is then the current folder
    #[arg(long, value_name = "DIR", global = true)]
    pub store: Option<PathBuf>,
    /// Use a profile: auto, source_code, media_files, mixed_workload or one from digstore.toml
    #[arg(long, value_name = "NAME", global = true)]
    pub profile: Option<String>,
    /// Print one JSON object to stdout instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Print only what was asked for, and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more: each path, and figures about the work done
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Say at the end what the work cost: rates, time of each stage, memory, and what the limit was
    #[arg(long, global = true)]
    pub stats: bool,
    /// Draw no progress
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// When to use colors
    #[arg(long, value_name = "WHEN", global = true, value_enum, default_value_t = ColorWhen::Auto)]
    pub color: ColorWhen,
    /// Threads that compute; 0 is one for each processor
    #[arg(long, value_name = "N", global = true, value_parser = threads)]
    pub threads: Option<usize>,
    /// After add, commit and checkpoint create: do not merge small layers
    #[arg(long, global = true)]
    pub no_maintenance: bool,
    /// Wait at most this many seconds for another process that changes the repository
    #[arg(long, value_name = "SECONDS", global = true, value_parser = parse::seconds)]
    pub lock_timeout: Option<Duration>,
}

fn threads(text: &str) -> Result<usize, String> {
    let most = *THREADS.end();
    let number = text.parse().ok().filter(|number| THREADS.contains(number));
    let number = number.and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("write a number from 0 to {most}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// If stdout is a terminal and NO_COLOR is not set
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Make a folder a repository
    Init(InitArgs),
    /// Store files as they are now, for the next commit
    Add(AddArgs),
    /// Remove files from the work tree and from the next commit
    Rm(RmArgs),
    /// Rename a file, or move files into a folder
    Mv(MvArgs),
    /// Record what was added
    Commit(CommitArgs),
    /// Show what is staged, changed and untracked
    Status(StatusArgs),
    /// List commits, newest first
    Log(LogArgs),
    /// Show a commit and what it changed
    Show(ShowArgs),
    /// Show differences between commits, staging and the work tree
    #[command(after_help = "Without REV: the work tree against what is staged. One REV: the work tree against it.\n\
        Two: the second against the first. Paths that could be revisions go after '--'.")]
    Diff(DiffArgs),
    /// Make the work tree what a revision says
    #[command(after_help = "Nothing is overwritten or removed that is stored nowhere, except by --force.")]
    Checkout(CheckoutArgs),
    /// Go to another branch
    Switch(SwitchArgs),
    /// Bring single paths back as they were
    Restore(RestoreArgs),
    /// Write a revision to a folder or a tar file
    Export(ExportArgs),
    /// List, make, rename and remove branches
    Branch(BranchArgs),
    /// List, make and remove tags
    Tag(TagArgs),
    /// Print a stored file, or a range of its bytes
    Cat(CatArgs),
    /// List a stored folder
    Ls(LsArgs),
    /// Save points of the work tree at any time, and go back to them
    #[command(subcommand, after_help = checkpoint::AFTER_HELP)]
    Checkpoint(CheckpointCommand),
    /// Keep runs of work apart: each with a state, a log of events and checkpoints
    #[command(subcommand, after_help = session::AFTER_HELP)]
    Session(SessionCommand),
    /// Make, fill, read and check sparse bundles: disk images kept as folders of bands
    #[command(subcommand, after_help = bundle::AFTER_HELP)]
    Bundle(BundleCommand),
    /// Take back the last commit, checkout, restore, change of a branch or tag, or deletion of checkpoints
    #[command(after_help = "What is in the work tree is saved as a checkpoint first, so nothing is lost.")]
    Undo(UndoArgs),
    /// Check that everything is there and undamaged
    Fsck(FsckArgs),
    /// Give back the space of what nothing refers to, and make few layers of many
    #[command(after_help = store::GC_HELP)]
    Gc(GcArgs),
    /// Bring a repository of an earlier digstore forward, or take that back
    #[command(after_help = store::MIGRATE_HELP)]
    Migrate(MigrateArgs),
    /// Count what is stored and what it costs
    Stats(StatsArgs),
    /// Look at the files that hold everything
    #[command(subcommand)]
    Layer(LayerCommand),
    /// Prove that a file, or a range of its bytes, is in a commit, and check such proofs
    #[command(subcommand, after_help = store::PROOF_HELP)]
    Proof(ProofCommand),
    /// Measure this machine and this work tree, and say which settings would do better
    #[command(after_help = store::TUNE_HELP)]
    Tune(TuneArgs),
    /// Show and change settings
    Config {
        #[command(subcommand)]
        command: Option<ConfigCommand>,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page, or write one page for each command
    Man {
        /// Write all pages into this folder
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Show what digstore does, on a copy of a real folder
    #[command(after_help = "Works in a temporary folder that is removed in the end. Nothing else is changed.")]
    Demo(DemoArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        let command = Cli::command();
        command.clone().debug_assert();
        // A command's own argument of the same name would take the global one's value.
        let global: Vec<_> = command.get_arguments().map(|arg| arg.get_id().clone()).collect();
        let mut verbs: Vec<_> = command.get_subcommands().collect();
        while let Some(verb) = verbs.pop() {
            for own in verb.get_arguments() {
                assert!(!global.contains(own.get_id()), "{} {}", verb.get_name(), own.get_id());
            }
            verbs.extend(verb.get_subcommands());
        }
    }
}
