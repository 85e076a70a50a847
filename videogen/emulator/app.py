"""The emulator as one ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from videogen.emulator import api_errors as problems
from videogen.emulator.api import Api
from videogen.emulator.catalogue import Catalogue
from videogen.emulator.faults.engine import FaultEngine
from videogen.emulator.faults.plan import load_fault_plan
from videogen.emulator.hints import make_unknown_route_hint
from videogen.emulator.ledger import Ledger
from videogen.emulator.output_files import OutputFiles
from videogen.emulator.predictions import PredictionStore
from videogen.emulator.rendering.pool import RenderPool
from videogen.emulator.settings import EmulatorSettings
from videogen.emulator.uploads import Uploads


def create_emulator_app(settings: EmulatorSettings | None = None) -> FastAPI:
    """Return a Replicate-compatible application with its own state.

    Raises:
        FaultPlanError: the fault plan of the settings is invalid or cannot be read.
        SnapshotError: a snapshot of an input schema cannot be read.
    """
    settings = settings or EmulatorSettings()
    catalogue = Catalogue(settings.schemas)
    faults = FaultEngine(load_fault_plan(settings.faults).rules if settings.faults else [])
    render_pool = RenderPool(settings.cache)
    ledger = Ledger()
    closing = asyncio.Event()
    uploads = Uploads(render_pool.folder)
    predictions = PredictionStore(settings, ledger, render_pool, uploads)

    def close() -> None:
        closing.set()
        predictions.close()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        close()
        render_pool.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    # A server closes its connections before the lifespan ends, so it must release the held ones before that.
    app.state.close = close
    app.state.closing = closing
    api = Api(settings, catalogue=catalogue, ledger=ledger, predictions=predictions, uploads=uploads, faults=faults)
    router = api.make_router()
    app.include_router(router)
    app.include_router(OutputFiles(ledger, predictions, faults).make_router())
    app.add_exception_handler(problems.ApiError, problems.handle_api_error)
    app.add_exception_handler(HTTPException, _make_unknown_route_handler(router))
    app.add_exception_handler(ClientDisconnect, _answer_disconnect)
    _add_ledger_routes(app, ledger, faults)
    return app


def _add_ledger_routes(app: FastAPI, ledger: Ledger, faults: FaultEngine) -> None:
    @app.get("/_emulator/ledger")
    async def read_ledger() -> Response:
        return JSONResponse(ledger.make_report() | {"faults": faults.used})

    @app.delete("/_emulator/ledger")
    async def reset_ledger() -> Response:
        ledger.reset()
        return Response(status_code=204)


async def _answer_disconnect(_request: Request, _exc: Exception) -> Response:
    """Answer a request whose caller disconnected while sending: nothing was accepted and the answer is discarded."""
    return Response(status_code=400)


def _make_unknown_route_handler(router: APIRouter) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return a handler for 404 and 405 that answers in the API's format and lists the router's routes."""
    known = [route for route in router.routes if isinstance(route, APIRoute)]
    routes = [(method, route.path) for route in known for method in route.methods or ()]

    async def answer_unknown_route(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        hint = make_unknown_route_hint(request.method, request.url.path, routes)
        if exc.status_code == 404:
            return problems.make_not_found_error(hint).make_response()
        return problems.ApiError(exc.status_code, f"{exc.detail}. {hint}", headers=exc.headers).make_response()

    return answer_unknown_route
