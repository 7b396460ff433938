//! Sparse bundles, through the real binary.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests set up files as a user would")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use support::{Place, noise};

const MIB: usize = 1 << 20;

/// A repository with the bundle `disk.sparsebundle` of the image `disk.img`: 12 MiB, in which two bands of 1 MiB have data.
fn bundle() -> Place {
    let place = Place::new();
    let mut image = vec![0; 12 * MIB];
    image[MIB..2 * MIB].copy_from_slice(&noise(1, MIB));
    image[11 * MIB..].copy_from_slice(&noise(2, MIB));
    place.write("disk.img", &image);
    place.ok(&["bundle", "import", "disk.img", "disk.sparsebundle", "--band-size", "1MB"]);
    place
}

#[test]
fn a_round_with_a_bundle() {
    let place = bundle();
    assert_eq!(place.ok(&["checkpoint", "create", "disk.sparsebundle"]), "@1 7 paths changed: 7 added\n");
    let was = noise(1, MIB);
    let mut now = was.clone();
    now[5000] ^= 1;
    place.write("disk.sparsebundle/bands/1", &now);
    let table: [(&[&str], &[&str]); 6] = [
        (
            &["checkpoint", "diff", "@1"],
            &["M disk.sparsebundle/bands/1  512 B in 1 range", "1,053,184", "cannot be named"],
        ),
        (&["checkpoint", "diff", "@1", "--name-only"], &["M disk.sparsebundle/bands/1\n"]),
        (&["checkpoint", "diff", "@1", "--stat"], &["512 B of the image differ, in 1 band"]),
        (&["checkpoint", "restore", "@1", "-n"], &["Would restore from @1: 1 path written, 0 removed"]),
        (&["bundle", "info", "disk.sparsebundle"], &["12.0 MiB (12,582,912 bytes)", "2 of 12", "clones"]),
        (&["bundle", "verify", "disk.sparsebundle"], &["Read 2 bands, 2.0 MiB: the bundle is sound."]),
    ];
    for (args, words) in table {
        let out = place.ok(args);
        assert!(words.iter().all(|word| out.contains(word)), "{args:?}: {out}");
    }
    assert!(place.ok(&["checkpoint", "restore", "@1"]).contains("What was there is saved as @2"));
    assert_eq!(place.read("disk.sparsebundle/bands/1"), was);
    place.ok(&["undo"]);
    assert_eq!(place.read("disk.sparsebundle/bands/1"), now);
    assert_eq!(
        place.ok(&["ls", "@1:disk.sparsebundle/bands"]),
        "disk.sparsebundle/bands/1\ndisk.sparsebundle/bands/b\n"
    );
    assert_eq!(place.json(&["checkpoint", "list"])["checkpoints"][0]["bundle"], "disk.sparsebundle");
    place.ok(&["bundle", "export", "disk.sparsebundle", "out.img"]);
    assert_eq!(place.read("out.img")[MIB + 5000], now[5000]);
    place.ok(&["fsck", "--full"]);
}

#[test]
fn what_cannot_be_done_is_said_with_its_exit_code() {
    let place = bundle();
    place.write("plain/file", "x");
    let table: [(&[&str], i32, &str); 11] = [
        (&["checkpoint", "create", "plain"], 1, "is no sparse bundle"),
        (&["checkpoint", "create", "missing"], 1, "cannot open the bundle"),
        (&["checkpoint", "create", "/"], 1, "outside the work tree"),
        (&["checkpoint", "create", "--snapshot"], 2, "required"),
        (&["checkpoint", "create", "disk.sparsebundle", "--no-tree"], 2, "cannot be used"),
        (&["bundle", "create", "new", "--size", "10MB", "--band-size", "100KB"], 1, "from 1 MiB to 64 MiB"),
        (&["bundle", "create", "disk.sparsebundle", "--size", "10MB"], 1, "exists already"),
        (&["bundle", "import", "plain", "new"], 1, "not a regular file"),
        (&["bundle", "import", "disk.img", "disk.sparsebundle"], 1, "--replace"),
        (&["bundle", "export", "plain", "out"], 1, "is no sparse bundle"),
        (&["bundle", "export", "disk.sparsebundle", "disk.img"], 1, "--force"),
    ];
    for (args, code, words) in table {
        let run = place.run(args);
        assert!(run.code == code && run.err.contains(words), "{args:?}: {run:?}");
    }
    fs::write(place.tree.join("disk.sparsebundle/bands/ff"), "beyond").unwrap();
    let run = place.run(&["bundle", "verify", "disk.sparsebundle"]);
    assert!(run.code == 4 && run.out.contains("fault bands/ff: it lies beyond the end"), "{run:?}");
    symlink("/etc/passwd", place.tree.join("disk.sparsebundle/bands/3")).unwrap();
    let run = place.run(&["checkpoint", "create", "disk.sparsebundle"]);
    assert!(run.code == 3 && run.err.contains("disk.sparsebundle/bands/3 is no regular file"), "{run:?}");
    let run = place.run(&["bundle", "export", "disk.sparsebundle", "other.img"]);
    assert!(run.code == 1 && run.err.contains("bands/3 is no regular file"), "{run:?}");
}
