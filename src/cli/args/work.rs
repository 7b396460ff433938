//! Arguments of what changes the work tree and staging.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The folder; the current one by default
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct AddArgs {
    /// Files and folders
    #[arg(value_name = "PATH", required_unless_present = "all")]
    pub paths: Vec<PathBuf>,
    /// Everything in the work tree, wherever in it you are. PATHs narrow it to them
    #[arg(short = 'A', long)]
    pub all: bool,
    /// Only show what would be added
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Also what .digignore leaves out
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Clone, Args)]
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

#[derive(Debug, Clone, Args)]
pub struct MvArgs {
    /// Tracked files or folders, then the new name or the folder to move into
    #[arg(value_name = "PATH", required = true, num_args = 2..)]
    pub paths: Vec<PathBuf>,
    /// Only show what would be moved
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, Args)]
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

#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Only these paths
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// One line for each path; nothing when clean
    #[arg(short, long)]
    pub short: bool,
}

#[derive(Debug, Clone, Args)]
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

#[derive(Debug, Clone, Args)]
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

#[derive(Debug, Clone, Args)]
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
