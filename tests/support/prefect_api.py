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
