"""Who may look at runs, and from where."""

from collections.abc import Iterator

import pytest

from tests.gateway.conftest import Shown, watching

TOKEN = "correct-horse"


@pytest.fixture(scope="module")
def gateway_with_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    with watching(tmp_path_factory.mktemp("guarded") / "out", token=TOKEN) as gateway:
        gateway.begin("r1", "a")
        yield gateway


@pytest.fixture
def guarded(gateway_with_token: Shown) -> Shown:
    """A gateway with a token, and a run in its journal; its client has no cookies yet."""
    gateway_with_token.http.cookies.clear()
    return gateway_with_token


@pytest.mark.long_variants
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8474", "10.0.0.1", ""])
def test_another_name_for_this_machine_is_refused(finished: Shown, host: str) -> None:
    """A page elsewhere whose name was made to point here (DNS rebinding) reads nothing."""
    assert finished.http.get("/runs", headers={"Host": host}).status_code == 421


@pytest.mark.long_variants
@pytest.mark.parametrize("host", ["localhost:8474", "127.0.0.1", "[::1]:8474", "LOCALHOST"])
def test_this_machine_has_several_names(finished: Shown, host: str) -> None:
    assert finished.http.get("/runs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "address",
    ["/", "/page.js", "/models", "/runs", "/runs/r1", "/runs/r1/events", "/runs/r1/clips/a.mp4", "/openapi.json"],
)
def test_nothing_is_shown_without_the_token(guarded: Shown, address: str) -> None:
    refused = guarded.http.get(address)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert "set-cookie" not in refused.headers


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
def test_another_token_is_refused(guarded: Shown, given: str) -> None:
    assert guarded.http.get("/runs", headers={"Authorization": given}).status_code == 401
    assert guarded.http.get("/?token=wrong").status_code == 401
    assert guarded.http.get("/runs", headers={"Cookie": "videogen_gateway=wrong"}).status_code == 401


def test_the_token_opens_everything(guarded: Shown) -> None:
    assert guarded.get("/runs", Authorization=f"Bearer {TOKEN}")["runs"][0]["run_id"] == "r1"


def test_the_address_with_the_token_opens_the_page_and_what_it_loads(guarded: Shown) -> None:
    """By a cookie that scripts cannot read, that no other site's page sends, and that is not the token."""
    page = guarded.http.get(f"/?token={TOKEN}&run=r1")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    cookie = page.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert [guarded.http.get(address).status_code for address in ("/", "/page.js", "/runs/r1")] == [200, 200, 200]


def test_the_token_is_taken_in_the_address_of_the_page_alone(guarded: Shown) -> None:
    assert guarded.http.get(f"/runs?token={TOKEN}").status_code == 401


def test_with_a_token_any_name_will_do(guarded: Shown) -> None:
    """So that a proxy may stand before it; a rebound page has no cookie."""
    headers = {"Host": "films.example", "Authorization": f"Bearer {TOKEN}"}
    assert guarded.http.get("/runs", headers=headers).status_code == 200


@pytest.mark.parametrize("address", ["/", "/runs", "/none", "/style.css"])
def test_every_answer_says_what_a_browser_may_do_with_it(finished: Shown, address: str) -> None:
    headers = finished.http.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers
