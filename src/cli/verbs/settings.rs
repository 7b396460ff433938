//! Settings, manual pages, completions.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;
use digstore::base::disk::open_or_create;
use digstore::ops::tune;
use serde_json::json;

use super::{Done, NEW_DIR_MODE, unless_quiet};
use crate::cli::app::App;
use crate::cli::args::Cli;
use crate::cli::args::store::{ConfigCommand, TuneArgs};
use crate::cli::exit::Failure;
use crate::cli::render::{printable, store};
use crate::cli::{config, user_config_file};

pub fn configure(app: &App, command: ConfigCommand) -> Done {
    match command {
        ConfigCommand::List => {
            let settings = app.config.list();
            let line =
                |one: &config::Setting| printable(&format!("{:<38} {:<14} {}", one.key, one.value, one.origin)) + "\n";
            let text = settings.iter().map(line).collect();
            Ok(app.report(&json!({ "settings": settings }), text))
        }
        ConfigCommand::Profiles => {
            let profiles = app.config.profiles();
            let line = |one: &config::ProfileInfo| {
                let mark = if app.config.profile() == Some(one.name.as_str()) { '*' } else { ' ' };
                printable(&format!("{mark} {:<20} {}", one.name, one.description.as_deref().unwrap_or_default())) + "\n"
            };
            let text = profiles.iter().map(line).collect();
            Ok(app.report(&json!({ "profiles": profiles, "current": app.config.profile() }), text))
        }
        ConfigCommand::Get { key } => {
            let setting = app.config.get(&key)?;
            let text = printable(&setting.value) + "\n";
            Ok(app.report(&setting, text))
        }
        ConfigCommand::Set { key, value, file } => {
            let file = file_of(app, file.user)?;
            config::set(&file, &key, &value, &files(app)?)?;
            let text = unless_quiet(app, || format!("Set {key} in {}.\n", file.display()));
            Ok(app.report(&json!({ "file": file.display().to_string(), "key": key, "value": value }), text))
        }
        ConfigCommand::Unset { key, file } => {
            let file = file_of(app, file.user)?;
            let was_set = config::unset(&file, &key, &files(app)?)?;
            let text = unless_quiet(app, || match was_set {
                true => format!("Removed {key} from {}.\n", file.display()),
                false => format!("{key} was not set in {}.\n", file.display()),
            });
            Ok(app.report(&json!({ "file": file.display().to_string(), "key": key, "was_set": was_set }), text))
        }
        ConfigCommand::Example => {
            let text = config::example();
            Ok(app.report(&json!({ "text": text }), text))
        }
    }
}

/// The file that a setting is written to.
fn file_of(app: &App, user: bool) -> Result<PathBuf, Failure> {
    let no_home = || Failure::usage("there is no home folder to keep a user's file in", "set HOME or XDG_CONFIG_HOME");
    match user {
        true => user_config_file().ok_or_else(no_home),
        false => Ok(config::project_file(&app.base).unwrap_or_else(|| project_root(app).join(config::FILE_NAME))),
    }
}

/// The files that settings come from, those that count more behind the others.
fn files(app: &App) -> Result<Vec<PathBuf>, Failure> {
    Ok(user_config_file().into_iter().chain([file_of(app, false)?]).collect())
}

pub fn tune(app: &App, args: &TuneArgs) -> Done {
    let at = app.open()?;
    let outcome = tune::tune(&at.repo, app.monitor())?;
    let mut text = unless_quiet(app, || store::tune(&outcome));
    if args.write && !outcome.proposals.is_empty() {
        let file = file_of(app, args.file.user)?;
        for proposal in &outcome.proposals {
            config::set(&file, proposal.key, &proposal.value, &files(app)?)?;
        }
        text.push_str(&unless_quiet(app, || format!("Written to {}.\n", file.display())));
    }
    Ok(app.report(&outcome, text))
}

/// Where a project's first `digstore.toml` goes: beside the repository if there is one, else here.
fn project_root(app: &App) -> PathBuf {
    digstore::repo::discover(&app.base).map_or_else(|_| app.base.clone(), |(root, _)| root)
}

pub fn man(app: &App, to: Option<&Path>) -> Done {
    let command = Cli::command();
    let Some(to) = to else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        let page = String::from_utf8_lossy(&page).into_owned();
        return Ok(app.report(&json!({ "page": page }), page));
    };
    let dir = open_or_create(&app.base.join(to), NEW_DIR_MODE)?;
    clap_mangen::generate_to(command, dir.path())?;
    let text = unless_quiet(app, || format!("Wrote the manual pages to {}.\n", to.display()));
    Ok(app.report(&json!({ "folder": to.display().to_string() }), text))
}

pub fn completions(app: &App, shell: Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "digstore", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Ok(app.report(&json!({ "shell": shell.to_string(), "script": script }), script))
}
