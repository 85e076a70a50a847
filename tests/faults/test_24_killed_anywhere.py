from pathlib import Path

import pytest

from benchmarks.kill_loop import kill_loop


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDEOGEN_REGISTRY", raising=False)
    for name in ("REPLICATE_API_TOKEN", "REPLICATE_BASE_URL"):
        monkeypatch.setenv(name, "")  # the loop sets them: so they are as they were afterwards


@pytest.mark.timeout(300)
def test_24_a_run_killed_anywhere_is_continued_and_nothing_is_paid_twice() -> None:
    """23 seeded rounds: every clip whole on disk, one create for each."""
    tally = kill_loop(seed=24, rounds=23, command_every=None)
    assert tally.faults == []
    assert (tally.rounds, tally.creates) == (23, tally.clips)
    assert tally.kills.total() >= 12


@pytest.mark.timeout(300)
def test_24_so_is_a_whole_command(prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds through Prefect."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    tally = kill_loop(seed=24, rounds=2, command_every=1)
    assert tally.faults == []
    assert (tally.rounds, tally.creates) == (2, tally.clips)
    assert tally.kills.total() >= 1
