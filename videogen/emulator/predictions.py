"""The life cycle of predictions in simulated time: starting, processing, and one of four terminal states."""

import asyncio
import base64
import hashlib
import logging
import math
import random
import re
import secrets
import string
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from PIL import Image

from videogen.emulator.faults import plan
from videogen.emulator.inputs import load_image
from videogen.emulator.ledger import Ledger, LedgerEntry
from videogen.emulator.models import EmulatedModel, ModelError, PixelSize
from videogen.emulator.rendering.pool import RenderPool
from videogen.emulator.rendering.spec import RenderSpec
from videogen.emulator.settings import EmulatorSettings
from videogen.emulator.timing import PredictionTiming, draw_timing, format_timestamp

log = logging.getLogger(__name__)

TERMINAL = frozenset({"succeeded", "failed", "canceled", "aborted"})
_ALPHABET = string.ascii_lowercase + string.digits
_STEPS = 50
_FAILS_AFTER_FRACTION = 0.1
"""Fraction of its run time after which a model fails on an invalid input."""
_LOADING_TIMEOUT_S = 60
"""Timeout of loading the input images, in true seconds."""
_INTERNAL_ERROR = "Director: unexpected error handling prediction (E9828)"


def make_prediction_id() -> str:
    """Return 26 characters of [a-z0-9] that are unique, even among servers with the same seed."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(26))


@dataclass(slots=True)
class EmulatedPrediction:
    """A prediction; times ending in `_ns` are of the wall clock, those in `_at_s` of the monotonic clock."""

    model: EmulatedModel
    input: Mapping[str, Any]
    effective_input: Mapping[str, Any]
    timing: PredictionTiming
    nth: int
    created_ns: int
    outcome_rule: plan.OutcomeRule | None = None
    """The fault plan's rule for its outcome; None means that it succeeds if its input is valid."""
    appearance_rules: Sequence[plan.AppearanceRule] = ()
    """The fault plan's rules for its appearance in answers."""
    polls: int = 0
    downloads: int = 0
    id: str = field(default_factory=make_prediction_id)
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    """The secret part of the output's URL."""
    status: str = "starting"
    error: str | None = None
    output: Path | None = None
    created_at_s: float = field(default_factory=time.monotonic)
    deadline_s: float | None = None
    """Cancel-After, in simulated seconds since the creation."""
    deadline_ns: int | None = None
    started_ns: int | None = None
    completed_ns: int | None = None
    started_at_s: float | None = None
    completed_at_s: float | None = None
    predict_time_s: float = 0.0
    """Simulated seconds in `processing`."""
    total_time_s: float = 0.0
    """Simulated seconds from the creation to the end."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def terminal(self) -> bool:
        """Whether the prediction has ended."""
        return self.status in TERMINAL

    @property
    def billed_input(self) -> Mapping[str, Any]:
        """The effective input as it is billed, which a rule of the fault plan can change."""
        changes = (rule.inputs for rule in self.appearance_rules if isinstance(rule, plan.Bill))
        return {**self.effective_input, **{name: value for inputs in changes for name, value in inputs.items()}}

    def compute_cost(self) -> Decimal:
        """Return the cost in USD.

        An official model charges one output in full if the prediction succeeded or was canceled while running. A
        community model charges GPU time, however the prediction ended.
        """
        if self.model.price is None:
            return (self.model.gpu_usd_per_s * Decimal(str(self.predict_time_s))).quantize(Decimal("0.000001"))
        if self.status == "succeeded" or (self.status == "canceled" and self.started_ns is not None):
            return self.model.price(self.billed_input) or Decimal(0)
        return Decimal(0)


class _DeadlineError(Exception):
    """The deadline of a prediction has passed before its next step."""


class PredictionStore:
    """All predictions of one server, oldest first."""

    def __init__(
        self, settings: EmulatorSettings, ledger: Ledger, render_pool: RenderPool, uploads: Mapping[str, Path]
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._render_pool = render_pool
        self._uploads = uploads
        self._scale = settings.time_scale
        self._ahead_ns = int(settings.clock_ahead_s * 1e9)
        self._by_id: dict[str, EmulatedPrediction] = {}
        self._by_secret: dict[str, EmulatedPrediction] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._later: list[asyncio.TimerHandle] = []
        self._warm: set[str] = set()

    def create(
        self,
        model: EmulatedModel,
        given: Mapping[str, Any],
        *,
        cancel_after_s: int | None = None,
        outcome_rule: plan.OutcomeRule | None = None,
        appearance_rules: Sequence[plan.AppearanceRule] = (),
    ) -> EmulatedPrediction:
        """Create a prediction from a valid input and start it."""
        nth = self._ledger.creates + 1
        timing = draw_timing(
            model, self._settings, nth=nth, cold=not model.official and model.full_name not in self._warm
        )
        self._warm.add(model.full_name)
        prediction = EmulatedPrediction(
            model, given, model.fill_defaults(given), timing, nth, self._get_now_ns(), outcome_rule, appearance_rules
        )
        if cancel_after_s is not None:
            prediction.deadline_s = cancel_after_s
            prediction.deadline_ns = prediction.created_ns + int(cancel_after_s * self._scale * 1e9)
        self._by_id[prediction.id] = self._by_secret[prediction.secret] = prediction
        self._ledger.record_create(_make_entry(prediction))
        self._tasks[prediction.id] = asyncio.create_task(self._run(prediction))
        return prediction

    def _get_now_ns(self) -> int:
        return time.time_ns() + self._ahead_ns

    def call_later(self, after_s: float, act: Callable[[], object]) -> None:
        """Call `act` after that many true seconds, unless the server has stopped by then."""
        self._later.append(asyncio.get_running_loop().call_later(after_s, act))

    def find(self, prediction_id: str) -> EmulatedPrediction | None:
        """Return the prediction of that id, or None if there is none."""
        return self._by_id.get(prediction_id)

    def find_by_secret(self, secret: str) -> EmulatedPrediction | None:
        """Return the prediction whose output has that secret, or None if there is none or its output is removed."""
        prediction = self._by_secret.get(secret)
        return None if prediction is None or prediction.output is None or self.is_removed(prediction) else prediction

    def list_newest_first(self, *, as_of_s: float = 0) -> Sequence[EmulatedPrediction]:
        """Return the predictions that existed `as_of_s` ago and that no rule hides, newest first."""
        now_ns = self._get_now_ns()
        return [
            found
            for found in reversed(self._by_id.values())
            if now_ns - found.created_ns >= max(as_of_s, _get_hidden_s(found)) * 1e9
        ]

    def cancel(self, prediction: EmulatedPrediction) -> None:
        """Cancel a prediction for the user; one that has ended is left unchanged."""
        self._end(prediction, "canceled")

    def is_removed(self, prediction: EmulatedPrediction) -> bool:
        """Return whether input, output and logs are removed, which happens `output_ttl_s` after completion."""
        if prediction.completed_at_s is None:
            return False
        return time.monotonic() - prediction.completed_at_s >= self._settings.output_ttl_s * self._scale

    def expire(self, prediction: EmulatedPrediction) -> None:
        """Remove a prediction's data now."""
        prediction.completed_at_s = float("-inf")

    def make_body(
        self, prediction: EmulatedPrediction, base: str, *, shown: Sequence[plan.Show] = (), as_of_s: float = 0
    ) -> dict[str, Any]:
        """Return the prediction object of the API.

        Args:
            prediction: the prediction to show.
            base: this server's address without a slash at the end.
            shown: rules that apply to this answer besides the prediction's own ones.
            as_of_s: show the state of this many seconds ago.
        """
        removed = self.is_removed(prediction)
        output = f"{base}/files/{prediction.secret}/output.mp4" if prediction.output and not removed else None
        body = self._make_true_body(prediction, base, output, removed=removed)
        for rule in (*prediction.appearance_rules, *shown):
            if isinstance(rule, plan.Show) and rule.is_shown(ended=prediction.terminal):
                body |= {
                    name: _fill_placeholders(value, output, prediction.output) for name, value in rule.members.items()
                }
        return _rewind(body, prediction, self._get_now_ns() - int(as_of_s * 1e9)) if as_of_s else body

    def _make_true_body(
        self, prediction: EmulatedPrediction, base: str, output: str | None, *, removed: bool
    ) -> dict[str, Any]:
        return {
            "id": prediction.id,
            "model": prediction.model.full_name,
            "version": prediction.model.version or "hidden",
            "input": {} if removed else prediction.input,
            "logs": "" if removed else self._make_logs(prediction),
            "output": output,
            "data_removed": removed,
            "error": prediction.error,
            "source": "api",
            "status": prediction.status,
            **_make_times(prediction),
            "urls": _make_urls(prediction, base),
        }

    def close(self) -> None:
        """Cancel all running predictions and release held creates; the ledger does not change any more."""
        for timer in self._later:
            timer.cancel()
        for prediction_id, task in self._tasks.items():
            task.cancel()
            self._by_id[prediction_id].ended.set()

    async def _run(self, prediction: EmulatedPrediction) -> None:
        try:
            await self._wait_until(prediction, prediction.timing.queue_s)
            if isinstance(prediction.outcome_rule, plan.Abort):
                self._end(prediction, "aborted")
                return
            self._start(prediction)
            await self._process(prediction)
        except _DeadlineError:
            status = "aborted" if prediction.started_at_s is None else "canceled"
            self._end(prediction, status, at_s=prediction.deadline_s)
        except Exception:
            log.exception("rendering prediction %s failed", prediction.id)
            self._end(prediction, "failed", error=_INTERNAL_ERROR)

    async def _process(self, prediction: EmulatedPrediction) -> None:
        """Render the clip and succeed, or end as the fault plan or an invalid input demands."""
        timing = prediction.timing
        fails_at_s = timing.queue_s + _FAILS_AFTER_FRACTION * timing.run_s
        done_at_s = timing.queue_s + timing.run_s
        try:
            match prediction.outcome_rule:
                case plan.Fail(error=error):
                    raise ModelError(error)
                case plan.Cancel():
                    await self._wait_until(prediction, fails_at_s)
                    self._end(prediction, "canceled", at_s=fails_at_s)
                    return
                case plan.Stick():
                    await self._wait_until(prediction, math.inf)
            rendering = await self._start_rendering(prediction)
            await self._wait_until(prediction, done_at_s)
            prediction.output = await asyncio.shield(rendering)
        except ModelError as exc:
            await self._wait_until(prediction, fails_at_s)
            self._end(prediction, "failed", error=str(exc), at_s=fails_at_s)
            return
        self._end(prediction, "succeeded", at_s=done_at_s)
        if isinstance(prediction.outcome_rule, plan.Expire):
            self.expire(prediction)

    def _start(self, prediction: EmulatedPrediction) -> None:
        prediction.status = "processing"
        prediction.started_at_s = time.monotonic()
        # The two clocks of the live API differ: started_at was observed some milliseconds before created_at.
        prediction.started_ns = self._get_now_ns() - random.Random(prediction.id).randrange(12_000_000)
        self._update_ledger(prediction)

    async def _start_rendering(self, prediction: EmulatedPrediction) -> asyncio.Future[Path]:
        inputs = prediction.effective_input
        model = prediction.model
        if conflict := model.find_conflict(inputs):
            raise ModelError(conflict)
        loaded = await self._load_images(model.get_image_urls(inputs))
        start, end = (
            next((loaded[name][0] for name in names if name in loaded), None)
            for names in (model.start_images, model.end_images)
        )
        clip_format = model.get_format(inputs, PixelSize(*start.size) if start else None)
        rule = prediction.outcome_rule
        if isinstance(rule, plan.WrongDuration):
            clip_format = clip_format._replace(frames=max(1, round(rule.seconds * clip_format.fps)))
        spec = RenderSpec(
            clip_format=clip_format,
            prompt=str(inputs.get("prompt", "")),
            seed=inputs.get("seed") or self._settings.seed,
            start_digest=_make_digest(start),
            end_digest=_make_digest(end),
            smooth=self._settings.mode == "smooth",
            flaw=rule.picture if isinstance(rule, plan.WrongPicture) else None,
        )
        return self._render_pool.submit(spec, start, end)

    async def _load_images(self, urls: Mapping[str, Sequence[str]]) -> dict[str, list[Image.Image]]:
        try:
            async with asyncio.timeout(_LOADING_TIMEOUT_S):
                return {name: [await load_image(url, self._uploads) for url in given] for name, given in urls.items()}
        except TimeoutError:
            raise ModelError(f"Failed to download input: timed out after {_LOADING_TIMEOUT_S} s") from None

    async def _wait_until(self, prediction: EmulatedPrediction, at_s: float) -> None:
        """Wait until `at_s` simulated seconds after the creation.

        Only simulated time decides whether the deadline comes first. Slow rendering or a busy machine therefore never
        makes a prediction miss its deadline, however small the time scale is.

        Raises:
            _DeadlineError: the deadline comes first and has passed.
        """
        deadline_s = math.inf if prediction.deadline_s is None else prediction.deadline_s
        until_s = min(at_s, deadline_s)
        if until_s == math.inf:
            await asyncio.Event().wait()
        since_s, begun_at_s = 0.0, prediction.created_at_s
        if prediction.started_at_s is not None:
            since_s, begun_at_s = prediction.timing.queue_s, prediction.started_at_s
        await asyncio.sleep(begun_at_s + (until_s - since_s) * self._scale - time.monotonic())
        if deadline_s < at_s:
            raise _DeadlineError

    def _end(
        self, prediction: EmulatedPrediction, status: str, *, error: str | None = None, at_s: float | None = None
    ) -> None:
        """End a prediction at `at_s` simulated seconds (None means now); one that has ended is left unchanged."""
        if prediction.terminal:
            return
        prediction.status, prediction.error = status, error
        prediction.completed_at_s, prediction.completed_ns = time.monotonic(), self._get_now_ns()
        if prediction.deadline_ns is not None:
            prediction.completed_ns = min(prediction.completed_ns, prediction.deadline_ns)
        prediction.total_time_s = self._get_elapsed_s(prediction) if at_s is None else at_s
        if prediction.started_at_s is not None:
            prediction.predict_time_s = round(prediction.total_time_s - prediction.timing.queue_s, 9)
        task = self._tasks.pop(prediction.id)
        if task is not asyncio.current_task():
            task.cancel()
        self._ledger.record_end()
        self._update_ledger(prediction)
        prediction.ended.set()

    def _get_elapsed_s(self, prediction: EmulatedPrediction) -> float:
        """Return the age of a prediction in simulated seconds, at most its total time."""
        if prediction.started_at_s is not None:
            return prediction.timing.queue_s + self._get_progress(prediction) * prediction.timing.run_s
        since_s = time.monotonic() - prediction.created_at_s
        return min(prediction.timing.queue_s, since_s / self._scale) if self._scale else prediction.timing.queue_s

    def _get_progress(self, prediction: EmulatedPrediction) -> float:
        """Return the fraction of the run time that has passed, 0 to 1."""
        if prediction.started_at_s is None:
            return 0.0
        ended_s = time.monotonic() if prediction.completed_at_s is None else prediction.completed_at_s
        whole_s = prediction.timing.run_s * self._scale
        return min(1.0, max(0.0, (ended_s - prediction.started_at_s) / whole_s)) if whole_s else 1.0

    def _make_logs(self, prediction: EmulatedPrediction) -> str:
        if prediction.started_at_s is None:
            return ""
        progress = 1.0 if prediction.status == "succeeded" else min(0.99, self._get_progress(prediction))
        seed = prediction.effective_input.get("seed") or random.Random(prediction.id).randrange(2**16)
        tenths = range(1, int(progress * 10 + 1e-9) + 1)
        return "\n".join(
            [f"Using seed: {seed}", *(_format_progress(tenth, prediction.timing.run_s) for tenth in tenths)]
        )

    def _update_ledger(self, prediction: EmulatedPrediction) -> None:
        """Write the prediction's state into the ledger."""
        if entry := self._ledger.entries.get(prediction.id):
            entry.status, entry.billed = prediction.status, prediction.compute_cost()
            entry.started_at, entry.completed_at = (
                format_timestamp(ns, digits=9) if ns else None
                for ns in (prediction.started_ns, prediction.completed_ns)
            )


def _make_digest(picture: Image.Image | None) -> str | None:
    return None if picture is None else hashlib.sha256(picture.tobytes()).hexdigest()


def _get_hidden_s(prediction: EmulatedPrediction) -> float:
    """Return the seconds after its creation for which the list hides a prediction."""
    return max((rule.seconds for rule in prediction.appearance_rules if isinstance(rule, plan.HideFromList)), default=0)


def _rewind(body: dict[str, Any], prediction: EmulatedPrediction, then_ns: int) -> dict[str, Any]:
    """Return the object in the state that the prediction had at that moment."""
    if prediction.completed_ns is not None and prediction.completed_ns > then_ns:
        body = body | {"status": "processing", "output": None, "error": None, "data_removed": False}
        body = {name: value for name, value in body.items() if name not in ("completed_at", "metrics")}
    if prediction.started_ns is not None and prediction.started_ns > then_ns:
        body = {name: value for name, value in body.items() if name != "started_at"} | {"status": "starting"}
    return body


_FILL = re.compile(r"\{fill:(\d{1,9})\}")


def _fill_placeholders(value: Any, url: str | None, output: Path | None) -> Any:
    """Return a value with the placeholders in its texts replaced, at any depth.

    `{url}` is the output's address, `{data}` its content as a `data:` URL, `{fill:N}` N letters.
    """
    if isinstance(value, dict):
        return {name: _fill_placeholders(inner, url, output) for name, inner in value.items()}
    if isinstance(value, list):
        return [_fill_placeholders(inner, url, output) for inner in value]
    if not isinstance(value, str):
        return value
    if "{data}" in value and output is not None:
        value = value.replace("{data}", "data:video/mp4;base64," + base64.b64encode(output.read_bytes()).decode())
    return _FILL.sub(lambda found: "x" * int(found[1]), value.replace("{url}", url or ""))


def _make_entry(prediction: EmulatedPrediction) -> LedgerEntry:
    return LedgerEntry(
        prediction.id,
        prediction.model.full_name,
        prediction.input,
        prediction.effective_input,
        prediction.nth,
        format_timestamp(prediction.created_ns, digits=3),
        prediction.model.has_known_price(prediction.billed_input),
    )


def _make_times(prediction: EmulatedPrediction) -> dict[str, Any]:
    """Return the known times: created_at in milliseconds, others in nanoseconds, as the live API shows them."""
    times: dict[str, Any] = {"created_at": format_timestamp(prediction.created_ns, digits=3)}
    if prediction.deadline_ns is not None:
        times["deadline"] = format_timestamp(prediction.deadline_ns, digits=3)
    if prediction.started_ns is not None:
        times["started_at"] = format_timestamp(prediction.started_ns, digits=9)
    if prediction.completed_ns is not None:
        times["completed_at"] = format_timestamp(prediction.completed_ns, digits=9)
    if prediction.terminal and prediction.started_ns is not None:
        times["metrics"] = _make_metrics(prediction)
    return times


def _make_metrics(prediction: EmulatedPrediction) -> dict[str, Any]:
    """Return the times in simulated seconds and, for a succeeded official model, the measures that it is billed by."""
    metrics: dict[str, Any] = {"predict_time": prediction.predict_time_s, "total_time": prediction.total_time_s}
    if prediction.status == "succeeded" and prediction.model.official:
        metrics |= prediction.model.get_billing_metrics(prediction.billed_input)
    return metrics


def _make_urls(prediction: EmulatedPrediction, base: str) -> dict[str, str]:
    get = f"{base}/v1/predictions/{prediction.id}"
    stream, web = f"{base}/stream/{prediction.id}", f"{base}/p/{prediction.id}"
    return {"cancel": f"{get}/cancel", "get": get, "stream": stream, "web": web}


def _format_progress(tenth: int, run_s: float) -> str:
    bar, step = "█" * tenth + " " * (10 - tenth), _STEPS * tenth // 10
    gone, left = (_format_clock(run_s * part / 10) for part in (tenth, 10 - tenth))
    return f"{tenth * 10:3d}%|{bar}| {step}/{_STEPS} [{gone}<{left}, {run_s / _STEPS:.2f}s/it]"


def _format_clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
