"""Calls of the API of a Prefect server."""

import time
from typing import Any

import httpx

BUSY = 503
"""Prefect's answer while another connection writes to its SQLite database."""


def call_prefect(method: str, address: str, body: Any = None) -> Any:
    """Return the JSON that Prefect answers, or None if it answers nothing.

    While it is busy, ask again, as Prefect's own client does.
    """
    while (answer := httpx.request(method, address, json=body, trust_env=False, timeout=250)).status_code == BUSY:
        time.sleep(0.5)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def find_deployment(api: str, name: str) -> dict[str, Any] | None:
    """Return the deployment of this name, of whichever flow; None if there is none."""
    found = call_prefect("POST", f"{api}/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    return found[0] if found else None


def find_runs(api: str, deployment: str) -> list[dict[str, Any]]:
    """Return the flow runs of the deployment of this id, the earliest first."""
    body = {"deployments": {"id": {"any_": [deployment]}}, "sort": "START_TIME_ASC"}
    found: list[dict[str, Any]] = call_prefect("POST", f"{api}/flow_runs/filter", body)
    return found
