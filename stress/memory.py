#!/usr/bin/env python3
"""Does `max_memory_usage` hold? Peak memory of each step under a limit, on a tree of the kernel's size and on a million files.

    stress/memory.py --data DIR [--trees kernel,million] [--k1 TREE] [--k2 TREE]

Each step is a process of its own; its peak is the resident memory that the system's kernel counted, mapped files included. What is
checked out is compared with its source, and every step must have done its work. The table, the numbers and a plot go to
target/stress/ as Markdown, JSON and SVG. Ends with 1 if a step took more than its limit.
"""

import argparse
import concurrent.futures
import os
import shutil
import sys
import tarfile
from pathlib import Path

import measure
import plot
import results
import scenarios

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
# For each tree the limits that it is tried with. All other runs have the default, 2 GB.
LIMITS_MIB = {"kernel": (64, 256), "million": (256,)}


def apart(function, *args):
    """Calls a function in a process of its own. The system counts the memory of this one as that of the programs it starts."""
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def len_in_lines(file):
    """How many lines a file has."""
    with open(file, "rb") as lines:
        return sum(1 for _ in lines)


def count_members(archive):
    """How many paths a tar archive has."""
    with tarfile.open(archive) as members:
        return sum(1 for _ in members)


def steps_under(limit_mib, tree, later, folder, program):
    """Runs every step with a limit, and gives the peak of each in bytes. `later` is what the tree becomes; it may be missing."""
    shutil.rmtree(folder, ignore_errors=True)
    config = folder / "config" / "digstore"
    config.mkdir(parents=True)
    (config / "digstore.toml").write_text(f'[performance]\nmax_memory_usage = "{limit_mib}MB"\n')
    env = {
        **os.environ,
        "XDG_CONFIG_HOME": str(config.parent),
        "DIGSTORE_AUTHOR": "Stress <stress@example.org>",
        "LC_ALL": "C.UTF-8",
    }
    runner = measure.Runner(folder, env)
    store, other, out = folder / "store", folder / "other", folder / "out"
    out.mkdir()
    peaks = {}

    def run(name, *args, store=store, at=tree, count_lines=False):
        usage = runner.measure([measure.command(program, "--store", store, "-C", at, *args)])
        if name:
            peaks[name] = usage.max_rss_bytes
        return apart(len_in_lines, runner.out) if count_lines else runner.printed()

    run(None, "init")
    run("add", "add", ".")
    run("commit", "commit", "-m", "all")
    if run("status", "status", "--short").strip():
        raise measure.Failed("status does not say that nothing has changed")
    run("fsck --full", "fsck", "--full")
    run("checkout", "checkout", "--force", "HEAD", at=out)
    apart(measure.compare_trees, tree, out)
    exported(run, tree, folder)
    if run("restore --staged", "restore", "--staged", ".").strip() and run(None, "status", "--short").strip():
        raise measure.Failed("restore --staged of what is staged changes something")
    run("gc --aggressive", "gc", "--aggressive")
    run(None, "fsck")
    if later:
        run("add of the next release", "add", "--all", at=later)
        run("commit of it", "commit", "-m", "next", at=later)
        out.rename(folder / "out-before")
        out.mkdir()
        run("checkout of it", "checkout", "--force", "HEAD", at=out)
        apart(measure.compare_trees, later, out)
        run("checkout back", "checkout", "HEAD~1", at=out)
        apart(measure.compare_trees, tree, out)
        run("checkpoint", "checkpoint", "create", at=out)
        out.rename(folder / "out-later")
        out.mkdir()
        run("checkpoint restored", "checkpoint", "restore", "1", at=out)
        apart(measure.compare_trees, tree, out)
        if b"files changed" not in run("diff --stat of both", "diff", "--stat", "HEAD", "main", at=out):
            raise measure.Failed("nothing differs between two releases")
        forced(run, tree, later, folder / "unsaved", folder / "forced")
    run(None, "init", store=other)
    run("first checkpoint", "checkpoint", "create", store=other)
    run("fsck of it", "fsck", "--full", store=other)
    if b'"unchanged"' not in run(None, "checkpoint", "create", "--auto", "--json", store=other):
        raise measure.Failed("the checkpoint does not hold the tree")
    shutil.rmtree(folder)
    return peaks


def exported(run, tree, folder):
    """Writes the tree elsewhere without a repository, and lists it."""
    run("export to a folder", "export", "HEAD", "--to", folder / "exported")
    apart(measure.compare_trees, tree, folder / "exported")
    shutil.rmtree(folder / "exported")
    run("export to an archive", "export", "HEAD", "--to", folder / "exported.tar")
    in_archive = apart(count_members, folder / "exported.tar")
    (folder / "exported.tar").unlink()
    if in_archive != (in_list := run("ls -r", "ls", "-r", "HEAD", count_lines=True)):
        raise measure.Failed(f"{in_archive} paths in the archive, {in_list} in the list")


def forced(run, tree, later, store, out):
    """Replaces a tree that is stored nowhere, which is saved first, and takes that back."""
    run(None, "init", store=store, at=later)
    run(None, "add", ".", store=store, at=later)
    run(None, "commit", "-m", "next", store=store, at=later)
    shutil.copytree(tree, out, symlinks=True)
    run("checkout --force over what is not saved", "checkout", "--force", "HEAD", store=store, at=out)
    apart(measure.compare_trees, later, out)
    run("undo of it", "undo", store=store, at=out)
    apart(measure.compare_trees, tree, out)


def shown(peak_bytes):
    """A peak in MiB, if there is one."""
    return f"{peak_bytes / MIB:.0f}" if peak_bytes else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trees", default=",".join(LIMITS_MIB))
    parser.add_argument("--k1", type=Path, help="an unpacked kernel, instead of linux-source-6.1")
    parser.add_argument("--k2", type=Path, help="a later kernel, instead of linux-source-6.12")
    parser.add_argument("--digstore", type=Path, default=ROOT / "target" / "release" / "digstore")
    args = parser.parse_args()
    kernel = lambda given, version: given or scenarios.datasets.kernel_source(args.data, version)
    trees = {
        "kernel": lambda: (kernel(args.k1, "6.1"), kernel(args.k2, "6.12")),
        "million": lambda: (scenarios.text_tree(args.data / "small-1000000", *scenarios.MILLION), None),
    }
    found = {}
    for name in args.trees.split(","):
        tree, later = trees[name]()
        for limit in LIMITS_MIB[name]:
            print(f"{name} with {limit} MB", file=sys.stderr, flush=True)
            found[name, limit] = steps_under(limit, tree, later, args.data / "work-memory", args.digstore.resolve())
    columns = list(found)
    steps = list(dict.fromkeys(step for peaks in found.values() for step in peaks))
    text = [
        "## Peak memory under a limit, MiB",
        "",
        "| | " + " | ".join(f"{name}, at most {limit}" for name, limit in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *(f"| {step} | " + " | ".join(shown(found[at].get(step)) for at in columns) + " |" for step in steps),
        "",
    ]
    over = [(name, limit, step) for (name, limit), peaks in found.items() for step in peaks if peaks[step] > limit * MIB]
    text += [f"Over the limit: {name} with {limit}, {step}." for name, limit, step in over] or ["No step took more than its limit."]
    text = "\n".join([*text, ""])
    print(text)
    bars = [(f"{name}, {limit}: {step}", peak / MIB) for (name, limit), peaks in found.items() for step, peak in peaks.items()]
    numbers = [{"tree": name, "limit_mib": limit, "peak_bytes": peaks} for (name, limit), peaks in found.items()]
    results.leave("memory", numbers, text, plot.bars("peak memory under a limit", bars, "MiB"))
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
