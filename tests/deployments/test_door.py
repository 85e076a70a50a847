"""Who gets past the door of Prefect's server, as deployments start it and as a run starts its own."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.support.servers import free_port, prefect_server

ROOT = Path(__file__).parents[2]
PASSWORD = "videogen:open sesame"
pytestmark = pytest.mark.xdist_group("door")

FOREIGN = {"Origin": "https://evil.example"}
CALLS: list[tuple[str, str, Any]] = [
    ("POST", "flow_runs/filter", {}),
    ("POST", "deployments/filter", {}),
    ("POST", "flows/", {"name": "f"}),
    ("POST", "block_documents/filter", {}),
    ("GET", "admin/settings", None),
    ("GET", "openapi.json", None),
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API's address of a server that is started as `deployments/README.md` says."""
    port = free_port()
    settings = {
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
    }
    with prefect_server(tmp_path_factory.mktemp("door"), port, **settings) as (api, _):
        yield api


def call(api: str, method: str, path: str, **request: Any) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=30) as client:
        return client.request(method, f"{api}/{path}", **request)


@pytest.mark.long
@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_a_web_page_can_neither_read_nor_create(house: str, method: str, path: str, body: Any) -> None:
    """Without the password, whatever it says that it is and by whichever name it reaches the server."""
    for headers in (FOREIGN, {"Host": "evil.example"}, {**FOREIGN, "Authorization": "Basic b3BlbjpzZXNhbWU="}):
        answer = call(house, method, path, json=body, headers=headers)
        assert answer.status_code == 401, (headers, answer.text)
        assert answer.headers.get("access-control-allow-origin") is None
        assert (
            "www-authenticate" not in answer.headers
        )  # a browser would ask for it, and send it by itself from then on


@pytest.mark.long
@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_a_browser_does_not_let_a_foreign_page_send_the_password(house: str, method: str, path: str, body: Any) -> None:
    """Not even one that knows it: the question that a browser asks before is answered with no."""
    ask = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type"}
    assert call(house, "OPTIONS", path, headers=FOREIGN | ask).status_code == 400
    own = {"Origin": house.removesuffix("/api")}
    assert call(house, "OPTIONS", path, headers=own | ask).is_success


@pytest.mark.long
def test_who_has_the_password_is_let_in(house: str) -> None:
    """Workers, `set-up` and the page send it."""
    answer = call(house, "POST", "flow_runs/filter", json={}, auth=("videogen", "open sesame"))
    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.long
@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled"])
@pytest.mark.parametrize("protocol", [None, "prefect"])
async def test_no_socket_is_open_without_the_password(house: str, path: str, protocol: str | None) -> None:
    """Web pages may open sockets to everywhere: no browser asks anybody before."""
    address = f"{house.replace('http', 'ws', 1)}/{path}"
    protocols = [Subprotocol(protocol)] if protocol else None
    with pytest.raises((ConnectionClosed, InvalidStatus)):
        await listen(address, protocols)


async def listen(address: str, protocols: list[Subprotocol] | None) -> None:
    """Until the socket is closed."""
    async with asyncio.timeout(250), connect(address, subprotocols=protocols, proxy=None) as socket:
        await socket.send('{"type": "auth", "token": "guessed"}')
        while True:
            await socket.recv()


@pytest.mark.long
def test_set_up_refuses_a_server_that_takes_orders_from_everybody(prefect_api: str, house: str) -> None:
    """It says why, and how to start it; a server with a password is fine."""
    refused = door(prefect_api)
    assert refused.returncode == 1
    assert "accepts calls from everybody" in refused.stderr
    assert "PREFECT_SERVER_API_AUTH_STRING" in refused.stderr
    assert door(house).returncode == 0


@pytest.mark.long
def test_a_run_starts_a_server_of_its_own_with_a_password(tmp_path: Path) -> None:
    """That nobody else knows; the run itself sends it."""
    script = tmp_path / "run.py"
    script.write_text(OWN_SERVER, encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, script],
        env={**inherited, "PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["201", "401 None", "400"], done.stderr


OWN_SERVER = """
import asyncio
import os

import httpx

from videogen.flows.local_server import wait_until_server_ready, start_own_server


async def main():
    from prefect.client.orchestration import get_client

    start_own_server()
    await wait_until_server_ready()
    api = os.environ["PREFECT_API_URL"]
    async with get_client() as client:
        print((await client.request("POST", "/flows/", json={"name": "f"})).status_code)
    foreign = {"Origin": "https://evil.example"}
    with httpx.Client(trust_env=False, timeout=60) as stranger:
        read = stranger.post(f"{api}/flow_runs/filter", json={}, headers=foreign)
        print(read.status_code, read.headers.get("access-control-allow-origin"))
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        print(stranger.options(f"{api}/flows/", headers=foreign | ask).status_code)


asyncio.run(main())
"""


def door(api: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "deployments" / "check_door.py")]
    return subprocess.run(command, env={"PREFECT_API_URL": api}, check=False, capture_output=True, text=True)
