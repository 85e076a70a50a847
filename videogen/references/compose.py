"""Compose a start frame from a background and characters."""

import io
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from videogen.job.model import display_name
from videogen.planning.requests import ClipRequest
from videogen.references.cut_out import cut_out

if TYPE_CHECKING:
    from PIL import Image
from videogen.references.decode import ReferenceImage, encode_image
from videogen.text import list_first

MAX_FRAME_BYTES = 3_000_000
"""Limit for a composed frame. Pictures that are too large for a `data:` URL are uploaded in full quality."""


# --- start frames


def warn_about_cards(requests: Iterable[ClipRequest], references: Mapping[str, ReferenceImage]) -> Iterator[str]:
    """Yield a warning for each character that is no cut-out, saying how the start frames show it."""
    by_digest = {reference.digest: reference for reference in references.values()}
    scenes: dict[tuple[str, bool], list[str]] = {}
    for request in requests:
        for image in request.prediction.images.values():
            if image.size is None or (image.background is None and len(image.characters) == 1):
                continue
            for digest in dict.fromkeys(image.characters):
                if not by_digest[digest].has_alpha:
                    scenes.setdefault((digest, digest in image.cut_outs), []).append(request.scene.id)
    for (digest, is_cut_out), ids in scenes.items():
        what = (
            "its plain background is cut away"
            if is_cut_out
            else "it is pasted as a card; give a PNG with a transparent background to let the figure stand in the scene"
        )
        name = display_name(by_digest[digest].source)
        yield f"{name} is opaque: {what} ({list_first(ids)}). Look at it with `videogen plan --frames FOLDER`"


def warn_about_plain_pictures(
    requests: Iterable[ClipRequest], references: Mapping[str, ReferenceImage]
) -> Iterator[str]:
    """Yield a warning for each picture of one colour, unless it is the background of characters."""
    by_digest = {reference.digest: reference for reference in references.values()}
    scenes: dict[str, dict[str, None]] = {}
    for request in requests:
        for image in request.prediction.images.values():
            shown = image.characters or ((image.background,) if image.background else ())
            for digest in shown:
                if by_digest[digest].is_one_colour:
                    scenes.setdefault(digest, {})[request.scene.id] = None
    for digest, ids in scenes.items():
        name = display_name(by_digest[digest].source)
        yield f"{name} has only one colour, so it shows the model nothing ({list_first(list(ids))})"


def compose_frame(
    *,
    size: tuple[int, int],
    background: ReferenceImage | None,
    characters: Sequence[ReferenceImage],
    cut_outs: Container[str] = (),
) -> bytes:
    """Compose a start frame and return it as a JPEG of `size` (width, height in pixels).

    `background` covers the frame, and `characters` stand before it, left to right. Cut-outs stand on the lower edge.
    Opaque characters whose digests are in `cut_outs` are cut out of their plain background first; other opaque pictures
    hang as cards. Figures never cover each other, so many of them become small. Without a background, a single opaque
    character covers the frame itself, and several stand before a soft gradient of their own colours. The same pictures
    always give the same bytes. The quality is lowered until the JPEG fits `MAX_FRAME_BYTES`.
    """
    if background is None and len(characters) == 1 and not characters[0].has_alpha:
        background, characters = characters[0], ()
    figures = [_load_figure(character, character.digest in cut_outs) for character in characters]
    frame = _make_covering_background(background, size) if background else _make_backdrop(figures, size)
    for figure, box in zip(figures, _lay_out_row(size, figures), strict=True):
        _paste_figure(frame, figure, box)
    return _encode_within_limit(frame)


_Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""


def _decode(picture: ReferenceImage) -> "Image.Image":
    from PIL import Image

    image = Image.open(io.BytesIO(picture.data), formats=("JPEG", "PNG"))
    image.load()
    return image


def _load_figure(character: ReferenceImage, is_cut_out: bool) -> "Image.Image":
    """Load a cut-out without its empty margins (mode RGBA), or a whole picture (mode RGB)."""
    image = _decode(character)
    if is_cut_out and not character.has_alpha:
        image = cut_out(image)
    if image.mode != "RGBA":
        return image
    return image.crop(image.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox())


def _make_covering_background(background: ReferenceImage, size: tuple[int, int]) -> "Image.Image":
    from PIL import Image, ImageOps

    image = _decode(background)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def _make_backdrop(figures: "Sequence[Image.Image]", size: tuple[int, int]) -> "Image.Image":
    """Draw a soft vertical gradient, light above, in a greyed mean of the colours of `figures`."""
    from PIL import Image

    grey = (196, 198, 202)
    means = [figure.convert("RGBA").resize((1, 1), Image.Resampling.BOX).tobytes() for figure in figures]
    mean = [sum(pixel[band] for pixel in means) / len(means) for band in range(3)] if means else grey
    tint = [0.35 * own + 0.65 * neutral for own, neutral in zip(mean, grey, strict=True)]
    above = Image.new("RGB", size, tuple(round(band + (255 - band) * 0.45) for band in tint))
    below = Image.new("RGB", size, tuple(round(band * 0.82) for band in tint))
    return Image.composite(below, above, Image.linear_gradient("L").resize(size, Image.Resampling.BICUBIC))


def _lay_out_row(size: tuple[int, int], figures: "Sequence[Image.Image]") -> list[_Box]:
    """Return a box for each figure, in a row: as large as fits without touching, with even gaps."""
    width, height = size
    natural = [_get_natural_size(size, figure) for figure in figures]
    least_gap = min(0.03, 0.25 / (len(figures) + 1)) * width
    row = sum(each for each, _ in natural)
    scale = min(1.0, (width - least_gap * (len(figures) + 1)) / row) if row else 1.0
    gap = (width - row * scale) / (len(figures) + 1)
    boxes: list[_Box] = []
    left = gap
    for figure, (box_width, box_height) in zip(figures, natural, strict=True):
        box = max(1, int(box_width * scale)), max(1, int(box_height * scale))
        lift = 0 if figure.mode == "RGBA" else round(0.08 * height)
        boxes.append((round(left), height - lift - box[1], *box))
        left += box_width * scale + gap
    return boxes


def _get_natural_size(size: tuple[int, int], figure: "Image.Image") -> tuple[float, float]:
    """Return the width and height that a figure would have if it were alone.

    Cut-outs are scaled by their height. Cards fit inside half the height and 40 % of the width.
    """
    width, height = size
    if figure.mode == "RGBA":
        scale = 0.72 * height / figure.height
    else:
        scale = min(0.5 * height / figure.height, 0.4 * width / figure.width)
    return figure.width * scale, figure.height * scale


def _paste_figure(frame: "Image.Image", figure: "Image.Image", box: _Box) -> None:
    from PIL import Image

    left, top, width, height = box
    if figure.mode == "RGBA":
        sized = figure.resize((width, height), Image.Resampling.LANCZOS)
        frame.paste(sized, (left, top), sized)
        return
    line = max(1, round(0.012 * min(width, height)))
    frame.paste((250, 250, 248), (left, top), _make_rounded_mask((width, height), line * 4))
    inner = max(1, width - 2 * line), max(1, height - 2 * line)
    picture = figure.resize(inner, Image.Resampling.LANCZOS)
    frame.paste(picture, (left + line, top + line), _make_rounded_mask(inner, line * 3))


def _make_rounded_mask(size: tuple[int, int], radius: int) -> "Image.Image":
    """Draw a mask of a rectangle with smooth round corners."""
    from PIL import Image, ImageDraw

    large = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(large).rounded_rectangle((0, 0, large.width - 1, large.height - 1), radius * 4, fill=255)
    return large.resize(size, Image.Resampling.BOX)


def _encode_within_limit(frame: "Image.Image") -> bytes:
    data = b""
    for quality in (92, 88, 84, 80, 75, 70, 60, 50, 40, 30):
        data = encode_image(frame, "JPEG", quality=quality)
        if len(data) <= MAX_FRAME_BYTES:
            break
    return data
