//! The repository itself.

use digstore::ops::{fsck, layer, stats, undo};

use super::{Done, unless_quiet};
use crate::cli::app::{App, Report};
use crate::cli::args::store::{FsckArgs, LayerCommand, StatsArgs, UndoArgs};
use crate::cli::exit::Exit;
use crate::cli::render::store;

pub fn fsck(app: &App, args: &FsckArgs) -> Done {
    let at = app.open()?;
    let outcome = fsck::fsck(&at.repo, &fsck::Options { full: args.full }, app.monitor())?;
    let text = match app.global.quiet && !outcome.is_damaged() {
        true => String::new(),
        false => store::fsck(&outcome, app.paint),
    };
    Ok(Report::new(&outcome, text).exit_if(outcome.is_damaged(), Exit::Damaged))
}

pub fn stats(app: &App, args: &StatsArgs) -> Done {
    let at = app.open()?;
    let outcome = stats::stats(&at.repo, &stats::Options { all: args.all }, app.monitor())?;
    let text = store::stats(&outcome);
    Ok(Report::new(&outcome, text))
}

pub fn layer(app: &App, command: LayerCommand) -> Done {
    let at = app.open()?;
    match command {
        LayerCommand::List => {
            let outcome = layer::list(&at.repo, &layer::ListOptions {}, app.monitor())?;
            let text = store::layers(&outcome, app.paint);
            Ok(Report::new(&outcome, text))
        }
        LayerCommand::Show { id } => {
            let outcome = layer::show(&at.repo, &layer::ShowOptions { id }, app.monitor())?;
            let text = store::layer(&outcome, app.global.verbose);
            Ok(Report::new(&outcome, text))
        }
    }
}

pub fn undo(app: &App, args: &UndoArgs) -> Done {
    let at = app.open()?;
    let outcome = undo::undo(&at.repo, &undo::Options { dry_run: args.dry_run }, app.monitor())?;
    let text = unless_quiet(app, || store::undo(&outcome, app.paint));
    Ok(Report::new(&outcome, text).exit_if(outcome.failed > 0, Exit::Failed))
}
