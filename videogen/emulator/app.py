"""The emulator as one ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from videogen.emulator import problems
from videogen.emulator.api import Api
from videogen.emulator.delivery import Delivery
from videogen.emulator.faults import Faults
from videogen.emulator.hints import describe_unknown_route
from videogen.emulator.ledger import Ledger
from videogen.emulator.plan import load
from videogen.emulator.predictions import Predictions
from videogen.emulator.settings import EmulatorSettings
from videogen.emulator.studio import Studio
from videogen.emulator.uploads import Uploads


def create_app(settings: EmulatorSettings | None = None) -> FastAPI:
    """A Replicate-compatible application with a state of its own.

    Raises:
        FaultPlanError: the settings name a fault plan that cannot be used.
    """
    settings = settings or EmulatorSettings()
    faults = Faults(load(settings.faults).rules if settings.faults else [])
    studio, ledger, closing = Studio(settings.cache), Ledger(), asyncio.Event()
    uploads = Uploads(studio.folder)
    predictions = Predictions(settings, ledger, studio, uploads)

    def close() -> None:
        closing.set()
        predictions.close()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        close()
        studio.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    # A server stops its connections before the lifespan ends: it needs to let go of held ones first.
    app.state.close, app.state.closing = close, closing
    api = Api(settings, ledger=ledger, predictions=predictions, uploads=uploads, faults=faults)
    router = api.router()
    app.include_router(router)
    app.include_router(Delivery(ledger, predictions, faults).router())
    app.add_exception_handler(problems.ApiError, problems.answer)
    app.add_exception_handler(HTTPException, _refuse_unknown_routes(router))
    app.add_exception_handler(ClientDisconnect, _hung_up)
    _add_ledger(app, ledger, faults)
    return app


def _add_ledger(app: FastAPI, ledger: Ledger, faults: Faults) -> None:
    @app.get("/_emulator/ledger")
    async def read() -> Response:
        return JSONResponse(ledger.report() | {"faults": faults.used})

    @app.delete("/_emulator/ledger")
    async def reset() -> Response:
        ledger.reset()
        return Response(status_code=204)


async def _hung_up(_request: Request, _exc: Exception) -> Response:
    """The caller went away while it was sending: nothing was accepted, and nobody hears this answer."""
    return Response(status_code=400)


def _refuse_unknown_routes(router: APIRouter) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return a handler for the router's 404 and 405, which answers in the API's shape and says what there is."""
    known = [route for route in router.routes if isinstance(route, APIRoute)]
    routes = [(method, route.path) for route in known for method in route.methods or ()]

    async def refuse(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        hint = describe_unknown_route(request.method, request.url.path, routes)
        if exc.status_code == 404:
            return problems.not_found(hint).response()
        return problems.ApiError(exc.status_code, f"{exc.detail}. {hint}", headers=exc.headers).response()

    return refuse
