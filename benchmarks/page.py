"""docs/benchmarks.md and its plots, from the rows."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from benchmarks.rows import Row

DOCS = Path(__file__).parent.parent / "docs"
WIDTH_PX, LINE_PX, LABEL_PX = 760, 24, 400

HEAD = """\
# Benchmarks

`just bench` writes this page, except for the notes at the end. To repeat it from a fresh clone:

```console
$ pip install uv
$ uv run just bench           # under ten minutes on two quiet cores; `took` below is the time of this run
$ uv run just bench --full    # also 500 and 5,000 clips: much longer
```

All rows come from one run against one emulator process with seeded latencies: every contender meets the same
latencies in the same order. The **bound** is the list schedule of these latencies on five slots: each slot takes the
next clip at the very moment it becomes free. A makespan is the time from the first create to the last file on disk.
Files of videogen are checked completely. Files of the others are not checked. Compare ratios between machines.
Seconds apply to this machine only.

The rivals are in `benchmarks/contenders.py`, used as their documentation shows. `async_run` and
`replicate-batch-process` (through `run`) send `Prefer: wait`: their create is answered when the clip is done, or
after at most a minute. They notice the end of short clips at once, but a process that dies meanwhile does not know
the prediction id. `replicate-batch-process` imports `google.generativeai` without declaring it, and refuses models
that are missing in its table. The benchmark gives it an empty module and an entry in the table.

The limits that are missed are explained [at the end](#what-is-missed-and-why).
"""


def write_page(rows: Sequence[Row], machine: Mapping[str, str], *, docs: Path = DOCS) -> None:
    """Writes the page and its plots. What follows `## What is missed, and why` is a person's, and is kept."""
    page, images = docs / "benchmarks.md", docs / "images"
    parts = [
        HEAD,
        "| | |\n| --- | --- |\n" + "\n".join(f"| {name} | {value} |" for name, value in machine.items()) + "\n",
    ]
    for group in dict.fromkeys(row.group for row in rows):
        members = [row for row in rows if row.group == group]
        parts.append(f"## {group}\n\n{_plot(group, members, images)}{_table(members)}")
    written = page.read_text(encoding="utf-8") if page.exists() else ""
    _, heading, notes = written.partition("## What is missed, and why")
    page.write_text("\n".join([*parts, f"{heading}{notes}" or "## What is missed, and why\n"]), encoding="utf-8")


def _table(rows: Iterable[Row]) -> str:
    lines = ["| | measured | limit | | |", "| --- | ---: | ---: | --- | --- |"]
    for row in rows:
        limit = "" if row.limit is None else f"≤ {row.limit:g}"
        verdict = {None: "", True: "met", False: "**missed**"}[row.met]
        lines.append(f"| {row.name} | {number(row.value)} {row.unit} | {limit} | {verdict} | {row.note} |")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Three digits that matter, or all before the point."""
    digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def _plot(group: str, rows: list[Row], images: Path) -> str:
    """A Markdown image of the group's ratios as bars; nothing for groups that are no comparison."""
    if not group.startswith(("Makespan", "Time saved")):
        return ""
    rows = [row for row in rows if row.unit in "×%" and "over the" not in row.name]
    name = "bench-" + "-".join(word for word in group.lower().split()[:3] if word.isalnum()) + ".svg"
    images.mkdir(exist_ok=True)
    (images / name).write_text(bars(rows), encoding="utf-8")
    return f"![{group}: {', '.join(f'{_plain(row.name)} {number(row.value)}' for row in rows)}](images/{name})\n\n"


def bars(rows: Sequence[Row]) -> str:
    """Horizontal bars as SVG, ours in another colour."""
    longest = max(row.value for row in rows)
    height = LINE_PX * len(rows) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH_PX}" height="{height}" fill="#fff"/>',
    ]
    for index, row in enumerate(rows):
        y, width = 4 + LINE_PX * index, (WIDTH_PX - LABEL_PX - 70) * row.value / longest
        colour = "#1a6b8a" if "videogen" in row.name or row.unit == "%" else "#a9b4ba"
        lines += [
            f'<text x="{LABEL_PX - 8}" y="{y + 16}" text-anchor="end" fill="#222">{escape(_plain(row.name))}</text>',
            f'<rect x="{LABEL_PX}" y="{y + 3}" width="{width:.1f}" height="{LINE_PX - 6}" fill="{colour}"/>',
            f'<text x="{LABEL_PX + width + 6:.1f}" y="{y + 16}" fill="#222">{number(row.value)} {row.unit}</text>',
        ]
    return "\n".join([*lines, "</svg>\n"])


def _plain(name: str) -> str:
    return name.replace("**", "").replace("`", "")
