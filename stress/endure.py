#!/usr/bin/env python3
"""Long and rough use: many commits, many processes at once, processes that are killed, a file system far away.

    stress/endure.py endurance [--commits 10000]
    stress/endure.py agents    [--processes 8] [--seconds 180]
    stress/endure.py crash     [--kills 2000]
    stress/endure.py slow-fs   [--delay-us 1000] [--files 2000]

endurance: commits of five edited files each; is the last as quick as the tenth? agents: processes that edit, checkpoint and commit
in one repository at the same time; is everything there that any of them was told is there? crash: a process is killed at a
random moment, again and again; the same question after each, and `fsck`. slow-fs: every call that reaches the file system takes
a millisecond more (by strace); how many calls, how long, and git beside it.

Everything is checked before it is reported: contents by hash, counts, and `fsck --full` at the end. Tables, numbers and plots
go to target/stress/ as Markdown, JSON and SVG. Ends with 1 if anything was lost.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import plot
import results

ROOT = Path(__file__).resolve().parent.parent
SEED = 7
EDITS = 5
WINDOW = 50
# What a command says when another process was faster or holds the lock.
BUSY = 5


class Lost(Exception):
    """Something that was promised is not there."""


class Repo:
    """A work tree with a repository, used by new processes as a user would."""

    def __init__(self, program, folder):
        self.program = program
        self.folder = folder
        self.env = {**os.environ, "DIGSTORE_AUTHOR": "Stress <stress@example.org>", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, *args, **options):
        argv = [self.program, "-C", self.folder, "--json", *args]
        return subprocess.Popen(argv, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def try_run(self, *args):
        child = self.start(*args)
        out, err = child.communicate()
        return child.returncode, out, err

    def run(self, *args):
        code, out, err = self.try_run(*args)
        if code != 0:
            raise Lost(f"{' '.join(map(str, args))} ended with {code}: {err.decode(errors='replace').strip()[-500:]}")
        return json.loads(out) if out.strip() else {}

    def fsck(self):
        self.run("fsck", "--full")


def write_files(folder, count, length, chance):
    for number in range(count):
        path = folder / f"d{number // 100:03}" / f"f{number % 100:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text(chance, length))


def text(chance, length):
    return (" ".join(f"{chance.randrange(1 << 20):x}" for _ in range(length // 6)) + "\n").encode()


def edit(folder, paths, chance):
    """Changes a line in the middle of some files."""
    for path in chance.sample(paths, EDITS):
        data = bytearray((folder / path).read_bytes())
        at = chance.randrange(len(data) - 20)
        data[at : at + 8] = f"{chance.randrange(1 << 32):08x}".encode()
        (folder / path).write_bytes(data)


def tree_hash(folder):
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if ".digstore" not in path.parts and ".config" not in path.parts):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def report(name, title, rows, data, svg):
    """Prints a table and leaves it beside its numbers."""
    text = results.rows_of(title, rows)
    print(text)
    results.leave(name, data, text, svg)


# ---- endurance ----


def endurance(args, folder):
    chance = random.Random(SEED)
    repo = Repo(args.digstore, folder)
    repo.run("init")
    write_files(folder, 1000, 4000, chance)
    paths = [path.relative_to(folder) for path in folder.rglob("*.txt")]
    times, sample = [], {}
    for number in range(args.commits):
        edit(folder, paths, chance)
        start = time.perf_counter()
        repo.run("commit", "-a", "-m", f"commit {number}") if number else (repo.run("add", "."), repo.run("commit", "-m", "0"))
        times.append(time.perf_counter() - start)
        if number in (9, args.commits // 2, args.commits - 1):
            sample[repo.run("log", "-n", "1")["commits"][0]["id"]] = tree_hash(folder)
    early = statistics.median(times[10 : 10 + WINDOW])
    late = statistics.median(times[-WINDOW:])
    log = repo.run("log")
    if len(log["commits"]) != args.commits:
        raise Lost(f"{len(log['commits'])} of {args.commits} commits are in the log")
    for commit, expected in sample.items():
        out = folder.parent / "out"
        shutil.rmtree(out, ignore_errors=True)
        repo.run("export", commit, "--to", out)
        if tree_hash(out) != expected:
            raise Lost(f"commit {commit} does not come back as it was")
    repo.fsck()
    files = sum(1 for path in (folder / ".digstore").rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in (folder / ".digstore").rglob("*") if path.is_file())
    rows = [
        ("commits of five edited files", f"{args.commits:,}"),
        (f"median of the 10th to the {10 + WINDOW}th, ms", f"{early * 1e3:.1f}"),
        (f"median of the last {WINDOW}, ms", f"{late * 1e3:.1f}"),
        ("last against early (at most 1.2)", f"{late / early:.2f}"),
        ("99th percentile, ms", f"{statistics.quantiles(times, n=100)[98] * 1e3:.1f}"),
        ("slowest, ms", f"{max(times) * 1e3:.1f}"),
        ("files in the repository", files),
        ("its size, MB", f"{size / 1e6:.1f}"),
    ]
    step = max(1, args.commits // 400)
    points = [(at, statistics.median(times[max(0, at - step) : at + 1]) * 1e3) for at in range(step, args.commits, step)]
    svg = plot.lines("A commit of five edited files", [("digstore", points)], "commits", "ms")
    report("endurance", "Endurance", rows, {"seconds": times}, svg)
    return late / early <= 1.2


def promised(kind, outcome):
    """What a command said that it recorded: a commit's id, a checkpoint's number."""
    return {"commit": lambda: outcome["id"], "checkpoint": lambda: outcome["checkpoint"]["number"]}.get(kind, lambda: None)()


# ---- agents ----


def agent(number, args, folder, until, done_by, failures):
    """One process after the other, as an agent starts them: edits its own files, saves, commits, and remembers what it was told."""
    chance = random.Random(SEED + number)
    repo = Repo(args.digstore, folder)
    own = folder / f"agent-{number}"
    paths = [path.relative_to(folder) for path in own.rglob("*.txt")]
    done = {"checkpoint": [], "commit": [], "busy": 0}
    try:
        while time.monotonic() < until:
            edit(folder, paths, chance)
            for kind, commands in (
                ("checkpoint", [("checkpoint", "create", "-m", f"agent {number}")]),
                ("commit", [("add", own), ("commit", "-m", f"agent {number}")]),
            ):
                start = time.perf_counter()
                for command in commands:
                    code, out, err = repo.try_run("--lock-timeout", "60", *command)
                    nothing = b"nothing to commit" in err
                    if code == BUSY:
                        done["busy"] += 1
                    elif code not in (0, 3) and not nothing:
                        raise Lost(f"{' '.join(map(str, command))}: {code}: {err.decode(errors='replace')[-300:]}")
                if code in (0, 3):
                    done[kind].append((time.perf_counter() - start, promised(kind, json.loads(out))))
    except Exception as error:  # noqa: BLE001 - reported by the main thread
        failures.append(error)
    done_by[number] = done


def agents(args, folder):
    chance = random.Random(SEED)
    repo = Repo(args.digstore, folder)
    repo.run("init")
    for number in range(args.processes):
        write_files(folder / f"agent-{number}", 100, 4000, chance)
    repo.run("add", ".")
    repo.run("commit", "-m", "start")
    done_by, failures = {}, []
    until = time.monotonic() + args.seconds
    threads = [
        threading.Thread(target=agent, args=(number, args, folder, until, done_by, failures))
        for number in range(args.processes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    told = {kind: [what for done in done_by.values() for _, what in done[kind]] for kind in ("checkpoint", "commit")}
    in_log = {commit["id"] for commit in repo.run("log")["commits"]}
    numbers = {checkpoint["number"] for checkpoint in repo.run("checkpoint", "list", "--all")["checkpoints"]}
    missing = [what for what in told["commit"] if what not in in_log]
    missing += [what for what in told["checkpoint"] if what not in numbers]
    if missing:
        raise Lost(f"{len(missing)} things are not there that were reported, first {missing[0]}")
    repo.fsck()
    last = tree_hash(folder)
    if repo.run("status")["changed"] == []:
        out = folder.parent / "out"
        repo.run("export", "HEAD", "--to", out)
        if tree_hash(out) != last:
            raise Lost("HEAD is not what the work tree holds")
    rows, waits = [("processes at once", args.processes), ("seconds", args.seconds)], []
    for kind in ("checkpoint", "commit"):
        times = sorted(seconds for done in done_by.values() for seconds, _ in done[kind])
        rows += [
            (f"{kind}s, all there", f"{len(times):,}"),
            (f"{kind}s a second", f"{len(times) / args.seconds:.1f}"),
            (f"median wait for one, ms", f"{statistics.median(times) * 1e3:.0f}"),
            (f"99th percentile, ms", f"{times[int(len(times) * 0.99)] * 1e3:.0f}"),
        ]
        waits.append((f"{kind}, median", statistics.median(times) * 1e3))
        waits.append((f"{kind}, 99th percentile", times[int(len(times) * 0.99)] * 1e3))
    rows.append(("commands that gave up on the lock", sum(done["busy"] for done in done_by.values())))
    svg = plot.bars("Waits of processes that work at once", waits, "ms")
    report("agents", "Agents", rows, done_by, svg)
    return True


# ---- crash ----


def crash(args, folder):
    chance = random.Random(SEED)
    repo = Repo(args.digstore, folder)
    repo.run("init")
    write_files(folder, 200, 4000, chance)
    repo.run("add", ".")
    repo.run("commit", "-m", "start")
    paths = [path.relative_to(folder) for path in folder.rglob("*.txt")]
    promised_commits, promised_checkpoints = set(), set()
    hashes = {}
    kinds = ["commit", "checkpoint", "gc", "add"]
    counts = {kind: [0, 0] for kind in kinds}
    typical = {kind: 0.03 for kind in kinds}
    started = time.monotonic()
    for number in range(args.kills):
        kind = kinds[number % len(kinds)]
        edit(folder, paths, chance)
        before = tree_hash(folder)
        command = {
            "commit": ("commit", "-a", "-m", f"{number}"),
            "checkpoint": ("checkpoint", "create"),
            "gc": ("gc", "--now"),
            "add": ("add", "."),
        }[kind]
        start = time.perf_counter()
        child = repo.start(*command)
        try:
            # Sometimes it may end; then it promised something.
            out, _ = child.communicate(timeout=chance.uniform(0, 1.3) * typical[kind])
            ended = True
        except subprocess.TimeoutExpired:
            child.kill()
            out, _ = child.communicate()
            ended = child.returncode == 0
        counts[kind][0 if ended else 1] += 1
        if ended:
            typical[kind] = 0.9 * typical[kind] + 0.1 * (time.perf_counter() - start)
        if ended and child.returncode == 0:
            told = promised(kind, json.loads(out))
            if kind == "commit":
                promised_commits.add(told)
                hashes[told] = before
            if kind == "checkpoint":
                promised_checkpoints.add(told)
        if number % 20 == 19 or number == args.kills - 1:
            check_promises(repo, promised_commits, promised_checkpoints)
            if tree_hash(folder) != before:
                raise Lost("the work tree was changed by commands that only read it")
    repo.fsck()
    for commit in chance.sample(sorted(hashes), min(10, len(hashes))):
        out = folder.parent / "out"
        shutil.rmtree(out, ignore_errors=True)
        repo.run("export", commit, "--to", out)
        if tree_hash(out) != hashes[commit]:
            raise Lost(f"commit {commit} does not come back as it was")
    leftovers = [path.name for path in (folder / ".digstore").rglob("*") if ".digstore-tmp" in path.name]
    repo.run("add", ".")
    rows = [("processes started", f"{args.kills:,}"), ("seconds", f"{time.monotonic() - started:.0f}")]
    rows += [(f"{kind}: ended, killed", f"{done}, {killed}") for kind, (done, killed) in counts.items()]
    rows += [
        ("commits promised, all there", len(promised_commits)),
        ("checkpoints promised, all there", len(promised_checkpoints)),
        ("temporary files left by the last one", len(leftovers)),
        ("damage found by fsck --full", "none"),
    ]
    svg = plot.bars("Processes that were killed", [(kind, killed) for kind, (_, killed) in counts.items()], "")
    report("crash", "Killed processes", rows, {"counts": counts}, svg)
    return True


def check_promises(repo, commits, checkpoints):
    repo.run("fsck")
    in_log = {commit["id"] for commit in repo.run("log")["commits"]}
    if missing := commits - in_log:
        raise Lost(f"{len(missing)} commits are gone that were reported, such as {min(missing)}")
    numbers = {checkpoint["number"] for checkpoint in repo.run("checkpoint", "list", "--all")["checkpoints"]}
    if missing := checkpoints - numbers:
        raise Lost(f"{len(missing)} checkpoints are gone that were reported, such as {min(missing)}")


# ---- slow file systems ----

REMOTE_CALLS = (
    "open,openat,creat,stat,lstat,newfstatat,statx,access,faccessat,faccessat2,readlink,readlinkat,getdents64,"
    "mkdir,mkdirat,unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,fsync,fdatasync"
)


def slow_fs(args, folder):
    """Counts and delays the calls that a network file system would answer."""
    if not shutil.which("strace"):
        sys.exit("slow-fs: strace is missing: apt-get install strace")
    chance = random.Random(SEED)
    write_files(folder, args.files, 4000, chance)
    repo = Repo(args.digstore, folder)
    git = lambda *rest: ["git", "-c", "user.name=S", "-c", "user.email=s@example.org", "-C", str(folder), *rest]  # noqa: E731
    own = lambda *rest: [str(args.digstore), "-C", str(folder), *rest]  # noqa: E731
    (folder / ".gitignore").write_text(".digstore\n")
    (folder / ".digignore").write_text(".git\n")
    subprocess.run(git("init", "-q"), check=True)
    repo.run("init")
    steps = [
        ("add and commit", [own("add", "-q", "."), own("commit", "-q", "-m", "1")], [git("add", "."), git("commit", "-qm", "1")]),
        ("status, nothing changed", [own("status")], [git("status")]),
        ("status again", [own("status")], [git("status")]),
    ]
    data, rows = {}, []
    for name, ours, theirs in steps:
        for tool, commands in (("digstore", ours), ("git", theirs)):
            calls, seconds = 0, 0.0
            for command in commands:
                counted = delayed(repo.env, command, args.delay_us)
                calls, seconds = calls + counted[0], seconds + counted[1]
            data[f"{name}, {tool}"] = {"calls": calls, "seconds": seconds}
        ours_found, theirs_found = data[f"{name}, digstore"], data[f"{name}, git"]
        rows.append((f"{name}: calls, git's", f"{ours_found['calls']:,}, {theirs_found['calls']:,}"))
        rows.append((f"{name}: seconds, git's", f"{ours_found['seconds']:.2f}, {theirs_found['seconds']:.2f}"))
    repo.fsck()
    names = [(f"{name}, {tool}", data[f"{name}, {tool}"]["seconds"]) for name, *_ in steps for tool in ("digstore", "git")]
    title = f"{args.files:,} files, {args.delay_us / 1000:g} ms more for each call"
    report("slow-fs", f"A file system far away: {title}", rows, data, plot.bars(title, names, "s"))
    return True


def delayed(env, command, delay_us):
    """Runs a command with every remote call delayed. Gives the number of these calls, and seconds."""
    with tempfile.NamedTemporaryFile("r") as log:
        inject = f"inject={REMOTE_CALLS}:delay_enter={delay_us}"
        argv = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", log.name, "-e", f"trace={REMOTE_CALLS}", "-e", inject, *command]
        start = time.perf_counter()
        done = subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        seconds = time.perf_counter() - start
        if done.returncode != 0:
            raise Lost(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-300:]}")
        return sum(1 for line in log if "resumed>" not in line and "(" in line), seconds


KINDS = {"endurance": endurance, "agents": agents, "crash": crash, "slow-fs": slow_fs}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--digstore", type=Path, default=ROOT / "target" / "release" / "digstore")
    parser.add_argument("--data", type=Path, help="where the work is done; the system's temporary folder if not given")
    parser.add_argument("--commits", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--kills", type=int, default=2_000)
    parser.add_argument("--delay-us", type=int, default=1000)
    parser.add_argument("--files", type=int, default=2_000)
    args = parser.parse_args()
    args.digstore = args.digstore.resolve()
    if not args.digstore.is_file():
        sys.exit(f"{args.digstore} is missing: cargo build --release")
    if args.data:
        args.data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.data) as folder:
        try:
            reached = KINDS[args.kind](args, Path(folder) / "work")
        except Lost as lost:
            sys.exit(f"{args.kind}: {lost}")
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
