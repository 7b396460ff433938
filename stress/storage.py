#!/usr/bin/env python3
"""What the versions of real data cost: bytes after each version, beside other programs in the same run.

    stress/storage.py --data DIR [--cases kernel,wheels,weights,media,database] [--against git,restic,borg,bupstash]
                      [--kernels DIR DIR DIR] [--write-report]

Cases: the kernel's source in two neighbouring point releases and then 6.12; the shared objects of a large wheel in two
neighbouring releases; 1 GiB of 16-bit weights and a fine-tune of a fifth of its tensors; a media file of 4 GiB and the same
with 1 MiB inserted and 100 pieces of 4 KiB overwritten; a SQLite database with a tenth of its rows changed. Kernels come from
Debian's packages, wheels from PyPI, the rest is made with fixed seeds (the weights with numpy).

Every version that digstore stored is exported and compared with its source before anything is reported. With
--write-report the table goes to docs/benchmarks/storage.md. Takes half an hour on two cores, and 25 GB of room.
"""

import argparse
import json
import os
import platform
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import datasets
import plot
import results
import tools
from measure import Failed, Runner, command, compare_trees, size_of, sync, warm

ROOT = Path(__file__).resolve().parent.parent
DIGSTORE = ROOT / "target" / "release" / "digstore"
REPORT = ROOT / "docs" / "benchmarks" / "storage.md"
WHEELS = ("tensorflow-cpu==2.18.0", "tensorflow-cpu==2.18.1")
GIB = 1 << 30
MIB = 1 << 20
SEED = 7
# The tensors of a small language model: 64 of 16 MiB each, of which every fifth changes.
TENSORS = 64
TENSOR_ELEMENTS = 8 * MIB
CHANGED_EVERY = 5
# Weights have a standard deviation of 0.02; the step of the fine-tune is one part in a hundred of it.
WEIGHT_DEVIATION = 0.02
STEP_DEVIATION = 0.0002
DATABASE_ROWS = 400_000


# ---- Data ----


def kernels(data, args):
    """Two neighbouring point releases of 6.1, then 6.12."""
    if args.kernels:
        return [Path(folder) for folder in args.kernels]
    printed = subprocess.run(["apt-cache", "madison", "linux-source-6.1"], capture_output=True, text=True).stdout
    versions = [line.split("|")[1].strip() for line in printed.splitlines() if "|" in line]
    newest_of = {}
    for version in versions:
        newest_of.setdefault(version.split("-")[0], version)
    if len(newest_of) < 2:
        raise datasets.Missing("apt knows fewer than two point releases of linux-source-6.1; give trees with --kernels")
    newer, older = list(newest_of.values())[:2]
    return [kernel_package(data, older), kernel_package(data, newer), datasets.kernel_source(data, "6.12")]


def kernel_package(data, version):
    """The source in one version of the Debian package."""

    def build(folder):
        work = folder / "work"
        work.mkdir()
        subprocess.run(["apt-get", "download", f"linux-source-6.1={version}"], cwd=work, check=True)
        subprocess.run(["dpkg-deb", "-x", next(work.glob("*.deb")), work / "x"], check=True)
        archive = work / "x/usr/src/linux-source-6.1.tar.xz"
        subprocess.run(["tar", "-xf", archive, "-C", folder, "--strip-components=1"], check=True)
        shutil.rmtree(work)

    return datasets.made_once(data / f"linux-{version}", build)


def wheels(data, args):
    """The shared objects of two releases of a large wheel."""

    def unpack(wheel):
        def build(folder):
            work = folder / "work"
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", work, wheel]
            if subprocess.run(pip).returncode != 0:
                raise datasets.Missing(f"pip cannot download {wheel}")
            shutil.unpack_archive(next(work.glob("*.whl")), folder, "zip")
            shutil.rmtree(work)
            for name in list(datasets.regular_files(folder)):
                if ".so" not in Path(name).name:
                    (folder / name).unlink()

        return datasets.made_once(data / wheel.replace("==", "-"), build)

    return [unpack(wheel) for wheel in WHEELS]


def weights(data, args):
    """Weights as safetensors, and after a fine-tune of every fifth tensor."""

    def build(folder):
        try:
            import numpy
        except ImportError:
            raise datasets.Missing("numpy is missing: pip install numpy") from None
        chance = numpy.random.default_rng(SEED)
        header, at = {}, 0
        for number in range(TENSORS):
            place = [at, at + 2 * TENSOR_ELEMENTS]
            header[f"layers.{number}.weight"] = {"dtype": "F16", "shape": [TENSOR_ELEMENTS], "data_offsets": place}
            at = place[1]
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        for version in ("1", "2"):
            (folder / version).mkdir()
        with open(folder / "1/model.safetensors", "wb") as old, open(folder / "2/model.safetensors", "wb") as new:
            for file in (old, new):
                file.write(struct.pack("<Q", len(text)) + text)
            for number in range(TENSORS):
                before = (chance.standard_normal(TENSOR_ELEMENTS, dtype="float32") * WEIGHT_DEVIATION).astype("float16")
                after = before
                if number % CHANGED_EVERY == 0:
                    step = chance.standard_normal(TENSOR_ELEMENTS, dtype="float32") * STEP_DEVIATION
                    after = (before.astype("float32") + step).astype("float16")
                old.write(before.tobytes())
                new.write(after.tobytes())

    folder = datasets.made_once(data / "weights", build)
    return [folder / "1", folder / "2"]


def media(data, args):
    """A file that does not shrink, and the same with an insertion and overwritten pieces."""
    whole = datasets.made_once(data / "media", lambda folder: datasets.random_file(folder / "file", 4 * GIB))
    edited = datasets.made_once(
        data / "media-edited", lambda folder: datasets.edited_file(whole / "file", folder / "file")
    )
    return [whole, edited]


def database(data, args):
    """A SQLite database, and the same with a tenth of its rows changed."""

    def build(folder):
        chance = random.Random(SEED)
        words = datasets.Words(chance)
        (folder / "1").mkdir()
        (folder / "2").mkdir()
        path = folder / "1/data.sqlite"
        open_one = sqlite3.connect(path)
        open_one.execute("create table notes (id integer primary key, author text, body text, score real)")
        rows = ((n, f"author {chance.randrange(5000)}", words.text(240), chance.random()) for n in range(DATABASE_ROWS))
        open_one.executemany("insert into notes values (?, ?, ?, ?)", rows)
        open_one.commit()
        open_one.close()
        shutil.copyfile(path, folder / "2/data.sqlite")
        changed = sqlite3.connect(folder / "2/data.sqlite")
        # A tenth of the pages: rows stand in the order of their ids, about sixteen to a page.
        for start in range(0, DATABASE_ROWS, 160):
            row = start + chance.randrange(160)
            changed.execute("update notes set body = ?, score = ? where id = ?", (words.text(240), chance.random(), row))
        changed.commit()
        changed.close()

    folder = datasets.made_once(data / "database", build)
    return [folder / "1", folder / "2"]


CASES = {
    "kernel": (kernels, "Linux kernel source, two point releases of 6.1, then 6.12"),
    "wheels": (wheels, "shared objects of " + " and ".join(WHEELS)),
    "weights": (weights, "16-bit weights (safetensors), fine-tune of every fifth tensor"),
    "media": (media, "4 GiB that do not shrink, 1 MiB inserted and 100 x 4 KiB overwritten"),
    "database": (database, "SQLite database, a row in every tenth page changed"),
}
# Packing files of several gigabytes takes git minutes and changes nothing.
NOT_FOR = {("git", "media")}
# One tree becomes the next version, as when a new release is unpacked over the old one: only files that differ are written.
IN_PLACE = {"kernel"}


class WithoutDeltas(tools.Digstore):
    """What deltas gain and cost: the same with every block compressed by itself."""

    name = "digstore without deltas"
    settings = "performance.snapshot_interval = 1"

    def init(self):
        setting = ("config", "set", "--user", "performance.snapshot_interval", "1")
        return [*super().init(), self._run(*setting, tree=self.home)]


# ---- Runs ----


def total(home):
    """Bytes of the files of a repository, with all that belongs to it."""
    return size_of(home).apparent_bytes


def turn_into(live, tree):
    """Makes one tree equal to another."""
    live.mkdir(parents=True, exist_ok=True)
    subprocess.run(["rsync", "-rlpc", "--delete", f"{tree}/", f"{live}/"], check=True)


def run_case(tool_class, versions, work, in_place):
    """One program stores all versions. Gives seconds and bytes after each, and after packing."""
    home = work / tool_class.name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    tool = tool_class(home)
    base = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    runner = Runner(home, {**base, **tool.env()})
    runner.measure(tool.init())
    rows = []
    for number, tree in enumerate(versions):
        if in_place:
            turn_into(work / "tree", tree)
            tree = work / "tree"
        warm(tree)
        sync()
        usage = runner.measure(tool.commit(tree, f"v{number}"))
        runner.measure(tool.name_commit(f"v{number}"))
        rows.append({"seconds": usage.wall_s, "bytes": total(tool.repo), "rss": usage.max_rss_bytes})
    packed = None
    if tool.collect():
        usage = runner.measure(tool.collect())
        packed = {"seconds": usage.wall_s, "bytes": total(tool.repo), "rss": usage.max_rss_bytes}
    if issubclass(tool_class, tools.Digstore):
        check(tool, runner, versions, work)
        packed = collected(tool, runner)
    shutil.rmtree(home)
    return rows, packed


def check(tool, runner, versions, work):
    """Every version comes back as it was."""
    for number, tree in enumerate(versions):
        out = work / "out"
        shutil.rmtree(out, ignore_errors=True)
        runner.measure([tool._run("export", f"v{number}", "--to", out, tree=tool.home)])
        compare_trees(tree, out)
        shutil.rmtree(out)
    runner.measure([tool._run("fsck", "--full", tree=tool.home)])


def collected(tool, runner):
    """What `gc` makes of it, its own time and memory."""
    usage = runner.measure([tool._run("gc", "--now", tree=tool.home)])
    return {"seconds": usage.wall_s, "bytes": total(tool.repo), "rss": usage.max_rss_bytes}


def megabytes(count):
    return f"{count / 1e6:,.1f}"


def table(case, results):
    """A case as Markdown: a line for each program."""
    count = max(len(rows) for rows, _ in results.values())
    head = ["program"] + [f"version {n + 1}" if n == 0 else f"+ version {n + 1}" for n in range(count)]
    head += ["all", "after its gc", "commits, s", "gc, s"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, (rows, packed) in results.items():
        sizes = [row["bytes"] for row in rows]
        steps = [megabytes(b - a) for a, b in zip([0] + sizes, sizes)]
        cells = [name, *steps, megabytes(sizes[-1]), megabytes(packed["bytes"]) if packed else "-"]
        cells += [f"{sum(row['seconds'] for row in rows):.1f}", f"{packed['seconds']:.1f}" if packed else "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return [f"## {case}: {CASES[case][1]}", "", *lines, ""]


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return f"{os.cpu_count()} processors ({model}), {platform.system()} {platform.release()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--against", default=",".join(tools.RIVALS))
    parser.add_argument("--kernels", nargs=3)
    parser.add_argument("--write-report", action="store_true")
    args = parser.parse_args()
    tools.Digstore.path = str(DIGSTORE)
    if not DIGSTORE.exists():
        sys.exit("build digstore first: cargo build --release")
    chosen = [tools.Digstore, WithoutDeltas]
    for name in filter(None, args.against.split(",")):
        tool = tools.RIVALS[name]
        if tool.program():
            chosen.append(tool)
        else:
            print(f"{name} is not installed; it is left out", file=sys.stderr)
    args.data.mkdir(parents=True, exist_ok=True)
    lines, everything = [], {}
    for case in args.cases.split(","):
        try:
            versions = CASES[case][0](args.data, args)
            found = {}
            for tool in chosen:
                if (tool.name, case) not in NOT_FOR:
                    found[tool.name] = run_case(tool, versions, args.data / "storage-work", case in IN_PLACE)
                    print(f"{case} {tool.name}: {found[tool.name]}", file=sys.stderr, flush=True)
        except (datasets.Missing, Failed) as problem:
            sys.exit(f"{case}: {problem}")
        lines += table(case, found)
        everything[case] = found
    programs = [f"{tool.name}: {tool.version()} ({tool.settings})" for tool in chosen]
    head = [
        "# What versions cost",
        "",
        "Written by `stress/storage.py`. Megabytes (10^6) of the whole repository: after the first version, and how many",
        "more after each that follows. Every version that digstore stored was exported and compared with its source.",
        "The kernel's versions follow each other in one working tree, of which only files that differ are written; the others",
        "are stored from folders of their own.",
        "",
        f"{time.strftime('%Y-%m-%d')}, {machine()}.",
        "",
        *[f"- {program}" for program in programs],
        "",
    ]
    text = "\n".join(head + lines)
    print(text)
    sizes = [
        (f"{case}: {name}", rows[-1]["bytes"] / 1e6)
        for case, found in everything.items()
        for name, (rows, _) in found.items()
    ]
    results.leave("storage", everything, text, plot.bars("All versions", sizes, "MB"))
    if args.write_report:
        REPORT.write_text(text)


if __name__ == "__main__":
    main()
