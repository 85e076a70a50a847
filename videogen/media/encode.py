"""Find out how players show a stored picture, and encode it again: upright, in square pixels, in bt709 and H.264."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from math import atan2, degrees
from pathlib import Path
from typing import TYPE_CHECKING, cast

from videogen.media.boxes import Aperture
from videogen.media.files import make_bad_output_error
from videogen.media.tones import Transfer, write_cube_file

if TYPE_CHECKING:
    from av.buffer import Buffer
    from av.container import OutputContainer
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Size = tuple[int, int]
"""Width and height in pixels."""

_BT709, _BT2020 = 1, 9
_HDR_TRANSFERS: dict[int, Transfer] = {16: "pq", 18: "hlg"}
"""Numbers of ITU-T H.273, as FFmpeg has them."""
_UNTAGGED = 2


@dataclass(frozen=True, slots=True)
class Presentation:
    """The way in which players show the pictures of a stream."""

    stored: Size
    crop: tuple[int, int, int, int] | None
    """Width, height, left and top of the clean aperture in the stored picture; None when all of it is shown."""
    turn: tuple[str, ...]
    """Filters that undo the display matrix."""
    upright: Size
    """Size of the visible picture after rotation, in stored pixels."""
    size: Size
    """Size of the visible picture after rotation, in square pixels."""
    transfer: Transfer | None
    """Transfer function when the colours have to be mapped to bt709, from HDR or from BT.2020; else None."""
    matrix: str
    """Matrix of the stored colours, by the scaler's name for it."""

    @classmethod
    def of(cls, path: Path, stream: "VideoStream", frame: "VideoFrame", aperture: Aperture | None) -> "Presentation":
        """Return how players show a stream whose first picture is `frame`."""
        stored = frame.width, frame.height
        crop = _find_clean_aperture(stored, aperture)
        turn = _find_rotation_filters(frame)
        clean = crop[:2] if crop else stored
        aspect = stream.sample_aspect_ratio or Fraction(1)
        if not Fraction(1, 16) <= aspect <= 16:
            raise make_bad_output_error(path, f"pixels of {aspect.numerator}:{aspect.denominator}")
        width, height = clean
        shown = (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))
        is_on_its_side = any(each.startswith("transpose") for each in turn)
        return cls(
            stored=stored,
            crop=crop,
            turn=turn,
            upright=clean[::-1] if is_on_its_side else clean,
            size=shown[::-1] if is_on_its_side else shown,
            transfer=_HDR_TRANSFERS.get(frame.color_trc) or ("sdr" if frame.color_primaries == _BT2020 else None),
            matrix=_get_colour_matrix(frame),
        )

    @property
    def is_hdr(self) -> bool:
        return self.transfer in ("pq", "hlg")


def _find_clean_aperture(stored: Size, aperture: Aperture | None) -> tuple[int, int, int, int] | None:
    if aperture is None:
        return None
    width, height = min(stored[0], round(aperture.width)), min(stored[1], round(aperture.height))
    left = round((stored[0] - aperture.width) / 2 + aperture.right)
    top = round((stored[1] - aperture.height) / 2 + aperture.down)
    left, top = max(0, min(left, stored[0] - width)), max(0, min(top, stored[1] - height))
    if (width, height) == stored or min(width, height) < 2:
        return None
    return width, height, left, top


def _find_rotation_filters(frame: "VideoFrame") -> tuple[str, ...]:
    """Return the filters that apply a picture's display matrix. FFmpeg's players decide in the same way."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return ()
    data = bytes(cast("Buffer", matrix))
    a, b, _, c, d = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in range(0, 20, 4))
    match round(degrees(atan2(b, a)) / 90) % 4:
        case 1:
            return ("transpose=cclock_flip",) if c > 0 else ("transpose=clock",)
        case 2:
            return (*(["hflip"] if a < 0 else []), *(["vflip"] if d < 0 else []))
        case 3:
            return ("transpose=clock_flip",) if c < 0 else ("transpose=cclock",)
        case _:
            return ("vflip",) if d < 0 else ()


def _get_colour_matrix(frame: "VideoFrame") -> str:
    """Return the name of a picture's colour matrix. Players read untagged video as bt601 below 720 lines."""
    if frame.colorspace != _UNTAGGED:
        return "auto"
    return "bt709" if frame.height >= 720 else "bt601"


def find_crop(shown: Size, ratio: Size, tolerance: float, *, spare_px: int = 4) -> Size:
    """Return the largest even size of `ratio` inside `shown`, or `shown` itself when its ratio is close enough.

    The ratio is close enough when it is off by at most the share `tolerance`, and by fewer than `spare_px` lines or
    columns. Encoders pad pictures to their blocks (1920x1088), and the padding would show as a bar in an edit.
    """
    width, height = shown
    if width * ratio[1] > height * ratio[0]:
        wanted = height * ratio[0] / ratio[1], float(height)
    else:
        wanted = float(width), width * ratio[1] / ratio[0]
    is_near = abs(width * ratio[1] / (height * ratio[0]) - 1) <= tolerance
    if is_near and width - wanted[0] < spare_px and height - wanted[1] < spare_px:
        return shown
    return floor_to_even(wanted)


def floor_to_even(size: tuple[float, float]) -> Size:
    """Round a size down to even numbers, as yuv420p requires; a crop of this size fits."""
    return max(2, int(size[0]) // 2 * 2), max(2, int(size[1]) // 2 * 2)


def open_encoder(target: "OutputContainer", size: Size, fps: Fraction) -> "VideoStream":
    """Add a stream of H.264 in bt709, which plays everywhere, and return it."""
    # Looking ahead, B-frames, and more threads where there are more cores, hold frames: in full HD 4 MB each. Without
    # them a clip takes half the memory and time, and somewhat more bytes.
    options = {"crf": "18", "preset": "veryfast", "rc-lookahead": "0", "bf": "0", "threads": "3"}
    encoder = target.add_stream("libx264", rate=fps, options=options)
    encoder.width, encoder.height = size
    encoder.pix_fmt = "yuv420p"
    context = encoder.codec_context
    context.color_primaries = context.color_trc = context.colorspace = _BT709
    context.color_range = 1  # limited
    return encoder


def open_graph(
    stream: "VideoStream",
    first: "VideoFrame",
    view: Presentation,
    *,
    crop: Size,
    size: Size,
    fps: Fraction | None = None,
    form: str = "yuv420p",
) -> "Graph":
    """Return a filter graph that turns stored pictures into those that a player shows, cropped to `crop` and scaled to
    `size`.

    `fps` repeats or leaves out pictures; the first one comes out at 0. HDR is mapped to the tones of bt709.
    """
    from av.filter import Graph

    graph = Graph()
    with write_cube_file(view.transfer) if view.transfer else nullcontext() as cube:
        graph.link_nodes(
            graph.add("buffer", _describe_source(stream, first)),
            *(graph.add(*_split_filter(each)) for each in _list_filters(view, crop, size, fps, form, cube)),
            graph.add("buffersink"),
        ).configure()
    return graph


def _describe_source(stream: "VideoStream", first: "VideoFrame") -> str:
    return ":".join(
        (
            f"video_size={first.width}x{first.height}",
            f"pix_fmt={first.format.name}",
            f"time_base={stream.time_base}",
            "pixel_aspect=1",
            f"colorspace={int(first.colorspace)}",
            f"range={int(first.color_range)}",
        )
    )


def _list_filters(
    view: Presentation, crop: Size, size: Size, fps: Fraction | None, form: str, cube: Path | None
) -> Iterator[str]:
    if fps:
        yield "setpts=PTS-STARTPTS"
        yield f"fps={fps}:round=near"
    if view.crop:
        yield "crop={}:{}:{}:{}:exact=1".format(*view.crop)
    yield from view.turn
    width, height = view.upright  # in stored pixels, which may not be square; `crop` is in square ones
    yield f"crop={round(crop[0] * width / view.size[0])}:{round(crop[1] * height / view.size[1])}"
    scale = f"scale={size[0]}:{size[1]}:in_color_matrix={view.matrix}"
    if cube:
        yield scale
        yield "format=gbrp16le"
        yield f"lut3d=file={_escape_path(cube)}:interp=tetrahedral"
        yield "setparams=color_primaries=bt709:color_trc=bt709"
        scale = f"scale={size[0]}:{size[1]}"
    yield scale if form == "rgb24" else f"{scale}:out_color_matrix=bt709:out_range=tv"
    yield f"format={form}"


def _escape_path(path: Path) -> str:
    """Escape a path for FFmpeg's filter syntax."""
    return "".join(f"\\{each}" if each in "\\':" else each for each in str(path))


def _split_filter(step: str) -> tuple[str, str]:
    name, _, arguments = step.partition("=")
    return name, arguments


def pull_frames(graph: "Graph") -> "Iterator[VideoFrame]":
    """Yield the pictures that are ready."""
    import av

    while True:
        try:
            frame = cast("VideoFrame", graph.pull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        frame.pict_type = 0  # the encoder chooses, not the source
        yield frame
