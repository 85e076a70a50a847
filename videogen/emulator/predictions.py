"""The life of predictions: starting, processing, and one of four ends, in simulated time."""

import asyncio
import hashlib
import logging
import random
import secrets
import string
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from videogen.emulator import plan
from videogen.emulator.inputs import load_image
from videogen.emulator.ledger import Entry, Ledger
from videogen.emulator.models import Model, ModelError, Size
from videogen.emulator.pace import Pace, draw_pace, stamp
from videogen.emulator.settings import EmulatorSettings
from videogen.emulator.shots import Shot
from videogen.emulator.studio import Studio

log = logging.getLogger(__name__)

TERMINAL = frozenset({"succeeded", "failed", "canceled", "aborted"})
_ALPHABET = string.ascii_lowercase + string.digits
_STEPS = 50
_FAILS_AFTER = 0.1
"""The part of its run time after which a model notices that its input is no good."""
_BROKEN = "Director: unexpected error handling prediction (E9828)"


def new_id() -> str:
    """26 characters of [a-z0-9], never the same twice, not even between two servers with one seed."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(26))


@dataclass(slots=True)
class Prediction:
    """One prediction; times ending in `_ns` are the wall clock, `_at_s` the monotonic clock."""

    model: Model
    input: Mapping[str, Any]
    effective_input: Mapping[str, Any]
    pace: Pace
    nth: int
    fate: plan.Fate | None = None
    """What a fault plan wants to become of it."""
    polls: int = 0
    id: str = field(default_factory=new_id)
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    """The unguessable part of the output's URL."""
    status: str = "starting"
    error: str | None = None
    output: Path | None = None
    created_ns: int = field(default_factory=time.time_ns)
    deadline_ns: int | None = None
    started_ns: int | None = None
    completed_ns: int | None = None
    started_at_s: float | None = None
    completed_at_s: float | None = None
    predict_time_s: float = 0.0
    """Simulated seconds in `processing`."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def terminal(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status in TERMINAL

    def cost(self) -> Decimal:
        """USD: one output in full if it succeeded or was canceled while running; GPU time for community models."""
        if self.model.price is None:
            return (self.model.gpu_usd_per_s * Decimal(str(self.predict_time_s))).quantize(Decimal("0.000001"))
        if self.status == "succeeded" or (self.status == "canceled" and self.started_ns is not None):
            return self.model.price(self.effective_input)
        return Decimal(0)


class Predictions:
    """All predictions of one server, newest last."""

    def __init__(self, settings: EmulatorSettings, ledger: Ledger, studio: Studio, uploads: Mapping[str, Path]) -> None:
        self._settings, self._ledger, self._studio, self._uploads = settings, ledger, studio, uploads
        self._scale = settings.time_scale
        self._by_id: dict[str, Prediction] = {}
        self._by_secret: dict[str, Prediction] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._warm: set[str] = set()

    def create(
        self,
        model: Model,
        given: Mapping[str, Any],
        *,
        cancel_after_s: int | None = None,
        fate: plan.Fate | None = None,
    ) -> Prediction:
        """Accept a checked input and set it going."""
        nth = self._ledger.creates + 1
        pace = draw_pace(model, self._settings, nth=nth, cold=not model.official and model.full_name not in self._warm)
        self._warm.add(model.full_name)
        prediction = Prediction(model, given, model.effective(given), pace, nth, fate)
        self._by_id[prediction.id] = self._by_secret[prediction.secret] = prediction
        self._ledger.opened(_entry(prediction))
        if cancel_after_s is not None:
            self._set_deadline(prediction, cancel_after_s * self._scale)
        self._tasks[prediction.id] = asyncio.create_task(self._run(prediction))
        return prediction

    def get(self, prediction_id: str) -> Prediction | None:
        """The prediction of that id."""
        return self._by_id.get(prediction_id)

    def by_secret(self, secret: str) -> Prediction | None:
        """The prediction whose output lives under that path, None if there is none or its output is removed."""
        prediction = self._by_secret.get(secret)
        return None if prediction is None or prediction.output is None or self.removed(prediction) else prediction

    def all(self) -> Iterable[Prediction]:
        """Every prediction, newest first."""
        return reversed(self._by_id.values())

    def cancel(self, prediction: Prediction) -> None:
        """Cancel by the user; an ended prediction stays as it is."""
        self._end(prediction, "canceled")

    def removed(self, prediction: Prediction) -> bool:
        """Whether input, output and logs have been removed, `output_ttl_s` after completion."""
        if prediction.completed_at_s is None:
            return False
        return time.monotonic() - prediction.completed_at_s >= self._settings.output_ttl_s * self._scale

    def expire(self, prediction: Prediction) -> None:
        """Remove a prediction's data now."""
        prediction.completed_at_s = float("-inf")

    def body(self, prediction: Prediction, base: str) -> dict[str, Any]:
        """The prediction object of the API; `base` is this server's address without a slash at the end."""
        removed = self.removed(prediction)
        output = f"{base}/files/{prediction.secret}/output.mp4" if prediction.output and not removed else None
        return {
            "id": prediction.id,
            "model": prediction.model.full_name,
            "version": prediction.model.version or "hidden",
            "input": {} if removed else prediction.input,
            "logs": "" if removed else self._logs(prediction),
            "output": output,
            "data_removed": removed,
            "error": prediction.error,
            "source": "api",
            "status": prediction.status,
            **_times(prediction),
            "urls": _urls(prediction, base),
        }

    def close(self) -> None:
        """Stop everything that is still going on and let go of held creates; nothing is counted any more."""
        for timer in self._deadlines.values():
            timer.cancel()
        for prediction_id, task in self._tasks.items():
            task.cancel()
            self._by_id[prediction_id].ended.set()

    async def _run(self, prediction: Prediction) -> None:
        await asyncio.sleep(prediction.pace.queue_s * self._scale)
        if isinstance(prediction.fate, plan.Abort):
            self._end(prediction, "aborted")
            return
        self._start(prediction)
        try:
            if await self._meet_fate(prediction):
                return
            film = await self._begin_film(prediction)
            await self._sleep_until(prediction, 1.0)
            prediction.output = await asyncio.shield(film)
        except ModelError as exc:
            await self._sleep_until(prediction, _FAILS_AFTER)
            self._end(prediction, "failed", error=str(exc))
        except Exception:
            log.exception("rendering prediction %s failed", prediction.id)
            self._end(prediction, "failed", error=_BROKEN)
        else:
            self._end(prediction, "succeeded")
            if isinstance(prediction.fate, plan.Expire):
                self.expire(prediction)

    async def _meet_fate(self, prediction: Prediction) -> bool:
        """The ways to end early, or never, that a fault plan can ask for; whether it has ended."""
        match prediction.fate:
            case plan.Fail(error=error):
                raise ModelError(error)
            case plan.Cancel():
                await self._sleep_until(prediction, _FAILS_AFTER)
                self._end(prediction, "canceled")
            case plan.Stick():
                await asyncio.Event().wait()
        return prediction.terminal

    def _start(self, prediction: Prediction) -> None:
        prediction.status = "processing"
        prediction.started_at_s = time.monotonic()
        # The two clocks of the live API disagree: started_at was seen some milliseconds before created_at.
        prediction.started_ns = time.time_ns() - random.Random(prediction.id).randrange(12_000_000)
        self._note(prediction)

    async def _begin_film(self, prediction: Prediction) -> asyncio.Future[Path]:
        inputs, model = prediction.effective_input, prediction.model
        if refusal := model.refusal(inputs):
            raise ModelError(refusal)
        urls = model.image_urls(inputs)
        loaded = {name: [await load_image(url, self._uploads) for url in values] for name, values in urls.items()}
        start = next((loaded[name][0] for name in model.start_images if name in loaded), None)
        shape = model.shape(inputs, Size(*start.size) if start else None)
        if isinstance(prediction.fate, plan.WrongDuration):
            shape = shape._replace(frames=max(1, round(prediction.fate.seconds * shape.fps)))
        digest = hashlib.sha256(start.tobytes()).hexdigest() if start else None
        seed = inputs.get("seed") or self._settings.seed
        flaw = prediction.fate.picture if isinstance(prediction.fate, plan.WrongPicture) else None
        shot = Shot(shape, str(inputs.get("prompt", "")), seed, digest, self._settings.mode == "smooth", flaw)
        return self._studio.film(shot, start)

    async def _sleep_until(self, prediction: Prediction, part: float) -> None:
        """Sleep until that part of the run time has passed."""
        assert prediction.started_at_s is not None
        due_s = prediction.started_at_s + part * prediction.pace.run_s * self._scale
        await asyncio.sleep(due_s - time.monotonic())

    def _set_deadline(self, prediction: Prediction, after_s: float) -> None:
        prediction.deadline_ns = prediction.created_ns + int(after_s * 1e9)
        loop = asyncio.get_running_loop()
        self._deadlines[prediction.id] = loop.call_later(after_s, self._pass_deadline, prediction)

    def _pass_deadline(self, prediction: Prediction) -> None:
        self._end(prediction, "aborted" if prediction.status == "starting" else "canceled")

    def _end(self, prediction: Prediction, status: str, *, error: str | None = None) -> None:
        """The one way into a terminal state; whoever comes first decides."""
        if prediction.terminal:
            return
        prediction.status, prediction.error = status, error
        prediction.completed_at_s, prediction.completed_ns = time.monotonic(), time.time_ns()
        prediction.predict_time_s = self._predict_time_s(prediction)
        task, timer = self._tasks.pop(prediction.id), self._deadlines.pop(prediction.id, None)
        if task is not asyncio.current_task():
            task.cancel()
        if timer is not None:
            timer.cancel()
        self._ledger.closed()
        self._note(prediction)
        prediction.ended.set()

    def _predict_time_s(self, prediction: Prediction) -> float:
        if prediction.status == "succeeded":
            return prediction.pace.run_s
        return self._progress(prediction) * prediction.pace.run_s

    def _progress(self, prediction: Prediction) -> float:
        """The part of the run time that has passed, 0 to 1."""
        if prediction.started_at_s is None:
            return 0.0
        ended_s = time.monotonic() if prediction.completed_at_s is None else prediction.completed_at_s
        whole_s = prediction.pace.run_s * self._scale
        return min(1.0, max(0.0, (ended_s - prediction.started_at_s) / whole_s)) if whole_s else 1.0

    def _logs(self, prediction: Prediction) -> str:
        if prediction.started_at_s is None:
            return ""
        progress = 1.0 if prediction.status == "succeeded" else min(0.99, self._progress(prediction))
        seed = prediction.effective_input.get("seed") or random.Random(prediction.id).randrange(2**16)
        tenths = range(1, int(progress * 10 + 1e-9) + 1)
        return "\n".join([f"Using seed: {seed}", *(_progress_line(tenth, prediction.pace.run_s) for tenth in tenths)])

    def _note(self, prediction: Prediction) -> None:
        """Write the prediction's state into the ledger."""
        if entry := self._ledger.entries.get(prediction.id):
            entry.status, entry.billed = prediction.status, prediction.cost()
            entry.started_at, entry.completed_at = (
                stamp(ns, digits=9) if ns else None for ns in (prediction.started_ns, prediction.completed_ns)
            )


def _entry(prediction: Prediction) -> Entry:
    return Entry(
        prediction.id,
        prediction.model.full_name,
        prediction.input,
        prediction.effective_input,
        prediction.nth,
        stamp(prediction.created_ns, digits=3),
    )


def _times(prediction: Prediction) -> dict[str, Any]:
    """The times that are known: created_at in milliseconds, the others down to nanoseconds, as live."""
    times: dict[str, Any] = {"created_at": stamp(prediction.created_ns, digits=3)}
    if prediction.deadline_ns is not None:
        times["deadline"] = stamp(prediction.deadline_ns, digits=3)
    if prediction.started_ns is not None:
        times["started_at"] = stamp(prediction.started_ns, digits=9)
    if prediction.completed_ns is not None:
        times["completed_at"] = stamp(prediction.completed_ns, digits=9)
    if prediction.terminal and prediction.started_ns is not None:
        times["metrics"] = {"predict_time": prediction.predict_time_s}
    return times


def _urls(prediction: Prediction, base: str) -> dict[str, str]:
    get = f"{base}/v1/predictions/{prediction.id}"
    return {"cancel": f"{get}/cancel", "get": get, "web": f"{base}/p/{prediction.id}"}


def _progress_line(tenth: int, run_s: float) -> str:
    bar, step = "█" * tenth + " " * (10 - tenth), _STEPS * tenth // 10
    gone, left = (_clock(run_s * part / 10) for part in (tenth, 10 - tenth))
    return f"{tenth * 10:3d}%|{bar}| {step}/{_STEPS} [{gone}<{left}, {run_s / _STEPS:.2f}s/it]"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
