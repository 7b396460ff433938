"""What digstore has to reach: in one run beside a rival, or by itself."""

from dataclasses import dataclass

WALL = "wall_s"
CPU = "cpu_s"
MEMORY = "max_rss_bytes"
DISK = "disk_bytes"
MB = 1_000_000


@dataclass(frozen=True)
class Target:
    """`what` of digstore's `step` is at most `limit`: times the rival's, or by itself where there is no rival."""

    scenario: str
    step: str
    what: str
    limit: float
    rival: str = None
    # The rival's step, where it is another one.
    against: str = None

    def sentence(self):
        """The target in words."""
        if self.rival:
            other = f"{self.rival}'s {self.against}" if self.against else self.rival
            return f"at most {self.limit:g} of {other}"
        unit = "s" if self.what in (WALL, CPU) else "MB"
        return f"at most {self.limit if unit == 's' else self.limit / MB:g} {unit}"


# The first version has to reach these.
FIRST = (
    Target("kernel", "commit v1", WALL, 0.5, "restic"),
    Target("kernel", "commit v1", WALL, 180),
    Target("kernel", "unchanged", WALL, 1.5, "git"),
    Target("kernel", "commit edited", WALL, 1.0, "git"),
    Target("kernel", "commit v1", MEMORY, 500 * MB),
    Target("kernel", "checkout", WALL, 0.6, "restic"),
    Target("kernel", "checkout", CPU, 0.4, "git"),
    Target("kernel", "verify", WALL, 0.5, "restic"),
    Target("kernel", "commit v2", WALL, 0.6, "bupstash"),
    Target("kernel", "size v1", DISK, 0.85, "restic"),
    Target("kernel", "size v2", DISK, 1.0, "git", "size packed"),
    Target("large", "commit v1", WALL, 0.35, "borg"),
    # 500 MB/s.
    Target("large", "commit v1", WALL, 8.6),
    Target("large", "commit v1", MEMORY, 200 * MB),
    Target("large", "commit v2", WALL, 0.4, "borg"),
    Target("large", "commit v2", MEMORY, 200 * MB),
    Target("large", "growth v2", DISK, 12 * MB),
    Target("large", "checkout", WALL, 0.5, "restic"),
    Target("small20k", "commit v1", WALL, 0.3, "bupstash"),
    Target("small20k", "commit v1", WALL, 60),
    Target("small20k", "commit v1", MEMORY, 500 * MB),
    Target("small20k", "size v1", DISK, 1.0, "bupstash"),
    Target("small100k", "commit v1", WALL, 300),
    Target("small100k", "commit v1", MEMORY, 1000 * MB),
    Target("small1m", "commit v1", WALL, 0.5, "bupstash"),
    Target("small1m", "size v1", DISK, 1.0, "bupstash"),
    Target("small1m", "unchanged", WALL, 0.7, "git"),
    Target("small1m", "unchanged", WALL, 3.0, "floor"),
    # 400 MB/s of the file's length.
    Target("sparse50g", "commit v1", WALL, 128),
    Target("sparse50g", "commit v1", MEMORY, 300 * MB),
)

# Where it is going.
GOALS = (
    Target("kernel", "commit v1", WALL, 0.5, "bupstash"),
    Target("kernel", "unchanged", WALL, 1.0, "git"),
    Target("kernel", "commit edited", WALL, 0.5, "git"),
    Target("kernel", "checkout", WALL, 0.35, "restic"),
    Target("kernel", "verify", WALL, 0.25, "restic"),
    Target("kernel", "commit v2", WALL, 0.45, "bupstash"),
    Target("kernel", "size v1", DISK, 0.95, "bupstash"),
    Target("kernel", "size v2", DISK, 0.85, "git", "size packed"),
    Target("large", "checkout", WALL, 1.2, "floor"),
)
