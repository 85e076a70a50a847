"""The table of faults in docs/faults.md, and the page of promises, which refers to it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAULTS, PROMISES = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("faults.md", "promises.md"))
ROWS = {
    int(number): re.findall(r"`([^`]+\.py)`", tests)
    for number, tests in re.findall(r"^\| (\d+) \|.*\|([^|]*)\|$", FAULTS, re.MULTILINE)
}
"""By number: the files of its tests."""


def test_each_fault_has_tests() -> None:
    """In files that exist."""
    assert list(ROWS) == list(range(1, len(ROWS) + 1))
    assert [number for number, files in ROWS.items() if not files] == []
    assert [name for files in ROWS.values() for name in files if not (ROOT / name).is_file()] == []


def test_a_test_that_is_named_after_a_fault_is_in_its_row() -> None:
    """`test_15_38_…` is in both."""
    missing = []
    for path in sorted((ROOT / "tests" / "faults").glob("test_*.py")):
        for numbers in re.findall(r"^(?:async )?def test((?:_\d\d)+)_", path.read_text(encoding="utf-8"), re.MULTILINE):
            name = f"tests/faults/{path.name}"
            missing += [(number, name) for number in numbers.split("_")[1:] if name not in ROWS[int(number)]]
    assert missing == []


def test_what_the_promises_refer_to_exists() -> None:
    """Rows of the table, and files of tests."""
    rows = re.findall(r"\brows? ([\d, –]+)", PROMISES)
    numbers = {int(number) for text in rows for number in re.findall(r"\d+", text)}
    assert numbers <= ROWS.keys()
    assert len(numbers) > 20
    paths = re.findall(r"`((?:tests|benchmarks)/[\w/]+(?:\.py)?/?)`", PROMISES)
    assert [name for name in paths if not (ROOT / name).exists()] == []
