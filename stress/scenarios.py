"""What is stored in which order. A scenario makes its data when it is asked for."""

from dataclasses import dataclass
from pathlib import Path

import datasets
from datasets import MIB
from tools import CopyFloor, Floor

GIB = 1 << 30

# How often everybody is asked about an unchanged tree: it is quick, and so easily disturbed.
UNCHANGED_RUNS = 5


@dataclass(frozen=True)
class Scenario:
    """Versions of a tree, in the order in which they are stored, and what is done with them."""

    first: Path
    second: Path = None
    # Edit a few files of the first version after it is stored.
    edit: bool = False
    verify: bool = False
    collect: bool = False
    # Nearly all holes: reading them would only fill the page cache.
    sparse: bool = False
    floor: type = Floor


def kernel(data, args):
    """Two releases of the Linux kernel."""
    if args.quick:
        first, second = (text_tree(data / f"quick-kernel-{count}", count, 1000, 30_000) for count in (500, 550))
    else:
        first = args.k1 or datasets.kernel_source(data, "6.1")
        second = args.k2 or datasets.kernel_source(data, "6.12")
    # The first version is edited, and a tree that was given is not ours to change.
    work = datasets.copy_of(data / f"work-{first.name}", first)
    return Scenario(work, second, edit=True, verify=True, collect=True)


def large(data, args):
    """One file of random bytes, and a version of it with an insertion and scattered changes."""
    length = 32 * MIB if args.quick else 4 * GIB
    first = datasets.made_once(
        data / f"large-{length}", lambda folder: datasets.random_file(folder / "file", length)
    )
    second = datasets.made_once(
        data / f"large-{length}-edited", lambda folder: datasets.edited_file(first / "file", folder / "file")
    )
    return Scenario(first, second, verify=True, floor=CopyFloor)


def small(count, shortest, longest):
    """A scenario of many text files; a hundredth of them where little data is wanted."""

    def scenario(data, args):
        files = count // 100 if args.quick else count
        return Scenario(text_tree(data / f"small-{files}", files, shortest, longest))

    return scenario


def sparse(data, args):
    """A file that is nearly all hole."""
    length = GIB // 4 if args.quick else 50 * GIB
    tree = datasets.made_once(
        data / f"sparse-{length}", lambda folder: datasets.sparse_file(folder / "image", length)
    )
    return Scenario(tree, sparse=True, floor=CopyFloor)


def mixed(data, args):
    """Many small text files and a few large ones of random bytes."""
    count, length = (100, MIB) if args.quick else (10_000, 100 * MIB)

    def build(folder):
        datasets.text_files(folder, count, 1024, 10_240)
        for number in range(5):
            datasets.random_file(folder / f"large-{number}", length, seed=datasets.SEED + number)

    return Scenario(datasets.made_once(data / f"mixed-{count}", build), edit=True, verify=True)


def media(data, args):
    """Pictures, models, sounds and music of a game: a large data package of Debian's."""
    if args.quick:
        return large(data, args)
    return Scenario(datasets.package_content(data, MEDIA_PACKAGE), verify=True)


def text_tree(folder, count, shortest, longest):
    """A folder of text files."""
    return datasets.made_once(folder, lambda partial: datasets.text_files(partial, count, shortest, longest))


# 0.7 GB in several thousand files that hardly shrink.
MEDIA_PACKAGE = "supertuxkart-data"

MILLION = (1_000_000, 100, 1000)
# 20,000 files are about 524 MB, 100,000 about the same, 1,000,000 about 550 MB.
SCENARIOS = {
    "kernel": kernel,
    "large": large,
    "small20k": small(20_000, 1000, 51_400),
    "small100k": small(100_000, 500, 10_000),
    "small1m": small(*MILLION),
    "sparse50g": sparse,
    "mixed": mixed,
    "media": media,
}
