//! From arguments to a verb's options, and from its outcome to a report. One file for each kind of command; nothing is
//! printed here but what is a stream by nature: the content of a file, events as they come.

mod bundle;
mod checkpoint;
mod history;
mod session;
mod settings;
mod store;
mod work;

use super::app::{App, Report};
use super::args::Command;
use super::args::store::ConfigCommand;
use super::demo;
use super::exit::Failure;

type Done = Result<Report, Failure>;

/// The folder of a new repository is for everybody as far as the umask allows; what is inside is its owner's.
const NEW_DIR_MODE: u32 = 0o777;

/// Carries a command out.
pub fn run(app: &App, command: Command) -> Done {
    match command {
        Command::Init(args) => work::init(app, &args),
        Command::Add(args) => work::add(app, &args),
        Command::Rm(args) => work::rm(app, &args),
        Command::Mv(args) => work::mv(app, &args),
        Command::Commit(args) => work::commit(app, &args),
        Command::Status(args) => work::status(app, &args),
        Command::Log(args) => history::log(app, &args),
        Command::Show(args) => history::show(app, args),
        Command::Diff(args) => history::diff(app, &args),
        Command::Checkout(args) => work::checkout(app, args),
        Command::Switch(args) => work::switch(app, args),
        Command::Restore(args) => work::restore(app, args),
        Command::Export(args) => history::export(app, &args),
        Command::Branch(args) => history::branch(app, args),
        Command::Tag(args) => history::tag(app, args),
        Command::Cat(args) => history::cat(app, &args),
        Command::Ls(args) => history::ls(app, &args),
        Command::Checkpoint(command) => checkpoint::run(app, command),
        Command::Session(command) => session::run(app, command),
        Command::Bundle(command) => bundle::run(app, command),
        Command::Undo(args) => store::undo(app, &args),
        Command::Fsck(args) => store::fsck(app, &args),
        Command::Gc(args) => store::gc(app, &args),
        Command::Migrate(args) => store::migrate(app, &args),
        Command::Stats(args) => store::stats(app, &args),
        Command::Proof(command) => store::proof(app, command),
        Command::Layer(command) => store::layer(app, command),
        Command::Tune(args) => settings::tune(app, &args),
        Command::Config { command } => settings::configure(app, command.unwrap_or(ConfigCommand::List)),
        Command::Completions { shell } => settings::completions(app, shell),
        Command::Man { to } => settings::man(app, to.as_deref()),
        Command::Demo(args) => demo::run(app, &args),
    }
}

/// Text that only says what was done is not asked for under `--quiet`.
fn unless_quiet(app: &App, text: impl FnOnce() -> String) -> String {
    if app.global.quiet { String::new() } else { text() }
}
