#!/usr/bin/env python3
"""Does the same work with digstore and with its rivals, in one run, and compares times, memory and sizes.

Every step is done by all programs in turn before the next step begins, so that what the machine does meanwhile meets
all of them. The page cache is warm, memory is full of it, and nothing is dirty when a step starts. What a program writes back
is compared with the source before its time is believed. Data are made once in the folder given with --data, and kept.
"""

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import datasets
import report
from datasets import Missing
from measure import Failed, FreeMemory, Runner, compare_trees, harness_rss_bytes, size_of, sync, warm
from scenarios import SCENARIOS, UNCHANGED_RUNS
from tools import RIVALS, Digstore, Floor

EDITED_FILES = 5


class Contestant:
    """One program in one run of a scenario, with a folder of its own."""

    def __init__(self, tool_class, home):
        home.mkdir(parents=True)
        self.tool = tool_class(home)
        env = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", **self.tool.env()}
        self.runner = Runner(home, env)
        self.out = home / "out"
        self.repo_bytes = 0
        # Without its data in the repository, there is nothing more to ask of a program.
        self.usable = True


class Run:
    """One run of one scenario: takes all contestants through the steps and collects what was measured."""

    def __init__(self, name, number, scenario, contestants, free_memory):
        self.name = name
        self.free_memory = free_memory
        self.number = number
        self.scenario = scenario
        self.contestants = contestants
        self.results = []

    def all_steps(self):
        """The steps in their order."""
        scenario = self.scenario
        self.each("init", self.init)
        self.commit(scenario.first, "v1")
        for turn in range(UNCHANGED_RUNS):
            # Some programs store the tree again, and a label stands for one version only.
            ask = partial(self.unchanged, tree=scenario.first, label=f"again{turn}")
            self.each("unchanged", ask, scenario.first, turn)
        stored = "v1"
        if scenario.edit:
            edit(scenario.first, self.number)
            stored = "edited"
            self.commit(scenario.first, stored)
        # Written back before anything else is stored: the source is as it was.
        self.each("checkout", lambda one: self.checkout(one, scenario.first, stored))
        if scenario.verify:
            self.each("verify", lambda one: self.measure(one, "verify", one.tool.verify()))
        if scenario.second:
            self.commit(scenario.second, "v2")
        if scenario.collect:
            self.each("collect", self.collect)

    def each(self, step, action, source=None, turn=0):
        """Does a step with every contestant, another one first in each run and turn. A failure is noted; the rest goes on."""
        turn = (self.number + turn) % len(self.contestants)
        for one in self.contestants[turn:] + self.contestants[:turn]:
            if not one.usable:
                continue
            if source and not self.scenario.sparse:
                warm(source)
            sync()
            self.free_memory.fill()
            try:
                action(one)
            except (Failed, OSError) as error:
                one.usable = one.usable and not (step == "init" or step.startswith("commit"))
                self.note(one, step, error=str(error))
                print(f"  {self.name} {one.tool.name} {step}: FAILED: {error}", file=sys.stderr, flush=True)

    def note(self, one, step, **measured):
        """Keeps a result."""
        self.results.append(
            {"scenario": self.name, "run": self.number, "tool": one.tool.name, "step": step, **measured}
        )

    def measure(self, one, step, commands):
        """Runs commands on the clock; says whether there were any. What a program cannot do is left out."""
        if commands is None:
            return False
        usage = one.runner.measure(commands)
        self.note(one, step, **asdict(usage), harness_rss_bytes=harness_rss_bytes())
        print(f"  {self.name} {one.tool.name} {step}: {usage.wall_s:.2f} s", file=sys.stderr, flush=True)
        return True

    def init(self, one):
        """Makes the repository; not a step that is compared."""
        one.runner.measure(one.tool.init())

    def commit(self, tree, label):
        """Stores a version with every contestant and takes the sizes of the repositories."""

        def action(one):
            if self.measure(one, f"commit {label}", one.tool.commit(tree, label)):
                one.runner.measure(one.tool.name_commit(label))
                before = one.repo_bytes
                self.size(one, f"size {label}")
                if label != "v1":
                    self.note(one, f"growth {label}", disk_bytes=one.repo_bytes - before)

        self.each(f"commit {label}", action, tree)

    def size(self, one, step):
        """Notes how large the repository is, and with it what the program keeps elsewhere to be quick the next time."""
        size = size_of(one.tool.repo)
        one.repo_bytes = size.disk_bytes
        self.note(one, step, **asdict(size))
        caches = size_of(one.tool.cache).disk_bytes if one.tool.cache.exists() else 0
        self.note(one, f"{step} with caches", disk_bytes=size.disk_bytes + caches)

    def unchanged(self, one, tree, label):
        """Asks about a tree that is as it was stored."""
        if self.measure(one, "unchanged", one.tool.unchanged(tree, label)):
            if not one.tool.says_clean(one.runner.printed()):
                raise Failed("it finds changes where nothing changed")

    def checkout(self, one, tree, label):
        """Writes a version back and compares it with the source."""
        one.out.mkdir()
        if self.measure(one, "checkout", one.tool.checkout(label, one.out, self.scenario.sparse)):
            compare_trees(tree, one.out, modes=one.tool.keeps_modes, checksums=not self.scenario.sparse)

    def collect(self, one):
        """Packs the repository as small as it gets."""
        if self.measure(one, "collect", one.tool.collect()):
            self.size(one, "size packed")


def edit(tree, number):
    """Changes a few files."""
    for path in datasets.sample_files(tree, EDITED_FILES):
        with open(tree / path, "a") as file:
            file.write(f"edited in run {number}\n")


def run_scenario(name, args, tool_classes, results, keep):
    """Adds all runs of one scenario to the results. The work folders go when a run is over: deleting slows down what follows."""
    scenario = SCENARIOS[name](args.data, args)
    free_memory = FreeMemory(args.data)
    for number in range(args.runs):
        print(f"{name}, run {number + 1} of {args.runs}", file=sys.stderr, flush=True)
        work = args.data / "work"
        shutil.rmtree(work, ignore_errors=True)
        classes = [scenario.floor if tool is Floor else tool for tool in tool_classes]
        run = Run(name, number, scenario, [Contestant(tool, work / tool.name) for tool in classes], free_memory)
        try:
            run.all_steps()
        finally:
            results += run.results
            keep()
            shutil.rmtree(work, ignore_errors=True)
            sync()


def chosen_tools(args):
    """The programs that take part, and sentences about those that are missing."""
    known = {**RIVALS, Floor.name: Floor}
    tools, missing = [], []
    if not args.without_digstore:
        Digstore.path = args.digstore.resolve()
        if not Digstore.path.is_file():
            sys.exit(f"error: {Digstore.path} is missing: cargo build --release, or --without-digstore")
        tools.append(Digstore)
    for name in args.tools:
        tool = known.get(name)
        if tool is None:
            sys.exit(f"error: --tools {name}: known are {', '.join(known)}")
        if tool.program():
            tools.append(tool)
        else:
            missing.append(f"{name} is not installed: {tool.package or 'see its own page'}")
    if not tools:
        sys.exit("error: nothing takes part")
    return tools, missing


def comma_list(text):
    """The words of a list with commas."""
    return [word for word in text.split(",") if word]


def existing_folder(text):
    """A folder that is there."""
    path = Path(text).resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is not a folder")
    return path


def arguments():
    """What is asked for."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder for data and repositories")
    parser.add_argument("--k1", type=existing_folder, help="an unpacked kernel, instead of linux-source-6.1")
    parser.add_argument("--k2", type=existing_folder, help="a later one, instead of linux-source-6.12")
    parser.add_argument("--digstore", type=Path, default=root / "target/release/digstore")
    parser.add_argument("--without-digstore", action="store_true", help="measure the rivals alone")
    parser.add_argument("--tools", type=comma_list, default=[*RIVALS, Floor.name], help="rivals, with commas")
    parser.add_argument("--scenarios", type=comma_list, default=[*SCENARIOS], help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="little data, to try this script")
    parser.add_argument("--runs", type=int, default=1, help="medians are shown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all single measurements")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="write the tables")
    args = parser.parse_args()
    if unknown := [name for name in args.scenarios if name not in SCENARIOS]:
        parser.error(f"--scenarios {unknown[0]}: known are {', '.join(SCENARIOS)}")
    if args.runs < 1:
        parser.error("--runs must be at least 1")
    args.data = args.data.resolve()
    return args


def main():
    """Runs everything, prints the report, and exits with 1 if anything failed."""
    args = arguments()
    args.data.mkdir(parents=True, exist_ok=True)
    tools, problems = chosen_tools(args)
    results = []
    versions = {tool.name: tool.version() for tool in tools}

    def keep():
        # After each run, before its work is removed: that may take long, and what is measured is not to be lost.
        text = report.markdown(results, tools, problems, judged=not args.quick, runs=args.runs)
        if args.write:
            args.write.write_text(text)
        if args.json:
            args.json.write_text(json.dumps({"versions": versions, "quick": args.quick, "results": results}, indent=1))
        return text

    for name in args.scenarios:
        try:
            run_scenario(name, args, tools, results, keep)
        except Missing as missing:
            problems.append(f"{name} was left out: {missing}")
    print(keep())
    sys.exit(1 if problems or any("error" in result for result in results) else 0)


if __name__ == "__main__":
    main()
