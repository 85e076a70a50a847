"""Creates that do not reach the server, lose their answer, or are refused."""

import asyncio
import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import PROMPT, Change, Stage, code, job_of, only, shot
from tests.support.tokens import TOKEN
from videogen.app import open_run, prepare_job
from videogen.cli.exit_codes import ACCOUNT_ERRORS
from videogen.cli.main import main
from videogen.errors import AuthenticationError, NotSentError
from videogen.execution.rate_limit_gate import ProviderGate
from videogen.providers.replicate import ReplicateProvider


async def test_01_a_create_that_was_refused_a_connection_is_sent_again(stage: Stage, defaults: Change) -> None:
    """Nothing was sent: nothing is looked for, and no attempt is used."""
    defaults(ProviderGate.__init__, backoff_s=0.1)
    port = int(stage.emulate().url.rpartition(":")[2])
    async with open_run(await prepare_job(job_of(), stage.options)) as session:
        await asyncio.to_thread(stage.stop)
        making = asyncio.create_task(shot(session))
        await asyncio.sleep(0.2)
        assert not making.done()
        await asyncio.to_thread(lambda: stage.emulate(port=port))
        clip = only(await making)
    assert (clip.status, clip.attempts) == ("success", 1)
    assert stage.books(creates=1, billed=1)["lists"] == 0


async def test_01_a_name_that_is_not_found_means_that_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A create at a host that DNS does not know is no create whose outcome is unknown."""

    def unknown(*_args: object, **_options: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    provider = ReplicateProvider(TOKEN, base_url="http://nowhere.example")
    with pytest.raises(NotSentError, match=r"cannot connect to nowhere\.example"):
        await provider.create("bytedance/seedance-1-pro", None, {"prompt": "p"}, cancel_after_s=30)
    await provider.aclose()


ACCEPTED = [
    'do = "lose_answer"',
    'do = "reset"',
    'do = "stall"',
    'do = "hang"\naccepted = true',
    'do = "malformed_json"',
]
NOT_ACCEPTED = ['do = "refuse"', 'do = "hang"']


@pytest.mark.long_variants
@pytest.mark.parametrize("fault", [*ACCEPTED, *NOT_ACCEPTED])
async def test_02_a_create_whose_answer_is_lost_is_looked_for(stage: Stage, fault: str) -> None:
    """It is adopted where it was accepted, and made again only where the list does not have it."""
    stage.emulate(f'on = "create"\n{fault}')
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts) == ("success", 1)
    ledger = stage.books(creates=1, billed=1)
    assert ledger["faults"] == [1]
    assert ledger["lists"] == 1 if fault in ACCEPTED else ledger["lists"] >= 1
    assert list(clip.prediction_ids) == [row["id"] for row in ledger["predictions"]]


async def test_02_two_lost_creates_of_the_same_inputs_find_one_prediction_each(stage: Stage) -> None:
    """Two takes differ in nothing that the list shows."""
    stage.emulate('on = "create"\ndo = "lose_answer"\ntimes = 2')
    batch = await stage.shoot(PROMPT, PROMPT)
    assert batch.successful_clips == 2
    ledger = stage.books(creates=2, billed=2)
    found = {prediction_id for clip in batch.clips for prediction_id in clip.prediction_ids}
    assert found == {row["id"] for row in ledger["predictions"]}


async def test_02_a_prediction_from_before_the_intent_is_not_adopted(stage: Stage) -> None:
    """What an earlier attempt made is that attempt's, however alike the inputs are."""
    stage.emulate('do = "fail"\nerror = "out of memory"', 'on = "create"\nnth_create = 2\ndo = "refuse"')
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts, len(set(clip.prediction_ids))) == ("success", 2, 2)
    stage.books(creates=2, billed=1)


@pytest.mark.long_variants
@pytest.mark.parametrize(("status", "accepted"), [(500, "true"), (502, "false"), (503, "true"), (504, "false")])
async def test_03_a_create_that_answers_5xx_may_have_been_accepted(stage: Stage, status: int, accepted: str) -> None:
    """It is looked for before another one is made, so there is one prediction either way."""
    do = 'do = "html_500"' if status == 500 else 'do = "status"'
    stage.emulate(f'on = "create"\n{do}\nstatus = {status}\naccepted = {accepted}')
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts) == ("success", 1)
    lists = stage.books(creates=1, billed=1)["lists"]
    assert lists == 1 if accepted == "true" else lists >= 1


def created_at(ledger: dict[str, Any]) -> list[datetime]:
    return [datetime.fromisoformat(row["created_at"].replace("Z", "+00:00")) for row in ledger["predictions"]]


@pytest.mark.parametrize("hint", ["header", "text"])
async def test_04_a_rate_limit_holds_all_creates_for_as_long_as_it_says(stage: Stage, hint: str) -> None:
    """In the header or only in words. The clip that comes later waits at the same gate, though it was not refused."""
    stage.emulate(f'on = "create"\ndo = "status"\nstatus = 429\nretry_after = 1\nhint = "{hint}"')
    began = datetime.now().astimezone()
    batch = await stage.shoot(PROMPT, PROMPT, in_turn="answered")
    assert [(clip.status, clip.attempts) for clip in batch.clips] == [("success", 1)] * 2
    ledger = stage.books(creates=2, billed=2)
    assert min(created_at(ledger)) - began >= timedelta(seconds=1)


async def test_04_waiting_for_a_rate_limit_is_not_the_clips_time(stage: Stage) -> None:
    """A clip with one second waits two, and is there."""
    stage.emulate('on = "poll"\ndo = "status"\nstatus = 429\nretry_after = 2\nhint = "text"')
    clip = only(await stage.shoot(timeout_seconds=1))
    assert (clip.status, clip.attempts) == ("success", 1)
    stage.books(creates=1, billed=1)


async def test_04_a_dozen_clips_pass_a_narrow_gate_without_losing_an_attempt(stage: Stage) -> None:
    """Four creates a second and no more: all are made, each in its first attempt."""
    stage.emulate(creates_per_minute=240, burst=4)
    batch = await stage.shoot(*[PROMPT] * 12, concurrency=12)
    assert [(clip.status, clip.attempts) for clip in batch.clips] == [("success", 1)] * 12
    stage.books(creates=12, billed=12)


@pytest.mark.parametrize("status", [401, 403])
async def test_05_a_token_refused_on_the_way_stops_the_job(stage: Stage, status: int) -> None:
    """No create is sent after it, though the next one would be accepted; nothing that is kept names the token."""
    stage.emulate(f'on = "create"\ndo = "status"\nstatus = {status}')
    batch = await stage.shoot(PROMPT, PROMPT, PROMPT, concurrency=1)
    assert [(code(clip), clip.attempts) for clip in batch.clips] == [("authentication", n) for n in (1, 0, 0)]
    assert {"authentication", "billing"} == ACCOUNT_ERRORS  # what makes exit 3
    stage.books(creates=0, billed=0)
    assert not [path for path in stage.folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


async def test_05_a_token_refused_by_a_poll_leaves_a_clip_to_download(stage: Stage) -> None:
    """Nothing is retried; the next run pays for nothing."""
    stage.emulate('on = "poll"\ndo = "status"\nstatus = 401')
    assert code(only(await stage.shoot())) == "authentication"
    assert only(await stage.shoot()).status == "success"
    stage.books(creates=1, billed=1)


def test_05_a_refused_token_is_told_at_once(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str], job_file: Any
) -> None:
    """Exit 3, one line, no create, and not the token."""
    stage.emulate(tokens=["another"])
    path = job_file([{"id": "a", "prompt": PROMPT, "target_duration": 2}])
    assert main(["run", str(path), "--out", str(tmp_path / "out")]) == 3
    out, err = capsys.readouterr()
    assert "refused the token (401)" in err
    assert len(err.splitlines()) == 1
    assert TOKEN not in out + err
    stage.books(creates=0, billed=0)


async def test_05_a_session_is_not_opened_on_a_refused_token(stage: Stage) -> None:
    stage.emulate(tokens=["another"])
    with pytest.raises(AuthenticationError) as caught:
        await stage.shoot()
    assert TOKEN not in str(caught.value)


async def test_06_without_credit_running_clips_finish_and_a_later_run_goes_on(stage: Stage) -> None:
    """Two of four are saved; the next run makes the other two."""
    stage.emulate('on = "create"\nprompt = "rain"\ndo = "status"\nstatus = 402', latency_s=(1.0, 1.0))
    prompts = ("A boat", "A boat", "A boat in rain", "A boat")
    batch = await stage.shoot(*prompts, in_turn="created")
    assert [code(clip) for clip in batch.clips] == [None, None, "billing", "billing"]
    assert code(batch.clips[2]) in ACCOUNT_ERRORS  # what makes exit 3
    stage.books(creates=2, billed=2)
    again = await stage.shoot(*prompts)
    assert [clip.reused for clip in again.clips] == [True, True, False, False]
    assert again.successful_clips == 4
    stage.books(creates=4, billed=4)


@pytest.mark.long_variants
@pytest.mark.parametrize("status", [404, 422])
async def test_07_a_refused_input_is_not_sent_again(stage: Stage, status: int) -> None:
    """One call for the clip, and the others are made."""
    rule = f'on = "create"\nprompt = "castle"\ndo = "status"\nstatus = {status}\ntimes = "always"'
    stage.emulate(rule)
    batch = await stage.shoot("A castle", PROMPT)
    assert [code(clip) for clip in batch.clips] == ["input", None]
    assert stage.books(creates=1, billed=1)["faults"] == [1]


@pytest.mark.parametrize(("model", "says"), [("refused", "input.resolution"), ("missing", "404")])
async def test_07_the_message_names_what_was_refused(stage: Stage, model: str, says: str) -> None:
    """The field that the endpoint does not take, or that there is no such endpoint."""
    stage.emulate()
    clip = only(await stage.shoot(model=model))
    assert clip.error
    assert (clip.error.code, clip.error.retryable, clip.attempts) == ("input", False, 1)
    assert says in clip.error.message
    stage.books(creates=0, billed=0)
