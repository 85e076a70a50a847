from pathlib import Path

import pytest

from benchmarks.kill_loop import kill_loop


@pytest.mark.timeout(300)
def test_24_a_run_killed_anywhere_is_continued_and_nothing_is_paid_twice(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """25 seeded rounds, two of them through the whole command: every clip whole on disk, one create for each."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("VIDEOGEN_REGISTRY", raising=False)
    for name in ("REPLICATE_API_TOKEN", "REPLICATE_BASE_URL"):
        monkeypatch.setenv(name, "")  # the loop sets them: so they are as they were afterwards
    tally = kill_loop(seed=24, rounds=25)
    assert tally.faults == []
    assert (tally.rounds, tally.creates) == (25, tally.clips)
    assert tally.kills.total() >= 12
