"""Judges: who is allowed, what they are told, and what their answers lead to."""

import json
import sys
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from videogen.errors import InvalidError
from videogen.execution.judging import JudgedClip, JudgeError, open_judge
from videogen.results.judgement import Judgement

CLIP = JudgedClip(Path("clips/storm.mp4"), "storm", "A 'storm'; $(touch x) {clip}", None)


def ask(name: str, *, stop: Event | None = None) -> Judgement:
    return open_judge(name, allows_programs=True)(CLIP, stop or Event())


def program(folder: Path, body: str) -> str:
    file = folder / "judge.py"
    file.write_text(f"import json, os, sys\n{body}\n", encoding="utf-8")
    return f"{sys.executable} {file}"


def accept_all(clip: JudgedClip) -> dict[str, Any]:
    return {"accept": True, "score": 0.5, "reason": clip.scene_id, "more": 1}


def accept_strictly(clip: JudgedClip) -> Judgement:
    return Judgement(accept=False, score=0.1, reason=clip.prompt[:7])


def fail(clip: JudgedClip) -> None:
    raise RuntimeError("no model")


def test_a_command_gets_each_value_as_one_word_and_answers_json(tmp_path: Path) -> None:
    """No shell reads the prompt, and what looks like a placeholder in it stays."""
    answer = '{"accept": True, "score": 0.75, "reason": "|".join(sys.argv[1:])}'
    judged = ask(program(tmp_path, f"print(json.dumps({answer}))") + " {clip} '{prompt}' --scene={scene}")
    assert (judged.accept, judged.score) == (True, 0.75)
    assert judged.reason == f"{CLIP.path.absolute()}|{CLIP.prompt}|--scene=storm"


def test_a_command_does_not_see_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_secret")
    monkeypatch.setenv("JUDGE_MODEL", "small")
    said = "json.dumps([os.environ.get('REPLICATE_API_TOKEN'), os.environ.get('JUDGE_MODEL')])"
    judged = ask(program(tmp_path, f"print(json.dumps({{'accept': True, 'score': 1, 'reason': {said}}}))"))
    assert json.loads(judged.reason) == [None, "small"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('fine')", "printed no JSON, but 'fine'"),
        ("print('[]')", "the answer is not {accept, score, reason}"),
        ('print(\'{"accept": true, "score": 7}\')', "less than or equal to 1"),
        ("print('{\"score\": 1}')", "Field required"),
        ("sys.exit('no graphics card')", "ended with 1: no graphics card"),
    ],
)
def test_an_answer_that_cannot_be_used_is_said(body: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(JudgeError) as caught:
        ask(program(tmp_path, body))
    assert message in str(caught.value)


def test_a_command_is_ended_when_its_answer_is_not_needed_any_more(tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(JudgeError, match="was given up"):
        ask(program(tmp_path, "import time; time.sleep(1000)"), stop=stop)


def test_a_function_gets_the_clip() -> None:
    assert ask(f"{__name__}:accept_all") == Judgement(accept=True, score=0.5, reason="storm")
    assert ask(f"{__name__}:accept_strictly") == Judgement(accept=False, score=0.1, reason="A 'stor")
    with pytest.raises(JudgeError, match="RuntimeError: no model"):
        ask(f"{__name__}:fail")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("videogen.no_such_module:judge", "cannot be imported"),
        (f"{__name__}:nobody", "cannot be imported"),
        ("no-such-program {clip}", "no program 'no-such-program' is installed"),
        ("ls '{clip}", "is no command"),
        ("ls {film}", r"\{film\} is not known: use \{clip\}, \{prompt\} or \{scene\}"),
    ],
)
def test_a_judge_that_does_not_exist_is_refused_at_once(name: str, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        open_judge(name, allows_programs=True)


@pytest.mark.parametrize("name", ["ls {clip}", f"{__name__}:accept_all"])
def test_no_job_runs_a_program_unless_the_machine_allows_it(name: str) -> None:
    with pytest.raises(InvalidError, match="set VIDEOGEN_ALLOW_JUDGES=true if jobs may do that, or use 'basic'"):
        open_judge(name, allows_programs=False)
    open_judge("basic", allows_programs=False)
