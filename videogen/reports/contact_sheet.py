"""Write the contact sheet: `index.html` with all clips of a run."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from videogen.registry.tables import parse_ratio
from videogen.results.run_result import RunResult
from videogen.results.takes import count_side_by_side, get_chosen_clips, group_takes, sort_for_review
from videogen.storage.base import Store
from videogen.text import format_duration, format_money

if TYPE_CHECKING:
    from jinja2 import Template

PAGE_NAME, IMAGE_NAME = "index.html", "contact_sheet.jpg"
EAGER_POSTERS = 24
"""Number of posters that a browser loads at once. The others are loaded when they come near the window."""

_PAGES = Path(__file__).parent / "templates"
_FLAWS = {
    "black": "black from start to end",
    "frozen": "nothing moves from start to end",
    "codec": "in a codec that some browsers, phones and editors do not play",
    "hdr": "came in HDR",
    "sound": "its sound is in a codec that most players cannot decode",
    "transcoded": "came in a codec that no browser plays, delivered in H.264",
    "short": "shorter than its target",
    "billed": "billed otherwise than planned",
    "unsigned": "could not be signed",
}


# --- index.html


def write_page(batch: RunResult, prompts: Mapping[str, str], store: Store, *, files: Sequence[str] = ()) -> None:
    """Write `index.html`, with links to `files` beside it. Raise `StorageError` when it cannot be written."""
    store.put_text(render_page(batch, prompts, files=files), PAGE_NAME)


def render_page(batch: RunResult, prompts: Mapping[str, str], *, files: Sequence[str] = ()) -> str:
    """Return the contact sheet as HTML, complete except for the posters and clips beside it in the job's folder.

    `prompts` are the job's, by scene id. They are used for clips that have no prompt of their own. The takes of a scene
    follow each other, with the chosen one first. Clips to be compared stand side by side, with a row for each scene.
    """
    from markupsafe import Markup

    groups = group_takes(batch)
    style = (_PAGES / "style.css").read_text(encoding="utf-8") + _make_layout_css(
        batch.aspect_ratio, count_side_by_side(batch)
    )
    script = (_PAGES / "contact_sheet.js").read_text(encoding="utf-8")
    return _load_template().render(
        batch=batch,
        clips=sort_for_review(batch),
        take_counts={clip.scene_id: len(takes) for takes in groups for clip in takes},
        prompts=prompts,
        files=files,
        spent={name: sum((c.cost for c in batch.clips if c.model == name), Decimal(0)) for name in batch.verdicts},
        length=sum(clip.actual_duration or 0.0 for clip in get_chosen_clips(batch)),
        place="made by the emulator" if batch.provider == "local" else f"made at {batch.provider}",
        eager=EAGER_POSTERS,
        policy=_make_content_policy(style, script),
        style=Markup(style),  # noqa: S704  # ours
        script=Markup(script),  # noqa: S704
    )


@cache
def _load_template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(_PAGES), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {
        "address": quote,
        "flaw": lambda flaw: _FLAWS.get(flaw, flaw),
        "money": format_money,
        "stars": lambda rating: "★" * rating + "☆" * (5 - rating),
        "seconds": lambda seconds: "–" if seconds is None else f"{round(seconds, 2):g} s",
        "time": format_duration,
    }
    return environment.get_template("contact_sheet.html")


def _make_layout_css(aspect_ratio: str, columns: int) -> str:
    width, height = choose_card_ratio(aspect_ratio)
    card = "" if width > height else " --card: 15rem;"
    shape = f"\n:root {{ --ratio: {width} / {height};{card} }}\n"
    if columns > 1:
        shape += f".clips {{ grid-template-columns: repeat({columns}, minmax(16rem, 1fr)); overflow-x: auto; }}\n"
    return shape


def choose_card_ratio(aspect_ratio: str) -> tuple[int, int]:
    """Return width and height of the cards: 16:9 if the ratio is left to the model."""
    return parse_ratio(aspect_ratio) or (16, 9)


def _make_content_policy(style: str, script: str) -> str:
    """Return a content security policy that admits no other origin, and no style or script but these two.

    It names `file:` as well, because a page that is read from disk has no `self`.
    """
    return "; ".join(
        (
            "default-src 'none'",
            "img-src 'self' file:",
            "media-src 'self' file:",
            f"style-src '{_hash_source(style)}'",
            f"script-src '{_hash_source(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash_source(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
