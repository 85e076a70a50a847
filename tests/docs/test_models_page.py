"""The table of models in docs/models.md."""

import json
from pathlib import Path

import pytest

from videogen.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_page_lists_the_shipped_models_with_their_prices_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    """A change of `models.toml` is a change of the page."""
    assert main(["models", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    rows = {
        line.split("`")[1]: line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    }
    assert list(rows) == [model["id"] for model in models]
    for model in models:
        cells = [cell.strip() for cell in rows[model["id"]].strip("|").split("|")]
        assert cells[4:] == [f"{model['typical_run_seconds']:g} s", ", ".join(model["aspect_ratios"])]
        price = model["price"]
        amounts = [price["per_second"], price["per_gpu_second"], *(price["per_clip"] or {}).values()]
        of_rows = sorted(float(row["per_second"] or row["per_clip"]) for row in price["rows"])
        amounts += [of_rows[0], of_rows[-1]] if of_rows else []
        assert all(f"{float(amount):g}".rstrip("0") in cells[2] for amount in amounts if amount), cells
        assert ("≈" in cells[2]) == (price["basis"] == "estimated"), cells
    days = sorted(model["price"]["as_of"] for model in models)
    assert f"as of {days[0]} to {days[-1]}" in PAGE.read_text(encoding="utf-8")
