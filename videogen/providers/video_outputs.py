"""Find the video in a prediction's output.

Most video models return one URL. Others return a list, or objects in which the video stands beside a thumbnail, a log
or a sound: `{"thumbnail": …, "video": …}`, `[{"url": …}]`, `{"video": {"url": …, "content_type": "video/mp4"}}`.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

MOST_VALUES = 10_000
MOST_DEPTH = 16
VIDEO_SUFFIXES = re.compile(r"\.(?:mp4|m4v|mov|webm|mkv|avi|mpe?g|ts|ogv|wmv|flv)")
OTHER_SUFFIXES = re.compile(
    r"\.(?:jpe?g|png|webp|gif|bmp|tiff?|svg|avif|heic|ico|mp3|wav|m4a|aac|flac|ogg|opus|txt|log|jsonl?|csv|srt|vtt|html?"
    r"|xml|md|ya?ml|pdf|zip|tar|gz|np[yz]|safetensors|glb|ply)"
)
VIDEO_NAMES = re.compile(r"(?:video|movie|film|clip|mp4|webm)s?")
OTHER_NAMES = re.compile(
    r"(?:thumb(?:nail)?|preview|poster|cover|image|picture|photo|frame|mask|gif|still|audio|sound|music|voice|speech|log"
    r"|text|caption|subtitle|transcript|metadata|json|html|input|source|reference|cancel|web)s?"
)
"""Words in names that do not suggest a video. A URL under such a name is used if there is no better one."""
MEDIA_TYPE_NAMES = ("content_type", "contentType", "mime_type", "mimeType", "media_type", "mediaType", "type")
NEUTRAL_MEDIA_TYPES = ("application/octet-stream", "binary/octet-stream")

_ADDRESS = re.compile(r"https?://[^\x00-\x20\x7f-\x9f\s\ud800-\udfff]{1,8000}", re.IGNORECASE)
_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")


@dataclass(frozen=True, slots=True)
class _Text:
    """A text in the output, with the names that lead to it and the media type that stands beside it."""

    text: str
    names: tuple[str, ...]
    media_type: str


def find_video(output: Any) -> str | None:
    """Return the URL in the output that is most likely a video's, or None if there is no candidate."""
    best, best_score = None, -1000
    for found in _walk(output):
        address = found.text.strip()
        score = _score(address, found)
        if score is not None and score > best_score:
            best, best_score = address, score
    return best


def is_empty(output: Any) -> bool:
    """Return whether the output holds nothing yet, so that it may still come."""
    return output is None or (isinstance(output, str | list | dict) and not any(_walk_leaves(output)))


def _walk_leaves(output: Any) -> Iterator[bool]:
    values = deque([output])
    for _ in range(MOST_VALUES):
        if not values:
            return
        value = values.popleft()
        if isinstance(value, list | dict):
            below = value if isinstance(value, list) else value.values()
            values.extend(islice(below, MOST_VALUES - len(values)))
        else:
            yield value is not None and value != ""


def _walk(output: Any) -> Iterator[_Text]:
    """Yield the texts of an output, those nearest to its top first."""
    values: deque[tuple[Any, tuple[str, ...], str]] = deque([(output, (), "")])
    for _ in range(MOST_VALUES):
        if not values:
            return
        value, names, media_type = values.popleft()
        if isinstance(value, str):
            yield _Text(value, names, media_type)
        elif len(names) == MOST_DEPTH:
            continue
        elif isinstance(value, list):
            values.extend((item, (*names, ""), media_type) for item in islice(value, MOST_VALUES - len(values)))
        elif isinstance(value, dict):
            told = (value.get(name) for name in MEDIA_TYPE_NAMES)
            media_type = next((each.lower() for each in told if isinstance(each, str)), "")
            below = islice(value.items(), MOST_VALUES - len(values))
            values.extend((item, (*names, name), media_type) for name, item in below)


def _score(address: str, found: _Text) -> int | None:
    """Return how likely the URL is a video: its media type counts most, then its file's suffix, then the names that
    lead to it.

    Return None if it is no URL, or that of an image, a sound or a text.
    """
    media_type = found.media_type
    suffix = ""
    if address[:5].lower() == "data:":
        media_type = re.split("[;,]", address[5:200], maxsplit=1)[0].lower()
    elif _ADDRESS.fullmatch(address):
        suffix = _suffix(address)
    else:
        return None
    by_type, by_suffix = _judge_type(media_type), _judge_suffix(suffix)
    if by_type < 0 or (by_type == 0 and by_suffix < 0):
        return None
    return 100 * by_type + 10 * by_suffix + max(-9, min(9, sum(map(_judge_name, found.names))))


def _judge_type(media_type: str) -> int:
    if media_type.startswith("video"):
        return 1
    if media_type in NEUTRAL_MEDIA_TYPES:
        return 0
    return -1 if re.match(r"(image|audio|text)\b|[a-z]+/", media_type) else 0


def _judge_suffix(suffix: str) -> int:
    return bool(VIDEO_SUFFIXES.fullmatch(suffix)) - bool(OTHER_SUFFIXES.fullmatch(suffix))


def _judge_name(name: str) -> int:
    words = [word.lower() for word in _WORDS.findall(name[:200])]
    return any(map(VIDEO_NAMES.fullmatch, words)) - any(map(OTHER_NAMES.fullmatch, words))


def _suffix(address: str) -> str:
    try:
        return PurePosixPath(urlsplit(address).path).suffix.lower()
    except ValueError:
        return ""
