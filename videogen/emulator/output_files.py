"""The host of output files: needs no token, serves byte ranges, and counts every byte."""

import time

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from videogen.emulator.api_errors import make_not_found_error
from videogen.emulator.faults import plan
from videogen.emulator.faults.engine import (
    FaultEngine,
    apply_fault,
    is_call_prevented,
    make_download,
    make_refusal,
)
from videogen.emulator.faults.transport import CountedResponse
from videogen.emulator.ledger import Ledger
from videogen.emulator.predictions import EmulatedPrediction, PredictionStore


class OutputFiles:
    """The handler of GET and HEAD /files/{secret}/output.mp4."""

    def __init__(self, ledger: Ledger, predictions: PredictionStore, faults: FaultEngine) -> None:
        self._ledger = ledger
        self._predictions = predictions
        self._faults = faults

    def make_router(self) -> APIRouter:
        """Return the only route."""
        router = APIRouter()
        router.api_route("/files/{secret}/output.mp4", methods=["GET", "HEAD"])(self.send_output)
        return router

    async def send_output(self, request: Request, secret: str) -> Response:
        """Return the clip of a prediction until its data is removed."""
        prediction = self._predictions.find_by_secret(secret)
        if prediction is None or prediction.output is None:
            raise make_not_found_error()
        if request.method == "GET":
            self._ledger.record_download(prediction.id)
            prediction.downloads += 1
        if late := _find_late_output(prediction, looks=prediction.downloads + (request.method == "HEAD")):
            return make_refusal(late.status, late.body, location=late.location)
        rule = self._faults.take_prediction_rule("download", prediction) if request.method == "GET" else None
        if isinstance(rule, plan.Expire):
            self._predictions.expire(prediction)
            raise make_not_found_error()
        answer = None if is_call_prevented(rule) else make_download(rule, prediction.output)
        return CountedResponse(
            apply_fault(rule, answer), lambda size_bytes: self._ledger.record_served_bytes(prediction.id, size_bytes)
        )


def _find_late_output(prediction: EmulatedPrediction, *, looks: int) -> plan.LateOutput | None:
    """Return the rule that still hides the file from this request, or None; `looks` counts requests from 1."""
    assert prediction.completed_at_s is not None
    since_s = time.monotonic() - prediction.completed_at_s
    return next(
        (
            rule
            for rule in prediction.appearance_rules
            if isinstance(rule, plan.LateOutput) and (since_s < rule.seconds or looks <= rule.looks)
        ),
        None,
    )
