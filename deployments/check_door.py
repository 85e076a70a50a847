"""Refuse a Prefect server that accepts calls without a password: `python deployments/check_door.py`.

A client that may create flow runs can run any command on a worker and read the token there. Prefect's server has no
password by default, and accepts calls of every web page that is open in a browser on this machine.
"""

import os
import sys

import httpx

ADVICE = """\
error: the Prefect server at {api} accepts calls from everybody who can reach it, and from every web page that is open
in a browser on its machine: they could run commands on your workers and read the token there.
Start it with a password, and give the same one to workers and to this command:
  export PREFECT_API_AUTH_STRING="videogen:$(openssl rand -hex 16)"
  PREFECT_SERVER_API_AUTH_STRING=$PREFECT_API_AUTH_STRING prefect server start --host 127.0.0.1"""


def is_open(api: str) -> bool:
    """Return whether the server answers a call that carries no password."""
    return httpx.post(f"{api}/deployments/count", json={}, timeout=30).is_success


if __name__ == "__main__":
    address = os.environ["PREFECT_API_URL"]
    if is_open(address):
        sys.exit(ADVICE.format(api=address))
