#!/usr/bin/env python3
"""Checkpoints at length: is the last of many as quick as one of the first, and how does one of a large tree compare?

    stress/checkpoints.py --data DIR [--count 10000] [--files 1000] [--tree FOLDER]

Makes a tree of small files with a fixed seed in a new folder below DIR, then COUNT checkpoints with five files edited
before each, as an agent makes them. It compares medians of windows of fifty, asks for pages of the list, counts the
repository's files, restores early checkpoints and compares them by hash, and ends with `fsck --full`.

With --tree, that tree is copied, put under git and digstore, and `digstore checkpoint create` with five edited files is
timed in turns with `git status` on the same tree.
"""

import argparse
import hashlib
import json
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

import plot
import results

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIGSTORE = ROOT / "target" / "release" / "digstore"
EDITS = 5
WINDOW = 50


def run(*command, cwd, check=True):
    """Runs a command; gives its output and the seconds that it took."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, check=check, capture_output=True)
    return done.stdout, time.perf_counter() - start


def tree_hash(folder):
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if ".digstore" in path.parts or not path.is_file():
            continue
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def files_of(repository):
    return sum(1 for path in repository.rglob("*") if path.is_file())


def many(data, count, file_count):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="many-", dir=data))
    rng = random.Random(1)
    words = [f"word{n}" for n in range(500)]
    paths = []
    for n in range(file_count):
        path = folder / f"dir{n % 40}" / f"file{n}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(" ".join(rng.choices(words, k=400)))
        paths.append(path)
    run(DIGSTORE, "init", cwd=folder)
    seconds, hashes = [], {}
    for number in range(1, count + 1):
        for path in rng.sample(paths, EDITS):
            path.write_text(" ".join(rng.choices(words, k=400)))
        if number in (1, 10, count // 2):
            hashes[number] = tree_hash(folder)
        output, took = run(DIGSTORE, "checkpoint", "create", "--json", "-m", f"step {number}", cwd=folder)
        seconds.append(took)
        assert json.loads(output)["checkpoint"]["number"] == number
    first, last = (statistics.median(part) for part in (seconds[9 : 9 + WINDOW], seconds[-WINDOW:]))
    pages = {}
    for name, arguments in {"newest": [], "oldest": ["--before", f"@{WINDOW + 1}"]}.items():
        took = [run(DIGSTORE, "checkpoint", "list", "-n", "50", *arguments, cwd=folder)[1] for _ in range(20)]
        pages[name] = statistics.median(took)
    for number, expected in hashes.items():
        run(DIGSTORE, "checkpoint", "restore", f"@{number}", cwd=folder)
        assert tree_hash(folder) == expected, f"checkpoint @{number} came back otherwise"
    run(DIGSTORE, "fsck", "--full", cwd=folder)
    repository = folder / ".digstore"
    ordered = sorted(seconds)
    return {
        "checkpoints": count,
        "tenth_ms": first * 1000,
        "last_ms": last * 1000,
        "ratio": last / first,
        "p99_ms": ordered[int(count * 0.99)] * 1000,
        "max_ms": ordered[-1] * 1000,
        "list_page_ms": {name: took * 1000 for name, took in pages.items()},
        "files": files_of(repository),
        "bytes": sum(path.stat().st_size for path in repository.rglob("*") if path.is_file()),
    }


def beside_git(data, tree, rounds=20):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tree-", dir=data)) / "work"
    run("cp", "-a", str(tree), str(folder), cwd=data)
    run("git", "init", "-q", ".", cwd=folder)
    run("git", "add", "-A", "-f", cwd=folder)
    run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", cwd=folder)
    (folder / ".digignore").write_text(".git\n")
    run(DIGSTORE, "init", cwd=folder)
    for _ in range(3):
        run(DIGSTORE, "checkpoint", "create", cwd=folder)
        time.sleep(0.1)
    tracked = run("git", "ls-files", cwd=folder)[0].decode().splitlines()
    rng = random.Random(2)
    texts = [name for name in tracked if name.endswith((".c", ".h", ".rst"))]
    git, own = [], []
    for _ in range(rounds):
        for name in rng.sample(texts, EDITS):
            with open(folder / name, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write("edited\n")
        time.sleep(0.05)
        git.append(run("git", "--no-optional-locks", "status", "--short", cwd=folder)[1])
        output, took = run(DIGSTORE, "checkpoint", "create", "--json", cwd=folder)
        assert len(json.loads(output)["modified"]) >= EDITS
        own.append(took)
    return {
        "files": len(tracked),
        "git_status_ms": statistics.median(git) * 1000,
        "checkpoint_ms": statistics.median(own) * 1000,
        "ratio": statistics.median(own) / statistics.median(git),
        "checkpoint_max_ms": max(own) * 1000,
    }


def shown(value):
    """A number, or several with their names, for a table."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(each)}" for name, each in value.items())
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--tree", type=pathlib.Path)
    args = parser.parse_args()
    run("cargo", "build", "--release", "--locked", cwd=ROOT)
    report = {}
    if args.tree:
        report["beside_git_status"] = beside_git(args.data, args.tree)
    if args.count:
        report["many"] = many(args.data, args.count, args.files)
    rows = [(f"{part}: {what.replace('_', ' ')}", shown(value)) for part, found in report.items() for what, value in found.items()]
    text = results.rows_of("Checkpoints", rows)
    print(text)
    waits = [
        (what.replace("_", " "), value) for found in report.values() for what, value in found.items()
        if what.endswith("_ms") and not isinstance(value, dict)
    ]
    results.leave("checkpoints", report, text, plot.bars("Checkpoints", waits, "ms"))


if __name__ == "__main__":
    main()
