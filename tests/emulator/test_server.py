"""Running the emulator: start, stop, die with the parent, stay responsive."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from videogen.cli.main import main
from videogen.emulator import AddressError, EmulatorSettings, run_emulator, serve_emulator

SCRIPT = """
import sys
from videogen.emulator import EmulatorSettings, serve_emulator
settings = EmulatorSettings.model_validate_json(sys.argv[1])
serve_emulator(settings, on_ready=lambda url: print(url, flush=True), exit_with_parent=len(sys.argv) > 2)
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
    assert process.wait(250) == 0
    assert process.stderr.read() == ""


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("number", "codes"),
    [pytest.param(signal.SIGINT, {0}, id="ctrl-c"), pytest.param(signal.SIGTERM, {0, -signal.SIGTERM}, id="term")],
)
def test_a_signal_ends_it_quickly(spawn: Any, number: signal.Signals, codes: set[int]) -> None:
    """Without a traceback, and long before a prediction that is running and a create that is held come to their end."""
    process, url = spawn(mode="smooth", latency_s=(600, 600))
    body = {"input": {"prompt": "x", "duration": 10}}
    headers = {"Authorization": "Bearer local"}
    endpoint = f"{url}/v1/models/kwaivgi/kling-v2.5-turbo-pro/predictions"
    assert httpx.post(endpoint, json=body, headers=headers, trust_env=False, verify=False).status_code == 201
    with pytest.raises(httpx.TimeoutException):
        httpx.post(
            endpoint, json=body, headers=headers | {"Prefer": "wait"}, trust_env=False, verify=False, timeout=0.5
        )
    process.send_signal(number)
    assert process.wait(250) in codes
    assert "Traceback" not in process.stderr.read()


def test_polls_are_answered_while_it_renders(spawn: Any) -> None:
    """The event loop stays free: thirty polls are answered before the first of two clips is finished."""
    _process, url = spawn(mode="smooth", latency_s=(0, 0))
    with httpx.Client(base_url=url, headers={"Authorization": "Bearer local"}, trust_env=False, verify=False) as http:
        for prompt in "ab":
            http.post("/v1/models/google/veo-3.1/predictions", json={"input": {"prompt": prompt, "duration": 4}})
        for _ in range(30):
            listed = http.get("/v1/predictions").json()["results"]
        assert {row["status"] for row in listed} == {"processing"}


def test_a_taken_port_is_an_error_at_once() -> None:
    """The error, an OSError, names the port and a remedy before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError) as caught:
            serve_emulator(EmulatorSettings(port=port))
    assert isinstance(caught.value, OSError)
    said = f"the emulator cannot listen at 127.0.0.1:{port}: address already in use; give another --port, or"
    assert str(caught.value).startswith(said)


COMMANDS = [
    pytest.param(["--port", "TAKEN"], "127.0.0.1:TAKEN: address already in use; give another --port", id="port"),
    pytest.param(["--host", "192.0.2.7"], "192.0.2.7:8473: cannot assign requested address; give --host", id="host"),
    pytest.param(["--host", "no.invalid"], "at no.invalid:8473: ", id="host-name"),
    pytest.param(["--time-scale=-1"], "--time-scale: input should be greater than or equal to 0", id="time-scale"),
    pytest.param(["--port", "99999"], "--port: input should be less than or equal to 65535", id="port-number"),
    pytest.param(["--latency", "3:1"], "--latency: (3.0, 1.0) is not 0 <= low <= high", id="latency"),
    pytest.param(["--creates-per-minute", "0"], "--creates-per-minute: input should be greater than 0", id="creates"),
    pytest.param(["--faults", "no-plan.toml"], "no-plan.toml: No such file or directory", id="plan"),
]


@pytest.mark.parametrize(("arguments", "said"), COMMANDS)
def test_the_command_says_why_it_does_not_start(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """The message has problem, place and remedy without a traceback, and the exit code is that of invalid flags."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code = main(["emulator", *(each.replace("TAKEN", port) for each in arguments)])
    error = capsys.readouterr().err
    assert (code, error.startswith("error: ")) == (2, True)
    assert said.replace("TAKEN", port) in error
    assert "output" not in error


def test_every_answer_has_a_date(launch: Any, tmp_path: Path) -> None:
    """Refusals, downloads and faults have one, too. It is the time of creation, to the second."""
    path = tmp_path / "plan.toml"
    path.write_text('[[rules]]\non = "account"\ndo = "status"\nstatus = 502\nbody = "html"\n')
    client = launch(faults=path)
    done = client.run("bytedance/seedance-1-pro", {"prompt": "x", "resolution": "480p", "duration": 2})
    created = datetime.fromisoformat(done["created_at"])
    for url in (done["urls"]["get"], done["output"], "/v1/account", "/v1/nothing", "/v1/predictions/nope"):
        told = parsedate_to_datetime(client.http.get(url).headers["date"])
        assert timedelta(seconds=-1) < told - created < timedelta(minutes=1)


def test_the_clock_of_the_server_may_be_another(launch: Any) -> None:
    """Dates, timestamps and the list follow the server's own clock."""
    client = launch(clock_ahead_s=-3600, latency_s=(99, 99))
    begun = datetime.now(UTC)
    answer = client.post("google/veo-3.1", {"prompt": "x"}, Cancel_After="60s")
    created = datetime.fromisoformat(answer.json()["created_at"])
    assert timedelta(minutes=59) < begun - created < timedelta(minutes=61)
    assert abs(parsedate_to_datetime(answer.headers["date"]) - created) < timedelta(seconds=10)
    assert answer.headers.get_list("date") == [answer.headers["date"]]
    assert datetime.fromisoformat(answer.json()["deadline"]) - created == timedelta(seconds=60)
    for query, count in ({"created_after": created.isoformat()}, 1), ({"created_after": begun.isoformat()}, 0):
        assert len(client.http.get("/v1/predictions", params=query).json()["results"]) == count


def test_it_runs_in_a_thread() -> None:
    """`running` gives the address and the ledger, and is gone afterwards."""
    with run_emulator(EmulatorSettings()) as emulator:
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
