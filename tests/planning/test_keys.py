"""The keys of clips stay those of earlier versions, which have delivered clips under them."""

import hashlib
from pathlib import Path

from videogen.planning.planner import build_plan
from videogen.planning.validation import load_and_validate

EXAMPLE = Path(__file__).parents[2] / "examples" / "lighthouse.toml"
KEYS = {
    "harbour": "b854400c16b78974b52704d322718e76",
    "storm": "a9f20b7d5e4a2a3a49fd2c6be7149b05",
    "keeper": "cc4dc3eb090d1395d5974acc91829e62",
    "stairs": "b71bd33e51fab375260f20e3ffb782e9",
    "lamp": "45696b91763fd35a6155446543800933",
    "ship": "e377ab258733734faa4bb3c6e12b4562",
    "rescue": "61f593b189e373620eaf21c85026cc7c",
    "morning": "951345c2148abaca3841545b9240562f",
}
"""As version 0002 of the journal has them, for a run of the example."""


def test_clips_of_earlier_versions_are_found_by_their_keys() -> None:
    """Also those with reference pictures, whose bytes are part of the key."""
    checked = load_and_validate(EXAMPLE)
    sources = {source for scene in checked.job.scenes for source in scene.reference_urls}
    digests = {source: hashlib.sha256((EXAMPLE.parent / source).read_bytes()).hexdigest() for source in sources}
    planned = build_plan(checked.job, checked.registry, digests=digests)
    assert {request.scene.id: request.key for request in planned.requests} == KEYS
