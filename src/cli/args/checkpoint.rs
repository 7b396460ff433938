//! Arguments of `digstore checkpoint`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use digstore::base::clock::UnixNanos;
use digstore::model::checkpoint::Severity;
use digstore::model::session::SessionName;

use super::history::DiffStyle;
use super::parse;

pub const AFTER_HELP: &str = "\
A checkpoint is the work tree as it is on disk, untracked files included; .digignore is respected.
It is on no branch, has a number that is given once, and costs what has changed.

  digstore checkpoint create -m 'before'   prints its number, say @12
  digstore checkpoint diff @12             what has changed since
  digstore checkpoint restore @12 src      a folder as it was; what was there is saved first
  digstore checkpoint restore @12          all of it; files made since go away
  digstore checkpoint create a.sparsebundle    a disk image alone; see 'digstore bundle --help'
  digstore undo                            that was wrong

Numbers are revisions, too: digstore cat @12:notes.txt, digstore diff @12 HEAD.";

#[derive(Debug, Clone, Subcommand)]
pub enum CheckpointCommand {
    /// Save the work tree as it is
    Create(CreateArgs),
    /// List checkpoints, newest first
    List(ListArgs),
    /// Show everything about a checkpoint
    Show {
        /// Which one
        #[arg(value_name = "@N", value_parser = parse::checkpoint)]
        number: u64,
        /// Print only its state document, as it was given
        #[arg(long, conflicts_with = "json")]
        state: bool,
    },
    /// Show differences between two checkpoints, or between one and the work tree
    Diff(CheckpointDiffArgs),
    /// Make the work tree, or paths of it, what a checkpoint says; what is there is saved first
    Restore(CheckpointRestoreArgs),
    /// Add and remove tags
    Tag {
        /// Which one
        #[arg(value_name = "@N", value_parser = parse::checkpoint)]
        number: u64,
        /// Tags to add
        #[arg(value_name = "TAG", required_unless_present = "remove")]
        add: Vec<String>,
        /// Remove this tag; may be given again
        #[arg(short = 'd', long = "delete", value_name = "TAG")]
        remove: Vec<String>,
    },
    /// Add a remark
    Annotate {
        /// Which one
        #[arg(value_name = "@N", value_parser = parse::checkpoint)]
        number: u64,
        /// The remark; given again, it adds a paragraph
        #[arg(short, long, value_name = "TEXT", required = true)]
        message: Vec<String>,
        /// How much it matters
        #[arg(long, value_name = "SEVERITY", value_enum, default_value_t = SeverityArg::Info)]
        severity: SeverityArg,
    },
    /// Delete checkpoints; 'digstore undo' brings them back until the next 'compact'
    Delete {
        /// Which ones
        #[arg(value_name = "@N", required = true, value_parser = parse::checkpoint)]
        numbers: Vec<u64>,
    },
    /// Remove checkpoints that no rule keeps, and give their space back
    Compact(CompactArgs),
    /// Write checkpoints as a JSON document
    Export(CheckpointExportArgs),
    /// Take in checkpoints that were exported
    Import {
        /// The document; - reads stdin
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// Make a checkpoint each time the work tree has changed and come to rest, until Ctrl-C
    Watch(WatchArgs),
}

/// What every checkpoint that is made may be given.
#[derive(Debug, Clone, Args)]
pub struct Label {
    /// What it is about; given again, it adds a paragraph
    #[arg(short, long, value_name = "MSG")]
    pub message: Vec<String>,
    /// The session that it belongs to
    #[arg(long, value_name = "SESSION", value_parser = parse::session)]
    pub session: Option<SessionName>,
    /// A word to find it by; may be given again
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Make none if the last one, of the session if one is named, is younger than this
    #[arg(long, value_name = "SECONDS", value_parser = parse::seconds)]
    pub min_interval: Option<Duration>,
}

#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Save this sparse bundle, ignored or not, instead of the work tree
    #[arg(value_name = "BUNDLE")]
    pub bundle: Option<PathBuf>,
    #[command(flatten)]
    pub label: Label,
    /// A JSON document to keep with it
    #[arg(long, value_name = "JSON")]
    pub state: Option<String>,
    /// The same from a file; - reads stdin
    #[arg(long, value_name = "FILE|-", conflicts_with = "state")]
    pub state_file: Option<PathBuf>,
    /// It is made by a program: make none if the work tree is as it was
    #[arg(long, conflicts_with_all = ["scheduled", "no_tree"])]
    pub auto: bool,
    /// With --auto: what it is made because of, in a word
    #[arg(long, value_name = "KIND", requires = "auto", default_value = "changed")]
    pub kind: String,
    /// It is made by a clock
    #[arg(long)]
    pub scheduled: bool,
    /// Record only what is said here, not the work tree
    #[arg(long, conflicts_with = "bundle")]
    pub no_tree: bool,
    /// Keep clones of the bands as well, where the file system can: they cost nothing and are restored at once
    #[arg(long, requires = "bundle")]
    pub snapshot: bool,
    /// Read every file, even if it looks as it did
    #[arg(long, conflicts_with = "no_tree")]
    pub paranoid: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Only those of this session
    #[arg(long, value_name = "SESSION", value_parser = parse::session)]
    pub session: Option<SessionName>,
    /// Only those with this tag
    #[arg(long, value_name = "TAG")]
    pub tag: Option<String>,
    /// Only those made since: 2026-01-31, 2026-01-31T12:00:00Z, or how long ago, such as 90m, 2h, 3d
    #[arg(long, value_name = "TIME", value_parser = parse::since)]
    pub since: Option<UnixNanos>,
    /// Only those made before that; a day counts with all its hours
    #[arg(long, value_name = "TIME", value_parser = parse::until)]
    pub until: Option<UnixNanos>,
    /// At most N (default: 20, with --json all)
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "all")]
    pub max_count: Option<usize>,
    /// All of them
    #[arg(long)]
    pub all: bool,
    /// Only those before this one: the next page
    #[arg(long, value_name = "@N", value_parser = parse::checkpoint)]
    pub before: Option<u64>,
}

#[derive(Debug, Clone, Args)]
pub struct CheckpointDiffArgs {
    /// The checkpoint to compare
    #[arg(value_name = "@A", value_parser = parse::checkpoint)]
    pub old: u64,
    /// The one to compare it with (the work tree on disk by default), then paths to limit to
    #[arg(value_name = "@B|PATH")]
    pub targets: Vec<OsString>,
    /// Paths to limit to
    #[arg(last = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Unchanged lines shown around a change
    #[arg(short = 'U', long, value_name = "N", default_value_t = 3)]
    pub unified: usize,
    #[command(flatten)]
    pub style: DiffStyle,
}

#[derive(Debug, Clone, Args)]
pub struct CheckpointRestoreArgs {
    /// The checkpoint
    #[arg(value_name = "@N", value_parser = parse::checkpoint)]
    pub number: u64,
    /// Only these files and folders
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Set the recorded modification times
    #[arg(long)]
    pub times: bool,
}

/// [`Severity`] as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SeverityArg {
    Info,
    Warning,
    Critical,
}

impl From<SeverityArg> for Severity {
    fn from(severity: SeverityArg) -> Self {
        match severity {
            SeverityArg::Info => Self::Info,
            SeverityArg::Warning => Self::Warning,
            SeverityArg::Critical => Self::Critical,
        }
    }
}

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "A checkpoint stays if at least one rule keeps it. Without a rule all stay, and only the space of \
    what was deleted before is given back. Checkpoints of each bundle are counted for themselves."
)]
pub struct CompactArgs {
    /// Keep the N newest
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
    /// Keep those with any tag
    #[arg(long, conflicts_with = "keep_tag")]
    pub keep_tagged: bool,
    /// Keep those with this tag; may be given again
    #[arg(long, value_name = "TAG")]
    pub keep_tag: Vec<String>,
    /// Keep those of the last hour, then one for each hour of a day, then one for each day
    #[arg(long)]
    pub thin: bool,
    /// Only checkpoints of this session
    #[arg(long, value_name = "SESSION", value_parser = parse::session)]
    pub session: Option<SessionName>,
    /// Only show what would go
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Keep the space until the next time, so that 'digstore undo' can bring them back
    #[arg(long)]
    pub later: bool,
}

#[derive(Debug, Clone, Args)]
pub struct CheckpointExportArgs {
    /// Which ones; all by default
    #[arg(value_name = "@N", value_parser = parse::checkpoint)]
    pub numbers: Vec<u64>,
    /// Only those of this session
    #[arg(long, value_name = "SESSION", value_parser = parse::session, conflicts_with = "numbers")]
    pub session: Option<SessionName>,
    /// With the content of the files, for a repository that does not have it
    #[arg(long)]
    pub content: bool,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// Watch this sparse bundle instead of the work tree
    #[arg(value_name = "BUNDLE")]
    pub bundle: Option<PathBuf>,
    #[command(flatten)]
    pub label: Label,
    /// How often to look
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse::seconds)]
    pub interval: Duration,
    /// End after N checkpoints
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}
