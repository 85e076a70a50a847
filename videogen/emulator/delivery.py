"""Delivering outputs: the files of finished predictions, without a token, in ranges, every byte counted."""

from collections.abc import Callable

from fastapi import APIRouter
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from videogen.emulator.ledger import Ledger
from videogen.emulator.predictions import Predictions
from videogen.emulator.problems import not_found


class CountedFileResponse(FileResponse):
    """A file (or the range asked for) that reports each piece it has sent."""

    sent: Callable[[int], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""

        async def counting(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body":
                self.sent(len(message.get("body", b"")))

        await super().__call__({**scope, "extensions": {}}, receive, counting)


class Delivery:
    """GET and HEAD /files/{secret}/output.mp4."""

    def __init__(self, ledger: Ledger, predictions: Predictions) -> None:
        self._ledger, self._predictions = ledger, predictions

    def router(self) -> APIRouter:
        """The one route."""
        router = APIRouter()
        router.api_route("/files/{secret}/output.mp4", methods=["GET", "HEAD"])(self.deliver)
        return router

    async def deliver(self, secret: str) -> Response:
        """The clip, until its data is removed."""
        prediction = self._predictions.by_secret(secret)
        if prediction is None or prediction.output is None:
            raise not_found()
        response = CountedFileResponse(prediction.output, media_type="video/mp4")
        response.sent = lambda size_bytes: self._ledger.served(prediction.id, size_bytes)
        return response
