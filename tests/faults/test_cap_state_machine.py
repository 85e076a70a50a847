"""The caps of jobs and the budgets that they share, over all their runs, whatever becomes of them.

Runs one after another and at the same time, crashes, interruptions, take-overs, fallbacks, retries and changed caps, in
any order.

The oracle is the provider's ledger. It bills what a provider can bill: successes, cancels, failures if it likes, and
GPU time up to the deadline that it was given.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.support.builders import small_clip
from tests.support.fakes import LOST, FakeProvider, Heard, Script, run_of
from tests.support.servers import database
from videogen.app import prepare_job
from videogen.errors import VideogenError
from videogen.execution.context import RunContext
from videogen.execution.cost_note import CostNoteWriter
from videogen.execution.options import PreparedJob, RunOptions
from videogen.execution.runner import JobRunner
from videogen.execution.slots import Slots
from videogen.job.model import Job
from videogen.journal.async_store import AsyncJournal
from videogen.journal.store import Journal
from videogen.planning.budgets import Budget
from videogen.providers.base import Prediction, Status
from videogen.storage.local import FileStore

REGISTRY = Path(__file__).with_name("chaos.toml")
GPU_PRICE_PER_S = Decimal("0.01")
CLIP_PRICE = Decimal("0.06")
"""USD, of the models `quick` and `twin`."""
ORIGIN = "api.replicate.com"
DECODERS = ThreadPoolExecutor(2)
CRASHED: list[object] = []
"""Loops and tasks of runs that are dead. While they are here nothing of them is cleaned up, as after a SIGKILL."""

Fate = Literal["succeeded", "failed", "failed-billed", "lost", "lost-failed-billed", "stuck"]
FATES: tuple[Fate, ...] = ("succeeded", "failed", "failed-billed", "lost", "lost-failed-billed", "stuck")


@dataclass
class Ledger:
    """What the provider has billed each job for, over all its runs. USD."""

    bills: dict[str, Decimal] = field(default_factory=dict)
    """By prediction."""
    predictions: dict[str, Prediction] = field(default_factory=dict)
    created: list[Mapping[str, Any]] = field(default_factory=list)
    limits_s: dict[str, float] = field(default_factory=dict)
    """After how many seconds the provider ends each prediction."""
    payers: dict[str, str] = field(default_factory=dict)
    """By prediction: the job whose run created it."""
    fates: list[Fate] = field(default_factory=list)
    """Of the predictions to come; without one they succeed."""
    gpu_shares: list[float] = field(default_factory=list)
    """How much of its deadline each GPU prediction to come takes."""

    def sum_bills(self, *, job: str | None = None, of_twin: bool = False) -> Decimal:
        """Return what was billed in all, to one job, or for the model `twin`, which has an input of its own."""
        return sum(
            (
                bill
                for name, bill in self.bills.items()
                if job in (None, self.payers[name]) and (not of_twin or "camera_fixed" in self.predictions[name].input)
            ),
            Decimal(0),
        )


class BillingProvider(FakeProvider):
    """The provider as one run sees it, with a ledger that outlives the run.

    At its `breaks_at`-th call the run is broken: before the call has an effect, or after it.
    """

    def __init__(
        self, ledger: Ledger, job: str, *, breaks_at: int | None, is_late: bool, break_run: Callable[[], None]
    ) -> None:
        super().__init__(origin=ORIGIN, predictions=ledger.predictions, created=ledger.created)
        self.ledger, self.job = ledger, job
        self.calls_made = 0
        self.breaks_at, self.is_late, self.break_run = breaks_at, is_late, break_run

    async def create(
        self, replicate: str, version: str | None, inputs: Mapping[str, Any], *, cancel_after_s: float
    ) -> Prediction:
        is_hit = await self._meet(after=False)
        fate = self.ledger.fates.pop(0) if self.ledger.fates else "succeeded"
        made = await super().create(replicate, version, inputs, cancel_after_s=cancel_after_s)
        self.ledger.limits_s[made.id] = cancel_after_s
        self.ledger.payers[made.id] = self.job
        if fate != "stuck":
            self._bill_end(made.id, "failed" if "failed" in fate else "succeeded", is_billed=fate != "failed")
        await self._meet(after=True, is_hit=is_hit)
        if "lost" in fate:
            raise LOST
        return self.predictions[made.id]

    async def get(self, prediction_id: str) -> Prediction:
        is_hit = await self._meet(after=False)
        prediction = await super().get(prediction_id)
        await self._meet(after=True, is_hit=is_hit)
        return prediction

    async def cancel(self, prediction_id: str) -> Prediction:
        is_hit = await self._meet(after=False)
        self.cancelled.append(prediction_id)
        if not self.predictions[prediction_id].ended:
            self._bill_end(prediction_id, "canceled", is_billed=True)
        await self._meet(after=True, is_hit=is_hit)
        return self.predictions[prediction_id]

    async def download(self, url: str, part: Path) -> None:
        is_hit = await self._meet(after=False)
        part.write_bytes(small_clip(2))
        await self._meet(after=True, is_hit=is_hit)

    def _script(self, prediction_id: str) -> Script:
        return Script(polls=None)

    def _bill_end(self, prediction_id: str, status: Status, *, is_billed: bool) -> None:
        """End a prediction, and bill it."""
        self._end(prediction_id, status)
        made = self.predictions[prediction_id]
        run_s = None
        if made.version is not None:
            share = self.ledger.gpu_shares.pop(0) if self.ledger.gpu_shares else 1.0
            run_s = round(share * self.ledger.limits_s[prediction_id], 3)
        bill = CLIP_PRICE if run_s is None else GPU_PRICE_PER_S * Decimal(str(run_s))
        self.ledger.bills[prediction_id] = bill if is_billed else Decimal(0)
        self.predictions[prediction_id] = replace(made, predict_time_s=run_s)

    async def _meet(self, *, after: bool, is_hit: bool = False) -> bool:
        """Break the run at the call it breaks at. Returns whether this is that call."""
        if not after:
            self.calls_made += 1
            is_hit = self.calls_made == self.breaks_at
        if is_hit and after == self.is_late:
            self.break_run()
            await asyncio.sleep(0.001)  # an interrupted run is cancelled here; a crashed one never comes back
        return is_hit


class CappedJobs(RuleBasedStateMachine):
    """Runs of one job, of its twin, which has the same scenes in another folder, and of a job with scenes of its own.

    They have one journal, a budget over everything and one for the model `twin`, and each job has a cap.
    """

    model: str
    most: Decimal
    """What a clip costs at most, in USD."""

    @staticmethod
    def make_journal_url(root: Path) -> str:
        return f"sqlite:///{root / 'journal.db'}"

    @initialize(
        retakes=st.sampled_from(("0", "0.5", "1", "2", "3")),
        shared=st.sampled_from(("1.7", "3", "5", "9")),
        twins=st.sampled_from(("0", "1", "2", "9")),
        period=st.sampled_from(("total", "month")),
        scenes=st.integers(1, 3),
        attempts=st.integers(1, 3),
        falls_back=st.sampled_from((True, True, False)),
    )
    def plan(
        self, retakes: str, shared: str, twins: str, period: str, scenes: int, attempts: int, falls_back: bool
    ) -> None:
        self.folder = TemporaryDirectory(ignore_cleanup_errors=True)
        self.root = Path(self.folder.name)
        self.environment = pytest.MonkeyPatch()
        self.journal_url = self.make_journal_url(self.root)
        self.environment.setenv("VIDEOGEN_JOURNAL_URL", self.journal_url)
        self.environment.setenv("VIDEOGEN_BUDGET", "team")
        self.ledger, self.runs, self.opened = Ledger(), 0, list[Journal]()
        self.cap = self.most * (scenes + Decimal(retakes))
        self.caps: dict[str, Decimal] = {}
        """By job: the highest cap that its runs have had."""
        self.budgets = {"team": self.most * Decimal(shared), "twins": CLIP_PRICE * Decimal(twins)}
        for name, amount in self.budgets.items():
            models = ["twin"] if name == "twins" else []
            fields = {"name": name, "amount": amount, "period": period, "models": models}
            with closing(Journal(self.journal_url)) as journal:
                journal.set_budget(Budget.model_validate(fields))
        self.scenes = scenes
        self.fields: dict[str, Any] = {
            "model": self.model,
            "attempts": attempts,
            "min_clips": 1,
            "timeout_seconds": 0.5,
        }
        self.fields["budget"] = "twins"
        if falls_back:
            self.fields["fallback_models"] = ["twin"]

    @rule(
        jobs=st.sampled_from((("film",), ("film",), ("other",), ("film", "own"), ("film", "other", "own"))),
        ends=st.sampled_from(("by itself", "crashes", "crashes", "interrupted")),
        at=st.integers(1, 8),
        is_late=st.booleans(),
        fates=st.lists(st.sampled_from(FATES), max_size=4),
        gpu_shares=st.lists(st.sampled_from((0.02, 0.5, 0.9, 1.0)), max_size=4),
        fresh=st.sampled_from((False, False, False, True)),
        cap=st.sampled_from(("1", "1", "1", "0.6", "2")),
    )
    def run(
        self,
        jobs: tuple[str, ...],
        ends: str,
        at: int,
        is_late: bool,
        fates: list[Fate],
        gpu_shares: list[float],
        fresh: bool,
        cap: str,
    ) -> None:
        """Run jobs at the same time, until their end or until the first is broken at one of its calls. A crash takes
        all of them with it. The next runs take over from there."""
        self.ledger.fates, self.ledger.gpu_shares = fates, gpu_shares
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        tasks: list[asyncio.Task[None]] = []

        def break_run() -> None:
            if ends == "interrupted":
                tasks[0].cancel()
            else:
                loop.stop()

        def stop_after_the_last(_: object) -> None:
            if all(task.done() for task in tasks):
                loop.stop()

        first = self.runs + 1
        for job in jobs:
            self.runs += 1
            self.caps[job] = max(self.caps.get(job, Decimal(0)), self.cap * Decimal(cap))
            breaks_at = None if ends == "by itself" or job != jobs[0] else at
            provider = BillingProvider(self.ledger, job, breaks_at=breaks_at, is_late=is_late, break_run=break_run)
            making = self._make_clips(job, provider, f"run{self.runs}", max_cost=self.cap * Decimal(cap), fresh=fresh)
            tasks.append(loop.create_task(making))
        for task in tasks:
            task.add_done_callback(stop_after_the_last)
        loop.run_forever()
        for task in tasks:
            error = task.exception() if task.done() and not task.cancelled() else None
            assert error is None or isinstance(error, VideogenError), error
        if all(task.done() for task in tasks):
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
        else:
            CRASHED.append((loop, tasks))
        with closing(Journal(self.journal_url)) as journal:
            for number in range(first, self.runs + 1):
                journal.release_lease(f"run{number}")

    async def _make_clips(
        self, job_id: str, provider: BillingProvider, run_id: str, *, max_cost: Decimal, fresh: bool
    ) -> None:
        whose = "own " if job_id == "own" else ""
        scenes = [{"id": f"s{n}", "prompt": f"{whose}scene {n}", "target_duration": 2} for n in range(self.scenes)]
        job = Job.model_validate({"id": job_id, **self.fields, "scenes": scenes, "max_cost": str(max_cost)})
        options = RunOptions(out=str(self.root), registry=REGISTRY, provider="replicate", fresh=fresh)
        prepared = await prepare_job(job, options)
        session = open_session(prepared, provider, self.root, self.journal_url, run_id)
        self.opened.append(session.run.journal.journal)
        await session.make_clips()
        await session.run.journal.end_run(session.run.id, verdict="complete")

    @invariant()
    def no_job_is_billed_more_than_its_cap(self) -> None:
        for job, cap in getattr(self, "caps", {}).items():
            billed = self.ledger.sum_bills(job=job)
            assert billed <= cap, f"${billed} were billed to {job} under a cap of ${cap}"

    @invariant()
    def no_more_is_billed_than_the_budgets(self) -> None:
        for name, amount in getattr(self, "budgets", {}).items():
            billed = self.ledger.sum_bills(of_twin=name == "twins")
            assert billed <= amount, f"${billed} were billed under the budget {name} of ${amount}"

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for journal in self.opened:
                journal.close()
            self.environment.undo()
            self.folder.cleanup()


def open_session(prepared: PreparedJob, provider: FakeProvider, root: Path, journal_url: str, run_id: str) -> JobRunner:
    """A runner as `app.open_run` makes it, on this provider."""
    store, opened = FileStore(Path(prepared.folder)), Journal(journal_url)
    opened.start_run(run_id, job_id=prepared.job.id, origin=prepared.origin, folder=prepared.folder)
    journal = AsyncJournal(opened)
    run: RunContext = replace(
        run_of(root, provider, run_id=run_id),
        folder=prepared.folder,
        store=store,
        journal=journal,
        job_id=prepared.job.id,
        max_cost=prepared.plan.max_cost,
        budgets=prepared.budgets,
        force_keys={each.key for request in prepared.plan.requests for each in request.alternatives}
        if prepared.options.fresh
        else set(),
        cost_note=CostNoteWriter(store, journal, run_id=run_id, job_id=prepared.job.id, origin=prepared.origin),
        decoders=DECODERS,
    )
    events: Any = _Events()
    return JobRunner(prepared, run, Slots(prepared.plan.concurrency), events)


class _Events(Heard):
    """What a session asks of its recorder."""

    def __init__(self) -> None:
        super().__init__()
        self.done: set[str] = set()


class CappedByClip(CappedJobs):
    model, most = "quick", CLIP_PRICE


class CappedByGpuTime(CappedJobs):
    model, most = "gpu", 31 * GPU_PRICE_PER_S


LIMITS = settings(
    stateful_step_count=6,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # to shrink an example of so many seconds takes minutes
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.long_variants
@pytest.mark.parametrize("examples", [2, pytest.param(8, marks=pytest.mark.long)])
@pytest.mark.parametrize("machine", [CappedByClip, CappedByGpuTime])
def test_49_no_sequence_of_runs_is_billed_more_than_the_caps_and_budgets(
    machine: type[CappedJobs], examples: int
) -> None:
    """Runs that end, crash before or after any call, are interrupted or taken over, with bills of every kind."""
    run_state_machine_as_test(machine, settings=settings(LIMITS, max_examples=examples))


@pytest.mark.long
@pytest.mark.parametrize("machine", [CappedByClip, CappedByGpuTime])
def test_49_nor_is_it_on_postgresql(machine: type[CappedJobs], postgresql: str) -> None:
    make_url = staticmethod(lambda _root: database(postgresql, "postgresql+psycopg"))
    on_postgresql = type("OnPostgresql", (machine,), {"make_journal_url": make_url})
    run_state_machine_as_test(on_postgresql, settings=settings(LIMITS, max_examples=4))
