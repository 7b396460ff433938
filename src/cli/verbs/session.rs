//! `digstore session`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use digstore::base::monitor::Monitor;
use digstore::model::session::{Event, MAX_VALUE_LEN, Session, SessionName};
use digstore::ops::session::replay::{Bytes, EventLine, Pair};
use digstore::ops::session::{self, events, replay, state};
use serde_json::json;

use super::{Done, unless_quiet};
use crate::cli::app::{App, Report};
use crate::cli::args::session::{CasArgs, EventsArgs, SessionCommand};
use crate::cli::exit::Failure;
use crate::cli::render::session as render;

/// A follower asks this often whether to stop.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Carries a command out.
pub fn run(app: &App, command: SessionCommand) -> Done {
    match command {
        SessionCommand::Begin { session, owner, resume } => {
            let options = session::BeginOptions { name: session.name, owner, resume };
            let outcome = session::begin(&app.open()?.repo, &options, app.monitor())?;
            Ok(lived(app, &outcome, if resume { "Resumed" } else { "Began" }))
        }
        SessionCommand::End { session } => {
            Ok(lived(app, &session::end(&app.open()?.repo, &session.name, app.monitor())?, "Ended"))
        }
        SessionCommand::Abort { session, message } => {
            Ok(lived(app, &session::abort(&app.open()?.repo, &session.name, &message, app.monitor())?, "Gave up"))
        }
        SessionCommand::List => {
            let outcome = session::list(&app.open()?.repo, app.monitor())?;
            let text = render::list(&outcome.sessions, app.paint);
            Ok(app.report(&outcome, text))
        }
        SessionCommand::Show { session } => {
            let outcome = session::show(&app.open()?.repo, &session.name, app.monitor())?;
            let text = render::show(&outcome.session, app.paint);
            Ok(app.report(&outcome, text))
        }
        SessionCommand::Put { session, key, value, file } => {
            let value = given(app, value, file.as_deref())?;
            let key = key.key.as_bytes();
            let outcome = state::put(&app.open()?.repo, &session.name, key, &value, app.monitor())?;
            Ok(app.report(&outcome, String::new()))
        }
        SessionCommand::Get { session, key, prefix } => get(app, &session.name, key, prefix),
        SessionCommand::Cas(args) => cas(app, &args),
        SessionCommand::Del { session, key } => {
            let outcome = state::delete(&app.open()?.repo, &session.name, key.key.as_bytes(), app.monitor())?;
            Ok(app.report(&outcome, String::new()))
        }
        SessionCommand::Append { session, event_type, payload, file } => {
            let payload = given(app, payload, file.as_deref())?;
            let event = events::append(&app.open()?.repo, &session.name, &event_type, &payload, app.monitor())?;
            Ok(app.report(&json!({ "event": event }), unless_quiet(app, || format!("{event}\n"))))
        }
        SessionCommand::Events(args) => log(app, args),
        SessionCommand::Replay { session, at } => {
            let view = replay::replay(&app.open()?.repo, &session.name, at, app.monitor())?;
            let text = render::replay(session.name.as_str(), &view, app.global.verbose, app.paint);
            let json = json!({
                "name": session.name,
                "at": view.at,
                "status": view.status,
                "values": view.pairs(),
                "checkpoints": view.checkpoints,
                "counts": view.counts,
            });
            Ok(app.report(&json, text))
        }
        SessionCommand::Diff { old, new, at_a, at_b } => {
            let outcome = replay::diff(&app.open()?.repo, (&old, at_a), (&new, at_b), app.monitor())?;
            let text = render::diff(&outcome, app.global.verbose, app.paint);
            Ok(app.report(&outcome, text))
        }
        SessionCommand::Export { session, to } => export(app, &session.name, to),
    }
}

fn lived(app: &App, outcome: &session::Outcome, verb: &str) -> Report {
    let Session { name, events, .. } = &outcome.session;
    app.report(outcome, unless_quiet(app, || format!("{verb} the session {name} (event {events}).\n")))
}

/// A value from the command line or from a file.
fn given(app: &App, value: Option<OsString>, file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    match file {
        Some(file) => app.input(file, MAX_VALUE_LEN),
        None => Ok(value.unwrap_or_default().as_bytes().to_vec()),
    }
}

fn get(app: &App, name: &SessionName, key: Option<OsString>, prefix: Option<OsString>) -> Done {
    let at = app.open()?;
    let Some(key) = key else {
        let prefix = prefix.unwrap_or_default();
        let found = state::values(&at.repo, name, prefix.as_bytes(), app.monitor())?;
        let text = found.iter().map(|(key, value)| render::pair(key, value, app.global.verbose)).collect();
        let pair = |(key, value)| Pair { key: Bytes(key), value: Bytes(value) };
        let values: Vec<Pair> = found.into_iter().map(pair).collect();
        return Ok(app.report(&json!({ "name": name, "values": values }), text));
    };
    let value = state::value(&at.repo, name, key.as_bytes(), app.monitor())?;
    if !app.global.json {
        app.print(&value)?;
        return Ok(Report::printed());
    }
    let json = json!({ "name": name, "key": Bytes(key.as_bytes().to_vec()), "value": Bytes(value) });
    Ok(app.report(&json, String::new()))
}

fn cas(app: &App, args: &CasArgs) -> Done {
    let CasArgs { session, key, expect, new, .. } = args;
    let bytes = |word: &Option<OsString>| word.as_ref().map(|word| word.as_bytes().to_vec());
    let (expected, new) = (bytes(expect), bytes(new));
    let outcome = state::compare_and_swap(
        &app.open()?.repo,
        &session.name,
        key.key.as_bytes(),
        expected.as_deref(),
        new.as_deref(),
        app.monitor(),
    )?;
    Ok(app.report(&outcome, String::new()))
}

fn log(app: &App, args: EventsArgs) -> Done {
    if args.follow {
        return follow(app, &args);
    }
    let EventsArgs { session, from, event_type, max_count, .. } = args;
    let options = events::Options { from, event_type, max_count };
    let found = events::events(&app.open()?.repo, &session.name, &options, app.monitor())?;
    let text = found.iter().map(|event| render::event(event, app.global.verbose, app.paint)).collect();
    let lines: Vec<EventLine> = found.iter().map(EventLine::from).collect();
    Ok(app.report(&json!({ "name": session.name, "events": lines }), text))
}

/// Prints events as they come.
fn follow(app: &App, args: &EventsArgs) -> Done {
    let at = app.open()?;
    let mut subscription = events::subscribe(&at.repo, &args.session.name, args.from)?;
    let mut left = args.max_count.unwrap_or(usize::MAX);
    let is_wanted = |event: &Event| args.event_type.as_ref().is_none_or(|wanted| event.kind.word() == wanted);
    while left > 0 && !app.progress.cancelled() {
        let Some(event) = subscription.next(ASK_EVERY)? else {
            if subscription.is_over()? {
                break;
            }
            continue;
        };
        if !is_wanted(&event) {
            continue;
        }
        left -= 1;
        match app.global.json {
            true => app.print_object("session-event", &EventLine::from(&event))?,
            false => app.print(render::event(&event, app.global.verbose, app.paint).as_bytes())?,
        }
    }
    Ok(Report::printed())
}

fn export(app: &App, name: &SessionName, to: Option<PathBuf>) -> Done {
    let mut document = replay::export(&app.open()?.repo, name, app.monitor())?;
    document.push(b'\n');
    let Some(to) = to else {
        app.print(&document)?;
        return Ok(Report::printed());
    };
    app.write_file(&to, &document)?;
    let text = unless_quiet(app, || format!("Wrote the session {name} to {}.\n", to.display()));
    Ok(app.report(&json!({ "name": name, "bytes": document.len() }), text))
}
