"""Read a table from a CSV file, with the line of each row."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from videogen.errors import Problem, ValidationError

_SEPARATOR_LINE = re.compile(r"sep=[,;\t]")
"""The first line of some spreadsheets, which says how columns are separated."""


def read_table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the number of its first line.

    Columns are separated by commas, semicolons or tabs.

    Raises:
        ValidationError: the file cannot be read, or is no CSV in UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        raise ValidationError([Problem(f"cannot be read: {exc.strerror or exc}", position=path.name)]) from None
    except UnicodeDecodeError as exc:
        advice = f"byte {exc.start} is no UTF-8: save the table as CSV in UTF-8"
        raise ValidationError([Problem(advice, position=path.name)]) from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) and not _SEPARATOR_LINE.fullmatch(delimiter.join(cells)):
                yield begins, [cell.strip() for cell in cells]
            begins = reader.line_num + 1
    except csv.Error as exc:
        raise ValidationError([Problem(f"no valid CSV: {exc}", position=f"{path.name}:{begins}")]) from None


def simplify_column_name(name: str) -> str:
    """Return the name of a column in small letters, without spaces and signs."""
    return re.sub(r"[\W_]+", "", name.lower())
