"""Composition root: from a job and the settings to a plan, and from the plan to a session that makes its clips."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from videogen.clip import Batch, Clip, ClipRequest, judge
from videogen.crashpoints import reached
from videogen.errors import Problem, SettingsError, TransientError, ValidationError
from videogen.events import ClipCompleted, ClipEvent, RunCompleted, RunStarted
from videogen.planning import Plan, check, check_cost, plan
from videogen.registry import read_registry
from videogen.scene import Job
from videogen.settings import ProviderName, Settings, read_settings

if TYPE_CHECKING:
    from videogen.journal import Journal
    from videogen.references import ReferenceImage
    from videogen.run import Run, Slot

EMULATOR_START_S = 60.0
EMULATOR_LATENCY = "1:3"
"""Seconds that a clip takes on the emulator that a run starts for itself."""

Listener = Callable[[ClipEvent, Mapping[str, Any]], None]
"""Called with every event and its payload, after it is in the journal."""


class Options(BaseModel):
    """How to run a job, as far as it is not the job's own affair. None means what the environment says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str | None = None
    """Folder in which the job gets its own."""
    provider: ProviderName | None = None
    fresh: bool = False
    """Make every clip anew, also those that were delivered before."""
    folder: str = "."
    """Where the job's relative reference paths start."""

    def settings(self) -> Settings:
        """The environment's settings with these options over them. Raises `SettingsError`."""
        given = {"out": Path(self.out) if self.out else None, "provider": self.provider}
        return read_settings().model_copy(update={name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class Prepared:
    """A job that can be run: planned, its references at hand, nothing spent yet."""

    job: Job
    plan: Plan
    settings: Settings
    options: Options
    provider: ProviderName
    why: str
    """Why this provider."""
    origin: str
    references: Mapping[str, "ReferenceImage"]

    @property
    def folder(self) -> Path:
        """The job's own folder."""
        return self.settings.out.absolute() / self.job.id


@dataclass(frozen=True)
class Handover:
    """What a command line gives to the flow it calls, past Prefect's parameters: those are for what can be stored."""

    prepared: Prepared
    listeners: tuple[Listener, ...]


_handover: ContextVar[Handover | None] = ContextVar("handover", default=None)


@contextmanager
def handing_over(prepared: Prepared, *listeners: Listener) -> Iterator[None]:
    """Inside, the same job is not prepared again, and sessions tell these listeners."""
    token = _handover.set(Handover(prepared, listeners))
    try:
        yield
    finally:
        _handover.reset(token)


async def prepare(job: Job, options: Options) -> Prepared:
    """Fetches the job's references, looks up what was delivered before, and plans.

    Raises:
        ValidationError, SettingsError: the job cannot be run as it is.
    """
    handed = _handover.get()
    if handed and (handed.prepared.job, handed.prepared.options) == (job, options):
        return handed.prepared
    settings = options.settings()
    registry = read_registry(settings.registry)
    check(job, registry)  # what is wrong is said before anything is fetched
    provider, why = settings.provider_choice()
    origin = _origin(settings, provider)
    references = await _references(job, Path(options.folder))
    digests = {source: reference.digest for source, reference in references.items()}
    planned = plan(job, registry, digests=digests, buffer=settings.duration_buffer)
    if not options.fresh:
        planned = planned.reusing(await asyncio.to_thread(_delivered, settings, origin, planned))
    check_cost(planned)
    return Prepared(job, planned, settings, options, provider, why, origin, references)


async def _references(job: Job, folder: Path) -> Mapping[str, "ReferenceImage"]:
    sources = {source for scene in job.scenes for source in scene.reference_urls}
    if not sources:
        return {}
    from videogen.references import load_references, name_of

    try:
        return await load_references(sorted(sources), base_dir=folder)
    except ValidationError as exc:
        problems = {problem.where: problem.message for problem in exc.problems}
        raise ValidationError(
            [
                Problem(f"{name_of(source)}: {problems[name_of(source)]}", where=where)
                for where, source in _reference_places(job)
                if name_of(source) in problems
            ]
        ) from None


def _reference_places(job: Job) -> Iterator[tuple[str, str]]:
    """Where in the job each reference is named, and its address."""
    for index, scene in enumerate(job.scenes):
        if scene.scene_reference_url:
            yield f"scenes.{index}.scene_reference_url", scene.scene_reference_url
        for number, source in enumerate(scene.character_reference_urls):
            yield f"scenes.{index}.character_reference_urls.{number}", source


def _origin(settings: Settings, provider: ProviderName) -> str:
    return "local" if provider == "local" else settings.replicate_base_url.split("://")[-1].strip("/")


def _delivered(settings: Settings, origin: str, planned: Plan) -> frozenset[str]:
    """Keys of the plan's clips that were delivered before and are still whole. A plan makes no journal where there is
    none."""
    url = settings.effective_journal_url()
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return frozenset()
    from videogen.journal import Journal

    journal = Journal(url)
    try:
        deliveries = ((request.key, journal.delivery(origin, request.key)) for request in planned.requests)
        return frozenset(key for key, delivery in deliveries if delivery and delivery.is_intact())
    finally:
        journal.close()


class Session:
    """A run in progress: makes clips one by one, then judges them."""

    def __init__(self, prepared: Prepared, run: "Run", events: "_Recorder") -> None:
        from videogen.run import Slots

        self.plan, self.run = prepared.plan, run
        self._prepared, self._events = prepared, events
        self._slots = Slots(prepared.plan.concurrency)
        self._began = monotonic()
        events.emit(
            RunStarted(
                job_id=prepared.job.id,
                model=prepared.job.model,
                aspect_ratio=prepared.job.aspect_ratio,
                provider=prepared.origin,
                planned_cost=prepared.plan.total_cost,
            )
        )

    def slot(self) -> "Slot":
        """The right to one of the plan's `concurrency` predictions at a time."""
        from videogen.run import Slot

        return Slot(self._slots)

    async def generate(self, request: ClipRequest, slot: "Slot") -> Clip:
        """One attempt at a clip, see `videogen.generation.generate`."""
        from videogen.generation import generate

        return await generate(request, self.run, slot)

    def failed(self, request: ClipRequest, error: BaseException) -> Clip:
        """The clip that there is not, and what its attempts took."""
        from videogen.delivery import spent

        return Clip.failed(request, error, **spent(self.run.journal.attempts(self.run.id, request.key)))

    def finish(self, clips: Sequence[Clip]) -> Batch:
        """Judges the clips, writes `manifest.json` and closes the run in the journal."""
        job = self._prepared.job
        required = frozenset(scene.id for scene in job.scenes if scene.required)
        batch = Batch(
            run_id=self.run.id,
            job_id=job.id,
            model=job.model,
            aspect_ratio=job.aspect_ratio,
            provider=self._prepared.origin,
            verdict=judge(tuple(clips), min_clips=self.plan.min_clips, required=required),
            total_generation_time=round(monotonic() - self._began, 3),
            clips=tuple(clips),
        )
        reached("before-manifest")
        self.run.store.put_text(batch.manifest(), "manifest.json")
        self.run.journal.end_run(self.run.id, verdict=batch.verdict.status)
        self._events.emit(RunCompleted(batch=batch))
        return batch


@asynccontextmanager
async def opened(prepared: Prepared) -> AsyncIterator[Session]:
    """A session on the prepared job, holding its folder's lock; the account is checked when it will be used.

    Raises:
        JobLockedError: another run of this job is going on.
        AuthenticationError: the token is refused.
    """
    from videogen.adapters.files import FileStore, lock_folder
    from videogen.adapters.images import ReferenceImages
    from videogen.calls import Calls
    from videogen.journal import Journal
    from videogen.run import Run

    async with AsyncExitStack() as stack:
        store, calls = FileStore(prepared.folder), Calls()
        stack.enter_context(lock_folder(prepared.folder))
        provider = await stack.enter_async_context(_provider(prepared))
        if prepared.plan.to_create:
            await calls.repeat(provider.check_account, tries=4)
        journal = Journal(prepared.settings.effective_journal_url())
        stack.callback(journal.close)
        run_id = uuid.uuid4().hex[:12]
        journal.start_run(run_id, job_id=prepared.job.id, origin=prepared.origin, folder=str(prepared.folder))
        if prepared.options.fresh:
            _forget(journal, prepared)
        handed = _handover.get()
        events = _Recorder(journal, run_id, len(prepared.plan.requests), handed.listeners if handed else ())
        run = Run(
            id=run_id,
            folder=str(prepared.folder),
            provider=provider,
            store=store,
            journal=journal,
            images=ReferenceImages(prepared.references, provider, store, calls),
            events=events,
            calls=calls,
            max_cost=prepared.plan.max_cost,
        )
        yield Session(prepared, run, events)


def _forget(journal: "Journal", prepared: Prepared) -> None:
    for request in prepared.plan.requests:
        journal.forget_delivery(prepared.origin, request.key)


class _Recorder:
    """`videogen.ports.EventSink`: numbers and keeps each event in the journal, then tells the listeners."""

    def __init__(self, journal: "Journal", run_id: str, total: int, listeners: Sequence[Listener]) -> None:
        self._journal, self._run_id, self._listeners = journal, run_id, listeners
        self._completed, self._total = 0, total

    def emit(self, event: ClipEvent) -> None:
        if isinstance(event, ClipCompleted):
            self._completed += 1
        counts = {"run_id": self._run_id, "completed": self._completed, "total": self._total}
        payload = {**event.payload(), **counts}
        self._journal.add_event(self._run_id, event.type, payload)
        for listener in self._listeners:
            listener(event, payload)


@asynccontextmanager
async def _provider(prepared: Prepared) -> AsyncIterator[Any]:
    from videogen.adapters.replicate import ReplicateProvider

    if prepared.provider == "replicate":
        token = prepared.settings.replicate_api_token
        if token is None:
            raise SettingsError("REPLICATE_API_TOKEN is not set; get one at https://replicate.com/account/api-tokens")
        provider = ReplicateProvider(
            token.get_secret_value(), base_url=prepared.settings.replicate_base_url, origin=prepared.origin
        )
        try:
            yield provider
        finally:
            await provider.aclose()
        return
    if not prepared.plan.to_create:  # everything is on disk: nobody will be called
        yield ReplicateProvider("local", base_url="http://127.0.0.1:9", origin=prepared.origin)
        return
    async with _emulator() as url:
        provider = ReplicateProvider("local", base_url=url, origin=prepared.origin)
        try:
            yield provider
        finally:
            await provider.aclose()


@asynccontextmanager
async def _emulator() -> AsyncIterator[str]:
    """The address of an emulator of our own, which ends with us, however we end: it watches its standard input."""
    command = ["-m", "videogen", "emulator", "--port", "0", "--exit-with-parent", "--latency", EMULATOR_LATENCY]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    try:
        async with asyncio.timeout(EMULATOR_START_S):
            line = (await process.stdout.readline()).decode()
        if "http://" not in line:
            raise TransientError("the emulator did not start")
        yield line[line.index("http://") :].strip()
    finally:
        process.stdin.close()
        await process.wait()
