"""Jobs on hostile servers, by seed: nothing is paid for twice, no cap is passed, every clip is whole and its own.

`uv run just chaos --seeds 200` plays more of them.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.chaos import Play
from tests.faults.hostile import CREATE_FAULTS, ENDPOINT, TOKEN, Hostile, Profile, picture_of, serving


@pytest.mark.parametrize(("first", "seeds"), [(1, 1), pytest.param(2, 19, marks=pytest.mark.long)])
@pytest.mark.timeout(900)
def test_chaos_on_hostile_servers_pays_for_nothing_twice(first: int, seeds: int) -> None:
    """In a process of its own, for it forks a lot and this one is large. A seed that fails is told with its command."""
    ours = ("REPLICATE_", "VIDEO", "PREFECT_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--first", str(first), "--seeds", str(seeds)],
        check=False,
        env=inherited,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# -- the server, which judges, is judged -------------------------------------------------------------------------------

ACCEPTED = {
    **dict.fromkeys(("reset-before", "hop-before"), 0),
    **dict.fromkeys(("reset-after", "cut-after", "html-after", "silent-after", "hop-after"), 1),
    **dict.fromkeys(("gateway-late", "reset-late"), 1),
}


def create(server: Hostile, prompt: str = "p") -> Any:
    """Create a prediction. Returns the answer, None where there is none."""
    path, headers = f"/v1/models/{ENDPOINT}/predictions", {"Authorization": f"Bearer {TOKEN}"}
    try:
        return httpx.post(server.url + path, json={"input": {"prompt": prompt}}, headers=headers, timeout=1.0)
    except httpx.HTTPError:
        return None


def accepted(server: Hostile, expected: int) -> list[dict[str, Any]]:
    """Wait until the ledger has so many predictions, for those that are accepted late. Returns what it has."""
    for _ in range(100):
        if len(predictions := server.ledger()["predictions"]) >= expected:
            return list(predictions)
        time.sleep(0.05)
    return list(predictions)


@pytest.mark.long_variants
@pytest.mark.parametrize("fault", CREATE_FAULTS)
def test_a_create_is_accepted_or_not_as_its_fault_says(fault: str) -> None:
    """The client is told of none of them, and the ledger has those that were accepted."""
    with serving(1, Profile(creates={fault: 1.0}, fates={}, late_s=0.3)) as server:
        answers = [create(server, f"prompt {number}") for number in range(10)]
        faults = server.ledger()["faults"][f"create {fault}"]
        unfaulty = sum(answer is not None and answer.status_code == 201 for answer in answers)
        assert (faults > 0, faults + unfaulty) == (True, len(answers))
        wanted = unfaulty + ACCEPTED[fault] * faults
        assert len(accepted(server, wanted)) == wanted


def test_the_ledger_knows_what_was_created_twice() -> None:
    """While it runs, and when it has succeeded, but not once it is canceled or damaged."""
    with serving(1, Profile(creates={}, fates={})) as server:
        first, second, other = (create(server, prompt).json()["id"] for prompt in ("p", "p", "q"))
        twice = {later: earlier for _, later, earlier in server.ledger()["paid_twice"]}
        assert twice == {first: [], second: [first], other: []}
    with serving(1, Profile(creates={}, fates={"canceled": 0.8})) as server:
        made = [create(server).json()["id"]]
        while server.ledger()["predictions"][0]["status"] == "processing":
            time.sleep(0.05)
        made.append(create(server).json()["id"])
        ledger = server.ledger()
        is_worth_it = ledger["predictions"][0]["status"] == "succeeded"
        assert ledger["paid_twice"][1][2] == made[:is_worth_it]


def test_a_seed_always_plays_the_same(tmp_path: Path) -> None:
    """Its server, its jobs and how its runs end."""
    assert [Profile.draw(seed) for seed in range(50)] == [Profile.draw(seed) for seed in range(50)]
    assert [Play.draw(seed, tmp_path) for seed in range(50)] == [Play.draw(seed, tmp_path) for seed in range(50)]
    assert picture_of("red") != picture_of("blue")
