#!/usr/bin/env python3
"""A disk image of 10 GiB as a sparse bundle: what does a checkpoint of a few edited files cost?

    stress/bundle.py --data DIR [--rounds 50] [--rival-rounds 5] [--write-report]

Makes an ext4 image of 10 GiB from about 10,000 files, 1 GB (the kernel's source and the binaries of the Rust toolchain),
as a bundle with bands of 4 MiB. Then, again and again, 1, 5 or 20 files inside the image are edited with `debugfs -w`, the
blocks that changed are written back to the bands in place, as a mounted image would, and a checkpoint is made by a new
process, durable when it ends. The rivals that are installed store the same folder after the same edits. Then the same with
10,000 bands, the restore of the point before, and clones on a file system that has them.

What was stored is restored and compared by hash before a time is reported. With --write-report the table goes to
docs/benchmarks/bundle.md. Takes five to ten minutes on two cores, and 20 GB of room.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets
import plot
import results
import tools
from measure import size_of

ROOT = Path(__file__).resolve().parent.parent
DIGSTORE = ROOT / "target" / "release" / "digstore"
MIB = 1 << 20
BAND = 4 * MIB
BLOCK = 4096
IMAGE_LEN = 10 << 30
SOURCE_FILES = 9_500
# Files of the toolchain from this length on are its binaries and libraries.
BINARY_MIN_BYTES = 300_000
EDITS = (1, 5, 20)
MANY_BANDS = 10_000
# Bands that are full among the many; the edits of the larger bundle go there.
FULL_BANDS = 64
SEED = 7
REPORT = ROOT / "docs" / "benchmarks" / "bundle.md"
STAGES = ("look", "wait", "read", "store", "record")


def run(*argv, cwd=None, check=True, env=None):
    """Runs a command; gives what it printed and the milliseconds that it took."""
    start = time.perf_counter()
    done = subprocess.run([str(arg) for arg in argv], cwd=cwd, capture_output=True, env=env)
    took = (time.perf_counter() - start) * 1000
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(map(str, argv[:4]))} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout, took


# ---- Data ----


def make_tree(data):
    """About 10,000 files: source code and binaries."""

    def build(folder):
        kernel = datasets.kernel_source(data, "6.1")
        names = [name for name in datasets.regular_files(kernel) if name.endswith((".c", ".h", ".S"))]
        for name in names[:SOURCE_FILES]:
            target = folder / "src" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kernel / name, target)
        sysroot = Path(run("rustc", "--print", "sysroot")[0].decode().strip())
        (folder / "bin").mkdir()
        for number, name in enumerate(datasets.regular_files(sysroot)):
            if (sysroot / name).stat().st_size >= BINARY_MIN_BYTES:
                shutil.copyfile(sysroot / name, folder / "bin" / f"{number}-{Path(name).name}")

    return datasets.made_once(data / "bundle-tree", build)


def make_image(data, tree):
    def build(folder):
        image = folder / "disk.img"
        with open(image, "wb") as file:
            file.truncate(IMAGE_LEN)
        run(
            "mke2fs", "-q", "-t", "ext4", "-d", tree, "-U", "8a6e1c36-0000-4000-8000-000000000001",
            "-E", "root_owner=0:0,hash_seed=8a6e1c36-0000-4000-8000-000000000002", image,
        )

    return datasets.made_once(data / "bundle-image", build) / "disk.img"


# ---- Edits ----


class Editor:
    """Edits files inside an image, and writes the blocks that changed back to a bundle."""

    def __init__(self, image, tree, bundle, work):
        self.image, self.bundle, self.work = image, bundle, work
        names = (name for name in datasets.regular_files(tree) if name.endswith(".c"))
        self.texts = {name: (tree / name).read_bytes() for name in names if (tree / name).stat().st_size < 100_000}
        self.names = sorted(self.texts)
        self.chance = random.Random(SEED)
        self.fd = os.open(image, os.O_RDONLY)

    def edit(self, count):
        """A line is added in the middle of so many files. Gives the bands that changed."""
        commands = []
        for number, name in enumerate(self.chance.sample(self.names, count)):
            text = self.texts[name]
            at = self.chance.randrange(len(text) + 1)
            text = text[:at] + b"/* edited %d */\n" % self.chance.randrange(10**9) + text[at:]
            self.texts[name] = text
            source = self.work / f"edit{number}"
            source.write_bytes(text)
            commands += [f"rm /{name}", f"write {source} /{name}"]
        script = self.work / "edits"
        script.write_text("\n".join(commands) + "\n")
        run("debugfs", "-w", "-f", script, self.image)
        return self.write_back()

    def write_back(self):
        changed = []
        for band in data_bands(self.fd):
            now = os.pread(self.fd, BAND, band * BAND)
            path = self.bundle / "bands" / f"{band:x}"
            with open(path, "r+b" if path.exists() else "w+b", buffering=0) as file:
                old = file.read(BAND).ljust(len(now), b"\0")
                if old == now:
                    continue
                changed.append(band)
                for at in range(0, len(now), BLOCK):
                    if now[at : at + BLOCK] != old[at : at + BLOCK]:
                        os.pwrite(file.fileno(), now[at : at + BLOCK], at)
        return changed


def data_bands(fd):
    bands, at = set(), 0
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return sorted(bands)
        at = os.lseek(fd, start, os.SEEK_HOLE)
        bands.update(range(start // BAND, (at - 1) // BAND + 1))


def bundle_hash(bundle):
    digest = hashlib.sha256()
    for path in sorted((bundle / "bands").iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


# ---- Programs ----


class GitLfs(tools.Git):
    """Each band is one object of LFS."""

    name = "git-lfs"
    package = "git-lfs"
    settings = "bands by LFS; nothing is synced"

    def commit(self, tree, label):
        attributes = tree / ".gitattributes"
        if not attributes.exists():
            attributes.write_text("bands/* filter=lfs diff=lfs merge=lfs -text\n")
        return super().commit(tree, label)

    def _run(self, *args, **options):
        each = super()._run(*args, **options)
        filters = ("filter.lfs.process=git-lfs filter-process", "filter.lfs.required=true",
                   "filter.lfs.clean=git-lfs clean -- %f", "filter.lfs.smudge=git-lfs smudge -- %f")
        (git, *rest), = each.pipeline
        argv = (git, *(word for value in filters for word in ("-c", value)), *rest)
        return type(each)((argv,), each.cwd, each.env)


def rivals(home):
    found = []
    for kind in (tools.Restic, tools.Borg, tools.Bupstash, GitLfs):
        if not kind.program():
            continue
        tool = kind(home / kind.name)
        tool.home.mkdir(parents=True)
        found.append(tool)
    return found


def store(tool, bundle, label):
    """Stores the bundle with a rival; gives the milliseconds."""
    took = 0.0
    for each in tool.commit(bundle, label):
        env = {**os.environ, **tool.env(), **{key: str(value) for key, value in each.env.items()}}
        took += run(*each.pipeline[0], cwd=each.cwd or tool.home, env=env)[1]
    return took


def stored_bytes(tool):
    return size_of(tool.repo).apparent_bytes


# ---- The benchmark ----


def quantiles(values):
    ordered = sorted(values)
    at = lambda share: ordered[min(len(ordered) - 1, int(len(ordered) * share))]
    return {"p50": statistics.median(ordered), "p99": at(0.99), "max": ordered[-1], "rounds": len(ordered)}


def baseline(bundle):
    """The slow path: everything is listed, looked at, read and hashed, by one thread."""
    start = time.perf_counter()
    names = os.listdir(bundle / "bands")
    listed = time.perf_counter()
    folder = os.open(bundle / "bands", os.O_RDONLY)
    for name in names:
        os.stat(name, dir_fd=folder)
    looked = time.perf_counter()
    size = 0
    for name in names:
        bytes_of = (bundle / "bands" / name).read_bytes()
        hashlib.sha256(bytes_of).digest()
        size += len(bytes_of)
    hashed = time.perf_counter()
    os.close(folder)
    ms = lambda a, b: (b - a) * 1000
    return {"bands": len(names), "bytes": size, "list_ms": ms(start, listed), "stat_ms": ms(listed, looked),
            "hash_all_ms": ms(looked, hashed)}


def sync_floor(folder):
    """Writing 4 KiB over a file's own blocks, and syncing: what no durable checkpoint goes below."""
    with open(folder / "floor", "w+b", buffering=0) as file:
        file.write(bytes(64 * BLOCK))
        os.fsync(file.fileno())
        times = []
        for number in range(50):
            start = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * BLOCK, number % 64 * BLOCK)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - start) * 1000)
    return quantiles(times)


class Store:
    """A repository beside the work tree that holds the bundle."""

    def __init__(self, work, repo, bundle):
        self.work, self.repo, self.bundle = work, repo, bundle
        run(DIGSTORE, "--store", repo, "init", cwd=work)

    def run(self, *args):
        return run(DIGSTORE, "--store", self.repo, *args, cwd=self.work)

    def checkpoint(self):
        printed, took = self.run("checkpoint", "create", self.bundle.name, "--json")
        outcome = json.loads(printed)
        stages = {stage: outcome["times"][f"{stage}_ns"] / 1e6 for stage in STAGES}
        return outcome["checkpoint"]["number"], took, stages, outcome["ingest"]

    def bytes(self):
        return size_of(self.repo).apparent_bytes


def edited(store, make_edits, rounds, others, rival_rounds):
    """Rounds of edits and checkpoints; the rivals take part in the first ones."""
    walls, stages, bands, bytes_read, growth = [], [], [], [], []
    beside = {tool.name: {"ms": [], "growth": []} for tool in others}
    for number in range(rounds):
        changed = make_edits()
        before = store.bytes()
        # What the edits wrote is not what is measured.
        os.sync()
        _, took, stage, ingest = store.checkpoint()
        assert ingest["files"] >= len(changed), "an edited band was not read"
        walls.append(took)
        stages.append(stage)
        bands.append(len(changed))
        bytes_read.append(ingest["bytes"])
        growth.append((store.bytes() - before, ingest["stored_bytes"]))
        if number < rival_rounds:
            for tool in others:
                held = stored_bytes(tool)
                beside[tool.name]["ms"].append(store_quietly(tool, store.bundle))
                beside[tool.name]["growth"].append(stored_bytes(tool) - held)
    return {
        "wall_ms": quantiles(walls),
        "stages_ms": {stage: quantiles([each[stage] for each in stages]) for stage in STAGES},
        "bands": statistics.mean(bands),
        "bytes_read": statistics.mean(bytes_read),
        # New objects wait in the journal, which grows and shrinks in steps: the mean over all rounds says what one costs.
        "growth_bytes": statistics.mean(stored for _, stored in growth),
        "growth_of_repository": statistics.mean(grown for grown, _ in growth),
        "rivals": {
            name: {"ms": statistics.median(found["ms"]), "growth_bytes": statistics.mean(found["growth"])}
            for name, found in beside.items()
            if found["ms"]
        },
        "raw_wall_ms": walls,
    }


LABELS = iter(range(10**9))


def store_quietly(tool, bundle):
    os.sync()
    return store(tool, bundle, f"v{next(LABELS)}")


def restore_previous(store, editor, count, rounds):
    """Back to the point before an edit, beside writing the bands that differ twice."""
    restores, floors = [], []
    for _ in range(rounds):
        first, *_ = store.checkpoint()
        expected = bundle_hash(store.bundle)
        changed = editor.edit(count)
        store.checkpoint()
        os.sync()
        _, took = store.run("checkpoint", "restore", f"@{first}")
        assert bundle_hash(store.bundle) == expected, "the bundle came back otherwise"
        restores.append(took)
        contents = [(store.bundle / "bands" / f"{band:x}").read_bytes() for band in changed]
        start = time.perf_counter()
        for again in range(2):
            for number, bytes_of in enumerate(contents):
                (store.work / f"floor{again}-{number}").write_bytes(bytes_of)
        floors.append((time.perf_counter() - start) * 1000)
        for path in store.work.glob("floor*-*"):
            path.unlink()
        store.run("undo")
    return {"restore_ms": quantiles(restores), "write_twice_ms": quantiles(floors)}


def many_bands(data, rounds):
    """The same with 10,000 bands, of which a few are full and the others hold one block."""
    work = Path(tempfile.mkdtemp(prefix="bundle40-", dir=data))
    bundle = work / "disk.sparsebundle"
    run(DIGSTORE, "bundle", "create", bundle, "--size", str(MANY_BANDS * BAND))
    chance = random.Random(SEED)
    full = sorted(chance.sample(range(MANY_BANDS), FULL_BANDS))
    for band in range(MANY_BANDS):
        with open(bundle / "bands" / f"{band:x}", "wb") as file:
            file.write(chance.randbytes(BAND if band in set(full) else BLOCK))
            file.truncate(BAND)
    store = Store(work, work / "repo", bundle)
    store.checkpoint()
    found = {}
    # As many bands as the edits above change.
    for edits, dirty in zip(EDITS, (3, 7, 16)):

        def poke():
            bands = chance.sample(full, dirty)
            for band in bands:
                with open(bundle / "bands" / f"{band:x}", "r+b", buffering=0) as file:
                    for _ in range(3):
                        os.pwrite(file.fileno(), chance.randbytes(BLOCK), chance.randrange(BAND // BLOCK) * BLOCK)
            return bands

        found[edits] = edited(store, poke, rounds, [], 0)
    found["unchanged_ms"] = quantiles([store.checkpoint()[1] for _ in range(rounds)])
    shutil.rmtree(work)
    return found


def clones(data, source):
    """Snapshots by clones, on XFS in a file."""
    if os.geteuid() != 0 or not shutil.which("mkfs.xfs"):
        return {"skipped": "it takes root and mkfs.xfs to make a file system that can clone"}
    folder = Path(tempfile.mkdtemp(prefix="clones-", dir=data))
    image, mounted = folder / "xfs", folder / "mounted"
    mounted.mkdir()
    with open(image, "wb") as file:
        file.truncate(6 << 30)
    run("mkfs.xfs", "-q", image)
    if subprocess.run(["mount", "-o", "loop", image, mounted], capture_output=True).returncode != 0:
        shutil.rmtree(folder)
        return {"skipped": "a loop device could not be mounted here"}
    try:
        bundle = mounted / "disk.sparsebundle"
        run("cp", "-a", "--sparse=always", source, bundle)
        store = Store(mounted, mounted / "repo", bundle)
        store.checkpoint()
        os.sync()
        used = lambda: shutil.disk_usage(mounted).used
        first = sorted((bundle / "bands").iterdir())[0]
        _, one = run("cp", "--reflink=always", first, mounted / "one")
        before = used()
        _, all_of_it = run("cp", "-a", "--reflink=always", bundle / "bands", mounted / "all")
        os.sync()
        shared = used() - before
        expected = bundle_hash(bundle)
        printed, with_snapshot = store.run("checkpoint", "create", bundle.name, "--snapshot", "--json")
        outcome = json.loads(printed)
        assert outcome["snapshot"] is True
        bands = sorted((bundle / "bands").iterdir())[:16]
        for path in bands:
            with open(path, "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), b"changed" * 100, 8192)
        store.checkpoint()
        os.sync()
        before = used()
        _, restore = store.run("checkpoint", "restore", f"@{outcome['checkpoint']['number']}")
        assert bundle_hash(bundle) == expected
        os.sync()
        return {"cp_one_ms": one, "cp_all_ms": all_of_it, "bands": len(list((bundle / "bands").iterdir())),
                "cp_all_bytes": shared, "checkpoint_with_snapshot_ms": with_snapshot, "restored_bands": len(bands),
                "restore_ms": restore, "restore_bytes": used() - before}
    finally:
        run("umount", mounted)
        shutil.rmtree(folder)


# ---- The report ----


def environment():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": cpu, "threads": os.cpu_count(), "memory_gb": round(memory / 1e9), "kernel": platform.release()}


def ms(value):
    return f"{value:.1f}"


def in_use(change):
    return f"{abs(change) / 1e6:.1f} MB {'less' if change < 0 else 'more'} in use"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def report(found):
    env, base, floor, restore = found["environment"], found["baseline"], found["sync_floor_ms"], found["restore"]
    edits = found["edits"]
    parts = [
        "# Checkpoints of a sparse bundle\n\n"
        "Written by `stress/bundle.py --data DIR --write-report`; everything below was measured in one run, and what was "
        "stored was restored and compared by hash before a time was written down.\n\n"
        "## Environment\n\n"
        f"{env['cpu']}, {env['threads']} threads, {env['memory_gb']} GB of memory, Linux {env['kernel']}, "
        f"{found['file_system']}. Page cache warm. Programs: {'; '.join(found['versions'])}.\n\n"
        f"The image: {IMAGE_LEN >> 30} GiB, ext4 with {found['tree']['files']:,} files, {found['tree']['bytes'] / 1e6:,.0f} MB "
        f"(source code and binaries), in {base['bands']} bands of {BAND // MIB} MiB, {base['bytes'] / 1e6:,.0f} MB. "
        "Files are edited inside the image with `debugfs -w`; the blocks that change are written back to the bands in place. "
        "A checkpoint is a whole process, durable when it ends. Milliseconds throughout.",
        "## Baseline: the slow path\n\n"
        + table(
            ["List all bands", "Look at all bands", "Hash all bands, SHA-256, one thread", "First checkpoint, everything stored"],
            [[ms(base["list_ms"]), ms(base["stat_ms"]), ms(base["hash_all_ms"]), ms(found["first_ms"])]],
        ),
        "## Checkpoints\n\n"
        + table(
            ["Edited files", "Bands changed", "MB read", "p50", "p99", "max", "Rounds", "Growth, KB"],
            [
                [n, f"{e['bands']:.1f}", f"{e['bytes_read'] / 1e6:.1f}", ms(e["wall_ms"]["p50"]), ms(e["wall_ms"]["p99"]),
                 ms(e["wall_ms"]["max"]), e["wall_ms"]["rounds"], f"{e['growth_bytes'] / 1e3:.0f}"]
                for n, e in edits.items()
            ]
            + [["none", 0, 0, *(ms(found["unchanged_ms"][q]) for q in ("p50", "p99", "max")), found["unchanged_ms"]["rounds"], 0]],
        )
        + "\n\nWhere the time goes, p50 (p99):\n\n"
        + table(
            ["Edited files", "Look at all bands, twice", "Wait for the clock", "Read, hash, find what is new", "Compress",
             "Record, synced", "Process, opening, the rest"],
            [
                [n]
                + [f"{ms(e['stages_ms'][s]['p50'])} ({ms(e['stages_ms'][s]['p99'])})" for s in STAGES]
                + [ms(e["wall_ms"]["p50"] - sum(e["stages_ms"][s]["p50"] for s in STAGES))]
                for n, e in edits.items()
            ],
        )
        + f"\n\nThe floor of a durable record, 4 KiB overwritten and synced: {ms(floor['p50'])} (p99 {ms(floor['p99'])}).",
        "## Beside other programs\n\nThe same folder after the same edits, in the same rounds (medians; growth is the mean):\n\n"
        + table(
            ["Edited files", "digstore", *found["rivals"]],
            [
                [f"{n}: ms", ms(e["wall_ms"]["p50"])]
                + [f"{e['rivals'][r]['ms']:.0f} ({e['rivals'][r]['ms'] / e['wall_ms']['p50']:.1f}x)" for r in found["rivals"]]
                for n, e in edits.items()
            ]
            + [
                [f"{n}: growth, KB", f"{e['growth_bytes'] / 1e3:.0f}"]
                + [f"{e['rivals'][r]['growth_bytes'] / 1e3:,.0f}" for r in found["rivals"]]
                for n, e in edits.items()
            ],
        ),
        f"## {MANY_BANDS:,} bands\n\nA bundle of {MANY_BANDS * BAND >> 30} GiB, {FULL_BANDS} bands full and a block in each of "
        "the others; as many full bands are changed as above.\n\n"
        + table(
            ["Bands changed", "p50", "p99", "max", "Look, p50"],
            [
                [f"{e['bands']:.0f}", *(ms(e["wall_ms"][q]) for q in ("p50", "p99", "max")), ms(e["stages_ms"]["look"]["p50"])]
                for n, e in found["many"].items()
                if n != "unchanged_ms"
            ]
            + [["0", *(ms(found["many"]["unchanged_ms"][q]) for q in ("p50", "p99", "max")), ""]],
        ),
        "## Restore\n\nThe point before twenty edits; what is there is saved first:\n\n"
        + table(
            ["", "p50", "max"],
            [["restore", ms(restore["restore_ms"]["p50"]), ms(restore["restore_ms"]["max"])],
             ["writing the differing bands twice, not synced", ms(restore["write_twice_ms"]["p50"]), ms(restore["write_twice_ms"]["max"])]],
        ),
        "## Clones\n\n" + clones_text(found["clones"]),
        "## Scaling, bottlenecks, recommendations\n\n" + analysis(found),
        "## Raw timings\n\nWall time of each checkpoint in milliseconds, in order.\n\n"
        + "\n".join(f"- {n} edited: " + " ".join(f"{value:.0f}" for value in e["raw_wall_ms"]) for n, e in edits.items()),
    ]
    return "\n\n".join(parts) + "\n"


def clones_text(found):
    if "skipped" in found:
        return f"Skipped: {found['skipped']}."
    return (
        f"On XFS in a file: `cp --reflink=always` of one band {ms(found['cp_one_ms'])}, of all {found['bands']} "
        f"{ms(found['cp_all_ms'])}, {in_use(found['cp_all_bytes'])}. `checkpoint create --snapshot` "
        f"{ms(found['checkpoint_with_snapshot_ms'])}; restore of {found['restored_bands']} changed bands by clones, each "
        f"compared by hash before it takes its place, {ms(found['restore_ms'])}, {in_use(found['restore_bytes'])}. "
        "Clones of files are an offer: nothing depends on them."
    )


def analysis(found):
    edits = found["edits"]
    least, most = edits[EDITS[0]], edits[EDITS[-1]]
    per_band = (most["wall_ms"]["p50"] - least["wall_ms"]["p50"]) / max(most["bands"] - least["bands"], 1)
    fixed = least["wall_ms"]["p50"] - per_band * least["bands"]
    shares = {s: most["stages_ms"][s]["p50"] for s in STAGES}
    worst = max(shares, key=shares.get)
    names = {"look": "looking at the bands", "wait": "waiting for the clock of the file system", "store": "compressing",
             "read": "reading and hashing the changed bands", "record": "the synced record"}
    rate = most["bytes_read"] / 1e6 / (most["stages_ms"]["read"]["p50"] / 1000)
    many, few = found["many"]["unchanged_ms"]["p50"], found["unchanged_ms"]["p50"]
    per_thousand = (many - few) / (MANY_BANDS - found["baseline"]["bands"]) * 1000
    return (
        f"- A checkpoint costs about {fixed:.0f} ms, and {per_band:.1f} ms for each changed band of {BAND // MIB} MiB. "
        f"A thousand unchanged bands cost {per_thousand:.1f} ms.\n"
        f"- With {EDITS[-1]} edited files most of the time goes into {names[worst]} ({shares[worst]:.0f} of "
        f"{most['wall_ms']['p50']:.0f} ms): {rate:,.0f} MB/s on {found['environment']['threads']} threads, where SHA-256 is the limit.\n"
        f"- A bundle that was written to less than 20 ms ago makes the checkpoint wait for the rest of that time: a later write "
        "in the same tick of the clock would not show in the file's times otherwise. Nothing is missed, and nothing has to be "
        "read again.\n"
        f"- Storage grows by {least['growth_bytes'] / 1e3:.0f} to {most['growth_bytes'] / 1e3:.0f} KB, of "
        f"{least['bytes_read'] / 1e6:.0f} to {most['bytes_read'] / 1e6:.0f} MB of changed bands.\n"
        "- Recommendations: bands of 4 MiB, or 8 MiB for images above 40 GB; smaller ones make little difference, larger ones "
        "are read and restored as a whole. Pause what writes to the image, or `sync` inside it, before a checkpoint: what the "
        "guest has not written yet is not in the bands. Use `--snapshot` where `bundle info` says that the file system can clone."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--rival-rounds", type=int, default=5)
    parser.add_argument("--write-report", action="store_true")
    args = parser.parse_args()
    for program in ("mke2fs", "debugfs"):
        if not shutil.which(program):
            sys.exit(f"{program} is missing: apt-get install e2fsprogs")
    run("cargo", "build", "--release", "--locked", cwd=ROOT)
    args.data.mkdir(parents=True, exist_ok=True)
    tree = make_tree(args.data)
    pristine = make_image(args.data, tree)
    home = Path(tempfile.mkdtemp(prefix="bundle-", dir=args.data))
    work, scratch = home / "work", home / "scratch"
    work.mkdir()
    scratch.mkdir()
    image, bundle = home / "disk.img", work / "disk.sparsebundle"
    run("cp", "--sparse=always", pristine, image)
    run(DIGSTORE, "bundle", "import", image, bundle)
    found = {
        "environment": environment(),
        "file_system": run("stat", "-f", "-c", "%T", home)[0].decode().strip(),
        "tree": {"files": sum(1 for _ in datasets.regular_files(tree)), "bytes": size_of(tree).apparent_bytes},
        "baseline": baseline(bundle),
        "sync_floor_ms": sync_floor(scratch),
    }
    store = Store(work, home / "repo", bundle)
    _, found["first_ms"], _, ingest = store.checkpoint()
    assert ingest["bytes"] >= found["baseline"]["bytes"]
    others = rivals(home / "rivals") if args.rival_rounds else []
    for tool in others:
        for each in tool.init():
            run(*each.pipeline[0], cwd=each.cwd or tool.home, env={**os.environ, **tool.env()})
        store_quietly(tool, bundle)
    # Git leaves a file in the folder; it is no band and comes before anything is compared.
    store.checkpoint()
    found["rivals"] = [tool.name for tool in others]
    own = run(DIGSTORE, "--version")[0].decode().strip()
    found["versions"] = [f"{own} (strict)", *(f"{tool.version()} ({tool.settings})" for tool in others)]
    found["unchanged_ms"] = quantiles([store.checkpoint()[1] for _ in range(args.rounds)])
    editor = Editor(image, tree, bundle, scratch)
    found["edits"] = {
        count: edited(store, lambda: editor.edit(count), args.rounds, others, args.rival_rounds) for count in EDITS
    }
    found["restore"] = restore_previous(store, editor, EDITS[-1], 5)
    # The image in the bands is the image that was edited, and it is sound.
    run(DIGSTORE, "bundle", "export", bundle, scratch / "out.img")
    run("cmp", scratch / "out.img", image)
    run("e2fsck", "-fn", image)
    store.run("fsck", "--full")
    found["clones"] = clones(args.data, bundle)
    found["many"] = many_bands(args.data, args.rounds)
    text = report(found)
    if args.write_report:
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(text)
    print(text)
    waits = [
        (f"{count} edited: {name}", took)
        for count, each in found["edits"].items()
        for name, took in [("digstore", each["wall_ms"]["p50"]), *((r, each["rivals"][r]["ms"]) for r in found["rivals"])]
    ]
    results.leave("bundle", found, text, plot.bars("A bundle after edits", waits, "ms"))
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
