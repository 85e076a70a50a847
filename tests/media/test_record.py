"""The record in the file: what can be read of it, and that nothing else in the file is touched."""

import os
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import list_boxes, strip_record, write_film
from videogen.errors import BadOutputError, StorageError
from videogen.media import (
    MADE_BY_AI,
    ClipRecord,
    Provenance,
    compute_prompt_digest,
    embed_record,
    inspect_video,
    read_provenance,
)
from videogen.media.record import make_xmp_packet

XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
PROMPT = 'A <ship> & a "storm" at Ærø'
RECORD = ClipRecord(
    model="kling-v2.5-turbo",
    endpoint="kwaivgi/kling-v2.5-turbo-pro:0a1b",
    prediction_ids=("first", "second"),
    prompt_sha256=compute_prompt_digest(PROMPT),
    seed=7,
    created_at=datetime(2026, 11, 30, 10, 17, 3, tzinfo=UTC),
)
FOREIGN = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="Model 3"/></rdf:RDF>
</x:xmpmeta>"""


def box(kind: bytes, body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4) + kind + body


def xmp(packet: bytes) -> bytes:
    return box(b"uuid", XMP + packet)


def embed(path: Path, data: bytes, record: ClipRecord = RECORD) -> bytes:
    """Write the file, then the record into it."""
    path.write_bytes(data)
    assert embed_record(path, record) is None
    return path.read_bytes()


def decode(path: Path) -> list[bytes]:
    """Every picture and every sample, by a decoder that accepts no error."""
    with av.open(str(path)) as container:
        for stream in (*container.streams.video, *container.streams.audio):
            stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
        return [
            b"".join(bytes(plane) for plane in frame.planes)
            for frame in container.decode()
            if isinstance(frame, av.VideoFrame | av.AudioFrame)
        ]


@pytest.fixture(scope="module")
def late(folder: Path) -> Path:
    """A film with its header behind its pictures."""
    return write_film(folder / "late.mp4", frames=24, moov_first=False)


@pytest.fixture(scope="module")
def fragmented(folder: Path) -> Path:
    """A film in fragments, with their index at its end."""
    path = folder / "fragmented.mp4"
    options = {"movflags": "frag_keyframe+empty_moov"}
    with av.open(str(path), "w", format="mp4", options=options) as target:
        video = target.add_stream("libx264", rate=24, options={"preset": "ultrafast", "g": "6"})
        video.width, video.height, video.pix_fmt = 160, 90, "yuv420p"
        for index in range(24):
            frame = av.VideoFrame(160, 90, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([index * 9]) * plane.buffer_size)
            frame.pts, frame.time_base = index, Fraction(1, 24)
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
    return path


def test_a_record_is_read_as_it_was_written(tmp_path: Path, whole: Path) -> None:
    """With the mark that a model made the clip."""
    embed(tmp_path / "a.mp4", whole.read_bytes())
    assert read_provenance(tmp_path / "a.mp4") == Provenance(RECORD, MADE_BY_AI)
    least = ClipRecord("model", "owner/name", (), "0" * 64)
    embed(tmp_path / "b.mp4", whole.read_bytes(), least)
    assert read_provenance(tmp_path / "b.mp4").record == least


def test_ffmpeg_reads_the_packet(tmp_path: Path, heard: Path) -> None:
    """As any other program does, in the box that the standard names."""
    embed(tmp_path / "a.mp4", heard.read_bytes())
    with av.open(str(tmp_path / "a.mp4"), options={"export_xmp": "1"}) as container:
        packet = container.metadata["xmp"]
    assert packet == make_xmp_packet(RECORD).decode()
    assert f"<Iptc4xmpExt:DigitalSourceType>{MADE_BY_AI}</Iptc4xmpExt:DigitalSourceType>" in packet


@pytest.mark.parametrize("film", ["whole", "heard", "late", "fragmented"])
def test_pictures_and_sound_stay_as_they_are(tmp_path: Path, film: str, request: pytest.FixtureRequest) -> None:
    """No byte of another box changes or moves, and a strict decoder finds the same."""
    source: Path = request.getfixturevalue(film)
    path = tmp_path / "a.mp4"
    before, after = list_boxes(source.read_bytes()), list_boxes(embed(path, source.read_bytes()))
    added = [each for each in after if each[1][8:24] == XMP]
    assert ([each for each in after if each not in added], len(added)) == (before, 1)
    assert decode(path) == decode(source)
    found, expected = inspect_video(path), inspect_video(source)
    assert (found.frames, found.duration, found.sound) == (expected.frames, expected.duration, expected.sound)


def test_the_index_of_fragments_stays_at_the_end(tmp_path: Path, fragmented: Path) -> None:
    """Its last four bytes are its length, by which players find it."""
    data = embed(tmp_path / "a.mp4", fragmented.read_bytes())
    kinds = [kind for kind, _ in list_boxes(data)]
    assert kinds[-2:] == [b"uuid", b"mfra"]
    assert data[-int.from_bytes(data[-4:]) :] == list_boxes(fragmented.read_bytes())[-1][1]
    again = ClipRecord("other", "owner/name", ("third",), "0" * 64)
    data = embed(tmp_path / "a.mp4", data, again)
    assert [kind for kind, _ in list_boxes(data)] == kinds
    assert read_provenance(tmp_path / "a.mp4").record == again


def test_a_record_replaces_the_one_before(tmp_path: Path, whole: Path) -> None:
    """The same one gives the same bytes, so that a clip that is fetched again is the same file."""
    path = tmp_path / "a.mp4"
    once = embed(path, whole.read_bytes())
    assert embed(path, once) == once
    other = embed(path, once, ClipRecord("other", "owner/name", ("third",), "0" * 64))
    assert strip_record(other) == whole.read_bytes()
    assert b"second" not in other


def test_a_record_between_other_boxes_is_replaced_too(tmp_path: Path, whole: Path) -> None:
    """It becomes free space, because the boxes behind it must not move."""
    path = tmp_path / "a.mp4"
    once = embed(path, whole.read_bytes()) + box(b"free", b"of another program")
    twice = embed(path, once, ClipRecord("other", "owner/name", ("third",), "0" * 64))
    assert [kind for kind, _ in list_boxes(twice)][-3:] == [b"free", b"free", b"uuid"]
    assert strip_record(twice)[: whole.stat().st_size] == whole.read_bytes()
    found = read_provenance(path).record
    assert found is not None
    assert found.model == "other"
    assert decode(path) == decode(whole)


def test_a_packet_of_the_model_is_kept(tmp_path: Path, whole: Path) -> None:
    """Both are there, and the own one is found."""
    own = xmp(FOREIGN)
    data = embed(tmp_path / "a.mp4", whole.read_bytes() + own)
    assert strip_record(data) == whole.read_bytes() + own
    assert read_provenance(tmp_path / "a.mp4").record == RECORD


def test_a_file_with_a_signed_manifest_is_left_alone(tmp_path: Path, whole: Path) -> None:
    """A box more would make the signature of the model's provider invalid."""
    path = tmp_path / "a.mp4"
    first, *others = list_boxes(whole.read_bytes())
    data = first[1] + box(b"uuid", C2PA + bytes(40)) + b"".join(each for _, each in others)
    path.write_bytes(data)
    assert "C2PA" in str(embed_record(path, RECORD))
    assert path.read_bytes() == data
    assert read_provenance(path) == Provenance(has_c2pa_manifest=True)


def test_a_last_box_without_a_length_gets_one(tmp_path: Path, late: Path) -> None:
    """Otherwise it would reach over the record."""
    boxes = list_boxes(late.read_bytes())
    boxes.sort(key=lambda each: each[0] == b"moov")
    kind, last = boxes[-1]
    path = tmp_path / "a.mp4"
    data = embed(path, late.read_bytes()[: -len(last)] + bytes(4) + last[4:])
    assert (kind, strip_record(data)) == (b"moov", late.read_bytes())
    assert decode(path) == decode(late)


def test_pictures_up_to_the_end_of_the_file_keep_their_place(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "a.mp4"
    kind, last = list_boxes(whole.read_bytes())[-1]
    data = embed(path, whole.read_bytes()[: -len(last)] + bytes(4) + last[4:])
    assert (kind, strip_record(data)) == (b"mdat", whole.read_bytes())
    assert decode(path) == decode(whole)


def test_a_last_box_that_is_too_large_for_a_length_stays(tmp_path: Path, whole: Path) -> None:
    """There is no room for eight bytes of length without moving it."""
    path = tmp_path / "a.mp4"
    head = list_boxes(whole.read_bytes())[0][1] + bytes(4) + b"mdat"
    path.write_bytes(head)
    os.truncate(path, 1 << 33)  # a file with a hole, which takes no space
    assert "too large" in str(embed_record(path, RECORD))
    with path.open("rb") as file:
        assert (file.read(len(head)), path.stat().st_size) == (head, 1 << 33)


@pytest.mark.parametrize("count", [1, 7, 8, 100_000])
def test_zeros_at_the_end_make_room(tmp_path: Path, whole: Path, count: int) -> None:
    """A box behind them would not be found."""
    data = embed(tmp_path / "a.mp4", whole.read_bytes() + bytes(count))
    assert strip_record(data) == whole.read_bytes()
    assert read_provenance(tmp_path / "a.mp4").record == RECORD


def test_the_prompt_is_not_in_the_file(tmp_path: Path, whole: Path) -> None:
    """Neither as it is nor escaped, but whoever knows it can tell that it is this one."""
    data = embed(tmp_path / "a.mp4", whole.read_bytes())
    assert not any(word in data for word in (b"ship", b"storm", "Ærø".encode()))
    assert compute_prompt_digest(PROMPT).encode() in data


@given(st.text(), st.lists(st.text(max_size=20), max_size=3))
def test_no_text_breaks_the_packet(model: str, ids: list[str]) -> None:
    """Whatever a registry or a provider calls its things."""
    from xml.etree import ElementTree

    packet = make_xmp_packet(ClipRecord(model, "<![CDATA[&]]>", tuple(ids), "0" * 64))
    root = ElementTree.fromstring(packet.decode())
    assert len(root.findall(".//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li")) == len(ids)
    assert root.findtext(".//{urn:videogen:record:1.0:}Endpoint") == "<![CDATA[&]]>"


def test_a_packet_that_another_program_saved_is_read(tmp_path: Path, whole: Path) -> None:
    """Editors write simple values as attributes, and add their own."""
    saved = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
        <rdf:Description rdf:about="" xmlns:v="urn:videogen:record:1.0:" xmlns:n="http://ns.adobe.com/xap/1.0/"
        v:Model="m" v:Endpoint="e" v:PromptSHA256="{"a" * 64}" v:Seed="3" n:CreateDate="2026-01-02T03:04:05"/>
        </rdf:RDF></x:xmpmeta>"""
    (tmp_path / "a.mp4").write_bytes(whole.read_bytes() + xmp(saved.encode()))
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert read_provenance(tmp_path / "a.mp4").record == ClipRecord("m", "e", (), "a" * 64, 3, at)


LAUGHS = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><x>&b;</x>'


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<x", id="cut"),
        pytest.param(b"\xff\xfe" + "<x/>".encode("utf-16-le"), id="utf-16"),
        pytest.param(LAUGHS, id="entities"),
        pytest.param(make_xmp_packet(RECORD).replace(b"<x:xmpmeta", b"<!DOCTYPE x><x:xmpmeta"), id="doctype"),
        pytest.param(make_xmp_packet(RECORD) + b" " * 70_000, id="large"),
        pytest.param(b"<a>" * 20_000, id="deep"),
        pytest.param(make_xmp_packet(RECORD).replace(RECORD.prompt_sha256.encode(), b"none"), id="no-digest"),
        pytest.param(make_xmp_packet(RECORD)[:-400], id="half"),
    ],
)
def test_a_packet_that_is_not_in_order_is_no_record(tmp_path: Path, whole: Path, packet: bytes) -> None:
    """Nothing is expanded, and the record that is then written is found."""
    path = tmp_path / "a.mp4"
    path.write_bytes(whole.read_bytes() + xmp(packet))
    assert read_provenance(path).record is None
    embed(path, path.read_bytes())
    assert read_provenance(path).record == RECORD


def test_values_that_are_out_of_order_are_left_out(tmp_path: Path, whole: Path) -> None:
    packet = make_xmp_packet(RECORD).replace(b">7<", b">1e400<").replace(b"2026-11-30T", b"9999-99-99T")
    (tmp_path / "a.mp4").write_bytes(whole.read_bytes() + xmp(packet))
    found = read_provenance(tmp_path / "a.mp4").record
    assert found is not None
    assert (found.seed, found.created_at, found.prediction_ids) == (None, None, RECORD.prediction_ids)


def test_no_more_than_a_few_packets_are_read(tmp_path: Path, whole: Path) -> None:
    """A file of millions of them takes no time."""
    path = tmp_path / "a.mp4"
    path.write_bytes(whole.read_bytes() + xmp(b"<x/>") * 16 + xmp(make_xmp_packet(RECORD)))
    assert read_provenance(path).record is None


def test_a_damaged_file_is_read_up_to_the_damage(tmp_path: Path, whole: Path) -> None:
    """It is not written to."""
    path = tmp_path / "a.mp4"
    data = embed(path, whole.read_bytes()) + b"\0\0\0\4junk"
    path.write_bytes(data)
    assert read_provenance(path).record == RECORD
    with pytest.raises(BadOutputError, match="damaged at byte"):
        embed_record(path, RECORD)
    assert path.read_bytes() == data
    path.write_bytes(b"\xff" * 40)
    assert read_provenance(path) == Provenance()


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.mp4: cannot be written: No such file"):
        embed_record(tmp_path / "none.mp4", RECORD)
    with pytest.raises(StorageError, match=r"none\.mp4: cannot be read: No such file"):
        read_provenance(tmp_path / "none.mp4")
