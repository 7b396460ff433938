"""Where every run leaves what it found: numbers, a table and a plot, under its name in target/stress/."""

import json
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "target" / "stress"


def rows_of(title, rows):
    """A table of two columns as Markdown."""
    return "\n".join([f"## {title}", "", "| | |", "|---|---:|", *(f"| {what} | {value} |" for what, value in rows), ""])


def leave(name, numbers, text, svg):
    """Writes NAME.json, NAME.md and NAME.svg."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(numbers, indent=1))
    (OUT / f"{name}.md").write_text(text)
    (OUT / f"{name}.svg").write_text(svg)
