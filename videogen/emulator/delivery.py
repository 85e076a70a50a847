"""Delivering outputs: the files of finished predictions, without a token, in ranges, every byte counted."""

import time

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from videogen.emulator import plan
from videogen.emulator.faults import Faults, damaged, prevents, refuse, spoil
from videogen.emulator.ledger import Ledger
from videogen.emulator.predictions import Prediction, Predictions
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
        if request.method == "GET":
            self._ledger.downloaded(prediction.id)
            prediction.downloads += 1
        if late := _find_lateness(prediction, looks=prediction.downloads + (request.method == "HEAD")):
            return refuse(late.status, late.body, location=late.location)
        rule = self._faults.on_call("download", prediction) if request.method == "GET" else None
        if isinstance(rule, plan.Expire):
            self._predictions.expire(prediction)
            raise not_found()
        answer = None if prevents(rule) else damaged(rule, prediction.output)
        return Counted(spoil(rule, answer), lambda size_bytes: self._ledger.served(prediction.id, size_bytes))


def _find_lateness(prediction: Prediction, *, looks: int) -> plan.LateOutput | None:
    """Return the rule by which the file is not here yet at this look, the first one being 1."""
    assert prediction.completed_at_s is not None
    since_s = time.monotonic() - prediction.completed_at_s
    return next(
        (
            trait
            for trait in prediction.traits
            if isinstance(trait, plan.LateOutput) and (since_s < trait.seconds or looks <= trait.looks)
        ),
        None,
    )
