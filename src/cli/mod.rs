//! The command line: arguments, settings, terminal, exit codes. Everything that knows a flag or the environment is here.

mod app;
mod args;
mod author;
mod config;
mod demo;
mod environment;
mod exit;
mod performance;
mod progress;
mod render;
mod streams;
mod verbs;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use clap::Parser;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use app::{App, Report, base_folder, wants_color};
use args::bundle::BundleCommand;
use args::checkpoint::CheckpointCommand;
use args::session::SessionCommand;
use args::store::{ConfigCommand, ProofCommand};
use args::{Cli, Command};
use config::Config;
use exit::{Exit, Failure};
use performance::alerts;
use progress::Progress;
use render::Paint;
use streams::Streams;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            // Help and version are no failures; where nobody reads them, nothing is to be done.
            let _ = error.print();
            return Exit::Done.into();
        }
        Err(error) => {
            // What was wanted is not known, since the arguments were not understood; but how it is to be said can be seen.
            if args::asks_for_json(std::env::args_os()) {
                say(&Failure::arguments(&error.to_string()).describe(true));
            } else {
                let _ = error.print();
            }
            return Exit::Usage.into();
        }
    };
    let as_json = cli.global.json;
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) if failure.is_broken_pipe() => Exit::Done.into(),
        Err(failure) => {
            say(&failure.describe(as_json));
            failure.exit().into()
        }
    }
}

/// Writes to stderr. If that is closed, there is nobody to tell.
pub fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let Cli { global, command } = cli;
    let cancelled = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second signal ends the process at once; nothing that was recorded depends on a clean end.
        signal_hook::flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(&cancelled))?;
        signal_hook::flag::register(signal, Arc::clone(&cancelled))?;
    }
    let base = base_folder(global.start.as_deref())?;
    let mends =
        matches!(command, Command::Config { command: Some(ConfigCommand::Set { .. } | ConfigCommand::Unset { .. }) });
    let config = match Config::load(&base, user_config_file().as_deref(), global.profile.as_deref()) {
        // What mends a file must work while it is broken.
        Err(_) if mends => Config::defaults()?,
        loaded => loaded?,
    };
    config.limit_allocator();
    let draw = !global.no_progress && !global.quiet && !global.json && io::stderr().is_terminal();
    let progress = Progress::new(draw, global.json, config.drawing(), cancelled);
    let paint = Paint(!global.json && wants_color(global.color));
    let name = name_of(&command);
    let (streams, pools, started) = (Streams::default(), OnceLock::new(), Instant::now());
    let app = App { global, config, progress, base, paint, streams, pools, started };
    let report = match verbs::run(&app, command.clone()) {
        // Another process has moved what was about to be read; its new place is in the journal by now.
        Err(failure) if failure.is_missing_layer() && !app.streams.used() => verbs::run(&app, command)?,
        done => done?,
    };
    print(&app, name, report)
}

/// Prints what a command leaves and decides how the program ends.
fn print(app: &App, name: &'static str, report: Report) -> Result<Exit, Failure> {
    let Report { json, text, mut notes, exit } = report;
    let summary = app.summary();
    // What reads or prints as it goes may have waited for events or for its reader: its time says nothing.
    let thresholds = app.config.thresholds().filter(|_| !app.streams.used());
    if let Some((summary, thresholds)) = summary.as_ref().zip(thresholds) {
        notes.extend(alerts(summary, &thresholds));
    }
    let problems = app.progress.problems();
    let exit = if exit == Exit::Done && !problems.is_empty() { Exit::Partial } else { exit };
    let mut out = io::stdout().lock();
    if let Some(json) = json {
        write!(out, "{{\"schema\":{}", json!(format!("digstore.{name}/1")))?;
        // The fields of the outcome as they are: they may be hundreds of megabytes long.
        let fields = json.strip_prefix('{').and_then(|json| json.strip_suffix('}')).unwrap_or_default();
        if !fields.is_empty() {
            write!(out, ",{fields}")?;
        }
        write!(out, ",\"problems\":{},\"notes\":{}", json!(problems), json!(notes))?;
        if app.global.stats {
            write!(out, ",\"performance\":{}", json!(summary))?;
        }
        out.write_all(b"}\n")?;
    } else {
        out.write_all(text.as_bytes())?;
        if !app.global.quiet && !app.global.json {
            notes.iter().for_each(|note| say(&format!("note: {note}\n")));
            let line = summary.as_ref().filter(|_| thresholds.is_some()).and_then(performance::line);
            if let Some(line) = line.filter(|_| !app.global.stats) {
                say(&format!("{line}\n"));
            }
        }
        if let Some(summary) = summary.filter(|_| app.global.stats) {
            say(&performance::text(&summary));
        }
    }
    out.flush()?;
    Ok(exit)
}

/// The user's own `digstore.toml`.
fn user_config_file() -> Option<PathBuf> {
    let set = |name: &str| environment::var_os(name).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(folder.join("digstore").join("digstore.toml"))
}

fn name_of(command: &Command) -> &'static str {
    match command {
        Command::Init(_) => "init",
        Command::Add(_) => "add",
        Command::Rm(_) => "rm",
        Command::Mv(_) => "mv",
        Command::Commit(_) => "commit",
        Command::Status(_) => "status",
        Command::Log(_) => "log",
        Command::Show(_) => "show",
        Command::Diff(_) => "diff",
        Command::Checkout(_) => "checkout",
        Command::Switch(_) => "switch",
        Command::Restore(_) => "restore",
        Command::Export(_) => "export",
        Command::Branch(_) => "branch",
        Command::Tag(_) => "tag",
        Command::Cat(_) => "cat",
        Command::Ls(_) => "ls",
        Command::Checkpoint(command) => match command {
            CheckpointCommand::Create(_) => "checkpoint-create",
            CheckpointCommand::List(_) => "checkpoint-list",
            CheckpointCommand::Show { .. } => "checkpoint-show",
            CheckpointCommand::Diff(_) => "checkpoint-diff",
            CheckpointCommand::Restore(_) => "checkpoint-restore",
            CheckpointCommand::Tag { .. } => "checkpoint-tag",
            CheckpointCommand::Annotate { .. } => "checkpoint-annotate",
            CheckpointCommand::Delete { .. } => "checkpoint-delete",
            CheckpointCommand::Compact(_) => "checkpoint-compact",
            CheckpointCommand::Export(_) => "checkpoint-export",
            CheckpointCommand::Import { .. } => "checkpoint-import",
            CheckpointCommand::Watch(_) => "checkpoint-watch",
        },
        Command::Session(command) => match command {
            SessionCommand::Begin { .. } => "session-begin",
            SessionCommand::End { .. } => "session-end",
            SessionCommand::Abort { .. } => "session-abort",
            SessionCommand::List => "session-list",
            SessionCommand::Show { .. } => "session-show",
            SessionCommand::Put { .. } => "session-put",
            SessionCommand::Get { .. } => "session-get",
            SessionCommand::Cas(_) => "session-cas",
            SessionCommand::Del { .. } => "session-del",
            SessionCommand::Append { .. } => "session-append",
            SessionCommand::Events(_) => "session-events",
            SessionCommand::Replay { .. } => "session-replay",
            SessionCommand::Diff { .. } => "session-diff",
            SessionCommand::Export { .. } => "session-export",
        },
        Command::Bundle(command) => match command {
            BundleCommand::Create { .. } => "bundle-create",
            BundleCommand::Info { .. } => "bundle-info",
            BundleCommand::Import { .. } => "bundle-import",
            BundleCommand::Export { .. } => "bundle-export",
            BundleCommand::Verify { .. } => "bundle-verify",
        },
        Command::Undo(_) => "undo",
        Command::Fsck(_) => "fsck",
        Command::Gc(_) => "gc",
        Command::Migrate(_) => "migrate",
        Command::Stats(_) => "stats",
        Command::Proof(ProofCommand::Create { .. }) => "proof-create",
        Command::Proof(ProofCommand::Verify { .. }) => "proof-verify",
        Command::Layer(_) => "layer",
        Command::Tune(_) => "tune",
        Command::Config { .. } => "config",
        Command::Completions { .. } => "completions",
        Command::Man { .. } => "man",
        Command::Demo(_) => "demo",
    }
}
