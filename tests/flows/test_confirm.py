"""The question before money is spent: at a terminal, and where there is none."""

import errno
import json
import os
import pty
import select
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from tests.flows.conftest import CommandLine
from videogen.emulator import Emulator

pytestmark = pytest.mark.integration
PATIENCE_S = 250


class Terminal:
    """A command at a terminal of its own, at which a person reads and types."""

    def __init__(self, command: CommandLine, *words: str) -> None:
        self._end, end = pty.openpty()
        self.shown = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env=command.whole_environment,
            cwd=command.folder,
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
        )
        os.close(end)

    def read_until(self, text: str) -> None:
        while text not in self.shown:
            assert self._read(), self.shown

    def type(self, line: str) -> None:
        os.write(self._end, f"{line}\n".encode())

    def press_ctrl_c(self) -> None:
        os.killpg(self._process.pid, signal.SIGINT)

    def wait(self) -> int:
        """Return the exit code. The rest of the output is in `shown`."""
        while self._read():
            pass
        os.close(self._end)
        return self._process.wait(PATIENCE_S)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._end], [], [], PATIENCE_S)
        assert ready, self.shown
        try:
            read = os.read(self._end, 4096)
        except OSError as exc:  # how Linux says that the other end is closed
            if exc.errno != errno.EIO:
                raise
            read = b""
        self.shown += read.decode()
        return bool(read)


@pytest.fixture
def film(on_emulator: CommandLine) -> CommandLine:
    """A film of two clips for $0.12, and a question above $0.10."""
    on_emulator.quick_job(2)
    on_emulator.environment["VIDEOGEN_CONFIRM_ABOVE"] = "0.10"
    return on_emulator


def say(command: CommandLine, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        env=command.whole_environment,
        cwd=command.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_person_at_a_terminal_is_asked_before_anything_is_created(film: CommandLine, emulator: Emulator) -> None:
    """Only y makes the clips: Enter, another word, the end of the input and Ctrl-C do not."""
    for answer in ("", "no thanks", "\x04"):
        terminal = Terminal(film, "videogen", "run", "film.json")
        terminal.read_until("make 2 clips for about $0.12? [y/N] ")
        terminal.type(answer)
        assert terminal.wait() == 1
        assert "nothing was made" in terminal.shown
    terminal = Terminal(film, "videogen", "run", "film.json")
    terminal.read_until("[y/N] ")
    terminal.press_ctrl_c()
    assert terminal.wait() == 130
    assert terminal.shown.rstrip().endswith("interrupted: nothing was made")
    assert emulator.ledger()["creates"] == 0


def test_clips_that_a_person_confirms_are_made(film: CommandLine, emulator: Emulator) -> None:
    terminal = Terminal(film, "flows.generate", "film.json")
    terminal.read_until("[y/N] ")
    terminal.type("y")
    assert terminal.wait() == 0, terminal.shown
    assert emulator.ledger()["creates"] == 2


def test_without_a_terminal_a_dear_plan_is_refused(film: CommandLine, emulator: Emulator) -> None:
    """With the amounts, and the flag to add."""
    refused = say(film, "videogen", "run", "film.json")
    assert (refused.returncode, emulator.ledger()["creates"]) == (2, 0)
    assert "costs about $0.12, more than the $0.10 above which VIDEOGEN_CONFIRM_ABOVE asks" in refused.stderr
    assert "add --yes" in refused.stderr


@pytest.mark.long
def test_a_command_that_says_yes_is_not_asked(film: CommandLine, emulator: Emulator) -> None:
    """Neither is one that makes nothing new. A retake that is refused is not described anywhere."""
    made = say(film, "videogen", "run", "film.json", "--yes")
    assert (made.returncode, emulator.ledger()["creates"]) == (0, 2), made.stderr
    assert say(film, "videogen", "run", "film.json").returncode == 0
    retake = ("videogen", "retake", "film.json", "s0", "--prompt", "At night", "--takes", "2")
    refused = say(film, *retake)
    assert (refused.returncode, "add --yes" in refused.stderr) == (2, True)
    assert not (film.folder / "out" / "film" / "choices.toml").exists()
    made = say(film, *retake, "--yes")
    assert (made.returncode, emulator.ledger()["creates"]) == (0, 4), made.stderr


@pytest.mark.long
def test_finish_asks_at_a_terminal_whatever_it_costs(film: CommandLine, emulator: Emulator) -> None:
    """And only once. Without a terminal it asks as a run does."""
    assert say(film, "videogen", "run", "film.json", "--yes").returncode == 0
    film.environment["VIDEOGEN_CONFIRM_ABOVE"] = "1"
    terminal = Terminal(film, "videogen", "finish", "film.json", "--model", "twin")
    terminal.read_until("[y/N] ")
    terminal.type("n")
    assert (terminal.wait(), emulator.ledger()["creates"]) == (1, 2)
    terminal = Terminal(film, "videogen", "finish", "film.json", "--model", "twin")
    terminal.read_until("[y/N] ")
    film.environment["VIDEOGEN_CONFIRM_ABOVE"] = "0.10"
    terminal.type("yes")
    assert (terminal.wait(), emulator.ledger()["creates"]) == (0, 4)
    assert terminal.shown.count("[y/N]") == 1
    refused = say(film, "videogen", "finish", "film.json", "--model", "heard")
    assert (refused.returncode, "add --yes" in refused.stderr) == (2, True)


@pytest.mark.long
def test_clips_that_cost_nothing_are_not_asked_about(command: CommandLine) -> None:
    """Those of the emulator that the run starts for itself."""
    command.quick_job(1)
    command.environment["VIDEOGEN_CONFIRM_ABOVE"] = "0"
    made = say(command, "videogen", "run", "film.json")
    assert made.returncode == 0, made.stderr


def test_an_amount_that_is_none_is_refused(tmp_path: Path) -> None:
    command = CommandLine(tmp_path, {"VIDEOGEN_CONFIRM_ABOVE": "1_0"})
    refused = say(command, "videogen", "settings")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: VIDEOGEN_CONFIRM_ABOVE: must be an amount in USD such as 10, not '1_0'\n",
    )


# -- the command that goes on -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_run_that_reaches_its_cap_says_which_command_goes_on(on_emulator: CommandLine, emulator: Emulator) -> None:
    """The command is typed as it was said, and its cap is just enough. A lower cap refuses nothing that is there."""
    on_emulator.quick_job(4, min_clips=1, max_cost="0.30")
    first = say(on_emulator, "videogen", "run", "film.json", "--concurrency", "1", "--max-cost", "0.13")
    assert first.returncode == 2  # the whole plan costs more
    assert "--only s0,s1 about $0.12, --max-cost 0.24" in first.stderr
    on_emulator.quick_job(2, min_clips=1, max_cost="0.13")
    assert say(on_emulator, "videogen", "run", "film.json").returncode == 0
    on_emulator.quick_job(5, min_clips=1, max_cost="0.19")
    first = say(on_emulator, "videogen", "run", "film.json", "--concurrency", "1")
    assert first.returncode == 0, first.stderr
    assert "film: spent so far $0.12 of $0.19, this run about $0.18\n" in first.stdout
    last = first.stdout.splitlines()[-1]
    assert last == "to make the 2 scenes left: videogen run film.json --concurrency 1 --max-cost 0.30"
    assert emulator.ledger()["creates"] == 3
    again = say(on_emulator, *last.partition(": ")[2].split())
    assert (again.returncode, emulator.ledger()["creates"]) == (0, 5), again.stdout
    assert " left: " not in again.stdout
    manifest = json.loads((on_emulator.folder / "out" / "film" / "manifest.json").read_text())
    assert (manifest["verdict"]["status"], Decimal(manifest["job_cost"])) == ("complete", Decimal("0.30"))
    lower = say(on_emulator, "videogen", "run", "film.json", "--max-cost", "0.06")
    assert (lower.returncode, emulator.ledger()["creates"]) == (0, 5), lower.stderr


@pytest.mark.long
def test_a_fresh_run_that_reaches_its_cap_goes_on_with_the_clips_that_are_missing(
    on_emulator: CommandLine, emulator: Emulator
) -> None:
    """The clips that it made anew are not made again, and old ones do not take the place of those that it missed."""
    on_emulator.quick_job(2, min_clips=1, max_cost="0.12")
    assert say(on_emulator, "videogen", "run", "film.json").returncode == 0
    fresh = say(on_emulator, "videogen", "run", "film.json", "--fresh", "--concurrency", "1", "--max-cost", "0.18")
    last = fresh.stdout.splitlines()[-1]
    assert last == ("to make the scene left: videogen run film.json --concurrency 1 --fresh --only s1 --max-cost 0.24")
    again = say(on_emulator, *last.partition(": ")[2].split())
    assert (again.returncode, emulator.ledger()["creates"]) == (0, 4), again.stdout
    made = [each["input"]["prompt"] for each in emulator.ledger()["predictions"]]
    assert sorted(made) == ["scene 0", "scene 0", "scene 1", "scene 1"]


@pytest.mark.long
def test_a_run_that_reaches_a_shared_budget_says_how_to_go_on(on_emulator: CommandLine, emulator: Emulator) -> None:
    """The clips say how much their budget has to allow, and the last line which command then makes them."""
    on_emulator.quick_job(3, min_clips=1, budget="team")
    assert say(on_emulator, "videogen", "budget", "team", "0.12/total").returncode == 0
    first = say(on_emulator, "videogen", "run", "film.json", "--concurrency", "1")
    assert first.returncode == 0, first.stderr
    assert "To allow more: videogen budget team 0.18/total" in first.stdout
    last = first.stdout.splitlines()[-1]
    assert last == "to make the scene left once its budget allows it: videogen run film.json --concurrency 1"
    assert say(on_emulator, "videogen", "budget", "team", "0.18/total").returncode == 0
    again = say(on_emulator, *last.partition("allows it: ")[2].split())
    assert (again.returncode, emulator.ledger()["creates"]) == (0, 3), again.stdout
