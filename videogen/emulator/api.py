"""The routes under /v1, as the live API has them.

Source: https://replicate.com/docs/reference/http and the OpenAPI document it links to.
"""

import asyncio
import base64
import contextlib
import hashlib

from fastapi import APIRouter, Depends
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from videogen.emulator import plan
from videogen.emulator.catalogue import MODELS, describe, describe_version
from videogen.emulator.faults import Faults, prevents, prompt_of, spoil
from videogen.emulator.ledger import Ledger
from videogen.emulator.listing import page
from videogen.emulator.models import Model
from videogen.emulator.pace import RateLimit
from videogen.emulator.predictions import Prediction, Predictions
from videogen.emulator.problems import ApiError, not_found, throttled, unauthenticated
from videogen.emulator.requests import CreateRequest, official_request, version_request
from videogen.emulator.settings import EmulatorSettings
from videogen.emulator.uploads import MAX_BYTES, Upload, Uploads

_FORM_ALLOWANCE_BYTES = 64 * 1024


class Api:
    """The routes and what they work on."""

    def __init__(
        self,
        settings: EmulatorSettings,
        *,
        ledger: Ledger,
        predictions: Predictions,
        uploads: Uploads,
        faults: Faults,
    ) -> None:
        self._settings, self._ledger, self._predictions, self._uploads = settings, ledger, predictions, uploads
        self._faults = faults
        per_minute = settings.creates_per_minute
        burst = settings.burst or per_minute or 0
        self._limit = RateLimit(per_minute, burst, settings.time_scale) if per_minute else None

    def router(self) -> APIRouter:
        """Everything under /v1, behind the token."""
        router = APIRouter(prefix="/v1", dependencies=[Depends(self.authenticate)])
        router.post("/models/{owner}/{name}/predictions")(self.create_official)
        router.post("/predictions")(self.create_version)
        router.get("/predictions")(self.list_predictions)
        router.get("/predictions/{prediction_id}")(self.get_prediction)
        router.post("/predictions/{prediction_id}/cancel")(self.cancel_prediction)
        router.get("/models")(self.list_models)
        router.get("/models/{owner}/{name}")(self.get_model)
        router.get("/models/{owner}/{name}/versions/{version_id}")(self.get_version)
        router.post("/files")(self.upload_file)
        router.get("/files/{file_id}")(self.get_file)
        router.get("/files/{file_id}/download")(self.download_file)
        router.get("/account")(self.get_account)
        router.get("/webhooks/default/secret")(self.get_webhook_secret)
        return router

    async def authenticate(self, request: Request) -> None:
        """Let in who has a token (`Bearer`, or the older `Token`)."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "token") or not self._settings.admits(token.strip()):
            raise unauthenticated()

    async def create_official(self, request: Request, owner: str, name: str) -> Response:
        """Create by model name."""
        self._throttle()
        return await self._create(official_request(owner, name, await request.body(), request.headers), request)

    async def create_version(self, request: Request) -> Response:
        """Create by version."""
        self._throttle()
        return await self._create(version_request(await request.body(), request.headers), request)

    async def get_prediction(self, request: Request, prediction_id: str) -> Response:
        """One prediction as it is now."""
        prediction = self._find(prediction_id)
        prediction.polls += 1
        self._ledger.polled(prediction_id)
        rule = self._faults.on_call("poll", prediction)
        if isinstance(rule, plan.Expire):
            self._predictions.expire(prediction)
        return spoil(rule, None if prevents(rule) else self._answer(prediction, request))

    async def list_predictions(self, request: Request) -> Response:
        """A page of predictions, newest first, without logs."""
        self._ledger.lists += 1
        rule = self._faults.on_list()
        return spoil(rule, None if prevents(rule) else self._page(request))

    async def cancel_prediction(self, request: Request, prediction_id: str) -> Response:
        """Cancel; one that has ended is answered as it is."""
        prediction = self._find(prediction_id)
        rule = self._faults.on_call("cancel", prediction)
        if prevents(rule):
            return spoil(rule, None)
        self._ledger.cancels += 1
        self._predictions.cancel(prediction)
        return spoil(rule, self._answer(prediction, request))

    async def list_models(self, request: Request) -> Response:
        """All models on one page."""
        results = [describe(model, address(request)) for model in MODELS.values()]
        return JSONResponse({"next": None, "previous": None, "results": results})

    async def get_model(self, request: Request, owner: str, name: str) -> Response:
        """One model with its latest version's schema."""
        return JSONResponse(describe(_model(owner, name), address(request)))

    async def get_version(self, owner: str, name: str, version_id: str) -> Response:
        """One version with its schema."""
        model = _model(owner, name)
        if version_id != model.version_id:
            raise not_found()
        return JSONResponse(describe_version(model))

    async def upload_file(self, request: Request) -> Response:
        """Keep the multipart part `content`."""
        if int(request.headers.get("content-length", 0)) > MAX_BYTES + _FORM_ALLOWANCE_BYTES:
            raise _too_large()
        async with request.form() as form:
            part = form.get("content")
            if not isinstance(part, UploadFile):
                raise ApiError(400, "Missing content", title="Bad request")
            if (part.size or 0) > MAX_BYTES:
                raise _too_large()
            content = await part.read()
            upload = self._uploads.add(content, part.filename or "", part.content_type or "application/octet-stream")
        self._ledger.uploads += 1
        return JSONResponse(upload.body(address(request)), 201)

    async def get_file(self, request: Request, file_id: str) -> Response:
        """What is known of an uploaded file."""
        return JSONResponse(self._upload(file_id).body(address(request)))

    async def download_file(self, file_id: str) -> Response:
        """The bytes of an uploaded file."""
        upload = self._upload(file_id)
        return FileResponse(upload.path, media_type=upload.content_type)

    async def get_account(self) -> Response:
        """Who the token belongs to."""
        return JSONResponse({"type": "user", "username": "local", "name": "Emulator", "github_url": None})

    async def get_webhook_secret(self) -> Response:
        """The key of webhook signatures: fixed by the seed."""
        digest = hashlib.sha256(f"webhook/{self._settings.seed}".encode()).digest()
        return JSONResponse({"key": f"whsec_{base64.b64encode(digest[:24]).decode()}"})

    async def _create(self, wanted: CreateRequest, request: Request) -> Response:
        about = wanted.model.full_name, prompt_of(wanted.input), self._ledger.creates + 1
        rule = self._faults.on_create(*about)
        if prevents(rule):
            return spoil(rule, None)
        prediction = self._predictions.create(
            wanted.model, wanted.input, cancel_after_s=wanted.cancel_after_s, fate=self._faults.fate(*about)
        )
        return spoil(rule, await self._created(prediction, wanted, request))

    async def _created(self, prediction: Prediction, wanted: CreateRequest, request: Request) -> Response:
        if wanted.wait_s is None:
            return self._answer(prediction, request, 201)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(prediction.ended.wait(), wanted.wait_s)
        response = self._answer(prediction, request, 201 if prediction.terminal else 202)
        response.headers["Preference-Applied"] = request.headers["prefer"]
        return response

    def _page(self, request: Request) -> Response:
        shown = page(list(self._predictions.all()), request.query_params)
        base = address(request)
        neighbours = (f"{base}/v1/predictions?{query}" if query else None for query in (shown.next, shown.previous))
        bodies = [self._predictions.body(prediction, base) for prediction in shown.predictions]
        results = [{key: value for key, value in body.items() if key != "logs"} for body in bodies]
        return JSONResponse(dict(zip(("next", "previous"), neighbours, strict=True)) | {"results": results})

    def _throttle(self) -> None:
        wait_s = self._limit.take() if self._limit else None
        if self._limit and wait_s is not None:
            raise throttled(self._limit.per_minute, self._limit.burst, wait_s)

    def _find(self, prediction_id: str) -> Prediction:
        prediction = self._predictions.get(prediction_id)
        if prediction is None:
            raise not_found()
        return prediction

    def _upload(self, file_id: str) -> Upload:
        upload = self._uploads.find(file_id)
        if upload is None:
            raise not_found()
        return upload

    def _answer(self, prediction: Prediction, request: Request, status: int = 200) -> Response:
        return JSONResponse(self._predictions.body(prediction, address(request)), status)


def address(request: Request) -> str:
    """This server's address as the caller wrote it, without a slash at the end."""
    return str(request.base_url).rstrip("/")


def _model(owner: str, name: str) -> Model:
    model = MODELS.get(f"{owner}/{name}")
    if model is None:
        raise not_found()
    return model


def _too_large() -> ApiError:
    return ApiError(413, "Files must be less than 100MB in size")
