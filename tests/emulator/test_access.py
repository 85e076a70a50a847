"""Tokens, rate limits, uploads and the small routes."""

import hashlib
import re
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

SEEDANCE = "bytedance/seedance-1-pro"
SMALL = {"prompt": "x", "resolution": "480p", "duration": 2}


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", "Bearer", "Basic r8_x", ""], ids=["none", "wrong", "empty", "basic", "blank"]
)
def test_a_wrong_token_is_refused(client: Any, header: str | None) -> None:
    """Every route of the API answers 401 with the live API's body."""
    headers = {} if header is None else {"Authorization": header}
    for method, path in (
        ("POST", f"/v1/models/{SEEDANCE}/predictions"),
        ("POST", "/v1/predictions"),
        ("GET", "/v1/predictions"),
        ("GET", "/v1/account"),
    ):
        answer = httpx.request(method, f"{client.http.base_url}{path}", headers=headers, trust_env=False, verify=False)
        assert answer.status_code == 401
        assert answer.json() == {
            "title": "Unauthenticated",
            "detail": "You did not pass a valid authentication token",
            "status": 401,
        }


@pytest.mark.parametrize(
    ("tokens", "token", "status"),
    [
        pytest.param(None, "local", 200, id="local"),
        pytest.param(None, "r8_anything", 200, id="r8"),
        pytest.param(["only"], "only", 200, id="listed"),
        pytest.param(["only"], "r8_anything", 401, id="not-listed"),
    ],
)
def test_tokens_can_be_listed(launch: Any, tokens: list[str] | None, token: str, status: int) -> None:
    """Without a list, `local` and `r8_…` are accepted. With a list, only its tokens are."""
    client = launch(tokens=tokens)
    answer = client.http.get("/v1/account", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == status


def test_creates_are_limited(launch: Any) -> None:
    """Beyond the burst, a 429 gives the wait in header and body and creates nothing. Later creates succeed."""
    client = launch(creates_per_minute=6, burst=1, time_scale=0.1, latency_s=(999, 999))
    client.create(SEEDANCE, SMALL)
    answer = client.post(SEEDANCE, SMALL)
    assert answer.status_code == 429
    assert answer.json() == {
        "detail": "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute "
        "with a burst of 1 requests while you have less than $5.0 in credit. Your rate limit resets in ~1s.",
        "status": 429,
        "retry_after": 1,
    }
    assert (answer.headers["retry-after"], answer.headers["ratelimit-remaining"]) == ("1", "0")
    assert client.ledger()["creates"] == 1
    time.sleep(1.05)
    client.create(SEEDANCE, SMALL)


def test_only_creates_are_limited(launch: Any) -> None:
    """Polling and listing go on."""
    client = launch(creates_per_minute=1)
    done = client.run(SEEDANCE, SMALL)
    assert client.post(SEEDANCE, SMALL).status_code == 429
    assert client.get(done["id"])["status"] == "succeeded"
    assert client.http.get("/v1/predictions").status_code == 200


def test_an_upload_can_be_used_as_input(launch: Any, picture: Callable[..., str]) -> None:
    """POST /v1/files answers the file object; its URL works as an image, its bytes can be read back."""
    import base64

    client = launch()
    content = base64.b64decode(picture().partition(",")[2])
    answer = client.http.post("/v1/files", files={"content": ("frame.png", content, "image/png")})
    assert answer.status_code == 201
    file = answer.json()
    assert (file["name"], file["content_type"], file["size"]) == ("frame.png", "image/png", len(content))
    assert file["checksums"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert file["etag"] == file["checksums"]["md5"] == hashlib.md5(content).hexdigest()
    assert client.http.get(file["urls"]["get"]).json() == file
    assert client.http.get(file["urls"]["get"] + "/download").content == content
    assert client.ledger()["uploads"] == 1
    done = client.run("kwaivgi/kling-v2.1", {"prompt": "x", "start_image": file["urls"]["get"]})
    assert done["status"] == "succeeded"


def test_an_upload_without_content_is_refused(client: Any) -> None:
    """The part must be called `content`; an unknown file is 404."""
    assert client.http.post("/v1/files", files={"file": b"x"}).status_code == 400
    assert client.http.get("/v1/files/nope").status_code == 404


def test_a_huge_upload_is_refused(client: Any) -> None:
    """413 before the body is read."""
    address = urlsplit(str(client.http.base_url))
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer local\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {101 * 1024 * 1024}\r\n\r\n"
    )
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=5) as sock:
        sock.sendall(head.encode())
        assert b" 413 " in sock.recv(4096).split(b"\r\n")[0]


def test_the_account_and_the_webhook_secret_are_there(client: Any) -> None:
    """Both have the shape of the live API's."""
    assert client.http.get("/v1/account").json()["type"] == "user"
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{32}", client.http.get("/v1/webhooks/default/secret").json()["key"])


def test_uploads_are_listed_and_deleted(launch: Any) -> None:
    """The list shows files newest first with their metadata. Deleted files are gone."""
    client = launch()
    metadata = {"metadata": ("", '{"scene": 3}', "application/json")}
    made = [
        client.http.post("/v1/files", files={"content": ("a.txt", b"a", "text/plain")} | metadata).json(),
        client.http.post("/v1/files", files={"content": ("b.txt", b"b", "text/plain")}).json(),
    ]
    assert [file["metadata"] for file in made] == [{"scene": 3}, {}]
    body = client.http.get("/v1/files").json()
    assert body == {"next": None, "previous": None, "results": made[::-1]}
    assert client.http.delete(f"/v1/files/{made[0]['id']}").status_code == 204
    assert client.http.get("/v1/files").json()["results"] == made[1:]
    for method in ("GET", "DELETE"):
        assert client.http.request(method, f"/v1/files/{made[0]['id']}").status_code == 404


UNKNOWN_PATHS = [
    pytest.param("GET", "/v1/nothing", 404, "", id="nothing"),
    pytest.param("GET", "/v1/prediction", 404, "did you mean GET /v1/predictions?", id="singular"),
    pytest.param("GET", "/predictions", 404, "did you mean GET /v1/predictions?", id="without-v1"),
    pytest.param("POST", "/v1/v1/predictions", 404, "did you mean POST /v1/predictions?", id="v1-twice"),
    pytest.param("GET", "/v1/predictions/", 404, "did you mean GET /v1/predictions?", id="slash"),
    pytest.param(
        "GET", "/v1/models/a/b/version", 404, "did you mean GET /v1/models/{owner}/{name}/versions?", id="models"
    ),
    pytest.param("POST", "/v1/deployments/a/b/predictions", 404, "", id="deployments"),
    pytest.param("POST", "/v1/trainings", 404, "", id="trainings"),
    pytest.param("DELETE", "/v1/predictions", 405, "", id="method"),
    pytest.param("GET", "/", 404, "", id="root"),
]


@pytest.mark.parametrize(("method", "path", "status", "said"), UNKNOWN_PATHS)
def test_a_path_that_is_not_emulated_is_told_with_those_that_are(
    client: Any, method: str, path: str, status: int, said: str
) -> None:
    """404 and 405 have the live API's format and name the request, the closest route and all routes."""
    answer = client.http.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json().keys() == {"detail", "status"}
    detail = answer.json()["detail"]
    assert f"The emulator does not know {method} {path}" in detail
    assert said in detail
    assert ("did you mean" in detail) == bool(said)
    assert "POST /v1/models/{owner}/{name}/predictions" in detail
    assert "_emulator" not in detail


def test_what_is_not_there_any_more_is_told_in_the_live_words_alone(client: Any) -> None:
    """The 404 of a missing prediction or file has no hint."""
    for path in ("/v1/predictions/nope", "/v1/files/nope", "/files/nope/output.mp4"):
        body = client.http.get(path).json()
        assert body == {"detail": "The requested resource could not be found.", "status": 404}
