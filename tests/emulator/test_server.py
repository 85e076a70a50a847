"""Running the emulator: start, stop, die with the parent, stay responsive."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from videogen.emulator import EmulatorSettings, running, serve

SCRIPT = """
import sys
from videogen.emulator import EmulatorSettings, serve
settings = EmulatorSettings.model_validate_json(sys.argv[1])
serve(settings, on_ready=lambda url: print(url, flush=True), exit_with_parent=len(sys.argv) > 2)
"""


@pytest.fixture
def spawn() -> Iterator[Any]:
    """Start a server in a process of its own; the result has the process and its address."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str, **settings: Any) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", SCRIPT, EmulatorSettings(**settings).model_dump_json(), *args]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def test_it_dies_with_its_parent(spawn: Any) -> None:
    """When standard input ends it shuts down by itself, in silence."""
    process, url = spawn("exit-with-parent")
    assert httpx.get(f"{url}/_emulator/ledger", trust_env=False, verify=False).status_code == 200
    process.stdin.close()
    assert process.wait(5) == 0
    assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("number", "codes"),
    [pytest.param(signal.SIGINT, {0}, id="ctrl-c"), pytest.param(signal.SIGTERM, {0, -signal.SIGTERM}, id="term")],
)
def test_a_signal_ends_it_quickly(spawn: Any, number: signal.Signals, codes: set[int]) -> None:
    """Within two seconds and without a traceback, even with predictions running and a create held."""
    process, url = spawn(mode="smooth", latency_s=(30, 30))
    body = {"input": {"prompt": "x", "duration": 10}}
    headers = {"Authorization": "Bearer local"}
    endpoint = f"{url}/v1/models/kwaivgi/kling-v2.5-turbo-pro/predictions"
    assert httpx.post(endpoint, json=body, headers=headers, trust_env=False, verify=False).status_code == 201
    with pytest.raises(httpx.TimeoutException):
        httpx.post(
            endpoint, json=body, headers=headers | {"Prefer": "wait"}, trust_env=False, verify=False, timeout=0.5
        )
    begin = time.monotonic()
    process.send_signal(number)
    assert process.wait(5) in codes
    assert time.monotonic() - begin < 2
    assert "Traceback" not in process.stderr.read()


def test_polls_are_answered_while_it_renders(spawn: Any) -> None:
    """The event loop stays free: half of the polls within 30 ms, none above half a second."""
    _process, url = spawn(mode="smooth", latency_s=(0, 0))
    with httpx.Client(base_url=url, headers={"Authorization": "Bearer local"}, trust_env=False, verify=False) as http:
        for prompt in "ab":
            http.post("/v1/models/google/veo-3.1/predictions", json={"input": {"prompt": prompt, "duration": 4}})
        waits = []
        for _ in range(60):
            begin = time.monotonic()
            listed = http.get("/v1/predictions").json()["results"]
            waits.append(time.monotonic() - begin)
            time.sleep(0.02)
        assert {row["status"] for row in listed} == {"processing"}
    assert sorted(waits)[30] < 0.03
    assert max(waits) < 0.5


def test_a_taken_port_is_an_error_at_once() -> None:
    """OSError, before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        serve(EmulatorSettings(port=taken.getsockname()[1]))


def test_it_runs_in_a_thread() -> None:
    """`running` gives the address and the ledger, and is gone afterwards."""
    with running(EmulatorSettings()) as emulator:
        assert emulator.ledger()["creates"] == 0
        emulator.reset()
    with pytest.raises(httpx.ConnectError):
        emulator.ledger()


def test_importing_it_loads_no_codec() -> None:
    """PyAV is loaded by the first render."""
    code = "import sys, videogen.emulator; print('av' in sys.modules, 'prefect' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False False\n"


@pytest.mark.parametrize(
    "settings",
    [{"latency_s": (2, 1)}, {"latency_s": (-1, 1)}, {"burst": 3}, {"time_scale": -1}, {"unknown": 1}],
    ids=["backwards", "negative", "burst-alone", "negative-scale", "unknown"],
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    """With a ValueError that names the setting."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        EmulatorSettings(**settings)
