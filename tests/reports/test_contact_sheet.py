"""The pictures of a run that a person looks at. How the page behaves in a browser is in tests/browser."""

import re
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from tests.support.builders import deliver, deliver_all, job_of, prompts_of, refuse, result_of, small_clip
from videogen.errors import StorageError
from videogen.job.model import MAX_SCENES, Job
from videogen.reports.contact_sheet import render_page, write_page
from videogen.reports.contact_sheet_image import (
    MAX_HEIGHT_PX,
    Grid,
    lay_out_grid,
    render_image,
    write_image,
)
from videogen.results.verdict import judge_by_model
from videogen.storage.local import FileStore
from videogen.text import format_duration, format_money

pytestmark = pytest.mark.integration


class Page(HTMLParser):
    """The words and the tags of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def links(self, tag: str, name: str) -> list[str]:
        return [unquote(value) for kind, attrs in self.tags if kind == tag and (value := attrs.get(name))]


def test_the_page_tells_all_about_each_clip(tmp_path: Path) -> None:
    """Prompt, the model that made it, the three lengths, attempts, cost and warnings; verdict and totals above."""
    job, store = job_of({"prompt": "Dawn over a harbour", "target_duration": 4.5}), FileStore(tmp_path)
    clip = deliver(store, job.scenes[0], small_clip(5), attempts=2, warnings=("frozen",), model="hailuo-2.3")
    shown = Page(render_page(result_of(job, [clip]), prompts_of(job))).text
    assert "film kling-v2.5-turbo · 16:9 · made at api.replicate.com · run run1" in shown
    assert "complete all 1 clips delivered clips 1 of 1 length 5 s cost $0.35 time 2 min 5 s" in shown
    assert "s0 delivered Dawn over a harbour nothing moves from start to end" in shown
    assert "target 4.5 s requested 5 s actual 5 s attempts 2 cost $0.35 time 7.3 s" in shown
    assert "model hailuo-2.3 · 128×72 · 8 fps" in shown


@pytest.mark.parametrize("ratio", ["adaptive", "auto"])
def test_a_ratio_that_is_left_to_the_model_has_both_sheets(ratio: str, tmp_path: Path) -> None:
    store, batch = deliver_all(tmp_path, job_of({}))
    batch = batch.model_copy(update={"aspect_ratio": ratio})
    write_page(batch, {}, store, files=[])
    write_image(batch, store)
    assert ratio in Page((tmp_path / "index.html").read_text(encoding="utf-8")).text
    assert (tmp_path / "contact_sheet.jpg").stat().st_size > 0


def test_the_page_tells_what_the_job_has_cost_in_all(tmp_path: Path) -> None:
    """Where earlier runs have cost something, too; otherwise it would be the same figure twice."""
    job = job_of({})
    batch = result_of(job, [deliver(FileStore(tmp_path), job.scenes[0], small_clip(1))])
    more = batch.model_copy(update={"job_cost": batch.total_cost + Decimal("1.05")})
    assert f"cost of all runs {format_money(batch.total_cost + Decimal('1.05'))}" in Page(render_page(more, {})).text
    for same in (batch, batch.model_copy(update={"job_cost": batch.total_cost})):
        assert "cost of all runs" not in Page(render_page(same, {})).text


def test_posters_clips_and_files_are_found_beside_the_page(tmp_path: Path) -> None:
    """The folder can be moved or sent: every address is relative, and what it names is there."""
    job = job_of({}, {})
    store, batch = deliver_all(tmp_path, job)
    write_page(batch, prompts_of(job), store, files=["manifest.json"])
    shown = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert shown.links("img", "src") == ["posters/s0.jpg", "posters/s1.jpg"]
    assert shown.links("a", "href") == ["manifest.json", "clips/s0.mp4", "clips/s1.mp4"]
    assert all((tmp_path / link).is_file() for link in (*shown.links("img", "src"), *shown.links("a", "href")[1:]))
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in shown.tags}


def test_a_clip_that_is_missing_shows_its_reason(tmp_path: Path) -> None:
    """A card without a picture, with code and message, and no link to nothing."""
    job = job_of({}, {})
    _, batch = deliver_all(tmp_path, job_of({}))
    batch = result_of(job, [*batch.clips, refuse(job.scenes[1], "flagged <b>as sensitive</b> (E005)")])
    shown = Page(render_page(batch, prompts_of(job)))
    assert "no clip s1 failed scene 1 moderation flagged <b>as sensitive</b> (E005)" in shown.text
    assert "partial 1 of 2 clips delivered, 1 were enough" in shown.text
    assert len(shown.links("img", "src")) == 1


WILD = [
    pytest.param("<script>alert(1)</script>", id="script"),
    pytest.param("<img src=x onerror=alert(1)>", id="onerror"),
    pytest.param("</p></main></style><h1>gone</h1>", id="closing-tags"),
    pytest.param("\" onmouseover='alert(1)' x=\"", id="quotes"),
    pytest.param("{{ 7 * 7 }} {% raw %} &lt;b&gt;", id="template-and-entities"),
]


@pytest.mark.parametrize("text", WILD)
def test_words_from_outside_stay_words(text: str, tmp_path: Path) -> None:
    """The page has the same tags whatever prompts and messages say, and shows them to the letter."""
    job, tame = job_of({"prompt": text}, {"prompt": text}), job_of({}, {})

    def shown(job_: Job, message: str) -> Page:
        clips = [deliver(FileStore(tmp_path), job.scenes[0], small_clip(1)), refuse(job.scenes[1], message)]
        return Page(render_page(result_of(job, clips), prompts_of(job_)))

    wild = shown(job, text)
    assert wild.text.count(text) == 3
    assert wild.tags == shown(tame, "no").tags


def test_an_address_cannot_become_another_scheme(tmp_path: Path) -> None:
    """Even a manifest that was tampered with makes no `javascript:` link."""
    job = job_of({})
    _, batch = deliver_all(tmp_path, job)
    clip = batch.clips[0].model_copy(update={"video_path": "javascript:alert(1)", "poster_path": 'x" onload="y'})
    html = render_page(result_of(job, [clip]), prompts_of(job))
    assert 'href="javascript%3Aalert%281%29"' in html
    assert 'src="x%22%20onload%3D%22y"' in html


def test_the_policy_forbids_what_the_page_does_not_need(tmp_path: Path) -> None:
    """Scripts and styles are allowed by their digest only, and nothing comes from elsewhere."""
    job = job_of({})
    _, batch = deliver_all(tmp_path, job)
    policies = [
        attrs["content"] or "" for tag, attrs in Page(render_page(batch, prompts_of(job))).tags if "http-equiv" in attrs
    ]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; ")
    assert "unsafe" not in policies[0]
    assert not re.search(r"https?:|\*|data:", policies[0])


def test_what_the_emulator_made_was_not_paid(tmp_path: Path) -> None:
    """A price that nobody paid is said to be none."""
    job = job_of({})
    _, batch = deliver_all(tmp_path, job)
    shown = Page(render_page(batch.model_copy(update={"provider": "local"}), prompts_of(job))).text
    assert "made by the emulator" in shown
    assert "cost (emulated) $0.35" in shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("0", "$0.00"), ("0.350", "$0.35"), ("12", "$12.00"), ("0.0125", "$0.0125"), ("1E+2", "$100.00")],
)
def test_money_has_cents_and_no_idle_digits(amount: str, shown: str) -> None:
    """A price is shown exactly."""
    assert format_money(Decimal(amount)) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(7.26, "7.3 s"), (59.94, "59.9 s"), (59.97, "1 min 0 s"), (125, "2 min 5 s"), (4320, "1 h 12 min")],
)
def test_times_are_said_as_people_say_them(seconds: float, shown: str) -> None:
    """Tenths below a minute, minutes below an hour; never 60 s."""
    assert format_duration(seconds) == shown


# --- contact_sheet.jpg


def test_the_picture_shows_every_poster(tmp_path: Path) -> None:
    """A cell a clip, with something other than the ground in its place; the failed one is a plain tile."""
    job = job_of({}, {}, {})
    store, batch = deliver_all(tmp_path, job_of({}, {}), size=(320, 180))
    batch = result_of(job, [*batch.clips, refuse(job.scenes[2], "no")])
    write_image(batch, store)
    lay = lay_out_grid(3, "16:9")
    with Image.open(tmp_path / "contact_sheet.jpg") as sheet:
        assert (sheet.format, sheet.mode) == ("JPEG", "RGB")
        assert sheet.width == pytest.approx(1600, abs=40)
        cells = [spread(poster_of(sheet, number, lay)) for number in range(3)]
        caption = sheet.crop((lay.gap, lay.top + lay.poster[1] + 2, lay.gap + lay.poster[0], sheet.height))
    assert [cell > 150 for cell in cells] == [True, True, False]
    assert cells[2] < 8
    assert spread(caption) > 150


def poster_of(sheet: Image.Image, number: int, lay: Grid) -> Image.Image:
    """What is shown for a clip of the first row, without its edge."""
    left, top = lay.gap + number * lay.cell, lay.top
    return sheet.crop((left + 4, top + 4, left + lay.poster[0] - 4, top + lay.poster[1] - 4))


def spread(image: Image.Image) -> int:
    """From the darkest to the brightest luma, of 255."""
    luma = image.convert("L").tobytes()
    return max(luma) - min(luma)


@pytest.mark.parametrize("ratio", ["16:9", "9:16", "1:1"])
@pytest.mark.parametrize("number", [1, 2, 5, 8, 60, 500, MAX_SCENES])
def test_the_picture_is_bounded(number: int, ratio: str) -> None:
    """About 1600 px wide and at most 6000 px high, however many clips there are."""
    lay = lay_out_grid(number, ratio)
    assert lay.columns * lay.cell + lay.gap <= 1640
    assert lay.top + -(-number // lay.columns) * lay.row <= MAX_HEIGHT_PX
    assert min(lay.poster) > 4


def test_five_hundred_clips_fit(tmp_path: Path) -> None:
    """Smaller cells, not a larger picture; posters are read one by one."""
    job = job_of({})
    store, batch = deliver_all(tmp_path, job)
    sheet = render_image(batch.model_copy(update={"clips": batch.clips * 500}), store)
    assert sheet.height <= MAX_HEIGHT_PX


def test_a_lost_poster_leaves_the_others(tmp_path: Path) -> None:
    """A file that is no picture any more is a plain tile."""
    job = job_of({}, {})
    store, batch = deliver_all(tmp_path, job, size=(320, 180))
    store.path("posters/s0.jpg").write_bytes(b"gone")
    sheet, lay = render_image(batch, store), lay_out_grid(2, "16:9")
    assert spread(poster_of(sheet, 0, lay)) < 8
    assert spread(poster_of(sheet, 1, lay)) > 150


def test_a_picture_that_cannot_be_written_is_a_matter_of_storage(tmp_path: Path) -> None:
    """As with every file of the folder."""
    store, batch = deliver_all(tmp_path, job_of({}))
    (tmp_path / ".scratch" / "contact_sheet.jpg.part").mkdir()
    with pytest.raises(StorageError, match=r"cannot write contact_sheet\.jpg"):
        write_image(batch, store)


def test_the_shape_of_the_cards_is_that_of_the_clips(tmp_path: Path) -> None:
    """The frame keeps the job's ratio before any poster is loaded, and upright clips get narrower cards."""
    job = job_of({}, aspect_ratio="9:16")
    _, batch = deliver_all(tmp_path, job, size=(72, 128))
    assert "--ratio: 9 / 16; --card: 15rem;" in render_page(batch, prompts_of(job))
    assert "--ratio: 16 / 9; }" in render_page(batch.model_copy(update={"aspect_ratio": "16:9"}), prompts_of(job))


def test_clips_to_be_compared_stand_side_by_side(tmp_path: Path) -> None:
    """A row for each scene, in the page and in the picture; above them what each model delivered and cost."""
    job = job_of({"id": "a.kling"}, {"id": "a.veo"}, {"id": "b.kling"}, {"id": "b.veo"})
    store = FileStore(tmp_path)
    names = ("kling-v2.5-turbo", "veo-3.1") * 2
    clips = [deliver(store, scene, small_clip(1), model=name) for scene, name in zip(job.scenes, names, strict=True)]
    verdict, verdicts = judge_by_model(tuple(clips), models=names[:2], min_clips=1, required=frozenset())
    changes = {"verdict": verdict, "verdicts": verdicts, "cells_per_scene": 2}
    batch = result_of(job, clips, **changes)
    html = render_page(batch, prompts_of(job))
    assert "grid-template-columns: repeat(2, minmax(16rem, 1fr))" in html
    assert "veo-3.1: all 2 clips delivered, $0.70" in html
    assert render_image(batch, store).width // lay_out_grid(4, "16:9", side_by_side=2).cell == 2
    assert "grid-template-columns: repeat(2," not in render_page(result_of(job, clips), prompts_of(job))


@pytest.mark.parametrize(("number", "side_by_side"), [(6, 3), (5000, 3), (40, 8), (12, 1)])
def test_the_grid_keeps_a_scene_in_its_row(number: int, side_by_side: int) -> None:
    """However many there are."""
    assert lay_out_grid(number, "16:9", side_by_side=side_by_side).columns % side_by_side == 0
