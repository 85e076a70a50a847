"""The life of a prediction as a caller sees it."""

import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import Any

import httpx
import pytest

from videogen.emulator.catalogue import MODELS
from videogen.emulator.settings import EmulatorSettings
from videogen.emulator.timing import draw_timing, format_timestamp

VEO, SEEDANCE = "google/veo-3.1", "bytedance/seedance-1-pro"
KLING_21, HAILUO = "kwaivgi/kling-v2.1", "minimax/hailuo-2.3"
SMALL = {"prompt": "x", "resolution": "480p", "duration": 2}
"""The cheapest clip to render (of Seedance)."""


def count_seconds(prediction: dict[str, Any], begin: str, end: str) -> float:
    """The time between two of a prediction's stamps."""
    first, last = (datetime.fromisoformat(prediction[name]) for name in (begin, end))
    return (last - first).total_seconds()


def test_a_prediction_goes_from_starting_to_succeeded(launch: Any) -> None:
    """All three statuses are seen in order, each with the fields that belong to it."""
    client = launch(queue_s=(0.3, 0.3), latency_s=(0.5, 0.5))
    created = client.create(SEEDANCE, SMALL)
    assert re.fullmatch(r"[a-z0-9]{26}", created["id"])
    assert (created["status"], created["output"], created["error"], created["logs"]) == ("starting", None, None, "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created["created_at"])
    assert set(created["urls"]) == {"get", "cancel", "stream", "web"}
    running = client.until(created["id"], {"processing"})
    assert "started_at" in running
    assert "completed_at" not in running
    done = client.until(created["id"], {"succeeded"})
    assert done["metrics"] == {
        "predict_time": 0.5,
        "total_time": 0.8,
        "video_output_count": 1,
        "video_output_duration_seconds": 2.0,
        "resolution_target": "480p",
    }
    assert re.fullmatch(r"\d{4}-.*\.\d{4,9}Z", done["completed_at"])
    assert "100%|" in done["logs"]
    assert done["output"].endswith("/output.mp4")
    assert done["data_removed"] is False


@pytest.mark.parametrize(
    ("epoch_ns", "digits", "text"),
    [
        (0, 3, "1970-01-01T00:00:00.000Z"),
        (1_500_000_000, 3, "1970-01-01T00:00:01.500Z"),
        (1_500_000_000, 9, "1970-01-01T00:00:01.5Z"),
        (1_000_000_007, 9, "1970-01-01T00:00:01.000000007Z"),
        (1_999_999_999, 3, "1970-01-01T00:00:01.999Z"),
    ],
)
def test_stamps_have_the_digits_of_the_live_api(epoch_ns: int, digits: int, text: str) -> None:
    """Milliseconds have three digits, nanoseconds lose their trailing zeros, and no time is rounded up."""
    assert format_timestamp(epoch_ns, digits=digits) == text


def test_progress_grows_in_the_logs(launch: Any) -> None:
    """While it runs each log continues the one before, and stays below 100 %. In the end every tenth was logged."""
    client = launch(latency_s=(1, 1))
    created = client.create(SEEDANCE, SMALL)
    logs = [""]
    while (prediction := client.get(created["id"]))["status"] != "succeeded":
        logs.append(prediction["logs"])
        time.sleep(0.05)
    assert all(later.startswith(earlier) for earlier, later in pairwise([*logs, prediction["logs"]]))
    assert len(set(logs)) > 2
    assert "100%" not in logs[-1]
    assert re.findall(r"(\d+)%", prediction["logs"]) == [str(tenth * 10) for tenth in range(1, 11)]


def test_predictions_finish_in_the_order_of_their_latencies(launch: Any) -> None:
    """Equal seeds give equal times and other seeds other ones. The metrics give the latency."""
    times = []
    for seed in (1, 1, 2):
        client = launch(seed=seed, latency_s=(0.0, 0.4))
        ids = [client.create(SEEDANCE, SMALL)["id"] for _ in range(4)]
        done = [client.until(prediction_id, {"succeeded"}) for prediction_id in ids]
        times.append([prediction["metrics"]["predict_time"] for prediction in done])
        by_end = sorted(range(4), key=lambda index, done=done: done[index]["completed_at"])  # type: ignore[misc]
        if min(abs(a - b) for a in times[-1] for b in times[-1] if a != b) > 0.05:
            assert by_end == sorted(range(4), key=times[-1].__getitem__)
    assert times[0] == times[1] != times[2]
    assert len(set(times[0])) == 4


def test_log_normal_times_lie_in_their_range_most_of_them_below_its_middle() -> None:
    """Of 1 to 3 s: no time is outside, the median is the geometric mean, and each create has its own time."""
    settings = EmulatorSettings(latency_s=(1, 3), latency_shape="log-normal")
    times = [draw_timing(MODELS[SEEDANCE], settings, nth=nth, cold=False).run_s for nth in range(1, 501)]
    assert all(1 <= time_s <= 3 for time_s in times)
    assert median(times) == pytest.approx(3**0.5, abs=0.1)
    assert len(set(times)) > 450


def test_time_scale_shortens_everything(launch: Any) -> None:
    """With a scale of 0.001 a model's own minutes pass in a moment; the metrics keep the simulated time."""
    client = launch(latency_s=None, queue_s=None, time_scale=0.001)
    done = client.run(VEO, {"prompt": "x", "duration": 4, "resolution": "720p"})
    assert 60 <= done["metrics"]["predict_time"] <= 180


def test_a_community_model_boots_once(launch: Any, picture: Callable[..., str]) -> None:
    """The first prediction of a community model waits for a cold start, the second does not."""
    client = launch(latency_s=None, queue_s=None, time_scale=0.01)
    model, inputs = "stability-ai/stable-video-diffusion", {"input_image": picture()}
    cold = client.create(model, inputs)
    time.sleep(0.5)
    warm = client.create(model, inputs)
    client.until(warm["id"], {"succeeded"})
    assert client.get(cold["id"])["status"] == "starting"


def test_prefer_wait_holds_the_create(launch: Any) -> None:
    """The answer is the finished prediction, and says that the preference was applied."""
    client = launch(latency_s=(0.3, 0.3))
    answer = client.post(SEEDANCE, SMALL, Prefer="wait")
    assert (answer.status_code, answer.json()["status"]) == (201, "succeeded")
    assert answer.headers["preference-applied"] == "wait"


def test_prefer_wait_gives_up_after_its_seconds(launch: Any) -> None:
    """`wait=1` answers `starting` after a second, though it runs: the clients wait on for nothing else."""
    client = launch(latency_s=(30, 30))
    answer = client.post(SEEDANCE, SMALL, Prefer="wait=1")
    told = answer.json()
    assert (answer.status_code, told["status"], told["logs"]) == (202, "starting", "")
    assert "started_at" not in told
    assert answer.headers["preference-applied"] == "wait=1"
    assert client.get(told["id"])["status"] == "processing"


def test_cancel_ends_a_running_prediction(launch: Any) -> None:
    """The answer to the cancel is the canceled prediction, which stays canceled."""
    client = launch(latency_s=(30, 30))
    created = client.create(SEEDANCE, SMALL)
    client.until(created["id"], {"processing"})
    answer = client.http.post(created["urls"]["cancel"])
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert answer.json()["output"] is None
    assert client.get(created["id"])["status"] == "canceled"


def test_cancel_after_the_end_changes_nothing(launch: Any) -> None:
    """A succeeded prediction stays succeeded and keeps its output."""
    client = launch()
    done = client.run(SEEDANCE, SMALL)
    answer = client.http.post(done["urls"]["cancel"]).json()
    assert (answer["status"], answer["output"]) == ("succeeded", done["output"])


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        pytest.param({"latency_s": (1000, 1000)}, "canceled", id="running"),
        pytest.param({"queue_s": (1000, 1000)}, "aborted", id="not-started"),
    ],
)
def test_a_deadline_ends_a_prediction(launch: Any, settings: dict[str, Any], status: str) -> None:
    """Cancel-After passes: canceled while running, aborted before the start."""
    client = launch(time_scale=0.05, **settings)
    created = client.create(SEEDANCE, SMALL, Cancel_After="10s")
    assert count_seconds(created, "created_at", "deadline") == pytest.approx(0.5, abs=0.002)
    ended = client.until(created["id"], {"canceled", "aborted"})
    assert ended["status"] == status
    assert count_seconds(ended, "created_at", "completed_at") == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [("5s", 5), ("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("1h1m1s", 3661), ("24h", 86400)],
)
def test_cancel_after_is_a_duration(slow: Any, text: str, expected_s: int) -> None:
    """Hours, minutes and seconds add up; a bare number is seconds."""
    created = slow.create(SEEDANCE, SMALL, Cancel_After=text)
    assert count_seconds(created, "created_at", "deadline") == expected_s


@pytest.mark.parametrize("text", ["4s", "25h", "", "soon", "1.5m", "-5s", "5m3h"])
def test_a_wrong_cancel_after_is_refused(client: Any, text: str) -> None:
    """422 and nothing is created."""
    before = client.ledger()["creates"]
    assert client.post(SEEDANCE, SMALL, Cancel_After=text).status_code == 422
    assert client.ledger()["creates"] == before


CROSS_FIELD = [
    pytest.param(HAILUO, {"resolution": "1080p", "duration": 10}, "1080p", id="hailuo-1080p-10s"),
    pytest.param(VEO, {"reference_images": ["REF"], "aspect_ratio": "9:16"}, "Reference images", id="veo-9:16"),
    pytest.param(VEO, {"reference_images": ["REF"], "duration": 6}, "Reference images", id="veo-6s"),
    pytest.param(KLING_21, {"start_image": "REF", "end_image": "REF"}, "pro mode", id="kling-end-image"),
]


@pytest.mark.parametrize(("model", "inputs", "said"), CROSS_FIELD)
def test_inputs_that_do_not_go_together_fail(
    client: Any, picture: Callable[..., str], model: str, inputs: dict[str, Any], said: str
) -> None:
    """Such rules surface as a failed prediction, not as 422, and cost nothing."""
    urls: dict[str, Any] = {"REF": picture()}
    given = {name: [urls["REF"]] if value == ["REF"] else urls.get(str(value), value) for name, value in inputs.items()}
    done = client.run(model, {"prompt": "x", **given})
    assert done["status"] == "failed"
    assert said in done["error"]
    assert done["output"] is None
    assert client.entry(done["id"])["billed"] == "0"


def test_veo_takes_reference_images(client: Any, picture: Callable[..., str]) -> None:
    """With 16:9 and 8 s they are fine."""
    done = client.run(VEO, {"prompt": "x", "reference_images": [picture()] * 3, "resolution": "720p"})
    assert done["status"] == "succeeded"


@pytest.fixture
def site(picture: Callable[..., str]) -> Iterator[str]:
    """A loopback web server that has one picture and one page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = httpx.Response(200).content
            if self.path == "/frame.png":
                import base64

                body = base64.b64decode(picture((200, 100)).partition(",")[2])
            elif self.path == "/page.html":
                body = b"<html>no picture</html>"
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_start_image_is_fetched(client: Any, site: str) -> None:
    """An http URL on loopback is good enough."""
    done = client.run(KLING_21, {"prompt": "x", "start_image": f"{site}/frame.png"})
    assert done["status"] == "succeeded"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param("SITE/page.html", "cannot identify image file", id="html"),
        pytest.param("SITE/missing.png", "404 Client Error", id="404"),
        pytest.param("http://192.0.2.1/a.png", "not supported", id="plain-http"),
        pytest.param("ftp://192.0.2.1/a.png", "not supported", id="ftp"),
        pytest.param("http://127.0.0.1:9/a.png", "ConnectError", id="refused"),
        pytest.param("data:image/png;base64,iVBORw0KGgo=", "cannot identify image file", id="cut-png"),
        pytest.param("data:image/png;base64,A", "invalid base64", id="bad-base64"),
        pytest.param("https://api.replicate.com/v1/files/unknown", "404 Client Error", id="unknown-upload"),
    ],
)
def test_an_image_that_cannot_be_read_fails_the_prediction(client: Any, site: str, url: str, said: str) -> None:
    """The create is accepted, and the prediction's error gives the reason."""
    done = client.run(KLING_21, {"prompt": "x", "start_image": url.replace("SITE", site)})
    assert (done["status"], done["output"]) == ("failed", None)
    assert said in done["error"]


def test_data_is_removed_after_a_while(launch: Any) -> None:
    """Input, output and logs are removed, the prediction remains and says so, and the file is a 404."""
    client = launch(output_ttl_s=1)
    done = client.run(SEEDANCE, SMALL)
    assert httpx.get(done["output"], trust_env=False, verify=False).status_code == 200
    time.sleep(1.1)
    gone = client.get(done["id"])
    assert (gone["status"], gone["data_removed"]) == ("succeeded", True)
    assert (gone["output"], gone["input"], gone["logs"]) == (None, {}, "")
    assert httpx.get(done["output"], trust_env=False, verify=False).status_code == 404


def test_an_unknown_prediction_is_not_found(client: Any) -> None:
    """GET and cancel answer 404 with the API's body."""
    for answer in (client.http.get("/v1/predictions/nope"), client.http.post("/v1/predictions/nope/cancel")):
        assert (answer.status_code, answer.json()["status"]) == (404, 404)
