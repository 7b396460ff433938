//! What may be written on the command line, and its help.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use digstore::ops::cat::ByteRange;

use super::config::THREADS;

const AFTER_HELP: &str = "\
A first round:
  digstore init                      make this folder a repository
  digstore add .                     store what is in it
  digstore commit -m 'first'         record it
  digstore status                    see what changed since
  digstore checkout HEAD~1           go back

A revision (REV) is a branch, a tag, HEAD, HEAD~3, or the first digits of a commit's id.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some inputs could not be read, 4 damage found,
5 locked by another process, 130 interrupted.";

/// Version control for big files and whole working trees at the speed of the disk.
#[derive(Debug, Parser)]
#[command(name = "digstore", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
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
    /// Use a profile: source_code, media_files, mixed_workload or one from digstore.toml
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
    /// Draw no progress
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// When to use colors
    #[arg(long, value_name = "WHEN", global = true, value_enum, default_value_t = ColorWhen::Auto)]
    pub color: ColorWhen,
    /// Threads that compute; 0 is one for each processor
    #[arg(long, value_name = "N", global = true, value_parser = threads)]
    pub threads: Option<usize>,
    /// Wait at most this many seconds for another process that changes the repository
    #[arg(long, value_name = "SECONDS", global = true, value_parser = seconds)]
    pub lock_timeout: Option<Duration>,
}

fn threads(text: &str) -> Result<usize, String> {
    let most = *THREADS.end();
    let number = text.parse().ok().filter(|number| THREADS.contains(number));
    let number = number.and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("write a number from 0 to {most}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "write a number of seconds, such as 30 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// If stdout is a terminal and NO_COLOR is not set
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
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
    /// Check that everything is there and undamaged
    Fsck(FsckArgs),
    /// Count what is stored and what it costs
    Stats(StatsArgs),
    /// Look at the files that hold everything
    #[command(subcommand)]
    Layer(LayerCommand),
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

#[derive(Debug, Args)]
pub struct InitArgs {
    /// The folder; the current one by default
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// Files and folders
    #[arg(value_name = "PATH", required_unless_present = "all")]
    pub paths: Vec<PathBuf>,
    /// Everything in the work tree
    #[arg(short = 'A', long, conflicts_with = "paths")]
    pub all: bool,
    /// Only show what would be added
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Also what .digignore leaves out
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Tracked files
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Folders with all that is in them, too
    #[arg(short, long)]
    pub recursive: bool,
    /// Leave the files on disk, only stop tracking them
    #[arg(long)]
    pub cached: bool,
    /// Even if the content is stored nowhere
    #[arg(short, long)]
    pub force: bool,
    /// Only show what would be removed
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct MvArgs {
    /// Tracked files or folders, then the new name or the folder to move into
    #[arg(value_name = "PATH", required = true, num_args = 2..)]
    pub paths: Vec<PathBuf>,
    /// Only show what would be moved
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct CommitArgs {
    /// What the commit is about; given again, it adds a paragraph
    #[arg(short, long, value_name = "MSG", required = true)]
    pub message: Vec<String>,
    /// Add changes of tracked files first
    #[arg(short, long)]
    pub all: bool,
    /// Commit even if nothing changed
    #[arg(long)]
    pub allow_empty: bool,
    /// Who made it, as 'Name <mail>'
    #[arg(long, value_name = "AUTHOR")]
    pub author: Option<String>,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only these paths
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// One line for each path; nothing when clean
    #[arg(short, long)]
    pub short: bool,
}

#[derive(Debug, Args)]
pub struct LogArgs {
    /// Where to start (default: HEAD), then paths to limit to
    #[arg(value_name = "REV|PATH")]
    pub targets: Vec<OsString>,
    /// Paths to limit to
    #[arg(last = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// At most N commits
    #[arg(short = 'n', long, value_name = "N")]
    pub max_count: Option<usize>,
    /// One line for each commit
    #[arg(long)]
    pub oneline: bool,
}

#[derive(Debug, Args)]
pub struct DiffStyle {
    /// Only how much changed in each file
    #[arg(long, conflicts_with = "name_only")]
    pub stat: bool,
    /// Only the names of changed files
    #[arg(long)]
    pub name_only: bool,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The commit
    #[arg(value_name = "REV", default_value = "HEAD")]
    pub revision: String,
    #[command(flatten)]
    pub style: DiffStyle,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Up to two revisions, then paths to limit to
    #[arg(value_name = "REV|PATH")]
    pub targets: Vec<OsString>,
    /// Paths to limit to
    #[arg(last = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Compare what is staged with HEAD (or with REV)
    #[arg(long)]
    pub staged: bool,
    /// Unchanged lines shown around a change
    #[arg(short = 'U', long, value_name = "N", default_value_t = 3)]
    pub unified: usize,
    #[command(flatten)]
    pub style: DiffStyle,
}

#[derive(Debug, Args)]
pub struct CheckoutArgs {
    /// A branch, a tag or a commit
    #[arg(value_name = "REV", required_unless_present = "create")]
    pub revision: Option<String>,
    /// Make this branch there (default: at HEAD) and be on it
    #[arg(short = 'b', value_name = "BRANCH")]
    pub create: Option<String>,
    /// Make the work tree equal to REV, whatever is lost
    #[arg(short, long)]
    pub force: bool,
    /// Set the recorded modification times
    #[arg(long)]
    pub times: bool,
    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// The branch; with -c, the revision that the new one starts at
    #[arg(value_name = "BRANCH", required_unless_present = "create")]
    pub branch: Option<String>,
    /// Make this branch and go to it
    #[arg(short = 'c', long, value_name = "BRANCH")]
    pub create: Option<String>,
    /// Make the work tree equal to the branch, whatever is lost
    #[arg(short, long)]
    pub force: bool,
    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Files and folders
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// From this revision; what is staged by default
    #[arg(short, long, value_name = "REV")]
    pub source: Option<String>,
    /// Change what is staged, not the work tree; the source is HEAD by default
    #[arg(long)]
    pub staged: bool,
    /// Overwrite even what is stored nowhere
    #[arg(short, long)]
    pub force: bool,
    /// Set the recorded modification times
    #[arg(long)]
    pub times: bool,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// What to export: a revision, or a folder or file in one
    #[arg(value_name = "REV[:PATH]", default_value = "HEAD")]
    pub target: OsString,
    /// A folder that is absent or empty, or FILE.tar, or FILE.tar.zst
    #[arg(long, value_name = "DIR|FILE")]
    pub to: PathBuf,
}

#[derive(Debug, Args)]
pub struct BranchArgs {
    /// A branch to make; without one, all are listed
    pub name: Option<String>,
    /// Where it starts (default: HEAD); with -m, the new name
    #[arg(value_name = "REV", requires = "name")]
    pub revision: Option<String>,
    /// Remove the branch
    #[arg(short, long, requires = "name", conflicts_with_all = ["revision", "rename"])]
    pub delete: bool,
    /// Rename the branch NAME to the second name
    #[arg(short = 'm', long, requires = "revision")]
    pub rename: bool,
    /// Replace an existing branch; remove one that holds commits that nothing else does
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct TagArgs {
    /// A tag to make; without one, all are listed
    pub name: Option<String>,
    /// What it stands for (default: HEAD)
    #[arg(value_name = "REV", requires = "name")]
    pub revision: Option<String>,
    /// Remove the tag
    #[arg(short, long, requires = "name", conflicts_with = "revision")]
    pub delete: bool,
    /// Replace an existing tag
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct CatArgs {
    /// The file, as REV:PATH from the root of the work tree
    #[arg(value_name = "REV:PATH")]
    pub target: OsString,
    /// Only these bytes, counted from 0: 0-99 (the first hundred), 100- or -100 (the last hundred)
    #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
    pub bytes: Option<ByteRange>,
}

#[derive(Debug, Args)]
pub struct LsArgs {
    /// A revision, or a folder or file in one
    #[arg(value_name = "REV[:PATH]", default_value = "HEAD")]
    pub target: OsString,
    /// With everything in the folders
    #[arg(short, long)]
    pub recursive: bool,
    /// With mode, length and time
    #[arg(short, long)]
    pub long: bool,
}

#[derive(Debug, Args)]
pub struct FsckArgs {
    /// Read and hash every stored byte
    #[arg(long)]
    pub full: bool,
}

#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Count the files of every commit, not only of HEAD
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Subcommand)]
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

#[derive(Debug, Args)]
pub struct ConfigFile {
    /// Change the user's file instead of the project's
    #[arg(long)]
    pub user: bool,
}

#[derive(Debug, Subcommand)]
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

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// A folder to use; by default one that every Rust machine has
    pub dir: Option<PathBuf>,
    /// Leave the temporary folder there, and say where
    #[arg(long)]
    pub keep: bool,
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
        for own in command.get_subcommands().flat_map(|verb| verb.get_arguments()) {
            assert!(!global.contains(own.get_id()), "{}", own.get_id());
        }
    }
}
