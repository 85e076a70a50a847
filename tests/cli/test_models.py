"""`videogen models` and `videogen models show`: the registry as a person or a form needs it."""

import json
from typing import Any

import pytest

from videogen.cli import main as cli
from videogen.registry.load import read_registry
from videogen.registry.model_info import describe_models

REGISTRY = read_registry()


class Command:
    """`videogen models …` in this process, on a terminal of 80 columns."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> str:
        assert cli.main(["models", *arguments]) == 0
        return self._capsys.readouterr().out


@pytest.fixture
def models(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("VIDEOGEN_REGISTRY", raising=False)
    return Command(capsys)


def rows(table: str) -> dict[str, list[str]]:
    """The lines of each model in the list."""
    found: dict[str, list[str]] = {}
    for line in table.splitlines():
        if name := next((name for name in REGISTRY.models if line.startswith(f" {name} ")), None):
            found[name] = []
        if found:
            list(found.values())[-1].append(" ".join(line.split()))
    return found


def test_the_list_has_a_row_for_every_model_in_80_columns(models: Command) -> None:
    """Lengths, price with its day and whether it is estimated, references, typical time, ratios."""
    table = models()
    assert max(map(len, table.splitlines()[:-1])) <= 80
    listed = rows(table)
    assert list(listed) == list(REGISTRY.models)
    assert listed["kling-v2.1"][0] == "kling-v2.1 5, 10 0.09/s 2026-10-05 composed 180 16:9"
    assert listed["hailuo-2.3"] == [
        "hailuo-2.3 6, 10 0.28 for 6 s 2026-11-01 composed 150 16:9, 9:16,",
        "0.56 for 10 s 1:1",
    ]
    assert listed["veo-3.1"] == ["veo-3.1 4, 6, 8 0.20/s 2026-11-01 3 native 120 16:9, 9:16", "composed"]
    assert listed["cogvideox"][0] == "cogvideox 6.125 ≈0.0014/GPU s 2026-11-01 dropped 320 16:9, 1:1"


def test_the_json_of_the_list_and_of_each_model_are_the_gateways(models: Command) -> None:
    """One shape for a form, wherever it gets it from."""
    listed: list[dict[str, Any]] = json.loads(models("--json"))["models"]
    assert listed == describe_models(REGISTRY).model_dump(mode="json")["models"]
    assert listed == [json.loads(models("show", name, "--json")) for name in REGISTRY.models]


@pytest.mark.parametrize(
    ("model", "lines"),
    [
        pytest.param(
            "veo-3.1",
            [
                "seconds 4, 6, 8 (continuous)",
                "price 0.20/s USD, exact, as of 2026-11-01, silent",
                "sound when asked for, with generate_audio=True: 0.40/s USD, exact, as of 2026-11-01, with audio",
                "typically 120 s, given up after 600 s",
                "takes prompt, negative_prompt, seed, start image, end image (with a start image)",
                "references 3 native with aspect_ratio=16:9, duration=8 without start image and end image, "
                "else composed",
                "always sent resolution=1080p, generate_audio=False",
                "sent for 9:16 aspect_ratio=9:16",
            ],
            id="sound-and-references",
        ),
        pytest.param(
            "kling-v2.1",
            [
                "price 0.09/s USD, exact, as of 2026-10-05, pro mode; standard is 0.05",
                "takes prompt, negative_prompt, start image (required), end image (with a start image)",
                "sent for 16:9 resolution=1080p, mode=pro",
                "ignored resolution (by the endpoint)",
            ],
            id="ignored-input",
        ),
        pytest.param(
            "cogvideox",
            [
                "replicate cuuupid/cogvideox-5b:5b14e2c2c648efecc8d36c6353576552f8a124e690587212f8e8bb17ecda3d8c",
                "takes prompt, seed",
                "references dropped",
                "sent for 1:1 nothing more",
            ],
            id="by-version",
        ),
    ],
)
def test_all_of_one_model_is_shown(model: str, lines: list[str], models: Command) -> None:
    """What can be asked of it, what is sent for it, what it costs."""
    shown = [" ".join(line.split()) for line in models("show", model).splitlines()]
    assert shown[0] == f"model {model}"
    assert [line for line in lines if line not in shown] == []


def test_a_model_that_is_not_there_is_answered_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 2."""
    assert cli.main(["models", "show", "veo-9"]) == 2
    assert "'veo-9' is not in the registry; `videogen models` lists the 32 there are" in capsys.readouterr().err
