"""Price further takes of a scene, and start the runs that make them."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from videogen.app import prepare_job
from videogen.errors import InvalidError, ValidationError, VideogenError
from videogen.execution.options import PreparedJob, RunOptions
from videogen.gateway.actions import OneTimeTokens
from videogen.job.model import Job
from videogen.planning.validation import load_and_validate
from videogen.posix import SAFE_OPEN_FLAGS
from videogen.review import (
    Retakes,
    Review,
    attribute_to_command,
    describe_retakes,
    put_in_film,
    require_same_variants,
)
from videogen.settings import Settings

LOG_FOLDER = "logs"
MAX_SAID_BYTES = 4000
SECRET_VARIABLES = ("VIDEOGEN_GATEWAY_TOKEN", "VIDEOGEN_GATEWAY_WATCH_TOKEN")
"""Variables that a run does not need."""
RUN_COMMAND = (sys.executable, "-m", "videogen", "run", "--yes")  # the price was confirmed on the page


class OutdatedOfferError(InvalidError):
    """The offer of a retake is unknown, used, or not true any more."""

    code = "outdated-offer"


class RetakePrice(BaseModel):
    """A take that can be made, and its price. Money is in USD."""

    model_config = ConfigDict(frozen=True)

    take_id: str
    cost: Decimal
    cost_is_exact: bool
    worst_case_cost: Decimal
    clips: int
    """How many clips are made: scenes that the take continues may be missing, too."""
    provider: str
    spent_before: Decimal
    max_cost: Decimal | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Offer:
    """A take that is made at this price if the offer is accepted."""

    job_id: str
    scene_id: str
    changes: Mapping[str, Any]
    retakes: Retakes
    key: str
    """Key of the take's clip, which names everything that it is made from."""
    price: RetakePrice

    @property
    def take_id(self) -> str:
        return self.price.take_id


@dataclass(frozen=True)
class StartedRetake:
    """The process that makes a take, and the file with its output."""

    job_id: str
    take_id: str
    process: "subprocess.Popen[bytes]"
    waiter: threading.Thread
    """Waits for the process, and has the take in the film then."""
    log: Path

    def get_exit_code(self) -> int | None:
        """Return the exit code of the process; None until it has ended and the take is in the film."""
        return None if self.waiter.is_alive() else self.process.returncode

    def read_end_of_log(self) -> str:
        """Return the last lines that the process wrote."""
        try:
            said = self.log.read_bytes()[-MAX_SAID_BYTES:].decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(said.strip().splitlines()[-5:])


class RetakeDesk:
    """Offers takes of the jobs whose files it knows, and starts each offer once.

    Its methods may take seconds, so call them in a thread.
    """

    def __init__(self, files: Sequence[Path], settings: Settings, *, command: Sequence[str] = RUN_COMMAND) -> None:
        """Read the job files.

        Args:
            files: the job files.
            settings: where the runs write to.
            command: makes a job when it is called with its file, `--only` and `--out`.

        Raises:
            ValidationError: a job file is not valid.
            InvalidError: two files have the same job.
        """
        self._settings = settings
        self._command = tuple(command)
        self._files: dict[str, Path] = {}
        self._offers = OneTimeTokens[Offer]()
        self._started: dict[str, StartedRetake] = {}
        self._starting = threading.Lock()
        for file in files:
            job = self._load(file.absolute())
            if job.id in self._files:
                raise InvalidError(f"{file} and {self._files[job.id]} are both the job {job.id}: name one of them")
            self._files[job.id] = file.absolute()

    def has_job(self, job_id: str) -> bool:
        """Return whether takes of this job can be made, as long as its file is valid."""
        return job_id in self._files

    def load_job(self, job_id: str) -> Job:
        """Return the job as its file is now.

        Raises:
            ValidationError: with every problem of the file.
            InvalidError: the file is another job now, or was not named.
        """
        if job_id not in self._files:
            raise InvalidError(f"the file of {job_id} is not known: start the gateway with --review and the job file")
        job = self._load(self._files[job_id])
        if job.id != job_id:
            raise InvalidError(f"{self._files[job_id]} is the job {job.id} now, not {job_id}")
        return job

    def make_offer(self, job_id: str, scene_id: str, changes: Mapping[str, Any]) -> tuple[str, Offer]:
        """Return an offer for the next take of a scene, and the token with which it can be accepted once.

        Nothing is written. `changes` are fields of the scene.

        Raises:
            InvalidError: the take cannot be made, for example because it would cost more than the budget.
        """
        offer, _ = self._price(job_id, scene_id, changes)
        return self._offers.issue(offer), offer

    def accept_offer(self, token: str, job_id: str) -> StartedRetake:
        """Describe the take in `choices.toml`, and start a process that makes it.

        Raises:
            OutdatedOfferError: nothing was offered with this token, the offer was accepted before, the price or the
                clip has changed, or another take has been added meanwhile.
            InvalidError: the take cannot be made any more.
        """
        with self._starting:
            offer = self._offers.redeem(token)
            if offer is None or offer.job_id != job_id:
                raise OutdatedOfferError("this price was accepted already, or is too old: ask for the price again")
            if self.is_starting(job_id):
                raise OutdatedOfferError("another retake of this job is being made: wait for its end")
            now, prepared = self._price(job_id, offer.scene_id, offer.changes)
            if now.retakes.numbers != offer.retakes.numbers:
                raise OutdatedOfferError(f"{offer.take_id} has been added meanwhile: ask for the price again")
            if (now.key, now.price.cost, now.price.clips) != (offer.key, offer.price.cost, offer.price.clips):
                raise OutdatedOfferError("the job file or the price has changed: ask for the price again")
            review = Review.open(prepared.settings, job_id)
            before = review.read_choices()
            review.change_choices(offer.retakes.change)
            started = self._start(offer, partial(put_in_film, review, offer.retakes.change, before=before))
            self._started[offer.take_id] = started
            return started

    def is_starting(self, job_id: str) -> bool:
        """Return whether a process that makes a take of this job has not ended."""
        return any(each.job_id == job_id and each.get_exit_code() is None for each in self._started.values())

    def find_started(self, job_id: str, take_id: str) -> StartedRetake | None:
        """Return the retake that this desk started, or None."""
        found = self._started.get(take_id)
        return found if found and found.job_id == job_id else None

    def _load(self, file: Path) -> Job:
        try:
            changed_ns = file.stat().st_mtime_ns
        except OSError:
            changed_ns = 0  # reading it tells why
        return _load_job_file(file, changed_ns, self._settings.registry)

    def _price(self, job_id: str, scene_id: str, changes: Mapping[str, Any]) -> tuple[Offer, PreparedJob]:
        job = self.load_job(job_id)
        options = RunOptions(out=self._settings.out, folder=str(self._files[job_id].parent))
        review = Review.open(options.resolve_settings(), job_id)
        require_same_variants(job, review)
        retakes = describe_retakes(job, review.read_choices(), scene_id, changes)
        options = options.model_copy(update={"only": retakes.take_ids})
        with attribute_to_command(retakes.change):
            choices = review.preview_choices(retakes.change)
            prepared = asyncio.run(prepare_job(job, options, choices=choices))
        plan = prepared.plan
        (request,) = (each for each in plan.requests if each.scene.id == retakes.take_ids[0])
        price = RetakePrice(
            take_id=request.scene.id,
            cost=plan.total_cost,
            cost_is_exact=plan.cost_is_exact,
            worst_case_cost=plan.worst_case_cost,
            clips=len(plan.to_make),
            provider=prepared.origin,
            spent_before=plan.spent_before,
            max_cost=plan.max_cost,
            warnings=plan.warnings,
        )
        return Offer(job_id, scene_id, changes, retakes, request.key, price), prepared

    def _start(self, offer: Offer, put_take_in_film: Callable[[], object]) -> StartedRetake:
        """Start the run as a process that goes on when the gateway is stopped."""
        folder = self._settings.get_work_folder(offer.job_id) / LOG_FOLDER
        folder.mkdir(exist_ok=True)
        log = folder / f"{offer.take_id}.log"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | SAFE_OPEN_FLAGS
        with os.fdopen(os.open(log, flags, 0o600), "wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command and the job file of the command line
                [
                    *self._command,
                    str(self._files[offer.job_id]),
                    f"--only={offer.take_id}",
                    f"--out={self._settings.out}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES},
                start_new_session=True,
            )

        def wait() -> None:
            process.wait()
            with suppress(VideogenError):  # the take is delivered, and can be chosen by hand
                put_take_in_film()

        waiter = threading.Thread(target=wait, name=f"retake {offer.take_id}", daemon=True)
        waiter.start()
        return StartedRetake(offer.job_id, offer.take_id, process, waiter, log)


@lru_cache(maxsize=64)
def _load_job_file(file: Path, _changed_ns: int, registry: Path | None) -> Job:
    """Return the job in a file that was changed at this time."""
    return load_and_validate(file, registry).job


def describe_problem(error: InvalidError) -> str:
    """Return the message of an error in one line, with the first of several problems."""
    if isinstance(error, ValidationError) and len(error.problems) > 1:
        return f"{str(error).splitlines()[0]} (and {len(error.problems) - 1} more)"
    return " ".join(str(error).split())
