//! Arguments of what looks at history and names it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use digstore::ops::cat::ByteRange;

#[derive(Debug, Clone, Args)]
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

#[derive(Debug, Clone, Args)]
pub struct DiffStyle {
    /// Only how much changed in each file
    #[arg(long, conflicts_with = "name_only")]
    pub stat: bool,
    /// Only the names of changed files
    #[arg(long)]
    pub name_only: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// The commit
    #[arg(value_name = "REV", default_value = "HEAD")]
    pub revision: String,
    #[command(flatten)]
    pub style: DiffStyle,
}

#[derive(Debug, Clone, Args)]
pub struct DiffArgs {
    /// Up to two revisions, then paths to limit to
    #[arg(value_name = "REV|PATH")]
    pub targets: Vec<OsString>,
    /// Paths to limit to
    #[arg(last = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Compare what is staged with HEAD (or with REV)
    #[arg(long, visible_alias = "cached")]
    pub staged: bool,
    /// Unchanged lines shown around a change
    #[arg(short = 'U', long, value_name = "N", default_value_t = 3)]
    pub unified: usize,
    #[command(flatten)]
    pub style: DiffStyle,
}

#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// What to export: a revision, or a folder or file in one
    #[arg(value_name = "REV[:PATH]", default_value = "HEAD")]
    pub target: OsString,
    /// A folder that is absent or empty, or FILE.tar, or FILE.tar.zst
    #[arg(long, value_name = "DIR|FILE")]
    pub to: PathBuf,
}

#[derive(Debug, Clone, Args)]
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

#[derive(Debug, Clone, Args)]
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

#[derive(Debug, Clone, Args)]
pub struct CatArgs {
    /// The file, as REV:PATH from the root of the work tree
    #[arg(value_name = "REV:PATH")]
    pub target: OsString,
    /// Only these bytes, counted from 0: 0-99 (the first hundred), 100- or -100 (the last hundred)
    #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
    pub bytes: Option<ByteRange>,
}

#[derive(Debug, Clone, Args)]
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
