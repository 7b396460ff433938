//! `digstore bundle`.

use digstore::base::pool::Pools;
use digstore::ops::bundle::{self, check, export, import};

use super::{Done, unless_quiet};
use crate::cli::app::App;
use crate::cli::args::bundle::BundleCommand;
use crate::cli::exit::Exit;
use crate::cli::render::bundle as render;

/// Carries a command out.
pub fn run(app: &App, command: BundleCommand) -> Done {
    let settings = app.settings();
    let pools = Pools::new(settings.io_threads, settings.cpu_threads);
    match command {
        BundleCommand::Create { bundle, size, band_size } => {
            let options =
                bundle::CreateOptions { bundle: app.base.join(bundle), image_len: size.0, band_len: band_size.0 };
            let outcome = bundle::create(&options, app.monitor())?;
            let text = unless_quiet(app, || render::created(&outcome));
            Ok(app.report(&outcome, text))
        }
        BundleCommand::Info { bundle } => {
            let outcome = check::info(&app.base.join(bundle), app.monitor())?;
            Ok(app.report(&outcome, render::info(&outcome)))
        }
        BundleCommand::Import { image, bundle, band_size, replace } => {
            let (image, bundle) = (app.base.join(image), app.base.join(bundle));
            let options = import::ImportOptions { image, bundle, band_len: band_size.map(|size| size.0), replace };
            let outcome = import::import(&pools, &options, app.monitor())?;
            let text = unless_quiet(app, || render::imported(&outcome));
            Ok(app.report(&outcome, text))
        }
        BundleCommand::Export { bundle, image, force } => {
            let options = export::ExportOptions { bundle: app.base.join(bundle), image: app.base.join(image), force };
            let outcome = export::export(&pools, &options, app.monitor())?;
            let text = unless_quiet(app, || render::exported(&outcome));
            Ok(app.report(&outcome, text))
        }
        BundleCommand::Verify { bundle } => {
            let outcome = check::verify(&pools, &app.base.join(bundle), app.monitor())?;
            let sound = outcome.faults.is_empty();
            let text = if sound && app.global.quiet { String::new() } else { render::verified(&outcome, app.paint) };
            Ok(app.report(&outcome, text).exit_if(!sound, Exit::Damaged))
        }
    }
}
