"""Every fault of a plan as clients see it, compared with the ledger."""

import base64
import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from videogen.emulator import (
    EmulatorSettings,
    FaultPlanError,
    create_emulator_app,
    run_emulator,
)
from videogen.emulator.faults import plan
from videogen.emulator.faults.plan import load_fault_plan

SEEDANCE = "bytedance/seedance-1-pro"
SMALL = {"prompt": "a quiet lake", "resolution": "480p", "duration": 2}
Plan = Callable[..., Any]


@pytest.fixture
def faulty(launch: Any, tmp_path: Path) -> Plan:
    """An emulator with this one rule (TOML lines), or several."""

    def start(*rules: str, **settings: Any) -> Any:
        path = tmp_path / "plan.toml"
        path.write_text("".join(f"[[rules]]\n{rule}\n" for rule in rules))
        return launch(faults=path, **settings)

    return start


def poll(client: Any, prediction: dict[str, Any]) -> httpx.Response:
    """Poll once and return the answer."""
    answer: httpx.Response = client.http.get(f"/v1/predictions/{prediction['id']}")
    return answer


def fetch(url: str, timeout_s: float = 5) -> httpx.Response:
    """One whole download."""
    return httpx.get(url, trust_env=False, verify=False, timeout=timeout_s)


# Creates


def test_refuse_accepts_nothing(faulty: Plan) -> None:
    """The connection is reset, the ledger is empty, the next create works."""
    client = faulty('on = "create"\ndo = "refuse"')
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        client.post(SEEDANCE, SMALL)
    assert client.ledger()["creates"] == 0
    assert client.post(SEEDANCE, SMALL).status_code == 201
    assert client.ledger()["faults"] == [1]


@pytest.mark.parametrize("do", ["lose_answer", "reset"])
def test_a_lost_answer_was_accepted(faulty: Plan, do: str) -> None:
    """The caller gets an error; the prediction is there, runs, and is found in the list."""
    client = faulty(f'on = "create"\ndo = "{do}"')
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        client.post(SEEDANCE, SMALL)
    assert client.ledger()["creates"] == 1
    (row,) = client.http.get("/v1/predictions").json()["results"]
    assert row["input"] == SMALL
    assert client.until(row["id"], {"succeeded"})["output"]


@pytest.mark.parametrize(("accepted", "creates"), [("false", 0), ("true", 1)])
@pytest.mark.parametrize("do", ['"status"\nstatus = 503', '"html_500"', '"hang"'])
def test_an_error_may_hide_an_accepted_create(faulty: Plan, do: str, accepted: str, creates: int) -> None:
    """With `accepted` the prediction exists all the same."""
    client = faulty(f'on = "create"\ndo = {do}\naccepted = {accepted}')
    try:
        answer = client.http.post(
            f"/v1/models/{SEEDANCE}/predictions", json={"input": SMALL}, timeout=0.3 if "hang" in do else 5
        )
        assert answer.status_code >= 500
    except httpx.ReadTimeout:
        assert "hang" in do
    assert client.ledger()["creates"] == creates


def test_an_html_page_comes_with_500(faulty: Plan) -> None:
    """It is no JSON at all."""
    answer = faulty('on = "create"\ndo = "html_500"').post(SEEDANCE, SMALL)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert answer.text.startswith("<!DOCTYPE html>")


HINTS = [
    pytest.param("both", "7", 7, "resets in ~7s", id="both"),
    pytest.param("header", "7", None, "throttled.", id="header"),
    pytest.param("body", None, 7, "resets in ~7s", id="body"),
    pytest.param("text", None, None, "resets in ~7s", id="text"),
]


@pytest.mark.parametrize(("hint", "header", "member", "said"), HINTS)
def test_a_throttle_tells_how_long_in_many_ways(
    faulty: Plan, hint: str, header: str | None, member: int | None, said: str
) -> None:
    """In the header, in the body, in both, or only in words."""
    answer = faulty(f'on = "create"\ndo = "status"\nstatus = 429\nretry_after = 7\nhint = "{hint}"').post(
        SEEDANCE, SMALL
    )
    assert answer.status_code == 429
    assert answer.headers.get("retry-after") == header
    assert answer.json().get("retry_after") == member
    assert said in answer.json()["detail"]


def test_a_throttle_can_give_a_date(faulty: Plan) -> None:
    """Retry-After as an HTTP date."""
    answer = faulty('on = "create"\ndo = "status"\nstatus = 429\nretry_after = 30\nhint = "date"').post(SEEDANCE, SMALL)
    left = parsedate_to_datetime(answer.headers["retry-after"]).timestamp() - time.time()
    assert 27 < left <= 31


@pytest.mark.parametrize(
    ("status", "title"), [(401, "Unauthenticated"), (402, "Insufficient credit"), (404, None), (500, None), (504, None)]
)
def test_a_status_has_its_own_body(faulty: Plan, status: int, title: str | None) -> None:
    """As the live API words it, and nothing is created."""
    client = faulty(f'on = "create"\ndo = "status"\nstatus = {status}')
    answer = client.post(SEEDANCE, SMALL)
    assert (answer.status_code, answer.json()["status"], answer.json().get("title")) == (status, status, title)
    assert client.ledger()["creates"] == 0


# Fates


def test_a_prediction_can_fail(faulty: Plan) -> None:
    """With the given text, as often as the rule says, at no cost."""
    client = faulty('do = "fail"\nerror = "CUDA out of memory"\ntimes = 2')
    runs = [client.run(SEEDANCE, SMALL) for _ in range(3)]
    assert [run["status"] for run in runs] == ["failed", "failed", "succeeded"]
    assert (runs[0]["error"], runs[0]["output"]) == ("CUDA out of memory", None)
    assert client.ledger()["billed"] == "0.06"


@pytest.mark.parametrize(
    ("do", "status", "billed"), [("abort", "aborted", "0"), ("cancel", "canceled", "0.06")], ids=["abort", "cancel"]
)
def test_a_prediction_can_end_by_somebody_else(faulty: Plan, do: str, status: str, billed: str) -> None:
    """Aborted before it starts, for free; canceled while it runs, at full price."""
    client = faulty(f'do = "{do}"')
    done = client.run(SEEDANCE, SMALL)
    assert (done["status"], done["output"]) == (status, None)
    assert ("started_at" in done) == (do == "cancel")
    assert client.ledger()["billed"] == billed


def test_a_prediction_can_stick(faulty: Plan) -> None:
    """It runs until its deadline, independent of its latency."""
    client = faulty('do = "stick"', time_scale=0.1)
    created = client.create(SEEDANCE, SMALL, Cancel_After="5s")
    time.sleep(0.3)
    assert client.get(created["id"])["status"] == "processing"
    assert client.until(created["id"], {"canceled"}, timeout_s=2)


def test_a_clip_can_have_the_wrong_length(faulty: Plan, download: Callable[..., Path]) -> None:
    """The clip has `seconds` in place of the requested duration."""
    client = faulty('do = "wrong_duration"\nseconds = 0.5')
    with av.open(str(download(client, client.run(SEEDANCE, SMALL)))) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12


@pytest.mark.long_variants
@pytest.mark.parametrize("mode", ["quick", "smooth"])
@pytest.mark.parametrize(("picture", "lightest"), [("black", 20), ("frozen", 255)])
def test_a_clip_can_be_black_or_stand_still(
    faulty: Plan, download: Callable[..., Path], picture: str, lightest: int, mode: str
) -> None:
    """From start to end, and as long as asked; black has no caption either."""
    client = faulty(f'do = "wrong_picture"\npicture = "{picture}"', mode=mode)
    with av.open(str(download(client, client.run(SEEDANCE, SMALL)))) as container:
        lumas = [bytes(frame.reformat(width=64, height=36).planes[0]) for frame in container.decode(video=0)]
    assert len(lumas) == 49
    assert max(map(max, lumas)) <= lightest
    assert all(abs(a - b) <= 2 for luma in lumas for a, b in zip(luma, lumas[0], strict=True))


@pytest.mark.parametrize("on", ["create", "poll"])
def test_an_output_can_expire(faulty: Plan, on: str) -> None:
    """Succeeded, but the data is removed."""
    client = faulty(f'on = "{on}"\ndo = "expire"')
    done = client.run(SEEDANCE, SMALL)
    assert (done["status"], done["data_removed"], done["output"]) == ("succeeded", True, None)


# Polls


def test_polls_can_fail_by_number(faulty: Plan) -> None:
    """`nth_poll` names them; the others work and the prediction is not touched."""
    client = faulty('on = "poll"\ndo = "status"\nstatus = 502\nnth_poll = [1, 3]\ntimes = "always"')
    created = client.create(SEEDANCE, SMALL)
    assert [poll(client, created).status_code for _ in range(4)] == [502, 200, 502, 200]
    assert client.ledger()["polls"] == 4


def test_malformed_json_has_a_right_length(faulty: Plan) -> None:
    """The answer is whole on the wire and broken as JSON."""
    client = faulty('on = "poll"\ndo = "malformed_json"')
    answer = poll(client, client.create(SEEDANCE, SMALL))
    assert answer.status_code == 200
    with pytest.raises(ValueError, match=r"."):  # the cut may fall into the middle of a character
        answer.json()


def test_a_status_can_be_unknown(faulty: Plan) -> None:
    """Once, then the true one again."""
    client = faulty('on = "poll"\ndo = "unknown_status"\nstatus = "migrating"')
    created = client.create(SEEDANCE, SMALL)
    assert poll(client, created).json()["status"] == "migrating"
    assert poll(client, created).json()["status"] in ("starting", "processing", "succeeded")


@pytest.mark.parametrize(
    ("do", "seen"),
    [
        ("null_output", lambda url: None),
        ("list_output", lambda url: [url]),
        ("dict_output", lambda url: {"video": url}),
    ],
    ids=["null", "list", "dict"],
)
def test_an_output_can_have_another_shape(faulty: Plan, do: str, seen: Callable[[str], Any]) -> None:
    """Only on a succeeded prediction; the poll after that shows the URL."""
    client = faulty(f'do = "{do}"')
    first = client.run(SEEDANCE, SMALL)
    second = client.get(first["id"])
    assert isinstance(second["output"], str)
    assert first["output"] == seen(second["output"])


def test_a_gzip_bomb_is_small_on_the_wire(faulty: Plan) -> None:
    """64 MB of blanks take less than a hundredth of that. The whole is valid JSON."""
    client = faulty('on = "poll"\ndo = "gzip_bomb"\nsize_mb = 64')
    created = client.create(SEEDANCE, SMALL)
    with client.http.stream("GET", f"/v1/predictions/{created['id']}") as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert len(raw) < 640_000
    assert len(gzip.decompress(raw)) > 64 << 20
    assert zlib.decompressobj(31).decompress(raw, 1000).lstrip().startswith(b'{"id"')


def test_a_slow_loris_drips(faulty: Plan) -> None:
    """One byte at a time, of which a busy machine may read several at once. No read is late, and no answer is whole."""
    client = faulty('on = "poll"\ndo = "slow_loris"\nevery_s = 0.05')
    created = client.create(SEEDANCE, SMALL)
    with client.http.stream("GET", f"/v1/predictions/{created['id']}", timeout=20) as answer:
        sizes = [len(piece) for piece in islice(answer.iter_raw(), 8)]
    assert 8 <= sum(sizes) < len(json.dumps(created)) / 2


@pytest.mark.parametrize("on", ["poll", "list", "cancel", "download"])
@pytest.mark.long_variants
@pytest.mark.parametrize("do", ["refuse", "lose_answer", "reset", "stall", "hang"])
def test_any_call_can_lose_its_connection(faulty: Plan, on: str, do: str) -> None:
    """Once; the same call works the next time."""
    client = faulty(f'on = "{on}"\ndo = "{do}"', latency_s=(0, 0) if on == "download" else (999, 999))
    created = client.create(SEEDANCE, SMALL)
    if on == "download":
        created = client.until(created["id"], {"succeeded"})
    calls: dict[str, tuple[str, str]] = {
        "poll": ("GET", f"/v1/predictions/{created['id']}"),
        "list": ("GET", "/v1/predictions"),
        "cancel": ("POST", f"/v1/predictions/{created['id']}/cancel"),
        "download": ("GET", str(created["output"])),
    }
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ReadTimeout)) as caught:
        client.http.request(*calls[on], timeout=0.4)
    assert isinstance(caught.value, httpx.ReadTimeout) == (do in ("stall", "hang"))
    if on == "cancel":
        assert client.ledger()["cancels"] == (0 if do in ("refuse", "hang") else 1)
    assert client.http.request(*calls[on]).status_code == 200


# Answers of whatever stands between


CALLS = ["create", "poll", "list", "cancel", "download", "upload", "account"]
BODIES = [
    pytest.param("problem", "application/problem+json", "Fault on purpose", id="problem"),
    pytest.param("html", "text/html; charset=utf-8", "<!DOCTYPE html>", id="html"),
    pytest.param("json", "application/json", "message", id="json"),
    pytest.param("empty", None, "", id="empty"),
]


def call(client: Any, on: str, prediction: dict[str, Any]) -> httpx.Response:
    """Make one call of this kind, about this prediction where it is about one."""
    calls: dict[str, Callable[[], httpx.Response]] = {
        "create": lambda: client.post(SEEDANCE, SMALL),
        "poll": lambda: poll(client, prediction),
        "list": lambda: client.http.get("/v1/predictions"),
        "cancel": lambda: client.http.post(f"/v1/predictions/{prediction['id']}/cancel"),
        "download": lambda: fetch(str(prediction["output"])),
        "upload": lambda: client.http.post("/v1/files", files={"content": b"x"}),
        "account": lambda: client.http.get("/v1/account"),
    }
    return calls[on]()


@pytest.mark.parametrize("on", CALLS)
@pytest.mark.long_variants
@pytest.mark.parametrize(("body", "kind", "said"), BODIES)
def test_any_call_can_be_answered_by_somebody_else(
    faulty: Plan, on: str, body: str, kind: str | None, said: str
) -> None:
    """With any status and body, once each; the next call of this kind is answered as ever."""
    statuses = [200, 302, 400, 403, 404, 409, 410, 422, 502]
    client = faulty(*(f'on = "{on}"\ndo = "status"\nstatus = {status}\nbody = "{body}"' for status in statuses))
    done: dict[str, Any] = {}
    if on not in ("create", "list", "upload", "account"):
        done = client.create(SEEDANCE, SMALL)
    if on == "download":
        done = client.until(done["id"], {"succeeded"})
    for status in statuses:
        answer = call(client, on, done)
        assert (answer.status_code, answer.headers.get("content-type")) == (status, kind)
        assert said in answer.text or status == 404
        assert answer.headers.get("location") == ("/login" if status == 302 else None)
    assert call(client, on, done).status_code in (200, 201)


def test_a_problem_can_have_any_detail(faulty: Plan) -> None:
    """The text of the rule stands where the live API's would."""
    client = faulty('on = "create"\ndo = "status"\nstatus = 422\ndetail = "NSFW content detected"')
    assert client.post(SEEDANCE, SMALL).json() == {"detail": "NSFW content detected", "status": 422}


@pytest.mark.parametrize("answer", ["status", "reset", "hang"])
def test_a_create_can_be_accepted_late(faulty: Plan, answer: str) -> None:
    """The caller is told that it failed, and nothing is there; the second one is there later, and created then."""
    rule = f'do = "accept_late"\nanswer = "{answer}"\nseconds = '
    client = faulty(f"{rule}3600", f"{rule}0.4")
    assert wait_for_outcome(client, answer) == answer
    assert client.http.get("/v1/predictions").json()["results"] == []
    begin = time.time()
    assert wait_for_outcome(client, answer) == answer
    row = wait_until_listed(client)
    assert datetime.fromisoformat(row["created_at"]).timestamp() > begin + 0.35
    assert client.until(row["id"], {"succeeded"})["output"]
    assert client.ledger()["creates"] == 1


def wait_for_outcome(client: Any, expected: str) -> str:
    """Create and return the result of the call, with a short timeout only for a call that hangs."""
    timeout_s = 0.5 if expected == "hang" else 20
    try:
        answer = client.http.post(f"/v1/models/{SEEDANCE}/predictions", json={"input": SMALL}, timeout=timeout_s)
    except httpx.TransportError as exc:
        return "hang" if isinstance(exc, httpx.ReadTimeout) else "reset"
    return "status" if answer.status_code == 504 else str(answer.status_code)


def wait_until_listed(client: Any) -> dict[str, Any]:
    """List until there is something, and return its first row."""
    while not (rows := client.http.get("/v1/predictions").json()["results"]):
        time.sleep(0.05)
    row: dict[str, Any] = rows[0]
    return row


# Lists


def test_a_list_can_be_stale(faulty: Plan) -> None:
    """It shows nothing that came in the last hour; a list without the fault does."""
    client = faulty('do = "stale_list"\nseconds = 3600')
    done = client.run(SEEDANCE, SMALL)
    assert client.http.get("/v1/predictions").json()["results"] == []
    assert [row["id"] for row in client.http.get("/v1/predictions").json()["results"]] == [done["id"]]


def test_a_list_can_be_out_of_order(faulty: Plan) -> None:
    """All rows are there, not newest first."""
    client = faulty('do = "shuffle_list"', queue_s=(999, 999))
    ids = [client.create(SEEDANCE, SMALL)["id"] for _ in range(9)]
    listed = [row["id"] for row in client.http.get("/v1/predictions").json()["results"]]
    assert sorted(listed) == sorted(ids)
    assert listed != ids[::-1]


def test_one_prediction_can_be_missing_in_the_list(faulty: Plan) -> None:
    """For as long as the rule says: the others are shown, and it is found by its id all the while."""
    client = faulty(
        'do = "hide_from_list"\nseconds = 3600\nnth_create = 1',
        'do = "hide_from_list"\nseconds = 0.1\nnth_create = 2',
        queue_s=(999, 999),
    )
    first, second = client.create(SEEDANCE, SMALL), client.create(SEEDANCE, SMALL)
    assert wait_until_listed(client)["id"] == second["id"]
    assert client.get(first["id"])["id"] == first["id"]
    assert len(client.http.get("/v1/predictions").json()["results"]) == 1


# How a prediction is shown

SHAPES = [
    pytest.param('{ output = ["{url}"] }', lambda url: [url], id="list"),
    pytest.param(
        '{ output = ["https://a.example/preview.jpg", "{url}"] }',
        lambda url: ["https://a.example/preview.jpg", url],
        id="preview-first",
    ),
    pytest.param('{ output = { video = { url = "{url}" } } }', lambda url: {"video": {"url": url}}, id="nested"),
    pytest.param('{ output = [{ url = "{url}" }] }', lambda url: [{"url": url}], id="list-of-objects"),
    pytest.param('{ output = "http://169.254.169.254/" }', lambda url: "http://169.254.169.254/", id="link-local"),
]


@pytest.mark.parametrize(("fields", "seen"), SHAPES)
def test_an_output_has_any_shape_wherever_it_is_shown(faulty: Plan, fields: str, seen: Callable[[str], Any]) -> None:
    """In polls and in the list alike, each time, and not before the prediction has ended."""
    client = faulty(f'do = "show"\nfields = {fields}')
    created = client.create(SEEDANCE, SMALL)
    assert created["output"] is None
    done = client.until(created["id"], {"succeeded"})
    plain = client.run(SEEDANCE, SMALL)["output"]
    output = json.loads(json.dumps(done["output"]))
    path = plain.rsplit("/", 2)[0]
    assert fetch_within(output, path) == seen("URL")
    rows = {row["id"]: row for row in client.http.get("/v1/predictions").json()["results"]}
    assert rows[done["id"]]["output"] == client.get(done["id"])["output"] == done["output"]


def fetch_within(output: Any, path: str) -> Any:
    """The output with `URL` in place of each address below `path`, which must lead to a file."""
    if isinstance(output, dict):
        return {name: fetch_within(inner, path) for name, inner in output.items()}
    if isinstance(output, list):
        return [fetch_within(inner, path) for inner in output]
    if not output.startswith(path):
        return output
    assert fetch(output).content[4:8] == b"ftyp"
    return "URL"


def test_an_output_can_be_its_own_data(faulty: Plan) -> None:
    """As a `data:` URL, whose content is the file."""
    client = faulty('do = "show"\nfields = { output = "{data}" }')
    head, _, body = client.run(SEEDANCE, SMALL)["output"].partition(",")
    assert head == "data:video/mp4;base64"
    assert base64.b64decode(body)[4:8] == b"ftyp"


def test_a_prediction_can_be_shown_with_anything(faulty: Plan) -> None:
    """Infinite numbers and NaN, text that is not UTF-8, megabytes, an undocumented status, null."""
    client = faulty(
        'do = "show"\nfields = { status = "exploded", metrics = { predict_time = nan, total_time = inf } }',
        'do = "show"\njson_text = \'{"error": "\\u0000\\ud800", "version": null, "logs": "{fill:2000000}"}\'',
    )
    shown = client.until(client.create(SEEDANCE, SMALL)["id"], {"exploded"})
    assert repr(shown["metrics"]) == "{'predict_time': nan, 'total_time': inf}"
    assert (shown["error"], shown["version"], len(shown["logs"])) == ("\0\ud800", None, 2_000_000)
    assert client.ledger()["faults"] == [1, 1]


@pytest.mark.parametrize(("when", "seen"), [("always", ["odd", "odd"]), ("running", ["odd", "canceled"])])
def test_a_member_is_shown_while_it_is_wanted(faulty: Plan, when: str, seen: list[str]) -> None:
    """From the create on, or only until the end."""
    client = faulty(f'do = "show"\nwhen = "{when}"\nfields = {{ status = "odd" }}', latency_s=(99, 99))
    created = client.create(SEEDANCE, SMALL)
    canceled = client.http.post(f"/v1/predictions/{created['id']}/cancel").json()
    assert [created["status"], canceled["status"]] == seen


def test_one_poll_can_be_shown_with_anything(faulty: Plan) -> None:
    """Only that answer."""
    client = faulty('on = "poll"\ndo = "show"\nwhen = "always"\nfields = { status = "odd" }')
    created = client.create(SEEDANCE, SMALL)
    assert poll(client, created).json()["status"] == "odd"
    assert poll(client, created).json()["status"] != "odd"


# Downloads


def test_a_file_can_be_late_by_looks(faulty: Plan) -> None:
    """The first downloads of each prediction's file are answered with the status, HEAD too; then it is there."""
    client = faulty('do = "late_output"\nlooks = 2\nstatus = 403\nbody = "html"\ntimes = "always"')
    for _ in range(2):
        done = client.run(SEEDANCE, SMALL)
        assert httpx.head(done["output"], trust_env=False, verify=False).status_code == 403
        assert [fetch(done["output"]).status_code for _ in range(3)] == [403, 403, 200]
        assert client.entry(done["id"])["downloads"] == 3
        assert client.get(done["id"])["data_removed"] is False
    assert client.ledger()["faults"] == [2]


def test_a_file_can_be_late_by_seconds(faulty: Plan) -> None:
    """Counted from the end of the prediction: the first one's is not there within the hour, the second one's soon."""
    client = faulty('do = "late_output"\nseconds = 3600', 'do = "late_output"\nseconds = 0.3')
    first, second = client.run(SEEDANCE, SMALL), client.run(SEEDANCE, SMALL)
    while (answer := fetch(second["output"])).status_code == 404:
        time.sleep(0.05)
    assert answer.status_code == 200
    answer = fetch(first["output"])
    assert (answer.status_code, answer.json()["status"]) == (404, 404)


def test_a_cut_download_can_be_resumed(faulty: Plan) -> None:
    """A part of the bytes came, the ledger counts them, and a range brings the rest."""
    client = faulty('on = "download"\ndo = "reset"\npart = 0.25')
    url = client.run(SEEDANCE, SMALL)["output"]
    got = bytearray()
    with httpx.stream("GET", url, trust_env=False, verify=False) as answer:
        length = int(answer.headers["content-length"])
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            got.extend(byte for piece in answer.iter_raw() for byte in piece)
    assert len(got) <= length // 4 == client.ledger()["bytes_served"]
    rest = httpx.get(url, headers={"Range": f"bytes={len(got)}-"}, trust_env=False, verify=False)
    assert bytes(got) + rest.content == fetch(url).content


DAMAGES = [
    pytest.param('"truncate"\npart = 0.5', lambda good, bad: bad == good[: len(good) // 2], id="truncate"),
    pytest.param(
        '"zero_tail"\npart = 0.25',
        lambda good, bad: len(bad) == len(good) and not any(bad[-len(good) // 5 :]) and bad[:1000] == good[:1000],
        id="zero_tail",
    ),
    pytest.param(
        '"flip_bytes"\ncount = 9',
        lambda good, bad: len(bad) == len(good) and sum(a != b for a, b in zip(good, bad, strict=True)) == 9,
        id="flip_bytes",
    ),
    pytest.param('"wrong_content"\ncontent = "html"', lambda good, bad: bad.startswith(b"<!DOCTYPE"), id="html"),
    pytest.param('"wrong_content"\ncontent = "json"', lambda good, bad: "detail" in json.loads(bad), id="json"),
    pytest.param('"wrong_content"\ncontent = "png"', lambda good, bad: bad.startswith(b"\x89PNG"), id="png"),
]


@pytest.mark.parametrize(("do", "fits"), DAMAGES)
def test_a_file_can_be_damaged(faulty: Plan, do: str, fits: Callable[[bytes, bytes], bool]) -> None:
    """Status 200, a correct length, wrong bytes; the next download is whole."""
    client = faulty(f"do = {do}")
    url = client.run(SEEDANCE, SMALL)["output"]
    bad, good = fetch(url), fetch(url)
    assert (bad.status_code, int(bad.headers["content-length"])) == (200, len(bad.content))
    assert good.content[4:8] == b"ftyp"
    assert fits(good.content, bad.content)
    assert client.ledger()["bytes_served"] == len(bad.content) + len(good.content)


def test_a_download_can_be_endless(faulty: Plan) -> None:
    """No length, more bytes than the file has, and it stops when the caller hangs up."""
    client = faulty('do = "endless"')
    url = client.run(SEEDANCE, SMALL)["output"]
    size = 0
    with httpx.stream("GET", url, trust_env=False, verify=False) as answer:
        assert "content-length" not in answer.headers
        for piece in answer.iter_raw():
            size += len(piece)
            if size > 20_000_000:
                break
    served = client.ledger()["bytes_served"]
    assert served >= 20_000_000
    time.sleep(0.3)
    assert client.ledger()["bytes_served"] - served < 20_000_000


def test_a_url_can_expire(faulty: Plan) -> None:
    """The download is 404 and the prediction says that its data is gone."""
    client = faulty('on = "download"\ndo = "expire"')
    done = client.run(SEEDANCE, SMALL)
    assert fetch(done["output"]).status_code == 404
    assert client.get(done["id"])["data_removed"] is True


# Matching


def test_rules_match_by_model_prompt_and_number(faulty: Plan) -> None:
    """Every given key must fit; the first fitting rule applies."""
    client = faulty(
        'do = "fail"\nerror = "by model"\nmodel = "google/veo-3.1"',
        'do = "fail"\nerror = "by text"\nprompt = "storm"\ntimes = "always"',
        'do = "fail"\nerror = "by pattern"\nprompt_regex = "^sc[ae]ne \\\\d+$"',
        'do = "fail"\nerror = "by number"\nnth_create = [5]',
    )
    prompts = ["a storm", "scene 12", "scenes 12", "a storm", "quiet"]
    errors = [client.run(SEEDANCE, SMALL | {"prompt": prompt})["error"] for prompt in prompts]
    assert errors == ["by text", "by pattern", None, "by text", "by number"]
    assert client.ledger()["faults"] == [0, 2, 1, 1]


def test_an_answer_and_a_fate_can_meet(faulty: Plan) -> None:
    """The answer is lost and the prediction fails as well: the two kinds of rules do not compete."""
    client = faulty('do = "fail"\nerror = "E9828"', 'on = "create"\ndo = "lose_answer"')
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        client.post(SEEDANCE, SMALL)
    (row,) = client.http.get("/v1/predictions").json()["results"]
    assert client.until(row["id"], {"failed"})["error"] == "E9828"


@pytest.mark.parametrize("do", ["hang", "stall", "slow_loris"])
def test_held_callers_do_not_hold_up_the_end(tmp_path: Path, do: str) -> None:
    """A server with a held call stops within a second, and the caller learns of it."""
    path = tmp_path / "plan.toml"
    path.write_text(f'[[rules]]\non = "list"\ndo = "{do}"\n')
    errors: list[Exception] = []

    def call(url: str) -> None:
        try:
            httpx.get(f"{url}/v1/predictions", headers={"Authorization": "Bearer local"}, timeout=20)
        except httpx.HTTPError as exc:
            errors.append(exc)

    with run_emulator(EmulatorSettings(faults=path)) as emulator:
        caller = threading.Thread(target=call, args=(emulator.url,))
        caller.start()
        while emulator.ledger()["lists"] == 0:
            time.sleep(0.01)
    caller.join(15)  # less than what the caller would wait for an answer
    assert isinstance(errors[0], (httpx.ReadError, httpx.RemoteProtocolError))


# The plan itself

WRONG = [
    pytest.param("[[rules]]\n", "rule 1: Unable to extract tag using discriminator 'do'", id="no-do"),
    pytest.param('[[rules]]\ndo = "explode"\n', "rule 1: Input tag 'explode' found using 'do'", id="unknown-do"),
    pytest.param('[[rules]]\ndo = "fail"\n', "rule 1 (fail): error: Field required", id="missing"),
    pytest.param('[[rules]]\ndo = "abort"\nwhen = 3\n', "rule 1 (abort): when: Extra inputs", id="unknown-key"),
    pytest.param('[[rules]]\ndo = "refuse"\n', "rule 1 (refuse): on: Field required", id="no-on"),
    pytest.param('[[rules]]\ndo = "abort"\non = "poll"\n', "rule 1 (abort): on: Input should be 'create'", id="on"),
    pytest.param(
        '[[rules]]\ndo = "abort"\nnth_create = 0\n', "rule 1 (abort): nth_create: Value error, not a number", id="zero"
    ),
    pytest.param(
        '[[rules]]\ndo = "abort"\nprompt_regex = "("\n', "prompt_regex: Value error, not a regular", id="regex"
    ),
    pytest.param('[[rules]]\ndo = "abort"\ntimes = "3"\n', "rule 1 (abort): times", id="times"),
    pytest.param('[[rules]]\ndo = "truncate"\npart = 1.5\n', "part: Input should be less than 1", id="part"),
    pytest.param(
        '[[rules]]\non = "create"\ndo = "refuse"\nnth_poll = 1\n', 'nth_poll needs on = "poll"', id="nth-poll"
    ),
    pytest.param(
        '[[rules]]\non = "list"\ndo = "refuse"\nmodel = "a/b"\n', "only times can be given", id="list-of-one-model"
    ),
    pytest.param('[[rules]]\ndo = "show"\n', "rule 1 (show): Value error, nothing to show", id="show-nothing"),
    pytest.param('[[rules]]\ndo = "show"\njson_text = "["\n', "json_text: not JSON", id="show-no-json"),
    pytest.param('[[rules]]\ndo = "show"\njson_text = "[]"\n', "json_text: not a JSON object", id="show-no-object"),
    pytest.param('[[rules]]\ndo = "show"\nfields = { at = 2026-01-01 }\n', "fields: ", id="show-a-date"),
    pytest.param('[[rules]]\ndo = "accept_late"\nseconds = -1\n', "rule 1 (accept_late): seconds", id="early"),
    pytest.param("rules = 3\n", "rules: Input should be a valid list", id="no-list"),
    pytest.param("[[rules\n", "not TOML", id="no-toml"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_wrong_plan_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """The message names the file, the rule and the key."""
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(FaultPlanError) as caught:
        load_fault_plan(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_every_problem_of_a_plan_is_named(tmp_path: Path) -> None:
    """One line each."""
    path = tmp_path / "plan.toml"
    path.write_text('[[rules]]\ndo = "fail"\n[[rules]]\ndo = "truncate"\npart = 2.0\ntimes = 0\n')
    with pytest.raises(FaultPlanError) as caught:
        create_emulator_app(EmulatorSettings(faults=path))
    lines = str(caught.value).splitlines()
    assert len(lines) >= 3
    assert all(line.startswith(f"{path}: rule ") for line in lines)


def test_a_missing_plan_is_refused(tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(FaultPlanError, match=r"nowhere\.toml: No such file"):
        load_fault_plan(tmp_path / "nowhere.toml")


def test_the_manual_knows_every_fault() -> None:
    """README.md names each `do` and each key, and its example is a valid plan."""
    manual = (Path(plan.__file__).parents[1] / "README.md").read_text("utf-8")
    for rule in plan.BaseRule.__subclasses__():
        (name,) = rule.model_fields["do"].annotation.__args__  # type: ignore[union-attr]
        assert f"`{name}`" in manual
        for key in rule.model_fields.keys() - {"do"}:
            assert f"`{key}`" in manual
