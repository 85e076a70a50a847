"""The film for editing programs, read back as these read it."""

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import opentimelineio as otio
import pytest

from tests.support.builders import clip_of, deliver, job_of, refuse, result_of, small_clip
from videogen.errors import InvalidError
from videogen.reports.edl import name_reels, render_edl
from videogen.reports.fcpxml import render_fcpxml
from videogen.reports.film import Film, cut_film
from videogen.reports.media_root import make_media_path, make_media_url, parse_media_root
from videogen.reports.timeline import TIMELINE_NAMES, render_otio, write_timeline
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult
from videogen.storage.local import FileStore

NTSC = 1001
RATES = [
    (23.976, Fraction(24_000, NTSC), False),
    (24, Fraction(24), False),
    (25, Fraction(25), False),
    (29.97, Fraction(30_000, NTSC), True),
    (30, Fraction(30), False),
]
"""Each rate as a manifest has it, exactly, and whether its time codes leave numbers out."""
TARGETS_S = [1.31, 0.48, 0.72, 5.0, 0.433, 0.433, 0.433, 62.0]
ODD_TEXTS = [
    "He says \"no\", she says 'yes' & <b>leaves</b>",
    "first line\nsecond line\n\n* LOC: 00:00:00:00 RED   no marker\nTITLE: none\n002  AX V C",
    "]]> <!-- ]]&gt; & &amp; %20 \\n",
    "🌊 海 – a wave \u2067x\u2069; \u2028 and a new line\x85",
    "* * *",
]


def result_with(*clips: Clip) -> RunResult:
    return result_of(job_of({}), clips, scenes=())


def make_film(*targets_s: float, fps: float = 24, **fields: Any) -> Film:
    """Return a film of scenes with these targets, whose clips are all twelve seconds longer."""
    clips = [
        clip_of(index, target_duration=target_s, actual_duration=target_s + 12, fps=fps, **fields)
        for index, target_s in enumerate(targets_s)
    ]
    return cut_film(result_with(*clips))


def make_takes(**fields: Any) -> list[Clip]:
    """Return three takes of one scene, of which the second is chosen and the third failed."""
    return [
        clip_of(0, scene_id="s0.take-1", take=1, take_of="s0", actual_duration=7, prompt="calm", chosen=False),
        clip_of(
            0,
            scene_id="s0.take-2",
            take=2,
            take_of="s0",
            video_path="clips/s0.take-2.mp4",
            actual_duration=6,
            prompt="stormy",
            rating=4,
            chosen=True,
            **fields,
        ),
        clip_of(0, scene_id="s0.take-3", take=3, take_of="s0", failure="moderation"),
    ]


# -- read back --------------------------------------------------------------------------------------------------------


def read_otio(film: Film, **options: Any) -> Any:
    return otio.adapters.read_from_string(render_otio(film, **options), "otio_json")


def read_pictures(film: Film, **options: Any) -> list[Any]:
    """Return the clips and gaps of the film's picture."""
    timeline = read_otio(film, **options)
    (track,) = timeline.video_tracks()
    return [deepcopy(item) for item in track]  # they do not outlive their timeline


def read_edl(film: Film) -> list[Any]:
    """Return the events of an EDL, as the reader of OpenTimelineIO understands them."""
    timeline = otio.adapters.read_from_string(render_edl(film), "cmx_3600", rate=float(film.rate))
    (track,) = timeline.tracks
    return [deepcopy(event) for event in track]


def read_fcpxml(film: Film, **options: Any) -> ET.Element:
    text = render_fcpxml(film, **options)
    document = ET.fromstring(text)
    assert list(find_fcpxml_problems(document)) == []
    return document


def parse_seconds(text: str) -> Fraction:
    assert re.fullmatch(r"\d+(/[1-9]\d*)?s", text)
    return Fraction(text.removesuffix("s"))


CHILDREN = {
    "fcpxml": "resources library",
    "resources": "(format|asset)+",
    "format": "",
    "asset": "media-rep",
    "media-rep": "",
    "library": "event",
    "event": "project",
    "project": "sequence",
    "sequence": "spine( metadata)?",
    "spine": "(asset-clip|audition|gap)( (asset-clip|audition|gap))*",
    "audition": "asset-clip( asset-clip)+",
    "asset-clip": "(note )?(conform-rate )?(adjust-conform )?marker metadata",
    "gap": "(note )?marker metadata",
    "note": "",
    "conform-rate": "",
    "adjust-conform": "",
    "marker": "",
    "metadata": "md( md)*",
    "md": "",
}
"""The children of each element that the timeline uses, in the order that the format demands."""
REQUIRED = {
    "fcpxml": {"version"},
    "format": {"id", "frameDuration", "width", "height"},
    "asset": {"id", "name", "start", "duration", "hasVideo", "format"},
    "media-rep": {"kind", "src"},
    "sequence": {"format", "duration", "tcStart", "tcFormat"},
    "asset-clip": {"ref", "name", "offset", "start", "duration", "format"},
    "audition": {"offset"},
    "gap": {"name", "offset", "start", "duration"},
    "marker": {"start", "duration", "value"},
    "md": {"key", "value"},
}
TIMES = {"duration", "offset", "start", "tcStart"}
CONFORMED = {None, "23.98", "24", "25", "29.97", "30", "47.95", "48", "50", "59.94", "60"}


def find_fcpxml_problems(document: ET.Element) -> Iterator[str]:
    """Yield what an importer of FCPXML would refuse."""
    ids = [element.attrib["id"] for element in document.iter() if "id" in element.attrib]
    if len(ids) != len(set(ids)):
        yield "an id is there twice"
    for element in document.iter():
        children = " ".join(child.tag for child in element)
        pattern = CHILDREN[element.tag].replace("(format|asset)+", "(format|asset)( (format|asset))*")
        if not re.fullmatch(pattern, children):
            yield f"{element.tag} has {children}"
        if missing := REQUIRED.get(element.tag, set()) - set(element.attrib):
            yield f"{element.tag} lacks {missing}"
        for name in ("ref", "format"):
            if name in element.attrib and element.attrib[name] not in ids:
                yield f"{element.tag} refers to {element.attrib[name]}"
        if element.tag == "conform-rate" and element.get("srcFrameRate") not in CONFORMED:
            yield f"no rate {element.get('srcFrameRate')}"
    yield from find_time_problems(document)


def find_time_problems(document: ET.Element) -> Iterator[str]:
    """Yield times that are not whole frames, and edits that do not follow each other or are longer than their media."""
    frames = {each.attrib["id"]: parse_seconds(each.attrib["frameDuration"]) for each in document.iter("format")}
    lengths = {each.attrib["id"]: parse_seconds(each.attrib["duration"]) for each in document.iter("asset")}
    (sequence,) = document.iter("sequence")
    frame = frames[sequence.attrib["format"]]
    for element in sequence.iter():
        for name in TIMES & set(element.attrib):
            if (parse_seconds(element.attrib[name]) / frame).denominator != 1:
                yield f"{element.tag} has {name} {element.attrib[name]}"
    at = Fraction(0)
    for element in sequence.find("spine") or ():
        if parse_seconds(element.attrib["offset"]) != at:
            yield f"{element.tag} begins at {element.attrib['offset']}"
        active = element[0] if element.tag == "audition" else element
        at += parse_seconds(active.attrib["duration"])
    if at != parse_seconds(sequence.attrib["duration"]):
        yield f"the film ends at {at}"
    for clip in sequence.iter("asset-clip"):
        if parse_seconds(clip.attrib["duration"]) > lengths[clip.attrib["ref"]] + frame / 2:
            yield f"{clip.attrib['name']} is longer than its file"


# -- to the frame -----------------------------------------------------------------------------------------------------


def count_expected_frames(targets_s: list[float], rate: Fraction) -> list[int]:
    ends = [round(sum(map(Fraction, targets_s[: place + 1])) * rate) for place in range(len(targets_s))]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(("fps", "rate", "drops"), RATES)
def test_the_cuts_are_where_the_rough_cut_has_them(fps: float, rate: Fraction, drops: bool) -> None:
    """In all three files and at each frame rate: the names in order, and each length to the frame."""
    film = make_film(*TARGETS_S, fps=fps)
    names = [f"s{index}" for index in range(len(TARGETS_S))]
    expected = count_expected_frames(TARGETS_S, rate)
    for items in (read_pictures(film), read_edl(film)):
        assert [item.name for item in items] == names
        assert [item.source_range.duration.value for item in items] == expected
        assert {item.source_range.duration.rate for item in items} == {float(rate)}
    document = read_fcpxml(film)
    clips = list(document.iter("asset-clip"))
    assert [clip.attrib["name"] for clip in clips] == names
    assert [parse_seconds(clip.attrib["duration"]) * rate for clip in clips] == expected
    (sequence,) = document.iter("sequence")
    (form,) = document.iter("format")
    assert form.attrib["frameDuration"] == f"{rate.denominator}/{rate.numerator}s"
    assert sequence.attrib["tcFormat"] == ("DF" if drops else "NDF")


def test_rounding_errors_do_not_add_up() -> None:
    """Forty scenes of 10.44 frames are 418 frames, as in the rough cut."""
    film = make_film(*[0.435] * 40)
    assert film.frames == 418
    assert read_otio(film).duration().value == 418
    assert sum(event.duration().value for event in read_edl(film)) == 418


@pytest.mark.parametrize(
    ("fps", "line", "mode"),
    [
        (23.976, "00:01:09:22 00:01:10:22", "NON-DROP FRAME"),
        (24, "00:01:10:00 00:01:11:00", "NON-DROP FRAME"),
        (25, "00:01:10:00 00:01:11:00", "NON-DROP FRAME"),
        (29.97, "00:01:10;00 00:01:11;00", "DROP FRAME"),
        (30, "00:01:10:00 00:01:11:00", "NON-DROP FRAME"),
        (59.94, "00:01:10;00 00:01:11;00", "DROP FRAME"),
    ],
)
def test_time_codes_agree_with_the_clock_where_they_can(fps: float, line: str, mode: str) -> None:
    """At 29.97 fps they leave out two numbers each minute. At 23.976 fps they lag behind, because nothing is left
    out."""
    text = render_edl(make_film(70, 1, fps=fps))
    assert text.splitlines()[1] == f"FCM: {mode}"
    assert f"002  S1       V     C        00:00:00{line[8]}00 00:00:01{line[8]}00 {line}\n" in text


def test_time_codes_of_the_tenth_minute_leave_nothing_out() -> None:
    film = make_film(599.999, 1, fps=29.97)
    (begins,) = re.findall(r"^002 .* (\S+) \S+$", render_edl(film), re.MULTILINE)
    assert begins == "00:10:00;00"


@pytest.mark.parametrize(("fps", "rate"), [(16, 24), (8, 24), (27.5, 30), (72, 60), (23.98, Fraction(24_000, NTSC))])
def test_a_film_has_a_rate_that_editing_programs_know(fps: float, rate: Fraction) -> None:
    """The next higher one. The clips keep their own."""
    film = make_film(5, fps=fps)
    assert film.rate == rate
    (item,) = read_pictures(film)
    assert item.source_range.duration.value == round(5 * rate)
    (clip,) = read_edl(film)
    assert clip.source_range.duration.value == round(5 * rate)
    read_fcpxml(film)


def test_the_film_has_the_rate_of_most_clips_and_the_size_of_the_first() -> None:
    """A clip of another rate plays at its own speed, and one of another size fills the picture."""
    clips = [
        clip_of(0, fps=30, width=1280, height=720),
        clip_of(1, fps=25, actual_duration=6),
        clip_of(2, fps=25, actual_duration=6),
    ]
    film = cut_film(result_with(*clips))
    items = read_pictures(film)
    assert [item.source_range.duration.value for item in items] == [125, 125, 125]
    assert [item.media_reference.available_range.duration for item in items] == [
        otio.opentime.RationalTime(150, 30),
        otio.opentime.RationalTime(150, 25),
        otio.opentime.RationalTime(150, 25),
    ]
    assert [item.source_range.duration.value for item in read_edl(film)] == [125, 125, 125]
    first, second, _ = read_fcpxml(film).iter("asset-clip")
    conformed = first.find("conform-rate")
    assert conformed is not None
    assert conformed.attrib == {"scaleEnabled": "0", "srcFrameRate": "30"}
    assert second.find("conform-rate") is None
    assert [clip.find("adjust-conform") is not None for clip in (first, second)] == [False, True]


# -- media ------------------------------------------------------------------------------------------------------------


def test_the_rest_of_a_clip_is_a_handle() -> None:
    """The media are as long as the file, and the cut is at its beginning."""
    film = make_film(5)
    (item,) = read_pictures(film)
    assert item.available_range().duration.to_seconds() == 17
    assert (item.source_range.start_time.value, item.source_range.duration.value) == (0, 120)
    document = read_fcpxml(film)
    assert [asset.attrib["duration"] for asset in document.iter("asset")] == ["17s"]
    assert [(clip.attrib["start"], clip.attrib["duration"]) for clip in document.iter("asset-clip")] == [("0s", "5s")]


def test_other_takes_are_beside_the_chosen_one() -> None:
    """As media to switch to, as an audition, or named in comments. A take that failed is not there."""
    film = cut_film(result_with(*make_takes()))
    (item,) = read_pictures(film)
    assert item.active_media_reference_key == "2"
    references = item.media_references()
    assert {key: each.target_url for key, each in references.items()} == {
        "1": "clips/s0.mp4",
        "2": "clips/s0.take-2.mp4",
    }
    assert references["1"].available_range.duration.to_seconds() == 7
    assert references["1"].metadata["videogen"]["prompt"] == "calm"
    document = read_fcpxml(film)
    files = {asset.attrib["id"]: asset.attrib["name"] for asset in document.iter("asset")}
    (audition,) = document.iter("audition")
    assert [files[clip.attrib["ref"]] for clip in audition] == ["s0.take-2.mp4", "s0.mp4"]
    text = render_edl(film)
    assert "* FROM CLIP: clips/s0.take-2.mp4\n" in text
    assert "* OTHER TAKE: take 1, kling-v2.5-turbo, $0.35: clips/s0.mp4\n" in text


def test_takes_with_the_same_label_are_all_there() -> None:
    """Manifests of earlier versions do not number them."""
    clips = [clip_of(0, scene_id=name, video_path=f"clips/{name}.mp4") for name in ("s0.one", "s0.two")]
    (item,) = read_pictures(cut_film(result_of(job_of({}), clips, cells_per_scene=2, scenes=())))
    assert sorted(item.media_references()) == ["s0.one", "s0.two"]


def test_models_are_labels_of_takes() -> None:
    clips = [
        clip_of(0, scene_id=f"s0.{model}", take_of="s0", take=1, model=model, video_path=f"clips/{model}.mp4")
        for model in ("veo-3.1", "sora-2")
    ]
    (item,) = read_pictures(cut_film(result_with(*clips)))
    assert sorted(item.media_references()) == ["sora-2", "veo-3.1"]


def test_what_is_known_of_a_clip_is_told() -> None:
    """Prompt, model, cost, take, rating: as metadata and as a marker at its beginning."""
    film = cut_film(result_with(*make_takes(seed=7, note="more foam")))
    (item,) = read_pictures(film)
    told = dict(item.metadata["videogen"])
    known = {"scene": "s0", "clip": "s0.take-2", "take": "2", "model": "kling-v2.5-turbo", "cost": "0.35"}
    said = {"prompt": "stormy", "rating": 4, "seed": 7, "note": "more foam"}
    assert (known | said).items() <= told.items()
    (marker,) = item.markers
    assert marker.name == "s0"
    assert marker.comment == "take 2, kling-v2.5-turbo, $0.35, ★★★★\nstormy"
    document = read_fcpxml(film)
    clip = next(document.iter("asset-clip"))
    assert clip.findtext("note") == "stormy"
    values = {md.attrib["key"]: md.attrib["value"] for md in clip.iter("md")}
    assert values["com.apple.proapps.studio.shot"] == "2"
    assert (values["videogen.cost"], values["videogen.rating"]) == ("0.35", "4")
    (event,) = read_edl(film)
    assert event.metadata["cmx_3600"]["comments"][:2] == [
        "COMMENT: take 2, kling-v2.5-turbo, $0.35, ★★★★",
        "PROMPT: stormy",
    ]
    assert [each.name for each in event.markers] == ["s0"]


def test_the_sound_of_clips_has_a_track() -> None:
    """With gaps where a clip is silent."""
    clips = [clip_of(0, actual_duration=6), clip_of(1, actual_duration=6, has_audio=True)]
    film = cut_film(result_with(*clips))
    timeline = read_otio(film)
    (sound,) = timeline.audio_tracks()
    assert [type(item).__name__ for item in sound] == ["Gap", "Clip"]
    assert sound.duration() == timeline.video_tracks()[0].duration()
    assert [asset.get("hasAudio") for asset in read_fcpxml(film).iter("asset")] == [None, "1"]
    assert not read_otio(make_film(5)).audio_tracks()


# -- gaps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_scene_without_a_clip_is_a_gap_that_says_why(place: int) -> None:
    """At the beginning, between clips and at the end: the others keep their place."""
    job = job_of(*[{"target_duration": 5}] * 3)
    clips = [clip_of(index, actual_duration=6) for index in range(3)]
    clips[place] = refuse(job.scenes[place], "flagged as sensitive").model_copy(update={"clip_index": place})
    film = cut_film(result_of(job, clips))
    reason = f"s{place} is missing: flagged as sensitive"
    items = read_pictures(film)
    assert [isinstance(item, otio.schema.Gap) for item in items] == [index == place for index in range(3)]
    gap = items[place]
    assert (gap.name, gap.duration().value) == (f"s{place}", 120)
    assert [(marker.name, marker.comment) for marker in gap.markers] == [(reason, f"scene {place}")]
    document = read_fcpxml(film)
    spine = next(document.iter("spine"))
    assert [child.tag == "gap" for child in spine] == [index == place for index in range(3)]
    assert [marker.attrib["value"] for marker in spine[place].iter("marker")] == [reason]
    events = read_edl(film)
    assert len(events) == 3
    assert events[place].media_reference.generator_kind == "black"
    assert f"COMMENT: {reason}" in events[place].metadata["cmx_3600"]["comments"]
    assert sum(event.duration().value for event in events) == 360


@pytest.mark.parametrize("place", range(3))
def test_a_scene_that_no_run_has_made_is_a_gap_of_its_length(place: int) -> None:
    """As after a first run with `--only`."""
    job = job_of(*[{"target_duration": 5}] * 3)
    clips = [clip_of(index, actual_duration=6) for index in range(3) if index != place]
    film = cut_film(result_of(job, clips))
    items = read_pictures(film)
    assert [isinstance(item, otio.schema.Gap) for item in items] == [index == place for index in range(3)]
    assert [item.duration().value for item in items] == [120] * 3
    assert [marker.name for marker in items[place].markers] == [f"s{place} is missing: it was not made yet"]
    spine = next(read_fcpxml(film).iter("spine"))
    assert [child.tag == "gap" for child in spine] == [index == place for index in range(3)]
    assert sum(event.duration().value for event in read_edl(film)) == 360


def test_a_clip_that_is_too_short_leaves_a_gap() -> None:
    """The next scene begins in time, and the gap says how much is missing."""
    film = cut_film(result_with(clip_of(0, target_duration=6.5), clip_of(1, target_duration=2)))
    items = read_pictures(film)
    assert [type(item).__name__ for item in items] == ["Clip", "Gap", "Clip"]
    assert [item.duration().value for item in items] == [120, 36, 48]
    assert [marker.name for marker in items[1].markers] == ["s0 ends 1.5 s too early"]
    assert [child.tag for child in next(read_fcpxml(film).iter("spine"))] == ["asset-clip", "gap", "asset-clip"]
    events = read_edl(film)
    assert [event.duration().value for event in events] == [120, 36, 48]
    assert events[1].media_reference.generator_kind == "black"


def test_a_clip_of_another_rate_is_not_short_by_a_part_of_a_frame() -> None:
    """Five seconds at 24 fps are 119.88 frames at 23.976 fps, of which 120 are shown."""
    clips = [clip_of(0, fps=23.976, actual_duration=6), clip_of(1, fps=23.976, actual_duration=6), clip_of(2, fps=24)]
    film = cut_film(result_with(*clips))
    assert [shot.gap for shot in film.shots] == [0, 0, 0]
    read_fcpxml(film)


def test_a_film_without_clips_is_all_gaps() -> None:
    """It still is a film of the planned length."""
    film = cut_film(result_with(clip_of(0, failure="moderation"), clip_of(1, failure="moderation")))
    assert [item.duration().value for item in read_pictures(film)] == [120, 120]
    assert [event.duration().value for event in read_edl(film)] == [120, 120]
    assert [child.tag for child in next(read_fcpxml(film).iter("spine"))] == ["gap", "gap"]


# -- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_any_prompt_can_be_told(text: str) -> None:
    """It is read back as it was, but for the EDL, which has the beginning of it on one line."""
    film = make_film(5, 5, prompt=text)
    assert [item.metadata["videogen"]["prompt"] for item in read_pictures(film)] == [text, text]
    document = read_fcpxml(film)
    assert [note.text for note in document.iter("note")] == [text, text]
    assert [marker.attrib["note"] for marker in document.iter("marker")] == [text, text]
    events = read_edl(film)
    assert [event.name for event in events] == ["s0", "s1"]
    for event in events:
        (prompt,) = [each for each in event.metadata["cmx_3600"]["comments"] if each.startswith("PROMPT: ")]
        assert re.sub(r"\W", "", prompt)[6:] == re.sub(r"\W", "", text)
        assert len(event.markers) == 1


def test_what_no_format_can_hold_is_left_out() -> None:
    """Messages of others may have control characters."""
    failed = refuse(job_of({}).scenes[0], "odd\x00\x1b[2J\ud800 message\ufffe")
    film = cut_film(result_with(failed))
    reason = "s0 is missing: odd[2J message"
    (gap,) = read_pictures(film)
    assert [marker.name for marker in gap.markers] == [reason]
    assert [marker.attrib["value"] for marker in read_fcpxml(film).iter("marker")] == [reason]
    assert f"* COMMENT: {reason}\n" in render_edl(film)


def test_a_long_prompt_is_cut_in_the_edl_only() -> None:
    film = make_film(5, prompt="wave " * 1000)
    assert max(map(len, render_edl(film).splitlines())) < 220
    (item,) = read_pictures(film)
    assert item.metadata["videogen"]["prompt"] == "wave " * 1000


def test_reels_are_short_and_different() -> None:
    """Also for scenes whose ids begin alike, and for those that are named as a special reel."""
    ids = ["harbour-at-dawn", "harbour-at-dusk", "harbour-at-night", "HARBOU2", "bl", "AX", "a.b-c", "abc"]
    reels = name_reels([*ids, *(f"scene-{number:04}" for number in range(1200))])
    assert reels[:8] == ["HARBOURA", "HARBOUR2", "HARBOUR3", "HARBOU2", "BL2", "AX2", "ABC", "ABC2"]
    assert len({*reels, "BL", "AX"}) == len(reels) + 2
    assert all(re.fullmatch(r"[A-Z0-9]{1,8}", reel) for reel in reels)


# -- places -----------------------------------------------------------------------------------------------------------


def list_places(folder: Path) -> dict[str, list[str]]:
    """Return the places of the media in the three files, unescaped."""
    timeline = otio.adapters.read_from_file(str(folder / "film.otio"))
    document = ET.parse(folder / "film.fcpxml")
    return {
        "film.otio": [unquote(clip.media_reference.target_url) for clip in timeline.find_clips()],
        "film.fcpxml": [unquote(each.attrib["src"]) for each in document.iter("media-rep")],
        "film.edl": re.findall(r"^\* FROM CLIP: (.*)$", (folder / "film.edl").read_text(), re.MULTILINE),
    }


@pytest.mark.integration
def test_the_clips_are_found_beside_the_timeline(tmp_path: Path) -> None:
    """Wherever the folder is moved to: paths are relative to it."""
    store = FileStore(tmp_path / "my films" / "a&b")
    job = job_of({"id": "Pier.1", "target_duration": 1}, {"target_duration": 1})
    batch = result_of(job, [deliver(store, scene, small_clip(2)) for scene in job.scenes])
    for name in TIMELINE_NAMES:
        write_timeline(name, batch, store)
    (tmp_path / "my films").rename(tmp_path / "moved")
    folder = tmp_path / "moved" / "a&b"
    for name, places in list_places(folder).items():
        assert [(folder / place).is_file() for place in places] == [True, True], name
        assert str(tmp_path) not in (folder / name).read_text(), name


ROOTS: list[tuple[str, str, str]] = [
    ("/Volumes/My films/a&b", "file:///Volumes/My%20films/a%26b/clips/s0.mp4", "/Volumes/My films/a&b/clips/s0.mp4"),
    ("D:\\films\\storm", "file:///D:/films/storm/clips/s0.mp4", "D:\\films\\storm\\clips\\s0.mp4"),
    ("\\\\nas\\films", "file://nas/films/clips/s0.mp4", "\\\\nas\\films\\clips\\s0.mp4"),
    ("https://cdn.test/f/", "https://cdn.test/f/clips/s0.mp4", "https://cdn.test/f/clips/s0.mp4"),
    ("s3://films/storm", "s3://films/storm/clips/s0.mp4", "s3://films/storm/clips/s0.mp4"),
]


@pytest.mark.parametrize(("root", "url", "path"), ROOTS)
def test_the_clips_may_be_in_another_place_on_the_machine_of_the_editor(root: str, url: str, path: str) -> None:
    """A folder of any system, or an address: as URLs, and in the EDL as a path."""
    film, place = make_film(5), parse_media_root(root)
    assert [item.media_reference.target_url for item in read_pictures(film, media_root=place)] == [url]
    document = read_fcpxml(film, media_root=place)
    assert [each.attrib["src"] for each in document.iter("media-rep")] == [url]
    assert f"* FROM CLIP: {path}\n" in render_edl(film, place)


@pytest.mark.parametrize("root", ["films", "../films", "", "C:films", "~/films"])
def test_a_place_that_is_not_absolute_is_refused(root: str) -> None:
    with pytest.raises(InvalidError, match=r"--media-root: .* is not the absolute path"):
        parse_media_root(root)


def test_a_place_on_several_lines_is_refused() -> None:
    """It would end its line in the EDL."""
    with pytest.raises(InvalidError, match="control characters"):
        parse_media_root("/films\nTITLE: none")


def test_names_with_odd_characters_are_escaped_in_urls_only() -> None:
    assert make_media_url("clips/50% #1?.mp4", None) == "clips/50%25%20%231%3F.mp4"
    assert make_media_path("clips/50% #1?.mp4", None) == "clips/50% #1?.mp4"


# -- the rules --------------------------------------------------------------------------------------------------------


def remove_marker(document: ET.Element) -> None:
    clip = next(document.iter("asset-clip"))
    clip.remove(clip[0])


def move_note(document: ET.Element) -> None:
    ET.SubElement(next(document.iter("asset-clip")), "note")


def shift_second(document: ET.Element) -> None:
    list(document.iter("asset-clip"))[1].set("offset", "6s")


def use_half_frames(document: ET.Element) -> None:
    next(document.iter("asset-clip")).set("start", "1/48s")


def overrun(document: ET.Element) -> None:
    next(document.iter("asset")).set("duration", "4s")


@pytest.mark.parametrize("damage", [remove_marker, move_note, shift_second, use_half_frames, overrun])
def test_the_rules_notice_damage(damage: Callable[[ET.Element], None]) -> None:
    document = read_fcpxml(make_film(5, 5))
    damage(document)
    assert list(find_fcpxml_problems(document))


def test_the_rules_notice_a_reference_to_nothing() -> None:
    document = read_fcpxml(make_film(5, 5))
    next(document.iter("asset-clip")).set("format", "r99")
    assert list(find_fcpxml_problems(document)) == ["asset-clip refers to r99"]
