"""The routes under /v1, with the behaviour of the live API.

Source: https://replicate.com/docs/reference/http and the OpenAPI document it links to.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Depends
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from videogen.emulator.api_errors import (
    ApiError,
    make_not_found_error,
    make_throttled_error,
    make_unauthenticated_error,
)
from videogen.emulator.catalogue import Catalogue, make_model_body, make_version_body
from videogen.emulator.collections import make_collection_body
from videogen.emulator.create_request import (
    CreateRequest,
    parse_official_request,
    parse_version_request,
)
from videogen.emulator.faults import plan
from videogen.emulator.faults.engine import FaultEngine, apply_fault, get_prompt, is_call_prevented
from videogen.emulator.faults.transport import LenientJSONResponse
from videogen.emulator.ledger import Ledger
from videogen.emulator.pagination import paginate
from videogen.emulator.predictions import EmulatedPrediction, PredictionStore
from videogen.emulator.settings import EmulatorSettings
from videogen.emulator.timing import RateLimit
from videogen.emulator.uploads import MAX_BYTES, Upload, Uploads

_FORM_ALLOWANCE_BYTES = 64 * 1024


class Api:
    """The handlers of the routes and the state that they share."""

    def __init__(
        self,
        settings: EmulatorSettings,
        *,
        catalogue: Catalogue,
        ledger: Ledger,
        predictions: PredictionStore,
        uploads: Uploads,
        faults: FaultEngine,
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._ledger = ledger
        self._predictions = predictions
        self._uploads = uploads
        self._faults = faults
        per_minute = settings.creates_per_minute
        burst = settings.burst or per_minute or 0
        self._limit = RateLimit(per_minute, burst, settings.time_scale) if per_minute else None

    def make_router(self) -> APIRouter:
        """Return the routes under /v1, all of which need a token."""
        router = APIRouter(prefix="/v1", dependencies=[Depends(self.authenticate)])
        router.post("/models/{owner}/{name}/predictions")(self.create_official)
        router.post("/predictions")(self.create_version)
        router.get("/predictions")(self.list_predictions)
        router.get("/predictions/{prediction_id}")(self.get_prediction)
        router.post("/predictions/{prediction_id}/cancel")(self.cancel_prediction)
        router.get("/models")(self.list_models)
        router.get("/models/{owner}/{name}")(self.get_model)
        router.get("/models/{owner}/{name}/versions")(self.list_versions)
        router.get("/models/{owner}/{name}/versions/{version_id}")(self.get_version)
        router.get("/collections/{slug}")(self.get_collection)
        router.post("/files")(self.upload_file)
        router.get("/files")(self.list_files)
        router.get("/files/{file_id}")(self.get_file)
        router.delete("/files/{file_id}")(self.delete_file)
        router.get("/files/{file_id}/download")(self.download_file)
        router.get("/account")(self.get_account)
        router.get("/webhooks/default/secret")(self.get_webhook_secret)
        return router

    async def authenticate(self, request: Request) -> None:
        """Check the token of a request (`Bearer`, or the older `Token`).

        Raises:
            ApiError: 401, the token is missing or wrong.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "token") or not self._settings.is_valid_token(token.strip()):
            raise make_unauthenticated_error()

    async def create_official(self, request: Request, owner: str, name: str) -> Response:
        """Create a prediction by model name."""
        self._throttle()
        wanted = parse_official_request(self._catalogue, owner, name, await request.body(), request.headers)
        return await self._create(wanted, request)

    async def create_version(self, request: Request) -> Response:
        """Create a prediction by version."""
        self._throttle()
        wanted = parse_version_request(self._catalogue, await request.body(), request.headers)
        return await self._create(wanted, request)

    async def get_prediction(self, request: Request, prediction_id: str) -> Response:
        """Return a prediction in its present state."""
        prediction = self._find_prediction(prediction_id)
        prediction.polls += 1
        self._ledger.record_poll(prediction_id)
        rule = self._faults.take_prediction_rule("poll", prediction)
        if isinstance(rule, plan.Expire):
            self._predictions.expire(prediction)
        return apply_fault(
            rule,
            None
            if is_call_prevented(rule)
            else self._answer_prediction(prediction, request, shown=_select_show_rules(rule)),
        )

    async def list_predictions(self, request: Request) -> Response:
        """Return a page of predictions, newest first, without logs."""
        self._ledger.lists += 1
        rule = self._faults.on("list")
        as_of_s = rule.seconds if isinstance(rule, plan.StaleList) else 0
        return apply_fault(rule, None if is_call_prevented(rule) else self._make_list_page(request, as_of_s))

    async def cancel_prediction(self, request: Request, prediction_id: str) -> Response:
        """Cancel a prediction; one that has ended is returned unchanged."""
        prediction = self._find_prediction(prediction_id)
        rule = self._faults.take_prediction_rule("cancel", prediction)
        if is_call_prevented(rule):
            return apply_fault(rule, None)
        self._ledger.cancels += 1
        self._predictions.cancel(prediction)
        return apply_fault(rule, self._answer_prediction(prediction, request, shown=_select_show_rules(rule)))

    async def list_models(self, request: Request) -> Response:
        """Return all models on one page."""
        base = get_base_url(request)
        return _make_single_page([make_model_body(model, base) for model in self._catalogue.list_models()])

    async def get_model(self, request: Request, owner: str, name: str) -> Response:
        """Return a model with the schema of its latest version."""
        return JSONResponse(make_model_body(self._catalogue.find_model(f"{owner}/{name}"), get_base_url(request)))

    async def get_collection(self, request: Request, slug: str) -> Response:
        """Return a collection with its models."""
        return JSONResponse(make_collection_body(slug, self._catalogue.list_models(), get_base_url(request)))

    async def list_versions(self, owner: str, name: str) -> Response:
        """Return the versions of a model on one page, each with its schema."""
        versions = self._catalogue.list_versions(f"{owner}/{name}")
        return _make_single_page([make_version_body(model) for model in versions])

    async def get_version(self, owner: str, name: str, version_id: str) -> Response:
        """Return a version with its schema."""
        for model in self._catalogue.list_versions(f"{owner}/{name}"):
            if version_id == model.version_id:
                return JSONResponse(make_version_body(model))
        raise make_not_found_error()

    async def upload_file(self, request: Request) -> Response:
        """Store the multipart part `content`."""
        rule = self._faults.on("upload")
        return apply_fault(rule, None if is_call_prevented(rule) else await self._store_upload(request))

    async def _store_upload(self, request: Request) -> Response:
        if int(request.headers.get("content-length", 0)) > MAX_BYTES + _FORM_ALLOWANCE_BYTES:
            raise _make_too_large_error()
        async with request.form() as form:
            part = form.get("content")
            if not isinstance(part, UploadFile):
                raise ApiError(400, "Missing content", title="Bad request")
            if (part.size or 0) > MAX_BYTES:
                raise _make_too_large_error()
            content = await part.read()
            content_type = part.content_type or "application/octet-stream"
            metadata = await _read_metadata(form.get("metadata"))
            upload = self._uploads.add(content, part.filename or "", content_type, metadata)
        self._ledger.uploads += 1
        return JSONResponse(upload.make_body(get_base_url(request)), 201)

    async def get_file(self, request: Request, file_id: str) -> Response:
        """Return the metadata of an uploaded file."""
        return JSONResponse(self._find_upload(file_id).make_body(get_base_url(request)))

    async def list_files(self, request: Request) -> Response:
        """Return the metadata of all uploaded files on one page, newest first."""
        return _make_single_page(
            [upload.make_body(get_base_url(request)) for upload in self._uploads.list_newest_first()]
        )

    async def delete_file(self, file_id: str) -> Response:
        """Delete an uploaded file."""
        self._uploads.remove(self._find_upload(file_id))
        return Response(status_code=204)

    async def download_file(self, file_id: str) -> Response:
        """Return the content of an uploaded file."""
        upload = self._find_upload(file_id)
        return FileResponse(upload.path, media_type=upload.content_type)

    async def get_account(self) -> Response:
        """Return the account of the token."""
        rule = self._faults.on("account")
        account = {"type": "user", "username": "local", "name": "Emulator", "github_url": None}
        return apply_fault(rule, None if is_call_prevented(rule) else JSONResponse(account))

    async def get_webhook_secret(self) -> Response:
        """Return the key of webhook signatures, which depends on the seed alone."""
        digest = hashlib.sha256(f"webhook/{self._settings.seed}".encode()).digest()
        return JSONResponse({"key": f"whsec_{base64.b64encode(digest[:24]).decode()}"})

    async def _create(self, wanted: CreateRequest, request: Request) -> Response:
        rule = self._faults.take_create_rule(*self._describe_create(wanted))
        if isinstance(rule, plan.AcceptLate):
            self._predictions.call_later(rule.seconds, lambda: self._accept_create(wanted))
        if is_call_prevented(rule):
            return apply_fault(rule, None)
        return apply_fault(rule, await self._answer_create(self._accept_create(wanted), wanted, request))

    def _accept_create(self, wanted: CreateRequest) -> EmulatedPrediction:
        about = self._describe_create(wanted)
        return self._predictions.create(
            wanted.model,
            wanted.input,
            cancel_after_s=wanted.cancel_after_s,
            outcome_rule=self._faults.take_outcome_rule(*about),
            appearance_rules=self._faults.take_appearance_rules(*about),
        )

    def _describe_create(self, wanted: CreateRequest) -> tuple[str, str, int]:
        """Return the model, the prompt, and the number that the create has if it is accepted; rules match on these."""
        return wanted.model.full_name, get_prompt(wanted.input), self._ledger.creates + 1

    async def _answer_create(self, prediction: EmulatedPrediction, wanted: CreateRequest, request: Request) -> Response:
        if wanted.wait_s is None:
            return self._answer_prediction(prediction, request, 201)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(prediction.ended.wait(), wanted.wait_s)
        if prediction.terminal:
            response = self._answer_prediction(prediction, request, 201)
        else:
            response = self._answer_unfinished(prediction, request)
        response.headers["Preference-Applied"] = request.headers["prefer"]
        return response

    def _answer_unfinished(self, prediction: EmulatedPrediction, request: Request) -> Response:
        """Answer a create whose wait has run out with `starting`, as the live API does, even if it is `processing`.

        The clients continue to poll only after `starting` and take `processing` for the end.
        Source: the comment in `run` of https://github.com/replicate/replicate-python/blob/main/replicate/run.py
        """
        body = self._predictions.make_body(prediction, get_base_url(request))
        if body["status"] == "processing":
            body |= {"status": "starting", "logs": ""}
            body.pop("started_at", None)
        return LenientJSONResponse(body, 202)

    def _make_list_page(self, request: Request, as_of_s: float) -> Response:
        page = paginate(self._predictions.list_newest_first(as_of_s=as_of_s), request.query_params)
        base = get_base_url(request)
        results = []
        for prediction in page.predictions:
            body = self._predictions.make_body(prediction, base, as_of_s=as_of_s)
            del body["logs"]
            results.append(body)
        url = f"{base}/v1/predictions"
        return LenientJSONResponse(
            {
                "next": f"{url}?{page.next}" if page.next else None,
                "previous": f"{url}?{page.previous}" if page.previous else None,
                "results": results,
            }
        )

    def _throttle(self) -> None:
        wait_s = self._limit.take() if self._limit else None
        if self._limit and wait_s is not None:
            raise make_throttled_error(self._limit.per_minute, self._limit.burst, wait_s)

    def _find_prediction(self, prediction_id: str) -> EmulatedPrediction:
        prediction = self._predictions.find(prediction_id)
        if prediction is None:
            raise make_not_found_error()
        return prediction

    def _find_upload(self, file_id: str) -> Upload:
        upload = self._uploads.find(file_id)
        if upload is None:
            raise make_not_found_error()
        return upload

    def _answer_prediction(
        self, prediction: EmulatedPrediction, request: Request, status: int = 200, *, shown: Sequence[plan.Show] = ()
    ) -> Response:
        return LenientJSONResponse(self._predictions.make_body(prediction, get_base_url(request), shown=shown), status)


def _make_single_page(results: list[dict[str, Any]]) -> Response:
    return JSONResponse({"next": None, "previous": None, "results": results})


async def _read_metadata(part: UploadFile | str | None) -> dict[str, Any]:
    """Return the JSON object of an upload's part `metadata`, which may be a field or a file."""
    raw = await part.read() if isinstance(part, UploadFile) else part
    try:
        metadata = json.loads(raw or "{}")
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise ApiError(400, "metadata is not a JSON object", title="Bad request")
    return metadata


def _select_show_rules(rule: plan.FaultRule | None) -> list[plan.Show]:
    return [rule] if isinstance(rule, plan.Show) else []


def get_base_url(request: Request) -> str:
    """Return this server's address as the caller wrote it, without a slash at the end."""
    return str(request.base_url).rstrip("/")


def _make_too_large_error() -> ApiError:
    return ApiError(413, "Files must be less than 100MB in size")
