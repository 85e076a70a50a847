"""Classes that implement the ports for tests: a provider with a script, a recorder of events, names without DNS."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.builders import small_clip
from videogen.errors import GoneError, OutcomeUnknownError
from videogen.events import RunEvent
from videogen.execution.attempt import attempt_clip as generate_in_slot
from videogen.execution.context import RunContext
from videogen.execution.cost_note import CostNoteWriter
from videogen.execution.patience import Patience
from videogen.execution.rate_limit_gate import ProviderGate
from videogen.execution.slots import Slot, Slots
from videogen.journal.async_store import AsyncJournal
from videogen.journal.store import Journal
from videogen.planning.requests import ClipRequest, ImageInput
from videogen.providers.base import Capabilities, FailureKind, Prediction, Status
from videogen.results.clip import Clip
from videogen.storage.local import FileStore, LocalFolder


@dataclass
class Script:
    """How one prediction goes: it ends as `status` at the `polls`-th look (None: never by itself)."""

    status: Status = "succeeded"
    polls: int | None = 1
    error: str | None = None
    output: bytes = b""
    cancel_as: Status = "canceled"
    removed: bool = False
    """Whether the provider has removed the output by the second look at the finished prediction."""


@dataclass
class FakeProvider:
    """Predictions by script, in the order they are created.

    Faults are raised once each, by the call they are for; None lets a call through.
    """

    scripts: list[Script] = field(default_factory=list)
    faults: dict[str, list[Exception | None]] = field(default_factory=dict)
    origin: str = "fake"
    outputs_kept: timedelta = timedelta(hours=1)
    ahead: timedelta = timedelta(0)
    """How far its clock is ahead of ours."""
    created: list[Mapping[str, Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    cancel_after_s: list[float] = field(default_factory=list)
    predictions: dict[str, Prediction] = field(default_factory=dict)
    lists: int = 0
    listed_late: dict[str, int] = field(default_factory=dict)
    """How many lists do not show a prediction yet, by its id."""
    unlisted: set[str] = field(default_factory=set)
    _polls: dict[str, int] = field(default_factory=dict)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self.outputs_kept, bills_failed=False, bills_canceled=True, shortest_deadline_s=5.0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def check_account(self) -> None:
        self._fault("check_account")

    async def create(
        self, endpoint: str, version: str | None, inputs: Mapping[str, Any], *, cancel_after_s: float
    ) -> Prediction:
        self._fault("create")
        name = f"prediction{len(self.created)}"
        self.created.append(dict(inputs))
        self.cancel_after_s.append(cancel_after_s)
        self.predictions[name] = Prediction(
            id=name,
            status="starting",
            model=endpoint,
            version=version,
            input=dict(inputs),
            created_at=self.now(),
        )
        self._fault("answer")
        return self.predictions[name]

    async def get(self, prediction_id: str) -> Prediction:
        self._fault("get")
        if prediction_id not in self.predictions:
            raise GoneError("not found")
        prediction, script = self.predictions[prediction_id], self._script(prediction_id)
        self._polls[prediction_id] = self._polls.get(prediction_id, 0) + 1
        if prediction.ended and script.removed:
            self.predictions[prediction_id] = replace(prediction, output_url=None, data_removed=True)
        if not prediction.ended and script.polls is not None and self._polls[prediction_id] >= script.polls:
            self._end(prediction_id, script.status)
        return self.predictions[prediction_id]

    async def cancel(self, prediction_id: str) -> Prediction:
        self.cancelled.append(prediction_id)
        self._fault("cancel")
        if not self.predictions[prediction_id].ended:
            self._end(prediction_id, self._script(prediction_id).cancel_as)
        return self.predictions[prediction_id]

    async def list_since(self, created_after: datetime) -> AsyncIterator[Prediction]:
        self.lists += 1
        self._fault("list")
        for prediction in reversed(self.predictions.values()):
            if self.lists > self.listed_late.get(prediction.id, 0) and prediction.id not in self.unlisted:
                yield prediction

    async def upload(self, data: bytes, *, name: str, media_type: str) -> str:
        return f"https://files.example/{name}"

    async def download(self, url: str, part: Path) -> None:
        self.downloads.append(url)
        self._fault("download")
        part.write_bytes(self._script(url.rpartition("/")[2]).output or small_clip())

    def running(self) -> list[str]:
        return [prediction.id for prediction in self.predictions.values() if not prediction.ended]

    def _script(self, prediction_id: str) -> Script:
        index = int(prediction_id.removeprefix("prediction"))
        return self.scripts[index] if index < len(self.scripts) else Script()

    def _end(self, prediction_id: str, status: Status) -> None:
        output = f"https://delivery.example/{prediction_id}" if status == "succeeded" else None
        error = self._script(prediction_id).error
        failure: FailureKind | None = None
        if status == "failed":
            failure = "moderation" if str(error).startswith("flagged") else "passing"
        self.predictions[prediction_id] = replace(
            self.predictions[prediction_id], status=status, output_url=output, error=error, failure=failure
        )

    def _fault(self, call: str) -> None:
        if (faults := self.faults.get(call)) and (fault := faults.pop(0)):
            raise fault


LOST = OutcomeUnknownError("the answer was lost")


class Heard:
    """An event sink that keeps what it was told."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []

    def emit(self, event: RunEvent) -> None:
        self.events.append(event)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


class NoImages:
    def name_at(self, address: str) -> str | None:
        return None

    async def url(self, image: ImageInput) -> str:
        return f"https://pictures.example/{image.name}"

    async def read(self, image: ImageInput) -> bytes:
        return image.name.encode()


QUICK = Patience(unknown_s=0.02, unknown_at_most_s=0.1, output_s=0.05, id_s=0.05, first_pause_s=0.01)
"""Hundredths of a second where a user waits seconds."""


def run_of(folder: Path, provider: FakeProvider, *, run_id: str = "run1", heard: Heard | None = None) -> RunContext:
    """A run whose files and journal are in `folder`; another one on the same folder is a later run of the job."""
    store, journal = FileStore(folder), AsyncJournal(Journal(f"sqlite:///{folder / 'journal.db'}"))
    return RunContext(
        id=run_id,
        folder=str(folder),
        provider=provider,
        store=store,
        open_folder=LocalFolder,
        journal=journal,
        images=NoImages(),
        events=heard or Heard(),
        gate=ProviderGate(backoff_s=0.01),
        job_id="job",
        patience=QUICK,
        cost_note=CostNoteWriter(store, journal, run_id=run_id, job_id="job", origin=provider.origin),
    )


class Names:
    """DNS that gives each answer in turn and counts; the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def generate(request: ClipRequest, run: RunContext, slots: int = 5) -> Clip:
    """One attempt, in a slot of its own."""
    return await generate_in_slot(request, run, Slot(Slots(slots)))
