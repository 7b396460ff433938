"""How each program does the same work. A method that returns nothing says that the program cannot do it."""

import shutil
import subprocess
from pathlib import Path

from measure import command, pipe


class Tool:
    """One program with a repository of its own in the folder `home`."""

    name = ""
    package = ""
    settings = ""
    keeps_modes = True

    def __init__(self, home):
        self.home = home
        self.repo = home / "repo"
        # What the program keeps on this machine beside the repository, to be quick next time.
        self.cache = home / "cache"

    @classmethod
    def program(cls):
        """The path of the program, or nothing if it is not installed."""
        return shutil.which(cls.name)

    @classmethod
    def version(cls):
        """The first line of what the program says about itself."""
        return first_line([cls.program(), "--version"])

    def env(self):
        """Additions to the environment of all commands."""
        return {}

    def init(self):
        """Makes the repository."""
        return []

    def commit(self, tree, label):
        """Stores `tree`, to be found again as `label`."""

    def name_commit(self, label):
        """Gives the last commit its label, where storing does not; not timed."""
        return []

    def unchanged(self, tree, label):
        """Finds out that `tree` is as it was stored; stores it again where there is no cheaper question."""

    def says_clean(self, printed):
        """Whether what `unchanged` printed means that nothing changed."""
        return True

    def checkout(self, label, out, sparse):
        """Writes what was stored as `label` into the empty folder `out`, with holes if `sparse`."""

    def verify(self):
        """Reads and checks everything that is stored."""

    def collect(self):
        """Packs the repository as small as it gets."""

    def cat(self, label, path):
        """Prints one stored file."""


class Digstore(Tool):
    name = "digstore"
    settings = "defaults"
    path = None

    @classmethod
    def program(cls):
        return cls.path

    def _run(self, *args, tree=None):
        folder = ("-C", tree) if tree else ()
        return command(self.path, "--store", self.repo, *folder, *args)

    def env(self):
        return {"DIGSTORE_AUTHOR": "Stress <stress@example.org>"}

    def init(self):
        return [self._run("init", tree=self.home)]

    def commit(self, tree, label):
        return [self._run("add", "-A", tree=tree), self._run("commit", "-m", label, tree=tree)]

    def name_commit(self, label):
        return [self._run("tag", label, tree=self.home)]

    def unchanged(self, tree, label):
        return [self._run("status", "--short", tree=tree)]

    def says_clean(self, printed):
        return printed == b""

    def checkout(self, label, out, sparse):
        return [self._run("checkout", label, tree=out)]

    def verify(self):
        return [self._run("fsck", "--full", tree=self.home)]

    def cat(self, label, path):
        return self._run("cat", f"{label}:{path}", tree=self.home)


class Git(Tool):
    name = "git"
    package = "git"
    settings = "defaults, automatic gc off"
    keeps_modes = False

    def _run(self, *args, tree=None, **env):
        work_tree = (f"--work-tree={tree}",) if tree else ()
        options = ("-c", "gc.auto=0", "-c", "maintenance.auto=false")
        return command("git", f"--git-dir={self.repo}", *work_tree, *options, *args, cwd=tree, **env)

    def env(self):
        return {
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Stress",
            "GIT_AUTHOR_EMAIL": "stress@example.org",
            "GIT_COMMITTER_NAME": "Stress",
            "GIT_COMMITTER_EMAIL": "stress@example.org",
        }

    def init(self):
        return [command("git", "init", "-q", "--bare", "-b", "main", self.repo), self._run("config", "core.bare", "false")]

    def commit(self, tree, label):
        return [self._run("add", "-A", "-f", ".", tree=tree), self._run("commit", "-q", "-m", label, tree=tree)]

    def name_commit(self, label):
        return [self._run("tag", label)]

    def unchanged(self, tree, label):
        return [self._run("status", "--porcelain", tree=tree)]

    def says_clean(self, printed):
        return printed == b""

    def checkout(self, label, out, sparse):
        if sparse:
            return None
        return [self._run("checkout", "-q", "-f", label, "--", ".", tree=out, GIT_INDEX_FILE=self.home / "index")]

    def verify(self):
        return [self._run("fsck", "--full", "--no-progress")]

    def collect(self):
        return [self._run("gc", "--quiet", "--prune=now")]

    def cat(self, label, path):
        return self._run("cat-file", "blob", f"{label}:{path}")


class Restic(Tool):
    name = "restic"
    package = "restic"
    settings = "defaults, with encryption"

    @classmethod
    def version(cls):
        return first_line([cls.program(), "version"])

    def _run(self, *args, cwd=None):
        return command("restic", "-r", self.repo, *args, cwd=cwd)

    def env(self):
        return {"RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": str(self.cache)}

    def init(self):
        return [self._run("init", "--quiet")]

    def commit(self, tree, label):
        return [self._run("backup", "--quiet", "--host", "stress", "--tag", label, ".", cwd=tree)]

    def unchanged(self, tree, label):
        return self.commit(tree, label)

    def checkout(self, label, out, sparse):
        options = ("--sparse",) if sparse else ()
        if sparse and not mentions([self.program(), "restore", "--help"], "--sparse"):
            return None
        return [self._run("restore", "latest", "--quiet", "--tag", label, *options, "--target", out)]

    def verify(self):
        return [self._run("check", "--quiet", "--read-data")]


class Borg(Tool):
    name = "borg"
    package = "borgbackup"
    settings = "defaults, no encryption"

    def env(self):
        return {
            "BORG_BASE_DIR": str(self.home),
            "BORG_CACHE_DIR": str(self.cache),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    def init(self):
        return [command("borg", "init", "-e", "none", self.repo)]

    def commit(self, tree, label):
        return [command("borg", "create", f"{self.repo}::{label}", ".", cwd=tree)]

    def unchanged(self, tree, label):
        return self.commit(tree, label)

    def checkout(self, label, out, sparse):
        options = ("--sparse",) if sparse else ()
        return [command("borg", "extract", *options, f"{self.repo}::{label}", cwd=out)]

    def verify(self):
        return [command("borg", "check", "--verify-data", self.repo)]


class Bupstash(Tool):
    name = "bupstash"
    settings = "defaults, with encryption, one send log"

    @classmethod
    def program(cls):
        return shutil.which(cls.name) or existing(Path.home() / ".cargo/bin/bupstash")

    def _run(self, verb, *args):
        return (self.program(), verb, "-r", self.repo, *args)

    def env(self):
        return {"BUPSTASH_KEY": str(self.home / "key"), "BUPSTASH_QUERY_CACHE": str(self.cache / "query-cache")}

    def init(self):
        return [command(self.program(), "new-key", "-o", self.home / "key"), command(*self._run("init"))]

    def commit(self, tree, label):
        self.cache.mkdir(exist_ok=True)
        return [command(*self._run("put", "-q", "--send-log", self.cache / "send-log", f"name={label}", "::", tree))]

    def unchanged(self, tree, label):
        return self.commit(tree, label)

    def checkout(self, label, out, sparse):
        if sparse:
            return None
        return [pipe(self._run("get", "-q", f"name={label}"), ("tar", "-xpf", "-", "-C", out))]


class Floor(Tool):
    """No version control at all: what copying or packing the same data costs."""

    name = "floor"
    settings = "tar | zstd -3 -T2, or cp -a and sync of what does not shrink; two find processes that look at every file; cp -a"
    copies = False

    def __init__(self, home):
        super().__init__(home)
        self.sources = {}

    @classmethod
    def program(cls):
        return "cp"

    @classmethod
    def version(cls):
        return first_line(["cp", "--version"])

    def init(self):
        return [command("mkdir", self.repo)]

    def commit(self, tree, label):
        self.sources[label] = tree
        if self.copies:
            # Durable, as a commit is: how fast the disk takes it is what limits both.
            return [command("cp", "-a", "--reflink=never", tree, self.repo / label), command("sync", "-f", self.repo)]
        packed = self.repo / f"{label}.tar.zst"
        return [pipe(("tar", "-C", tree, "-cf", "-", "."), ("zstd", "-q", "-3", "-T2", "-o", packed))]

    def unchanged(self, tree, label):
        # A length that no file has: find has to ask for each.
        places = sorted([*tree.glob("*/*"), *(path for path in tree.iterdir() if not path.is_dir())])
        halves = [("find", *places[turn::2], "-size", "+1000000G") for turn in range(2)]
        return [pipe(*halves)] if len(places) > 1 else None

    def checkout(self, label, out, sparse):
        return [command("cp", "-a", "--reflink=never", f"{self.sources[label]}/.", out)]


class CopyFloor(Floor):
    """The floor of data that does not shrink."""

    copies = True


RIVALS = {tool.name: tool for tool in (Git, Restic, Borg, Bupstash)}


def existing(path):
    """The path as text if there is such a file."""
    return str(path) if path.is_file() else None


def first_line(argv):
    """The first line that a program prints."""
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return printed.splitlines()[0].strip()


def mentions(argv, word):
    """Whether a program's help names an option."""
    done = subprocess.run(argv, capture_output=True, text=True)
    return word in done.stdout + done.stderr
