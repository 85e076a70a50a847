"""A job by the address of its file: what deployments pass on."""

import asyncio
import traceback
from pathlib import Path

import pytest

from tests.support.servers import Bucket, Loopback, answer
from videogen.app import prepare_job
from videogen.errors import InvalidError, ValidationError
from videogen.execution.options import RunOptions
from videogen.storage.job_files import MAX_BYTES, read_job_at

pytestmark = pytest.mark.integration

JOB = '[[scenes]]\nid = "a"\nprompt = "A lighthouse"\ntarget_duration = 5\n'


async def test_a_job_is_read_from_a_path_a_server_or_a_bucket(tmp_path: Path, bucket: Bucket) -> None:
    """The same job, named after its file."""
    (tmp_path / "film.toml").write_text(JOB)
    bucket.write("jobs/film.toml", JOB.encode())
    async with Loopback(answer(200, JOB.encode())) as server:
        addresses = (
            str(tmp_path / "film.toml"),
            f"{server.url}/jobs/film.toml?v=2",
            f"{bucket.address}/jobs/film.toml",
        )
        jobs = [await asyncio.to_thread(read_job_at, address) for address in addresses]
    assert jobs[0] == jobs[1] == jobs[2]
    assert (jobs[0].id, jobs[0].scenes[0].prompt) == ("film", "A lighthouse")


async def test_a_job_that_is_not_there_is_said_to_be_missing_with_its_address(tmp_path: Path, bucket: Bucket) -> None:
    """By every kind of address; an answer without end is cut."""
    too_much = JOB.encode() + b"#" * MAX_BYTES
    async with Loopback(answer(404, b""), answer(200, too_much), answer(200, b"\xff\xfe")) as server:
        for address, reason in (
            (str(tmp_path / "none.toml"), "none.toml"),
            (f"{server.url}/none.toml", "404"),
            (f"{server.url}/endless.toml", "larger than"),
            (f"{server.url}/bytes.toml", "decode"),
            ("http://127.0.0.1:9/none.toml", "127.0.0.1:9"),
            (f"{bucket.address}/none.toml", "no such object"),
        ):
            with pytest.raises(ValidationError, match=reason):
                await asyncio.to_thread(read_job_at, address)


@pytest.mark.parametrize(
    "address",
    [
        "http://me:hidden@127.0.0.1:9/none.toml?sig=hidden",
        "http://me:hidden@127.0.0.1:x/none.toml",
        "http://127.0.0.1:9/?sig=hidden",
        "ftp://me:hidden@127.0.0.1/jobs/none.toml?sig=hidden",
        "s3://me:hidden@bucket/../none.toml",
    ],
)
async def test_a_secret_in_an_address_is_not_shown(address: str) -> None:
    with pytest.raises(InvalidError) as refused:
        await asyncio.to_thread(read_job_at, address)
    assert "hidden" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("path", ["", "jobs/..", "jobs/.", "jobs/", "x" * 300 + ".toml", "a\\b.toml", "?v=2"])
async def test_an_address_that_names_no_file_is_said(path: str) -> None:
    """Before it is asked for."""
    with pytest.raises(ValidationError, match=r"does not end in the name of a job file, such as film\.toml"):
        await asyncio.to_thread(read_job_at, f"s3://bucket/{path}" if path else "s3://")


async def test_a_wrong_job_file_is_answered_with_its_lines(tmp_path: Path) -> None:
    async with Loopback(answer(200, JOB.replace("5", "-5").encode())) as server:
        with pytest.raises(ValidationError, match=r"film\.toml:4:"):
            await asyncio.to_thread(read_job_at, f"{server.url}/film.toml")


async def test_pictures_of_a_job_file_are_looked_for_beside_it(tmp_path: Path) -> None:
    """Wherever the worker's own folder is."""
    (tmp_path / "film.toml").write_text(JOB + 'scene_reference_url = "missing.png"\n')
    with pytest.raises(ValidationError, match=r"missing\.png"):
        await prepare_job(str(tmp_path / "film.toml"), RunOptions(out=str(tmp_path), provider="local"))
    source = Path("examples/references/lighthouse.jpg")
    (tmp_path / "missing.png").write_bytes(source.read_bytes())
    prepared = await prepare_job(str(tmp_path / "film.toml"), RunOptions(out=str(tmp_path), provider="local"))
    assert set(prepared.references) == {"missing.png"}
