"""Outputs that are gone, cut, damaged, of the wrong length, or without end; answers that do not come; enough clips."""

from pathlib import Path

import pytest

from tests.faults.conftest import PRICE, PROMPT, Change, Stage, code, only
from tests.support.tokens import TOKEN
from videogen.errors import StorageError
from videogen.media import inspect_video
from videogen.providers.replicate import Limits, ReplicateProvider
from videogen.storage.local import FileStore

MEGABYTE = 1024**2


def size_of_the_clip(stage: Stage) -> int:
    (path,) = stage.job_folder.glob("clips/*.mp4")
    inspect_video(path)
    return path.stat().st_size


@pytest.mark.parametrize("status", [403, 404])
async def test_15_an_output_that_is_refused_once_is_fetched_from_a_fresh_address(stage: Stage, status: int) -> None:
    """Asked for again, not made again: it is paid for."""
    stage.emulate(f'on = "download"\ndo = "status"\nstatus = {status}')
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts) == ("success", 1)
    stage.books(creates=1, billed=1)


@pytest.mark.long_variants
@pytest.mark.parametrize("rule", ['do = "expire"', 'on = "download"\ndo = "expire"'])
async def test_15_an_output_whose_data_is_gone_has_expired(stage: Stage, rule: str) -> None:
    """Under its own code; only another attempt can bring the clip."""
    stage.emulate(rule, rule)
    assert code(only(await stage.shoot(attempts=1))) == "expired"
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts, clip.cost) == ("success", 2, 2 * PRICE)
    stage.books(creates=3, billed=3)


@pytest.mark.long_variants
@pytest.mark.parametrize("status", [403, 404, 410])
async def test_15_38_an_address_that_stays_refused_is_left_for_the_next_run(stage: Stage, status: int) -> None:
    """The provider says that it has the data: it is paid for, asked for again for a while, and never made again."""
    stage.emulate(f'on = "download"\ndo = "status"\nstatus = {status}\ntimes = 40')
    assert code(only(await stage.shoot())) == "unreachable"
    for _ in range(10):
        clip = only(await stage.shoot())
        if clip.status == "success":
            break
    assert stage.books(creates=1, billed=1)["faults"] == [40]


@pytest.mark.long_variants
@pytest.mark.parametrize("do", ["refuse", "reset", "stall", "hang"])
async def test_16_a_download_that_breaks_off_twice_is_fetched_without_a_new_prediction(stage: Stage, do: str) -> None:
    """The third try brings a whole file."""
    stage.emulate(f'on = "download"\ndo = "{do}"\ntimes = 2')
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts) == ("success", 1)
    assert stage.books(creates=1, billed=1)["faults"] == [2]
    assert size_of_the_clip(stage)


async def test_16_three_tries_are_all_and_the_next_run_only_downloads(stage: Stage) -> None:
    """Nothing half-made is under a final name meanwhile."""
    stage.emulate('on = "download"\ndo = "stall"\ntimes = 3')
    clip = only(await stage.shoot())
    assert (code(clip), clip.attempts) == ("unreachable", 1)
    assert stage.delivered == []
    clip = only(await stage.shoot())
    assert (clip.status, len(stage.delivered)) == ("success", 2)
    assert size_of_the_clip(stage)
    stage.books(creates=1, billed=1)


DAMAGE = [
    *(pytest.param(f'do = "wrong_content"\ncontent = "{kind}"', id=f"17-{kind}") for kind in ("html", "json", "png")),
    pytest.param('do = "truncate"', id="18-cut"),
    pytest.param('do = "truncate"\npart = 0.97', id="18-cut-late"),
    pytest.param('do = "flip_bytes"', id="18-flipped"),
    pytest.param('do = "zero_tail"', id="18-zeros"),
]


@pytest.mark.long_variants
@pytest.mark.parametrize("rule", DAMAGE)
async def test_17_18_what_is_no_whole_video_is_fetched_once_more(stage: Stage, rule: str) -> None:
    """The content decides, not what the answer claims; the second file is whole, and the first is not kept."""
    stage.emulate(rule)
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts) == ("success", 1)
    stage.books(creates=1, billed=1)
    assert size_of_the_clip(stage)
    assert stage.rejected == []


@pytest.mark.long_variants
@pytest.mark.parametrize("rule", DAMAGE)
async def test_17_18_what_is_no_video_twice_is_bad_output(stage: Stage, rule: str) -> None:
    """Permanent: no new prediction; what came is kept, and nothing has a final name."""
    stage.emulate(f'{rule}\ntimes = "always"')
    clip = only(await stage.shoot())
    assert clip.error
    assert (clip.error.code, clip.error.retryable, clip.attempts, clip.cost) == ("bad-output", False, 1, PRICE)
    assert stage.books(creates=1, billed=1)["faults"] == [2]
    assert stage.delivered == []
    assert [path.stat().st_size > 0 for path in stage.rejected] == [True]


async def test_19_a_clip_of_the_wrong_length_is_made_again(stage: Stage) -> None:
    stage.emulate('do = "wrong_duration"\nseconds = 1')
    clip = only(await stage.shoot(duration_tolerance=0.5))
    assert (clip.status, clip.attempts, clip.cost) == ("success", 2, 2 * PRICE)
    assert clip.actual_duration == pytest.approx(2.04, abs=0.05)
    stage.books(creates=2, billed=2)


async def test_19_a_length_that_stays_wrong_fails_the_clip(stage: Stage) -> None:
    """After three attempts; the message has the length that came."""
    stage.emulate('do = "wrong_duration"\nseconds = 1\ntimes = "always"')
    clip = only(await stage.shoot(duration_tolerance=0.5))
    assert clip.error
    assert (clip.error.code, clip.attempts, clip.cost) == ("duration", 3, 3 * PRICE)
    assert "1.00 s came for the 2 s asked for" in clip.error.message
    assert stage.delivered == []
    stage.books(creates=3, billed=3)


async def test_20_after_an_endless_answer_a_whole_one_is_taken(stage: Stage, defaults: Change) -> None:
    defaults(ReplicateProvider.__init__, limits=Limits(stalled_s=0.5, call_s=1.5, download_bytes=4 * MEGABYTE))
    stage.emulate('do = "endless"')
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts) == ("success", 1)
    assert size_of_the_clip(stage) < MEGABYTE * 4
    assert stage.books(creates=1, billed=1)["bytes_served"] < 32 * MEGABYTE


async def test_20_a_download_that_drips_meets_the_deadline(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is no stall. What is paid for is left for the next run."""
    monkeypatch.setattr("videogen.execution.attempt.LATE_DOWNLOAD_S", 0.3)
    stage.emulate('on = "download"\ndo = "slow_loris"\nevery_s = 0.1\ntimes = "always"')
    clip = only(await stage.shoot(timeout_seconds=1))
    assert (code(clip), clip.attempts) == ("unreachable", 1)
    assert stage.delivered == []
    stage.books(creates=1, billed=1)


@pytest.mark.long_variants
@pytest.mark.parametrize("do", ["slow_loris", "stall", "hang", "gzip_bomb"])
@pytest.mark.parametrize("on", ["create", "poll"])
async def test_36_an_answer_that_drips_hangs_or_swells_is_left(stage: Stage, on: str, do: str) -> None:
    """The call is given up within its limits and asked again; nothing is made twice."""
    accepted = "\naccepted = true" if do == "hang" else ""
    every = "\nevery_s = 0.1" if do == "slow_loris" else ""
    stage.emulate(f'on = "{on}"\ndo = "{do}"{accepted}{every}')
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts) == ("success", 1)
    assert stage.books(creates=1, billed=1)["faults"] == [1]


async def test_36_a_gzip_bomb_for_a_clip_is_not_unpacked(stage: Stage) -> None:
    """It is no video; the next try is."""
    stage.emulate('on = "download"\ndo = "gzip_bomb"')
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts) == ("success", 1)
    assert sum(path.stat().st_size for path in stage.rejected) < MEGABYTE
    stage.books(creates=1, billed=1)


@pytest.mark.long_variants
@pytest.mark.parametrize(("good", "status"), [(3, "partial"), (2, "failed")])
async def test_29_three_of_eight_are_enough_and_two_are_not(stage: Stage, good: int, status: str) -> None:
    """The good clips are kept both times."""
    stage.emulate('prompt = "storm"\ndo = "fail"\nerror = "flagged as sensitive"\ntimes = "always"')
    batch = await stage.shoot(*[PROMPT] * good, *["A storm"] * (8 - good), concurrency=8)
    assert (batch.verdict.status, batch.successful_clips) == (status, good)
    assert len(stage.delivered) == 2 * good
    assert (stage.job_folder / "manifest.json").is_file()
    stage.books(creates=8, billed=good)


class FullDisk:
    """A disk on which the files of these suffixes find no room: they are written to /dev/full."""

    def __init__(self, suffix: str) -> None:
        self.suffix, self.is_full, self._scratch = suffix, True, FileStore.scratch

    def scratch(self, store: FileStore, name: str) -> Path:
        path = self._scratch(store, name)
        if self.is_full and name.endswith(self.suffix) and not path.is_symlink():
            path.unlink(missing_ok=True)
            path.symlink_to("/dev/full")
        return path


async def test_23_where_there_is_no_room_for_a_clip_a_later_run_only_downloads(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear reason, no part left, and the prediction is not made again."""
    stage.emulate()
    disk = FullDisk(".part")
    monkeypatch.setattr(FileStore, "scratch", lambda store, name: disk.scratch(store, name))  # noqa: PLW0108 - binds the store
    monkeypatch.setattr(FileStore, "put_text", lambda *_: None)
    clip = only(await stage.shoot())
    assert clip.error
    assert (clip.error.code, clip.error.retryable, clip.attempts) == ("storage", False, 1)
    assert "No space left on device" in clip.error.message
    assert not list(stage.job_folder.glob(".scratch/*"))
    monkeypatch.undo()
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    monkeypatch.setenv("REPLICATE_BASE_URL", stage.emulator.url)
    monkeypatch.setenv("VIDEOGEN_REGISTRY", str(Path(__file__).with_name("models.toml")))
    assert only(await stage.shoot()).status == "success"
    stage.books(creates=1, billed=1)


async def test_23_where_there_is_no_room_for_the_manifest_the_clips_are_kept(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run says so; the next one has its clip for nothing."""
    stage.emulate()
    disk = FullDisk("manifest.json.part")
    monkeypatch.setattr(FileStore, "scratch", lambda store, name: disk.scratch(store, name))  # noqa: PLW0108 - binds the store
    with pytest.raises(StorageError, match=r"manifest.json: No space left on device"):
        await stage.shoot()
    assert not (stage.job_folder / "manifest.json").exists()
    disk.is_full = False
    assert only(await stage.shoot()).reused
    stage.books(creates=1, billed=1)
