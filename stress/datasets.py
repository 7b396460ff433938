"""The data that is stored: always the same for the same parameters."""

import os
import random
import shutil
import subprocess
from pathlib import Path

MIB = 1 << 20
SEED = 7


class Missing(Exception):
    """Something must be installed first; the text says what and how."""


def made_once(folder, build):
    """The folder `folder`, made by `build` under another name if it is not there whole."""
    if not folder.exists():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        build(partial)
        partial.rename(folder)
    return folder


def kernel_source(data, version):
    """The unpacked source of a Linux kernel from its Debian package."""
    archive = Path(f"/usr/src/linux-source-{version}.tar.xz")

    def unpack(folder):
        if not archive.exists():
            raise Missing(
                f"{archive} is missing: apt-get install linux-source-{version}\n"
                "(or give unpacked trees with --k1 and --k2)"
            )
        subprocess.run(["tar", "-xf", archive, "-C", folder, "--strip-components=1"], check=True)

    return made_once(data / f"linux-{version}", unpack)


def copy_of(folder, tree):
    """A copy of `tree` that may be changed."""
    return made_once(folder, lambda partial: subprocess.run(["cp", "-a", f"{tree}/.", partial], check=True))


def regular_files(tree):
    """Relative paths of the regular files of a tree, in a fixed order, without holding them all."""
    for base, folders, files in os.walk(tree):
        folders.sort()
        for name in sorted(files):
            path = Path(base, name)
            if not path.is_symlink():
                yield str(path.relative_to(tree))


def sample_files(tree, count, seed=SEED):
    """`count` regular files of a tree, chosen at random but always the same."""
    chance = random.Random(seed)
    sample = []
    for number, path in enumerate(regular_files(tree)):
        if number < count:
            sample.append(path)
        elif (place := chance.randrange(number + 1)) < count:
            sample[place] = path
    return sample


class Words:
    """Text with the statistics of prose: few words are frequent, many are rare."""

    def __init__(self, chance):
        self.chance = chance
        letters = "etaoinshrdlucmfwypvbgkqjxz"
        weights = [1 / (rank + 2) for rank in range(len(letters))]
        lengths = [chance.randint(2, 11) for _ in range(20_000)]
        self.words = ["".join(chance.choices(letters, weights, k=length)) for length in lengths]
        total = 0.0
        self.cumulative = []
        for rank in range(len(self.words)):
            total += 1 / (rank + 3)
            self.cumulative.append(total)

    def text(self, length):
        """About `length` characters in lines of twelve words."""
        words = self.chance.choices(self.words, cum_weights=self.cumulative, k=length // 6 + 1)
        lines = (" ".join(words[at : at + 12]) for at in range(0, len(words), 12))
        return "\n".join(lines)[: length - 1] + "\n"


def text_files(folder, count, shortest, longest):
    """`count` text files, a hundred to a folder, with lengths between the two."""
    chance = random.Random(SEED)
    words = Words(chance)
    for number in range(count):
        place = folder / f"t{number // 10_000:04}" / f"d{number // 100 % 100:02}"
        if number % 100 == 0:
            place.mkdir(parents=True)
        (place / f"f{number % 100:02}.txt").write_text(words.text(chance.randint(shortest, longest)))


def package_content(data, package):
    """What a Debian package holds."""

    def unpack(folder):
        work = folder / "work"
        work.mkdir()
        got = subprocess.run(["apt-get", "download", package], cwd=work, capture_output=True, text=True)
        if got.returncode != 0:
            raise Missing(f"{package} cannot be downloaded: {got.stderr.strip()}")
        subprocess.run(["dpkg-deb", "-x", next(work.glob("*.deb")), folder / "content"], check=True)
        shutil.rmtree(work)

    return made_once(data / package, unpack)


def random_file(path, length, seed=SEED):
    """A file of random bytes: media, archives and weights look like this to a program that compresses."""
    chance = random.Random(seed)
    with open(path, "wb") as file:
        for start in range(0, length, MIB):
            file.write(chance.randbytes(min(MIB, length - start)))


def edited_file(source, path):
    """A version of a large file with 1 MiB inserted in the middle and 100 pieces of 4 KiB overwritten."""
    chance = random.Random(SEED + 1)
    length = source.stat().st_size
    with open(source, "rb") as old, open(path, "wb") as new:
        left = length // 2
        while left > 0:
            left -= new.write(old.read(min(MIB, left)))
        new.write(chance.randbytes(MIB))
        shutil.copyfileobj(old, new, MIB)
        for _ in range(100):
            new.seek(chance.randrange(length - 4096))
            new.write(chance.randbytes(4096))


def sparse_file(path, length):
    """A file that is nearly all hole: for every GiB, 20 islands of random bytes, up to 2 MiB each."""
    chance = random.Random(SEED)
    with open(path, "wb") as file:
        file.truncate(length)
        for _ in range(max(4, 20 * length // (1 << 30))):
            size = chance.randrange(4096, 2 * MIB)
            file.seek(chance.randrange(0, length - size))
            file.write(chance.randbytes(size))
