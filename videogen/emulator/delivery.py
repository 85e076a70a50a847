"""Delivering outputs: the files of finished predictions, without a token, in ranges, every byte counted."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from videogen.emulator import plan
from videogen.emulator.faults import Faults, damaged, prevents, spoil
from videogen.emulator.ledger import Ledger
from videogen.emulator.predictions import Predictions
from videogen.emulator.problems import not_found
from videogen.emulator.wire import Counted


class Delivery:
    """GET and HEAD /files/{secret}/output.mp4."""

    def __init__(self, ledger: Ledger, predictions: Predictions, faults: Faults) -> None:
        self._ledger, self._predictions, self._faults = ledger, predictions, faults

    def router(self) -> APIRouter:
        """The one route."""
        router = APIRouter()
        router.api_route("/files/{secret}/output.mp4", methods=["GET", "HEAD"])(self.deliver)
        return router

    async def deliver(self, request: Request, secret: str) -> Response:
        """The clip, until its data is removed."""
        prediction = self._predictions.by_secret(secret)
        if prediction is None or prediction.output is None:
            raise not_found()
        rule = self._faults.on_call("download", prediction) if request.method == "GET" else None
        if isinstance(rule, plan.Expire):
            self._predictions.expire(prediction)
            raise not_found()
        answer = None if prevents(rule) else damaged(rule, prediction.output)
        return Counted(spoil(rule, answer), lambda size_bytes: self._ledger.served(prediction.id, size_bytes))
