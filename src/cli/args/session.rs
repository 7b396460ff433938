//! Arguments of `digstore session`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use digstore::model::session::SessionName;

use super::parse;

pub const AFTER_HELP: &str = "\
Everything that happens in a session is an event of its log: its state can be derived as of any of them.

  digstore session begin run-1 --owner $$           an orphan when this shell is gone
  digstore session put run-1 step 3                 set a key
  digstore session cas run-1 step --expect 3 4      exit code 5 if somebody else set it
  digstore session append run-1 tool-call 'ls -l'   an event of your own
  digstore checkpoint create --session run-1        the work tree at this point
  digstore session replay run-1 --at 2              what it was after its second event
  digstore session events run-1 --follow            watch it from elsewhere
  digstore session end run-1

Keys and values are any bytes; in JSON those that are no text are {\"base64\": \"...\"}.";

#[derive(Debug, Clone, Subcommand)]
pub enum SessionCommand {
    /// Begin a session
    Begin {
        #[command(flatten)]
        session: Name,
        /// The process that it belongs to; when that is gone, the session is an orphan
        #[arg(long, value_name = "PID")]
        owner: Option<u32>,
        /// Take over an orphan of this name
        #[arg(long)]
        resume: bool,
    },
    /// End a session; what it recorded stays
    End {
        #[command(flatten)]
        session: Name,
    },
    /// Give a session up; what it recorded stays
    Abort {
        #[command(flatten)]
        session: Name,
        /// Why
        #[arg(short, long, value_name = "REASON", default_value = "", hide_default_value = true)]
        message: String,
    },
    /// List sessions in the order in which they began
    List,
    /// Show a session
    Show {
        #[command(flatten)]
        session: Name,
    },
    /// Set a key
    #[command(group(ArgGroup::new("given").required(true).args(["value", "file"])))]
    Put {
        #[command(flatten)]
        session: Name,
        #[command(flatten)]
        key: Key,
        /// Its value
        #[arg(value_name = "VALUE", allow_hyphen_values = true)]
        value: Option<OsString>,
        /// Take the value from a file; - reads stdin
        #[arg(long, value_name = "FILE|-")]
        file: Option<PathBuf>,
    },
    /// Print the value of a key and nothing else, or all keys and values
    Get {
        #[command(flatten)]
        session: Name,
        /// The key
        #[arg(value_name = "KEY")]
        key: Option<OsString>,
        /// Only keys that begin so
        #[arg(long, value_name = "PREFIX", conflicts_with = "key")]
        prefix: Option<OsString>,
    },
    /// Set or remove a key if its value is what you think; exit code 5 if it is not
    Cas(CasArgs),
    /// Remove a key
    Del {
        #[command(flatten)]
        session: Name,
        #[command(flatten)]
        key: Key,
    },
    /// Append an event
    Append {
        #[command(flatten)]
        session: Name,
        /// Its type, in a word
        #[arg(value_name = "TYPE")]
        event_type: String,
        /// What belongs to it
        #[arg(value_name = "PAYLOAD", allow_hyphen_values = true)]
        payload: Option<OsString>,
        /// Take the payload from a file; - reads stdin
        #[arg(long, value_name = "FILE|-", conflicts_with = "payload")]
        file: Option<PathBuf>,
    },
    /// Print the events, or follow them as they come
    Events(EventsArgs),
    /// Derive from the log what the session was after an event
    Replay {
        #[command(flatten)]
        session: Name,
        /// After event N; after the last by default
        #[arg(long, value_name = "N")]
        at: Option<u64>,
    },
    /// Compare the states of two sessions, or of one at two events
    Diff {
        /// The first session
        #[arg(value_name = "A", value_parser = parse::session)]
        old: SessionName,
        /// The second; may be the same
        #[arg(value_name = "B", value_parser = parse::session)]
        new: SessionName,
        /// The first after its event N
        #[arg(long, value_name = "N")]
        at_a: Option<u64>,
        /// The second after its event N
        #[arg(long, value_name = "N")]
        at_b: Option<u64>,
    },
    /// Write a session, its log and its state as a JSON document
    Export {
        #[command(flatten)]
        session: Name,
        /// Write to this file instead of stdout
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Args)]
pub struct Name {
    /// The session
    #[arg(value_name = "NAME", value_parser = parse::session)]
    pub name: SessionName,
}

#[derive(Debug, Clone, Args)]
pub struct Key {
    /// The key
    #[arg(value_name = "KEY")]
    pub key: OsString,
}

#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("old").required(true).args(["expect", "absent"])))]
#[command(group(ArgGroup::new("then").required(true).args(["new", "delete"])))]
pub struct CasArgs {
    #[command(flatten)]
    pub session: Name,
    #[command(flatten)]
    pub key: Key,
    /// The value that it must have
    #[arg(long, value_name = "OLD", allow_hyphen_values = true)]
    pub expect: Option<OsString>,
    /// It must not be set
    #[arg(long)]
    pub absent: bool,
    /// Its new value
    #[arg(value_name = "NEW", allow_hyphen_values = true)]
    pub new: Option<OsString>,
    /// Remove it
    #[arg(long)]
    pub delete: bool,
}

#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    #[command(flatten)]
    pub session: Name,
    /// From event N on
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub from: u64,
    /// Only events of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// At most N
    #[arg(short = 'n', long, value_name = "N")]
    pub max_count: Option<usize>,
    /// Go on as they come, until the session is over or Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
}
