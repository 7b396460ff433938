"""From single measurements to tables."""

import os
import platform
from statistics import median

import targets
from scenarios import UNCHANGED_RUNS
from targets import CPU, DISK, MB, MEMORY, WALL
from tools import Digstore

# What is shown of a step: name, digits behind the point, divisor.
UNITS = {WALL: ("s", 2, 1), CPU: ("CPU s", 2, 1), MEMORY: ("peak MB", 0, MB), DISK: ("MB", 1, MB)}


class Medians:
    """The median of each thing that was measured, by scenario, step, quantity and program."""

    def __init__(self, results):
        self.values = {}
        # In the order of the steps.
        self.rows = {}
        self.failed = set()
        # Peaks that may be those of this program, before the other one took over.
        self.hidden = set()
        for result in results:
            self._take(result)

    def _take(self, result):
        scenario, step, tool = result["scenario"], result["step"], result["tool"]
        if "error" in result:
            self.failed.add((scenario, step, tool))
            return
        if WALL in result:
            result = {**result, CPU: result["user_s"] + result["sys_s"]}
            if result[MEMORY] <= result["harness_rss_bytes"]:
                self.hidden.add((scenario, step, MEMORY, tool))
        for what in UNITS:
            if what in result:
                self.rows.setdefault((scenario, step, what))
                self.values.setdefault((scenario, step, what, tool), []).append(result[what])

    def get(self, scenario, step, what, tool):
        """One median, or nothing if it was not measured or is not to be believed."""
        values = self.values.get((scenario, step, what, tool))
        return None if not values or (scenario, step, tool) in self.failed else median(values)


def markdown(results, tools, problems, judged, runs):
    """The whole report."""
    medians = Medians(results)
    names = [tool.name for tool in tools]
    parts = [heading(tools, runs)]
    for scenario in dict.fromkeys(scenario for scenario, _, _ in medians.rows):
        parts.append(f"## {scenario}\n\n" + scenario_table(medians, scenario, names))
    if Digstore.name in names:
        for title, wanted in (("Targets of the first version", targets.FIRST), ("Goals", targets.GOALS)):
            if lines := verdicts(medians, wanted, judged):
                parts.append(f"## {title}\n\n{lines}")
    failures = [
        f"{result['scenario']}, run {result['run'] + 1}, {result['tool']}, {result['step']}: {result['error']}"
        for result in results
        if "error" in result
    ]
    if problems or failures:
        parts.append("## What failed\n\n" + "\n".join(f"- {problem}" for problem in problems + failures))
    return "\n\n".join(parts) + "\n"


def heading(tools, runs):
    """Machine and programs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    machine = f"{platform.system()} {platform.release()}, {os.cpu_count()} processors, {memory:.0f} GiB"
    lines = [f"- {tool.name}: {tool.version()} ({tool.settings})" for tool in tools]
    note = (
        f"Median of {runs}, of nothing changed {UNCHANGED_RUNS} times as many; in brackets digstore's share of the other's. "
        "Page cache warm, memory full of it. 1 MB = 10^6 bytes."
    )
    return "\n".join(["# digstore beside its rivals", "", note, f"{machine}.", "", *lines])


def scenario_table(medians, scenario, names):
    """Everything that was measured in a scenario, a row a quantity, a column a program."""
    lines = [f"| Step | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for of, step, what in medians.rows:
        if of == scenario:
            cells = [cell(medians, scenario, step, what, name) for name in names]
            lines.append(f"| {step}, {UNITS[what][0]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(medians, scenario, step, what, name):
    """A number, and for a rival digstore's share of it."""
    if (scenario, step, name) in medians.failed:
        return "FAILED"
    value = medians.get(scenario, step, what, name)
    if value is None:
        return "-"
    if (scenario, step, what, name) in medians.hidden:
        return "< " + shown(value, what)
    own = medians.get(scenario, step, what, Digstore.name)
    comparable = name != Digstore.name and own is not None and value > 0
    comparable = comparable and (scenario, step, what, Digstore.name) not in medians.hidden
    return shown(value, what) + (f" ({own / value:.2f})" if comparable else "")


def shown(value, what):
    """A number in the unit of its quantity."""
    _, digits, divisor = UNITS[what]
    return f"{value / divisor:.{digits}f}"


def verdicts(medians, wanted, judged):
    """A table of the targets of the scenarios that ran. Little data proves nothing, so it is not judged."""
    lines = []
    for target in wanted:
        own = medians.get(target.scenario, target.step, target.what, Digstore.name)
        if not any(scenario == target.scenario for scenario, _, _ in medians.rows):
            continue
        limit = target.limit
        if target.rival:
            other = medians.get(target.scenario, target.against or target.step, target.what, target.rival)
            limit = None if other is None else other * target.limit
        if own is None or limit is None:
            numbers, verdict = "-", "not measured"
        else:
            numbers = f"{shown(own, target.what)}, limit {shown(limit, target.what)}"
            verdict = ("pass" if own <= limit else "FAIL") if judged else "not judged"
        row = f"{target.step}, {UNITS[target.what][0]}"
        lines.append(f"| {target.scenario} | {row} | {target.sentence()} | {numbers} | {verdict} |")
    head = ["| Scenario | Quantity | Target | Measured | Verdict |", "|---|---|---|---|---|"]
    return "\n".join(head + lines) if lines else ""
