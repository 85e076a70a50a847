"""Routes of the gateway."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from fastapi.sse import format_sse_event
from starlette.types import Send

from videogen.errors import InvalidError
from videogen.gateway.actions import ActionGuard
from videogen.gateway.auth import Guard
from videogen.gateway.feeds import Feeds
from videogen.gateway.run_view import (
    RunPage,
    RunView,
    find_local_folder,
    make_run_summary,
    make_run_view,
)
from videogen.gateway.spend_view import SpendView, find_shown_expenses, make_spend_view
from videogen.journal.deliveries import DeliveryRecord
from videogen.journal.runs import RunRecord
from videogen.journal.store import Journal
from videogen.registry.model_info import ModelInfo, ModelList, describe_model, describe_models
from videogen.registry.model_spec import Registry
from videogen.results.expenses import Expense, Grouping, SpendPeriod, make_expenses_csv

RETRY_MS = 1000
"""Time after which a browser that has lost the connection tries again."""
HERE = Path(__file__).parent
router = APIRouter()
# Each documented route has a `name`, so that its operation id in the API's description does not follow the function's.


@dataclass(frozen=True)
class Sources:
    """Sources of everything that the gateway shows: a registry, a journal, and the clips below one folder."""

    registry: Registry
    journal: Journal
    feeds: Feeds
    out: Path
    room: "Room | None" = None


class Room(Protocol):
    """The part of a gateway with which visitors act, such as `videogen.gateway.review_room.ReviewRoom`."""

    def add_to(self, app: FastAPI, actions: ActionGuard) -> None:
        """Add the room's routes to an app whose requests to act are admitted by `actions`."""

    def has_files_of(self, run: RunRecord, out: Path) -> bool:
        """Return whether the room can show this run in a gateway that serves the clips below `out`."""


def create_gateway_app(
    registry: Registry,
    journal: Journal,
    out: Path,
    *,
    token: str | None = None,
    watch_token: str | None = None,
    room: Room | None = None,
) -> FastAPI:
    """Return an app that serves this journal to visitors with a token, and closes the journal on shutdown.

    Without a token it serves every visitor on this machine. With a room, visitors with the token can act there, and
    those with the watch token only look.
    """
    sources = Sources(registry, journal, Feeds(journal), out.resolve(), room)
    actions = ActionGuard() if room else None

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        journal.close()

    app = FastAPI(title="videogen gateway", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.sources = sources
    app.include_router(router)
    if room and actions:
        room.add_to(app, actions)
    app.add_middleware(Guard, token=token, watch_token=watch_token, actions=actions)
    return app


def _get_sources(request: Request) -> Sources:
    sources: Sources = request.app.state.sources
    return sources


SourcesDependency = Annotated[Sources, Depends(_get_sources)]


def _find_run(run_id: str, sources: SourcesDependency) -> RunRecord:
    run = sources.journal.find_run(run_id)
    if run is None:
        raise HTTPException(404, f"there is no run {run_id!r}")
    return run


RunDependency = Annotated[RunRecord, Depends(_find_run)]


@router.get("/models", name="models")
def list_models(sources: SourcesDependency) -> ModelList:
    """Return the options of each model."""
    return describe_models(sources.registry)


@router.get("/models/{model_id}", name="model")
def get_model(model_id: str, sources: SourcesDependency) -> ModelInfo:
    """Return the options of one model."""
    if model_id not in sources.registry.models:
        raise HTTPException(404, f"there is no model {model_id!r}")
    return describe_model(model_id, sources.registry)


@router.get("/runs", name="runs")
def get_runs(
    sources: SourcesDependency, limit: Annotated[int, Query(ge=1, le=100)] = 20, before: str | None = None
) -> RunPage:
    """Return runs, newest first. `before` is a run's id: only older runs are returned."""
    found = sources.journal.list_runs(limit=limit + 1, before=before)
    shown = found[:limit]
    return RunPage(
        runs=tuple(make_run_summary(run) for run in shown), next=shown[-1].id if len(found) > limit else None
    )


@router.get("/runs/{run_id}", name="run")
def get_run(run: RunDependency, sources: SourcesDependency) -> RunView:
    """Return the run's manifest so far."""
    return _view_run(sources, run)


def _view_run(sources: Sources, run: RunRecord) -> RunView:
    view = make_run_view(sources.journal, run, sources.out)
    has_review = sources.room is not None and sources.room.has_files_of(run, sources.out)
    return view.model_copy(update={"has_review": has_review})


class EventStream(StreamingResponse):
    """A stream of server-sent events that stops reading events as soon as its client has disconnected.

    FastAPI's `EventSourceResponse` encodes each event for each listener, which takes 300 times the CPU time of sending
    the bytes that are encoded once for all.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._events = events

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._events):
            await super().stream_response(send)


@router.get("/runs/{run_id}/events", name="events", response_class=EventStream, status_code=200)
def stream_events(
    run: RunDependency,
    sources: SourcesDependency,
    last_event_id: Annotated[int | None, Header(ge=0)] = None,
    after: Annotated[int | None, Query(ge=0)] = None,
) -> EventStream:
    """Send `snapshot`, the answer of `/runs/{run_id}`, then each event as it happens until the run is over.

    With `Last-Event-ID` or `?after=` all events after that number are sent in place of the snapshot.
    """
    return EventStream(_iterate_events(run, sources, after if last_event_id is None else last_event_id))


async def _iterate_events(run: RunRecord, sources: Sources, number: int | None) -> AsyncGenerator[bytes]:
    if number is None or number > run.last_event:  # a number beyond the last event comes from another journal
        now = await asyncio.to_thread(_view_run, sources, run)
        yield format_sse_event(event="snapshot", data_str=now.model_dump_json(), id=str(now.event), retry=RETRY_MS)
        number = now.event
    if run.is_over and number >= run.last_event:
        return
    async with sources.feeds.subscribe(run.id, number) as feed:
        async for entries in feed.after(number):
            yield b"".join(entry.wire for entry in entries)
            await asyncio.sleep(0)  # lets other listeners run, and notices a disconnect


@router.head("/runs/{run_id}/clips/{scene_id}.{kind}", include_in_schema=False)
@router.get("/runs/{run_id}/clips/{scene_id}.{kind}", name="media", response_class=FileResponse)
def get_media(
    run: RunDependency, scene_id: str, kind: Literal["mp4", "jpg"], sources: SourcesDependency
) -> FileResponse:
    """Return a delivered clip or its poster. Range requests are supported."""
    delivery = sources.journal.find_delivered_clip(run.id, scene_id)
    file = _find_media_file(sources.out, delivery, kind) if delivery else None
    if file is None:
        raise HTTPException(404, f"there is no {kind} of a delivered clip {scene_id!r}")
    media_type = "video/mp4" if kind == "mp4" else "image/jpeg"
    return FileResponse(file, media_type=media_type, headers={"Cache-Control": "private, max-age=3600"})


def _find_media_file(out: Path, delivery: DeliveryRecord, kind: str) -> Path | None:
    """Return the clip's file, or None unless it lies in its job's folder and that in `out` once links are resolved."""
    folder = find_local_folder(out, delivery.folder)
    name = delivery.clip.video_path if kind == "mp4" else delivery.clip.poster_path
    file = (folder / str(name)).resolve()
    return file if file.is_relative_to(folder) and folder.is_relative_to(out) and file.is_file() else None


@dataclass(frozen=True)
class _Spending:
    origins: list[str]
    expenses: list[Expense]
    period: SpendPeriod


def _read_spending(
    sources: SourcesDependency,
    since: str | None = None,
    until: str | None = None,
    time_zone: str | None = None,
    job: str | None = None,
    origin: str | None = None,
    local: bool = False,
) -> _Spending:
    """Return the expenses that a query asks for. Its parameters are the flags of `videogen spend`."""
    try:
        period = SpendPeriod.parse(since, until, time_zone)
    except InvalidError as exc:
        raise HTTPException(422, str(exc)) from exc
    return _Spending(*find_shown_expenses(sources.journal, period, job_id=job, origin=origin, with_local=local), period)


SpendingDependency = Annotated[_Spending, Depends(_read_spending)]


@router.get("/api/spend", name="spend")
def get_spending(spending: SpendingDependency, by: Grouping = "job") -> SpendView:
    """Return the planned and billed cost of predictions, summed up, and the billed cost of each day."""
    return make_spend_view(spending.origins, spending.expenses, by, spending.period)


@router.get("/api/spend.csv", name="spend_csv", response_class=PlainTextResponse)
def get_spending_table(spending: SpendingDependency, by: Grouping | None = None) -> PlainTextResponse:
    """Return a table with a line for each prediction, or with `by` for each group."""
    table = make_expenses_csv(spending.expenses, by, spending.period.zone)
    headers = {"Content-Disposition": 'attachment; filename="spend.csv"', "Cache-Control": "no-store"}
    return PlainTextResponse(table, media_type="text/csv", headers=headers)


@router.get("/spend", include_in_schema=False)
def get_spend_page() -> FileResponse:
    return serve_own_file(HERE / "spend.html")


@router.get("/spend.js", include_in_schema=False)
def get_spend_script() -> FileResponse:
    return serve_own_file(HERE / "spend.js")


@router.get("/spend.css", include_in_schema=False)
def get_spend_style() -> FileResponse:
    return serve_own_file(HERE / "spend.css")


@router.get("/", include_in_schema=False)
def get_page() -> FileResponse:
    return serve_own_file(HERE / "page.html")


@router.get("/page.js", include_in_schema=False)
def get_script() -> FileResponse:
    return serve_own_file(HERE / "page.js")


@router.get("/style.css", include_in_schema=False)
def get_style() -> FileResponse:
    return serve_own_file(HERE.parent / "reports" / "templates" / "style.css")


def serve_own_file(file: Path) -> FileResponse:
    """Return a file of the page, which a browser asks for again each time."""
    return FileResponse(file, headers={"Cache-Control": "no-cache"})
