//! Sparse bundles as text.

use std::fmt::Write;

use digstore::base::size::ByteSize;
use digstore::ops::bundle::Created;
use digstore::ops::bundle::check::{Info, Verified};
use digstore::ops::bundle::diff::{BandChange, Outcome};
use digstore::ops::bundle::export::Exported;
use digstore::ops::bundle::import::Imported;
use digstore::ops::capture::Change;

use super::{Paint, count, grouped, printable};
use crate::cli::args::history::DiffStyle;

pub fn created(outcome: &Created) -> String {
    let Created { bundle, geometry } = outcome;
    let (image, band) = (ByteSize(geometry.image_len), ByteSize(geometry.band_len));
    format!("Made {}: an image of {image} in bands of {band}, all zeros.\n", bundle.display())
}

pub fn info(info: &Info) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    row("image", format!("{} ({} bytes)", ByteSize(info.geometry.image_len), grouped(info.geometry.image_len)));
    row("band", ByteSize(info.geometry.band_len).to_string());
    row("bands", format!("{} of {}", grouped(info.bands), grouped(info.max_bands)));
    row("data", format!("{}, {} on disk", ByteSize(info.bands_len), ByteSize(info.allocated_bytes)));
    row(
        "clones",
        match info.can_clone {
            Some(true) => "yes: this file system can; 'checkpoint create --snapshot' is instant to restore",
            Some(false) => "no: this file system cannot",
            None => "unknown: the folder cannot be written to",
        }
        .to_owned(),
    );
    if !info.foreign.is_empty() {
        row("foreign", format!("{} that no bundle has: {}", count(info.foreign.len() as u64, "name"), foreign(info)));
    }
    text
}

fn foreign(info: &Info) -> String {
    const SHOWN: usize = 5;
    let more = if info.foreign.len() > SHOWN { ", ..." } else { "" };
    format!("{}{more}", info.foreign.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", "))
}

pub fn imported(outcome: &Imported) -> String {
    let Imported { bundle, written, unchanged, removed, .. } = outcome;
    let mut text = format!("{}: {} written", bundle.display(), count(*written, "band"));
    if *unchanged > 0 {
        let _ = write!(text, ", {} unchanged", grouped(*unchanged));
    }
    if *removed > 0 {
        let _ = write!(text, ", {} removed", grouped(*removed));
    }
    text + "\n"
}

pub fn exported(outcome: &Exported) -> String {
    let Exported { image, image_len, bands } = outcome;
    format!("Wrote {}: {}, {} of data.\n", image.display(), ByteSize(*image_len), count(*bands, "band"))
}

pub fn verified(outcome: &Verified, paint: Paint) -> String {
    let mut text: String =
        outcome.faults.iter().map(|fault| format!("{} {}: {}\n", paint.red("fault"), fault.path, fault.what)).collect();
    for name in &outcome.foreign {
        let _ = writeln!(text, "{name}: no bundle has such a file");
    }
    let (bands, bytes) = (count(outcome.bands, "band"), ByteSize(outcome.bytes));
    let _ = write!(text, "Read {bands}, {bytes}");
    if outcome.zero_bands > 0 {
        let _ = write!(text, "; {} nothing but zeros", grouped(outcome.zero_bands));
    }
    text + match outcome.faults.as_slice() {
        [] => ": the bundle is sound.\n",
        _ => ".\n",
    }
}

/// Ranges shown of each band, and files inside of each kind; `--json` has all.
const SHOWN: usize = 8;

pub fn diff(outcome: &Outcome, style: &DiffStyle, paint: Paint) -> String {
    let mut text = String::new();
    let letter = |change: Change| match change {
        Change::Added => paint.green("A"),
        Change::Modified => paint.yellow("M"),
        Change::Removed => paint.red("D"),
    };
    for (path, change) in &outcome.frame {
        let _ = writeln!(text, "{} {path}", letter(*change));
    }
    for BandChange { path, change, ranges, .. } in &outcome.bands {
        let _ = write!(text, "{} {path}", letter(*change));
        if !style.name_only {
            let bytes = ranges.iter().map(|range| range.len).sum();
            let _ = write!(text, "  {} in {}", ByteSize(bytes), count(ranges.len() as u64, "range"));
        }
        text.push('\n');
        if !style.name_only && !style.stat {
            for range in ranges.iter().take(SHOWN) {
                let _ = writeln!(text, "    at {:>15}  {:>12} bytes", grouped(range.start), grouped(range.len));
            }
            if let Some(more) = ranges.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                let _ = writeln!(text, "    and {} more", grouped(more as u64));
            }
        }
    }
    if style.name_only {
        return text;
    }
    if !outcome.bands.is_empty() {
        let bands = count(outcome.bands.len() as u64, "band");
        let _ = writeln!(text, "{} of the image differ, in {bands}", ByteSize(outcome.changed_bytes));
    }
    if let Some(files) = &outcome.files {
        let differ = if files.len() == 1 { "differs" } else { "differ" };
        let _ = writeln!(text, "{} inside the image {differ}", count(files.len() as u64, "file"));
        for file in files {
            let _ = writeln!(text, "{} {}", letter(file.change), printable(&file.path));
        }
    }
    if let Some(why) = &outcome.files_unreadable {
        let why = printable(why);
        let _ = writeln!(text, "Files inside the image cannot be named; it holds no ext2, ext3 or ext4: {why}");
    }
    text
}
