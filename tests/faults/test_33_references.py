"""References that point into our own network, through the whole of `prepare`, with a server there that waits for it.

How each is found out is in tests/references/test_fetch.py.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.faults.conftest import Change, Stage
from tests.references.conftest import NOT_FETCHED, PRIVATE_HOSTS, PUBLIC
from tests.support.fakes import Names
from tests.support.servers import Canary, canary_with
from videogen.app import prepare_job
from videogen.errors import ValidationError
from videogen.execution.options import PreparedJob
from videogen.job.model import Job
from videogen.references.fetch import load_references

ENDINGS = "not a public address|not a valid URL|is not known|URLs are not fetched|with a password"


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (128, 72), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def canary() -> Iterator[Canary]:
    with canary_with(picture()) as canary:
        yield canary


async def prepared(stage: Stage, *sources: str) -> PreparedJob:
    """A job of one scene for each reference, the odd ones with it as a character."""
    scenes = [
        {"id": f"s{n}", "prompt": "p", "target_duration": 2}
        | ({"character_reference_urls": [source]} if n % 2 else {"scene_reference_url": source})
        for n, source in enumerate(sources)
    ]
    return await prepare_job(Job.model_validate({"model": "quick", "scenes": scenes}), stage.options)


async def test_33_the_canary_would_notice(stage: Stage, canary: Canary, defaults: Change) -> None:
    """With leave to go inside, the same job fetches its reference there: the zeros below mean something."""
    defaults(load_references, allow_private=True)
    assert len((await prepared(stage, f"http://127.0.0.1:{canary.port}/")).references) == 1
    assert canary.hits == 1


async def test_33_no_spelling_of_an_inside_address_is_connected_to(stage: Stage, canary: Canary) -> None:
    """All are refused at once, each under its place in the job, by every scheme, with nobody asked."""
    sources = [f"{scheme}://{host}:{canary.port}/a.png" for scheme in ("https", "http") for host in PRIVATE_HOSTS]
    sources += [*NOT_FETCHED, f"https://keeper:secret@127.0.0.1:{canary.port}/"]
    with pytest.raises(ValidationError) as caught:
        await prepared(stage, *sources)
    problems = {problem.where: problem.message for problem in caught.value.problems}
    fields = ("scene_reference_url", "character_reference_urls.0")
    assert list(problems) == [f"scenes.{n}.{fields[n % 2]}" for n in range(len(sources))]
    assert [message for message in problems.values() if not any(end in message for end in ENDINGS.split("|"))] == []
    assert canary.hits == 0


class Internet(httpx.AsyncBaseTransport):
    """One public address, which answers; every other one is connected to for good."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer, self.real = answer, httpx.AsyncHTTPTransport(verify=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.answer if request.url.host == PUBLIC else await self.real.handle_async_request(request)


async def test_33_a_public_host_cannot_redirect_inside(stage: Stage, canary: Canary, defaults: Change) -> None:
    """Neither by an address nor back to http."""
    for target in (f"https://127.0.0.1:{canary.port}/", f"http://localhost:{canary.port}/", "file:///etc/passwd"):
        away = Internet(httpx.Response(302, headers={"Location": target}))
        defaults(load_references, transport=away)
        with pytest.raises(ValidationError, match=r"not a public address|URLs are not fetched"):
            await prepared(stage, f"https://{PUBLIC}/a.png")
    assert canary.hits == 0


async def test_33_a_name_that_moves_inside_is_fetched_where_it_was_checked(
    stage: Stage, canary: Canary, defaults: Change
) -> None:
    """DNS that says something else the second time is not asked a second time."""
    names = Names([PUBLIC], ["127.0.0.1"])
    defaults(load_references, resolve=names, transport=Internet(httpx.Response(200, content=picture())))
    assert len((await prepared(stage, f"https://pictures.example:{canary.port}/a.png")).references) == 1
    assert (len(names.asked), canary.hits) == (1, 0)


async def test_33_a_path_cannot_leave_by_a_link(stage: Stage, tmp_path: Path) -> None:
    """Nor is a special file read."""
    (tmp_path / "job").mkdir()
    (tmp_path / "secret.png").write_bytes(picture())
    (tmp_path / "job" / "a.png").symlink_to(tmp_path / "secret.png")
    job = Job.model_validate(
        {"model": "quick", "scenes": [{"id": "a", "prompt": "p", "target_duration": 2, "scene_reference_url": "a.png"}]}
    )
    with pytest.raises(ValidationError, match="symbolic link that leads out"):
        await prepare_job(job, stage.options.model_copy(update={"folder": str(tmp_path / "job")}))
