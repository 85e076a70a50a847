"""Print to a console of any encoding."""

import os
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from videogen.text import escape_unprintable

# -- run --------------------------------------------------------------------------------------------------------------


OutputFormat = Literal["text", "json", "jsonl"]
"""Format of standard output: lines for people, the manifest as JSON, or each event as a line of JSON. With the latter
two, the lines for people go to standard error."""


MIN_NAME_CHARS = 12
"""Width of the first column of a table at least, however much is in the others."""


def make_table(*columns: str) -> Table:
    """Return a table for 80 columns. The first and the last one are text, which is wrapped if there is no room for it,
    the others numbers."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, name in enumerate(columns):
        text = index in (0, len(columns) - 1)
        least = MIN_NAME_CHARS if index == 0 else None
        table.add_column(name, justify="left" if text else "right", overflow="fold", no_wrap=not text, min_width=least)
    return table


class EscapingConsole(Console):
    def on_broken_pipe(self) -> None:
        """Become silent when the reader has gone (`… | head`). The run goes on, because it is paid for."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def make_console(*, stderr: bool) -> Console:
    return EscapingConsole(stderr=stderr, highlight=False, markup=False, emoji=False)


def print_line(console: Console, line: str) -> None:
    """Print a line literally: it is neither wrapped nor parsed as markup, and control characters are escaped."""
    console.print(escape_unprintable(line), soft_wrap=True)
