"""Running a command and knowing what it took; sizes and comparison of what it left behind."""

import os
import resource
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path


class Failed(Exception):
    """A step that ended badly or whose result is wrong; its time means nothing."""


@dataclass(frozen=True)
class Command:
    """One program, or several joined by pipes, with a folder to run in and additions to the environment."""

    pipeline: tuple
    cwd: Path = None
    env: dict = field(default_factory=dict)


def command(*argv, cwd=None, **env):
    """A `Command` of one program."""
    return Command((tuple(str(arg) for arg in argv),), cwd, env)


def pipe(*programs, cwd=None):
    """A `Command` of several programs, each reading what the one before it writes."""
    return Command(tuple(tuple(str(arg) for arg in argv) for argv in programs), cwd)


@dataclass(frozen=True)
class Usage:
    """What a step took, by the kernel's account of the processes and all their children."""

    wall_s: float
    user_s: float
    sys_s: float
    max_rss_bytes: int


@dataclass(frozen=True)
class Size:
    """The size of a folder: blocks on the disk, and lengths of the files."""

    disk_bytes: int
    apparent_bytes: int


class Runner:
    """Runs commands with one environment, and keeps what they print in the folder `home`."""

    def __init__(self, home, env):
        self.home = home
        self.env = env
        self.out = home / "stdout"
        self.err = home / "stderr"

    def measure(self, commands):
        """Runs the commands one after the other. Raises `Failed` at the first that ends badly."""
        self.out.write_bytes(b"")
        self.err.write_bytes(b"")
        user_s = sys_s = 0.0
        max_rss_bytes = 0
        start = time.monotonic()
        for each in commands:
            usages = self._run(each)
            user_s += sum(usage.ru_utime for usage in usages)
            sys_s += sum(usage.ru_stime for usage in usages)
            # Programs joined by a pipe are in memory together. The kernel gives KiB.
            max_rss_bytes = max(max_rss_bytes, sum(usage.ru_maxrss for usage in usages) * 1024)
        return Usage(time.monotonic() - start, user_s, sys_s, max_rss_bytes)

    def _run(self, each):
        """Starts the programs of one command, waits for all, and returns their resource usage."""
        env = {**self.env, **{name: str(value) for name, value in each.env.items()}}
        children = []
        stdin = subprocess.DEVNULL
        with open(self.out, "ab") as out, open(self.err, "ab") as err:
            for number, argv in enumerate(each.pipeline, start=1):
                stdout = out if number == len(each.pipeline) else subprocess.PIPE
                child = subprocess.Popen(
                    argv, cwd=each.cwd or self.home, env=env, stdin=stdin, stdout=stdout, stderr=err
                )
                if stdin is not subprocess.DEVNULL:
                    stdin.close()
                stdin = child.stdout
                children.append(child)
        usages = []
        for child in children:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            usages.append(usage)
        for child, argv in zip(children, each.pipeline):
            if child.returncode != 0:
                raise Failed(f"{' '.join(argv[:1])} exited with {child.returncode}: {self._last_words()}")
        return usages

    def _last_words(self):
        """The last line that the programs wrote to stderr, or else to stdout."""
        for path in (self.err, self.out):
            lines = path.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
            if lines:
                return lines[-1].strip()
        return "it said nothing"

    def printed(self):
        """What the last measured commands wrote to stdout."""
        return self.out.read_bytes()

    def prints(self, each, file):
        """Whether the one program of a command writes exactly the bytes of `file` to stdout."""
        env = {**self.env, **each.env}
        with open(self.err, "wb") as err, open(file, "rb") as expected:
            child = subprocess.Popen(
                each.pipeline[0], cwd=self.home, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err
            )
            same = True
            while piece := child.stdout.read(1 << 20):
                same = same and piece == expected.read(len(piece))
            same = same and not expected.read(1)
            return child.wait() == 0 and same


def harness_rss_bytes():
    """Peak memory of this program: a child's own peak cannot be seen below it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def sync():
    """Writes back what is dirty, so that no step pays for the one before it."""
    os.sync()


def warm(tree):
    """Reads every file once, so that each program finds the same page cache."""
    subprocess.run(
        ["find", tree, "-type", "f", "-exec", "cat", "{}", "+"], stdout=subprocess.DEVNULL, check=True
    )


class FreeMemory:
    """Fills free memory with page cache, of a file that is one hole.

    A virtual machine may give free memory back to its host, and pay for each page that it takes again: ten times what it
    costs to use a page that holds something old. Where much is free, because a large tree was just deleted, the next
    program pays for it all.
    """

    LEFT_BYTES = 1 << 29
    # Little, so that what is measured does not begin in the memory of this program.
    PIECE_BYTES = 1 << 20

    def __init__(self, folder):
        self.path = folder / "fill"
        self.len = 2 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.at = 0
        with open(self.path, "ab") as file:
            file.truncate(self.len)

    def fill(self):
        """Reads as much as is free. Some of it may be free again soon, where the system takes away what nobody uses."""
        left = self._free_bytes() - self.LEFT_BYTES
        buffer = bytearray(self.PIECE_BYTES)
        with open(self.path, "rb", buffering=0) as file:
            while left > 0:
                file.seek(self.at)
                read = file.readinto(buffer)
                self.at = (self.at + read) % self.len
                left -= read

    @staticmethod
    def _free_bytes():
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemFree:"))


def size_of(path):
    """The size of a folder with all that is in it; a file with several names counts once."""
    seen = set()
    disk_bytes = apparent_bytes = 0
    pending = [path]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                stat = entry.stat(follow_symlinks=False)
                if stat.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                    if stat.st_ino in seen:
                        continue
                    seen.add(stat.st_ino)
                disk_bytes += stat.st_blocks * 512
                apparent_bytes += stat.st_size
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return Size(disk_bytes, apparent_bytes)


def compare_trees(expected, found, modes=True, checksums=True):
    """Raises `Failed` unless both trees have the same names, contents, links and (if wanted) modes.

    Times are not compared. `checksums=False` leaves the contents to `diff` alone, which skips holes.
    """
    flags = "-nrl" + ("p" if modes else "") + ("c" if checksums else "")
    content = [] if checksums else ["--size-only"]
    for argv in (
        ["diff", "-r", "-q", "--no-dereference", expected, found],
        ["rsync", flags, *content, "--delete", "-i", f"{expected}/", f"{found}/"],
    ):
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        lines = (done.stdout + done.stderr).splitlines()
        if done.returncode != 0 or lines:
            what = lines[0].strip() if lines else f"exit code {done.returncode}"
            raise Failed(f"{argv[0]} finds {len(lines)} differences from the original, first: {what}")
