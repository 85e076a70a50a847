"""What is said in a terminal is shown by it, not obeyed."""

import json
from pathlib import Path

import pytest

from videogen.cli.main import main
from videogen.errors import Problem
from videogen.text import escape_json, escape_unprintable

OBEYED = {
    "csi": "a\x9b31mb",
    "escape": "a\x1b[2Jb",
    "nul": "a\x00b",
    "delete": "a\x7fb",
    "string-terminator": "a\x9cb",
    "next-line": "a\x85b",
    "right-to-left": "a\u202eb",
    "isolate": "a\u2066b\u2069",
    "line-separator": "a\u2028b",
    "paragraph-separator": "a\u2029b",
    "zero-width": "a\u200bb",
    "mark": "\ufeffab",
    "tag": "a\U000e0041b",
    "half-a-character": "a\ud83db",
}
"""By what each is."""


@pytest.mark.long_variants
@pytest.mark.parametrize("text", OBEYED.values(), ids=OBEYED)
def test_what_a_terminal_obeys_is_written_as_an_escape(text: str) -> None:
    """In messages and in JSON; the JSON is of the same value, also when it was not in ASCII before."""
    for said in (escape_unprintable(text), str(Problem(text, where=text, position=text))):
        assert said.isprintable()
    for written in (json.dumps([text]), json.dumps({text: text}, indent=2, ensure_ascii=False)):
        escaped = escape_json(written)
        assert escaped.isascii()
        assert escaped.replace("\n", "").isprintable()
        assert json.loads(escaped) == json.loads(written)


def test_json_of_any_script_is_in_ascii() -> None:
    """So that every console can show it; it reads the same, and what is in ASCII stays as it is."""
    value = {"prompt": 'Ein Leuchtturm, "灯台", маяк 🗼\n\\u009b', "n": [1.5, None, True]}
    assert json.loads(escape_json(json.dumps(value, ensure_ascii=False))) == value
    assert escape_json(json.dumps(value, indent=2)) == json.dumps(value, indent=2)


@pytest.mark.long_variants
@pytest.mark.parametrize("text", ["\x7f\x9b31m", "\u202e\u2028", "\u706f\u53f0"], ids=ascii)
@pytest.mark.parametrize("command", [["models"], ["models", "show", "kling-v2.5-turbo"], ["settings"]], ids=" ".join)
def test_json_on_the_terminal_is_shown_and_not_obeyed(
    command: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a registry or the environment has in it; programs read what was written."""
    own = tmp_path / "models.toml"
    own.write_text(f'[models."kling-v2.5-turbo".price]\nnote = {escape_json(json.dumps(text))}\n')
    monkeypatch.setenv("VIDEOGEN_REGISTRY", str(own))
    monkeypatch.setenv("VIDEOGEN_OUT", str(tmp_path / text))
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr().out
    assert said.isascii()
    assert said.replace("\n", "").isprintable()
    assert text in repr_of(json.loads(said))


@pytest.mark.long_variants
@pytest.mark.parametrize("text", ["\u2028", "\U0001f5fc", "\u706f\u53f0"], ids=ascii)
def test_the_json_of_a_plan_is_in_ascii(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prompts come from others, and in any script."""
    monkeypatch.setenv("VIDEOGEN_OUT", str(tmp_path / "out"))
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)
    scene = {"id": "a", "prompt": f"A {text} pier", "target_duration": 5}
    (tmp_path / "film.json").write_text(json.dumps({"model": "kling-v2.5-turbo", "scenes": [scene]}))
    assert main(["plan", str(tmp_path / "film.json"), "--json"]) == 0
    said = capsys.readouterr().out
    assert said.isascii()
    assert json.loads(said)["scenes"][0]["inputs"]["prompt"] == scene["prompt"]


def repr_of(value: object) -> str:
    """Everything in the value, as it is."""
    return json.dumps(value, ensure_ascii=False)
