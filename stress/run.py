#!/usr/bin/env python3
"""Runs at real size, each by its name, and the page with their results.

    stress/run.py NAME... --data DIR [--against git,restic,borg,bupstash] [--write-report]

kernel, small-files, many-files, million-files, large-file, sparse, mixed, media: the steps of `stress/compare.py`, beside the
rivals that are installed. model, versions: `stress/storage.py`. memory, bundle, checkpoints: the scripts of these names.
endurance, agents, crash, slow-fs: `stress/endure.py`. rates: `cargo bench --bench requirements`. Each makes or fetches its own
data with a fixed seed and compares what comes back with it before a time counts. Each leaves numbers, a table and a plot in
target/stress/ (model and versions as `storage`, rates as `requirements` without a plot); `storage` and `bundle` have pages of
their own.

With --write-report, the sections of docs/benchmarks/README.md whose runs are in target/stress/ are written anew; the others stay as
they are, each with its day.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import plot
import tools
from results import OUT

STRESS = Path(__file__).resolve().parent
ROOT = STRESS.parent
REPORT = ROOT / "docs" / "benchmarks" / "README.md"
COMPARED = {
    "kernel": "kernel",
    "small-files": "small20k",
    "many-files": "small100k",
    "million-files": "small1m",
    "large-file": "large",
    "sparse": "sparse50g",
    "mixed": "mixed",
    "media": "media",
}
STORED = {"model": "weights", "versions": "kernel,wheels,weights,media,database"}
ENDURED = ("endurance", "agents", "crash", "slow-fs")
# Of a bench of this project, and the file that it leaves.
RATES, RATES_FILE = "rates", "requirements"
NAMES = [RATES, *COMPARED, *STORED, "memory", "bundle", "checkpoints", *ENDURED]


def command(name, args):
    """The command that does it."""
    if name == RATES:
        return ["cargo", "bench", "--locked", "--bench", RATES_FILE]
    script, *rest = script_of(name, args)
    return [sys.executable, STRESS / script, *rest]


def script_of(name, args):
    """A script beside this one, and its arguments."""
    data = ["--data", str(args.data)]
    kernels = [item for pair in (("--k1", args.k1), ("--k2", args.k2)) if pair[1] for item in pair]
    if name in COMPARED:
        files = ["--json", str(OUT / f"{name}.json"), "--write", str(OUT / f"{name}.md")]
        rivals = ",".join(dict.fromkeys([*args.against, "floor"]))
        return ["compare.py", *data, "--scenarios", COMPARED[name], "--tools", rivals, *files, *kernels]
    if name in STORED:
        return ["storage.py", *data, "--cases", STORED[name], "--against", ",".join(args.against)]
    if name in ENDURED:
        return ["endure.py", name, *data]
    if name == "memory":
        return ["memory.py", *data, *kernels]
    return [f"{name}.py", *data]


def draw(name):
    """A plot of the seconds of each step, for what `compare.py` measured."""
    found = json.loads((OUT / f"{name}.json").read_text())["results"]
    seconds = {}
    for result in found:
        if "wall_s" in result and "error" not in result:
            seconds.setdefault((result["step"], result["tool"]), []).append(result["wall_s"])
    steps = dict.fromkeys(step for step, _ in seconds)
    rows = [
        (f"{step}: {tool}", statistics.median(times))
        for step in steps
        for (of, tool), times in sorted(seconds.items(), key=lambda item: item[0][1] != "digstore")
        if of == step
    ]
    (OUT / f"{name}.svg").write_text(plot.bars(name, rows, "s"))


def as_section(text):
    """A page of its own as a section of another: its headings begin at the third level."""
    lines = text.splitlines()
    levels = [len(line) - len(line.lstrip("#")) for line in lines if line.startswith("#")]
    deeper = "#" * (3 - min(levels, default=3))
    return "\n".join(deeper + line if line.startswith("#") else line for line in lines)


def sections(text):
    """The sections of the page, by their names."""
    parts = text.split("\n## ")[1:]
    return {part.split("\n", 1)[0]: "## " + part.rstrip("\n") for part in parts}


def report():
    """The page of all results."""
    known = sections(REPORT.read_text()) if REPORT.exists() else {}
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    parts = [
        "# Measured",
        "",
        "Written by `stress/run.py --write-report` from the tables of its runs. Every result was compared with its source, by hash and",
        "count, before its time counts. Machines are noisy: compare within a table.",
        "",
        "What versions cost is in [storage.md](storage.md), checkpoints of disk images are in [bundle.md](bundle.md).",
        "",
    ]
    for name in NAMES:
        page = OUT / f"{RATES_FILE if name == RATES else name}.md"
        if (REPORT.parent / f"{name}.md").exists():
            continue
        if not page.exists():
            parts += [known[name], ""] if name in known else []
            continue
        how = " ".join(["stress/run.py", name, "--data", "DIR"])
        day = time.strftime("%Y-%m-%d", time.localtime(page.stat().st_mtime))
        machine = f"{os.cpu_count()} processors ({model}), {memory:.0f} GiB, {platform.system()} {platform.release()}"
        parts += [f"## {name}", "", f"`{how}`, {day}, {machine}.", "", as_section(page.read_text().strip()), ""]
        if (OUT / f"{name}.svg").exists():
            (REPORT.parent / f"{name}.svg").write_bytes((OUT / f"{name}.svg").read_bytes())
            parts += [f"![{name}]({name}.svg)", ""]
    REPORT.write_text("\n".join(parts))
    print(f"wrote {REPORT.relative_to(ROOT)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--data", type=Path, default=ROOT / "target" / "stress-data")
    parser.add_argument("--against", type=lambda text: [word for word in text.split(",") if word], default=list(tools.RIVALS))
    parser.add_argument("--k1", type=os.path.abspath, help="an unpacked kernel, instead of linux-source-6.1")
    parser.add_argument("--k2", type=os.path.abspath, help="a later one, instead of linux-source-6.12")
    parser.add_argument("--write-report", action="store_true")
    args = parser.parse_args()
    args.data = args.data.resolve()
    OUT.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in args.names:
        print(f"== {name}", file=sys.stderr, flush=True)
        if subprocess.run(command(name, args), cwd=ROOT).returncode != 0:
            failed.append(name)
        if name in COMPARED and (OUT / f"{name}.json").exists():
            draw(name)
    if args.write_report:
        report()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
