"""Downloading outputs."""

from typing import Any

import httpx
import pytest

SMALL = {"prompt": "x", "resolution": "480p", "duration": 2}


@pytest.fixture(scope="module")
def output(client: Any) -> str:
    """The URL of a finished clip."""
    done = client.run("bytedance/seedance-1-pro", SMALL)
    return str(done["output"])


def fetch(url: str, method: str = "GET", **headers: str) -> httpx.Response:
    return httpx.request(method, url, headers=headers, trust_env=False, verify=False)


def test_an_output_needs_no_token(output: str) -> None:
    """A whole download has its length, type and tag, and says that ranges work."""
    answer = fetch(output)
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"]
    assert answer.content[4:8] == b"ftyp"


def test_a_download_can_be_resumed(output: str) -> None:
    """206 with the rest of the bytes; a stale tag gets the whole file, a range beyond the end 416."""
    whole = fetch(output)
    rest = fetch(output, Range="bytes=1000-")
    assert (rest.status_code, rest.content) == (206, whole.content[1000:])
    assert rest.headers["content-range"] == f"bytes 1000-{len(whole.content) - 1}/{len(whole.content)}"
    headers = {"Range": "bytes=1000-", "If-Range": whole.headers["etag"]}
    assert fetch(output, **headers).status_code == 206
    assert fetch(output, **headers | {"If-Range": '"other"'}).content == whole.content
    assert fetch(output, Range=f"bytes={len(whole.content)}-").status_code == 416


def test_head_tells_the_length(output: str) -> None:
    """Without sending the bytes."""
    answer = fetch(output, "HEAD")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 1000


def test_an_output_cannot_be_guessed(client: Any, output: str) -> None:
    """Every prediction has a path of its own, also where two share one render; anything else is 404."""
    other = client.run("bytedance/seedance-1-pro", SMALL)["output"]
    assert other != output
    assert fetch(other).content == fetch(output).content
    assert fetch(output.replace("/output.mp4", "x/output.mp4")).status_code == 404
