"""Ask a judge about a delivered clip: the shipped one, a Python function, or a command."""

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from pydantic import ValidationError as PydanticError

from videogen.errors import Problem, ValidationError, VideogenError
from videogen.results.judgement import Judgement
from videogen.source_files.messages import did_you_mean

BASIC = "basic"
MAX_JUDGING_S = 300.0
MAX_ANSWER_CHARS = 100_000
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*", re.ASCII)
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_LOOK_S = 0.05
_SECRET = re.compile(r"^(REPLICATE|VIDEOGEN)_|TOKEN|KEY|SECRET|PASSWORD|AUTH|CREDENTIAL")
"""Names of the environment variables that a command does not see."""


@dataclass(frozen=True)
class JudgedClip:
    """The clip that a judge looks at."""

    path: Path
    """The video on this disk, which is whole and as it will be delivered."""
    scene_id: str
    prompt: str
    start_image: bytes | None
    """The picture with which the clip was asked to begin, as a JPEG or PNG; None if there was none."""


class JudgeError(VideogenError):
    """The judge gave no usable answer. The clip is delivered without a judgement."""

    code = "judge"


Judge = Callable[[JudgedClip, Event], Judgement]
"""Returns the judgement. The event is set when the answer is no longer needed. Raises `JudgeError`."""


def open_judge(name: str, *, allows_programs: bool) -> Judge:
    """Return the judge that a job names: `basic`, a function as `module:function`, or a command.

    A function gets a `JudgedClip`, and returns a `Judgement` or a dictionary with its fields. A command gets the values
    of `{clip}`, `{prompt}` and `{scene}` as words of its own, never through a shell, and prints the fields as JSON.

    Raises:
        ValidationError: there is no such judge, or it is a program of your own and `allows_programs` is false.
    """
    if name == BASIC:
        return _judge_by_quality
    if not allows_programs:
        raise _make_problem(
            f"{name!r} runs a program on this machine: set VIDEOGEN_ALLOW_JUDGES=true if jobs may do that, or use "
            f"{BASIC!r}{did_you_mean(name, [BASIC])}"
        )
    return _open_function(name) if _FUNCTION.fullmatch(name) else _open_command(name)


def _make_problem(message: str) -> ValidationError:
    return ValidationError([Problem(message, where="judge")])


def _judge_by_quality(clip: JudgedClip, stop: Event) -> Judgement:
    from videogen.media.quality import measure_quality  # needs PyAV, which a plan does without

    return measure_quality(clip.path, start_image=clip.start_image, stop=stop).make_judgement()


def _open_function(name: str) -> Judge:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise _make_problem(f"{name!r} cannot be imported: {exc}") from None

    def judge(clip: JudgedClip, _stop: Event) -> Judgement:
        try:
            return _read_answer(function(clip))
        except JudgeError:
            raise
        except Exception as exc:  # whatever it is, the clip is paid for and whole
            raise JudgeError(f"{name} failed: {type(exc).__name__}: {exc}") from exc

    return judge


def _open_command(command: str) -> Judge:
    try:
        words = shlex.split(command)
    except ValueError as exc:
        raise _make_problem(f"{command!r} is no command: {exc}") from None
    known = {"clip", "prompt", "scene"}
    if unknown := set(_PLACEHOLDER.findall(command)) - known:
        raise _make_problem(f"{{{min(unknown)}}} is not known: use {{clip}}, {{prompt}} or {{scene}}")
    if not words or shutil.which(words[0]) is None:
        raise _make_problem(f"no program {(words or [command])[0]!r} is installed on this machine")

    def judge(clip: JudgedClip, stop: Event) -> Judgement:
        values = {"clip": str(clip.path.absolute()), "prompt": clip.prompt, "scene": clip.scene_id}
        typed = [_PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in words]
        return _read_answer(_parse_json(words[0], _run_command(typed, stop)))

    return judge


def _run_command(words: list[str], stop: Event) -> str:
    """Run a command, and return what it prints. It is killed if the event is set, or after five minutes."""
    environment = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
    deadline = time.monotonic() + MAX_JUDGING_S
    try:
        process = subprocess.Popen(  # noqa: S603  # the job names it, and the machine's owner allows that
            words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as exc:
        raise JudgeError(f"{words[0]} cannot be started: {exc.strerror or exc}") from exc
    with process:
        while True:
            try:
                out, err = process.communicate(timeout=_LOOK_S)
                break
            except subprocess.TimeoutExpired:
                if stop.is_set() or time.monotonic() > deadline:
                    process.kill()
                    reason = "was given up" if stop.is_set() else f"took longer than {MAX_JUDGING_S:g} s"
                    raise JudgeError(f"{words[0]} {reason}") from None
    if process.returncode:
        said = err.decode(errors="replace").strip().splitlines()
        raise JudgeError(f"{words[0]} ended with {process.returncode}{f': {said[-1][:200]}' if said else ''}")
    return out[:MAX_ANSWER_CHARS].decode(errors="replace")


def _parse_json(program: str, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise JudgeError(f"{program} printed no JSON, but {text.strip()[:80]!r}") from None


def _read_answer(answer: object) -> Judgement:
    if isinstance(answer, Judgement):
        return answer
    try:
        fields = {name: answer[name] for name in Judgement.model_fields if name in answer}  # type: ignore[operator, index]
        return Judgement.model_validate(fields)
    except (PydanticError, TypeError) as exc:
        reason = exc.errors()[0]["msg"] if isinstance(exc, PydanticError) else "it is no table"
        raise JudgeError(f"the answer is not {{accept, score, reason}}: {reason}") from None
