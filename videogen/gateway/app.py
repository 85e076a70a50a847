"""The gateway's addresses."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.responses import FileResponse, StreamingResponse
from starlette.types import Send

from videogen.gateway.feeds import Feeds, server_sent
from videogen.gateway.guard import Guard
from videogen.gateway.runs import RunPage, RunView, home, summary, view
from videogen.journal import Delivery, Journal, RunRecord
from videogen.models import ModelInfo, ModelList, describe_model, describe_models
from videogen.registry import Registry

RETRY_MS = 1000
"""How soon a browser that has lost the connection tries again."""
HERE = Path(__file__).parent
router = APIRouter()


@dataclass(frozen=True)
class Sources:
    """What is shown: a registry, a journal, and the clips below one folder."""

    registry: Registry
    journal: Journal
    feeds: Feeds
    out: Path


def create_app(registry: Registry, journal: Journal, out: Path, *, token: str | None = None) -> FastAPI:
    """An app that shows this journal, which it closes in the end, to whoever has the token; None: to this machine."""
    sources = Sources(registry, journal, Feeds(journal), out.resolve())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        journal.close()

    app = FastAPI(title="videogen gateway", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.sources = sources
    app.include_router(router)
    app.add_middleware(Guard, token=token)
    return app


def _sources(request: Request) -> Sources:
    sources: Sources = request.app.state.sources
    return sources


Shown = Annotated[Sources, Depends(_sources)]


def _run(run_id: str, sources: Shown) -> RunRecord:
    run = sources.journal.find_run(run_id)
    if run is None:
        raise HTTPException(404, f"there is no run {run_id!r}")
    return run


KnownRun = Annotated[RunRecord, Depends(_run)]


@router.get("/models")
def models(sources: Shown) -> ModelList:
    """What can be asked of each model."""
    return describe_models(sources.registry)


@router.get("/models/{model_id}")
def model(model_id: str, sources: Shown) -> ModelInfo:
    """What can be asked of one model."""
    if model_id not in sources.registry.models:
        raise HTTPException(404, f"there is no model {model_id!r}")
    return describe_model(model_id, sources.registry)


@router.get("/runs")
def runs(sources: Shown, limit: Annotated[int, Query(ge=1, le=100)] = 20, before: str | None = None) -> RunPage:
    """Runs, newest first; `before` the run of that id."""
    found = sources.journal.runs(limit=limit + 1, before=before)
    shown = found[:limit]
    return RunPage(runs=tuple(summary(run) for run in shown), next=shown[-1].id if len(found) > limit else None)


@router.get("/runs/{run_id}")
def run(run: KnownRun, sources: Shown) -> RunView:
    """The run's manifest so far."""
    return view(sources.journal, run, sources.out)


class EventStream(StreamingResponse):
    """Server-sent events. Who has left is noticed at once, and no longer written for."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._events = events

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._events):
            await super().stream_response(send)


@router.get("/runs/{run_id}/events", response_class=EventStream, status_code=200)
def events(
    run: KnownRun,
    sources: Shown,
    last_event_id: Annotated[int | None, Header(ge=0)] = None,
    after: Annotated[int | None, Query(ge=0)] = None,
) -> EventStream:
    """First `snapshot`, which is what `/runs/{run_id}` says, then each event as it happens, until the run is over.

    With `Last-Event-ID` or `?after=` there is no snapshot: all events after that number come instead.
    """
    return EventStream(_events(run, sources, after if last_event_id is None else last_event_id))


async def _events(run: RunRecord, sources: Sources, number: int | None) -> AsyncGenerator[bytes]:
    if number is None or number > run.last_event:  # more than there are: it is of another journal
        now = await asyncio.to_thread(view, sources.journal, run, sources.out)
        yield server_sent("snapshot", now.model_dump_json(), number=now.event, retry_ms=RETRY_MS)
        number = now.event
    if run.is_over and number >= run.last_event:
        return
    async with sources.feeds.listening(run.id, number) as feed:
        async for entries in feed.after(number):
            yield b"".join(entry.wire for entry in entries)
            await asyncio.sleep(0)  # others have their turn, and it is heard when this one has left


@router.head("/runs/{run_id}/clips/{scene_id}.{kind}", include_in_schema=False)
@router.get("/runs/{run_id}/clips/{scene_id}.{kind}", response_class=FileResponse)
def media(run: KnownRun, scene_id: str, kind: Literal["mp4", "jpg"], sources: Shown) -> FileResponse:
    """A delivered clip, or its poster; in ranges where they are asked for."""
    delivery = sources.journal.delivered_clip(run.id, scene_id)
    file = _file_below(sources.out, delivery, kind) if delivery else None
    if file is None:
        raise HTTPException(404, f"there is no {kind} of a delivered clip {scene_id!r}")
    media_type = "video/mp4" if kind == "mp4" else "image/jpeg"
    return FileResponse(file, media_type=media_type, headers={"Cache-Control": "private, max-age=3600"})


def _file_below(out: Path, delivery: Delivery, kind: str) -> Path | None:
    """The clip's file, if it is really in its job's folder, and that in `out`; a link is what it points to."""
    folder = home(out, delivery.folder)
    name = delivery.clip.video_path if kind == "mp4" else delivery.clip.poster_path
    file = (folder / str(name)).resolve()
    return file if file.is_relative_to(folder) and folder.is_relative_to(out) and file.is_file() else None


@router.get("/", include_in_schema=False)
def page() -> FileResponse:
    return _own(HERE / "page.html")


@router.get("/page.js", include_in_schema=False)
def script() -> FileResponse:
    return _own(HERE / "page.js")


@router.get("/style.css", include_in_schema=False)
def style() -> FileResponse:
    return _own(HERE.parent / "pages" / "style.css")


def _own(file: Path) -> FileResponse:
    return FileResponse(file, headers={"Cache-Control": "no-cache"})
