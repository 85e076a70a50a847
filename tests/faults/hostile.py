"""A server that speaks Replicate's API, misbehaves as its seed says, and keeps a ledger of what it made and billed.

It shares nothing with videogen and its emulator, so that it can judge both. Everything that it draws comes from the
seed and from how many calls of a kind it has had: the same seed makes the same faults, though not in the same
microsecond.

Source: https://replicate.com/docs/reference/http
"""

import asyncio
import base64
import binascii
import contextlib
import email.utils
import hashlib
import io
import json
import multiprocessing
import random
import socket
import string
import struct
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
from PIL import Image

TOKEN = "r8_hostile"
ENDPOINT = "bytedance/seedance-1-pro"
VERSION = "7a" * 32
"""Of a community model that is billed by GPU time."""
PRICE_PER_S = Decimal("0.03")
GPU_PRICE_PER_S = Decimal("0.01")
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (250, 250, 250)}
"""A picture is known by the colour that it is filled with, whatever a client makes of its bytes."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """What a seed's server does wrong. Shares are of calls from 0 to 1, times are seconds before they are scaled."""

    creates: Mapping[str, float]
    """Shares of the faults in `CREATE_FAULTS`."""
    fates: Mapping[str, float]
    """Shares of the fates in `FATES`; the rest succeeds."""
    latency_s: float = 0.0
    hops: float = 0.0
    """Share of other calls that something on the way answers."""
    throttled: float = 0.0
    no_credit: float = 0.0
    """Share of creates that the provider refuses for want of credit."""
    late_s: float = 0.0
    """How long after a gateway's 504 the create is accepted, at most."""
    list_lag_s: float = 0.0
    list_refusals: int = 0
    list_shuffled: bool = False
    page_size: int = 100
    unknown_s: float = 0.0
    """How long after its creation an id is answered with 404, at most."""
    output_null_s: float = 0.0
    output_late_s: float = 0.0
    """How long after success the output's address answers 403 or 404, at most."""
    cuts: float = 0.0
    """Share of downloads that break off in the middle."""
    portal_s: float = 0.0
    """How long every download is answered with a login page, from the first one on."""
    odd_texts: bool = False
    odd_ids: bool = False
    odd_numbers: bool = False
    odd_statuses: bool = False
    cancel_races: bool = False
    hides_pictures: bool = False
    """Whether inputs are shown with other addresses in place of the pictures."""
    clock_shift_s: float = 0.0

    @classmethod
    def draw(cls, seed: int) -> "Profile":
        """Return the profile of a seed: some of all faults, each as often and as long as chance says."""
        chance = random.Random(f"{seed}/profile")

        def maybe(share: float, low: float, high: float) -> float:
            value = chance.uniform(low, high)
            return round(value, 3) if chance.random() < share else 0.0

        return cls(
            creates={name: maybe(0.3, 0.1, 0.35) for name in CREATE_FAULTS},
            fates={name: maybe(0.25, 0.1, 0.3) for name in FATES},
            latency_s=maybe(0.5, 0.05, 1.0),
            hops=maybe(0.5, 0.05, 0.35),
            throttled=maybe(0.2, 0.05, 0.2),
            no_credit=maybe(0.15, 0.05, 0.2),
            late_s=chance.uniform(0.5, 2.0),
            list_lag_s=maybe(0.4, 0.5, 3.0),
            list_refusals=chance.choice((0, 0, 1, 2)),
            list_shuffled=chance.random() < 0.25,
            page_size=chance.choice((100, 100, 1, 2)),
            unknown_s=maybe(0.3, 0.2, 3.0),
            output_null_s=maybe(0.2, 0.2, 2.0),
            output_late_s=maybe(0.3, 0.5, 5.0),
            cuts=maybe(0.3, 0.1, 0.5),
            portal_s=maybe(0.25, 2.0, 20.0),
            odd_texts=chance.random() < 0.3,
            odd_ids=chance.random() < 0.15,
            odd_numbers=chance.random() < 0.3,
            odd_statuses=chance.random() < 0.3,
            cancel_races=chance.random() < 0.2,
            hides_pictures=chance.random() < 0.4,
            clock_shift_s=chance.choice((0, 0, 0, 300, -300, 3600)),
        )


CREATE_FAULTS = (
    *("reset-before", "reset-after", "cut-after", "html-after", "silent-after"),
    *("hop-before", "hop-after", "gateway-late", "reset-late"),
)
"""What happens to a create, and whether the prediction was accepted: before the fault, after it, or later."""
FATES = (
    *("failed", "failed-billed", "moderation", "canceled", "aborted", "stuck", "odd-end"),
    *("long", "damaged", "removed"),
)
"""How a prediction ends if not well; `long` is a video of another length, `damaged` one that is no video for good."""
PROVIDER_FAILURES = (
    "Director: unexpected error handling prediction (E9828)",
    "Prediction interrupted; please retry (code: PA)",
    "CUDA out of memory. Tried to allocate 20.00 MiB",
)
MODERATED = "The input or output was flagged as sensitive. Please try again with different inputs. (E005)"
ODD_TEXTS = ("a\x00b", "half an emoji \ud83d", "x" * 100_000, "\x9b31m red \u202e", "")
SILENCE_S = 2.0
"""How long an answer is kept back that its client should not wait for."""
HOP_STATUSES = (200, 302, 400, 403, 404, 405, 409, 410, 422, 500, 502, 503, 504)
HOP_BODIES = (
    b"<html><head><title>Access denied</title></head><body>Your network's proxy says no.</body></html>",
    b'{"message": "no route matched", "request": "4f2a"}',
    b"",
)


@dataclass
class Prediction:
    """A prediction in the ledger. Times are seconds on the server's monotonic clock."""

    id: str
    number: int
    endpoint: str
    inputs: Json
    picture: str | None
    accepted_at: float
    started_at: float
    ends_at: float
    """When it ends by itself, or is ended by its deadline."""
    fate: str
    status: str = "processing"
    ended_at: float | None = None
    bill: Decimal = Decimal(0)
    downloads: int = 0
    looks: int = 0

    @property
    def asked(self) -> tuple[str, str, str | None, bool]:
        """What it was asked for: all that tells two clips apart on the wire, but not markers that a client adds."""
        return self.endpoint, str(self.inputs.get("prompt")), self.picture, bool(self.inputs.get("camera_fixed"))

    def output(self) -> bytes:
        if self.fate == "damaged":
            return clip_of(2.0, self.id)[:1500]
        return clip_of(5.0 if self.fate == "long" else 2.0, self.id)

    def is_worth_its_money_at(self, at: float) -> bool:
        """Whether it was running at that time, or had succeeded with an output that can be had and used."""
        if self.ended_at is None or self.ended_at > at:
            return True
        return self.status == "succeeded" and self.fate not in ("damaged", "long", "removed")

    def entry(self) -> Json:
        return {
            "id": self.id,
            "asked": list(self.asked),
            "accepted_at": self.accepted_at,
            "ended_at": self.ended_at,
            "fate": self.fate,
            "status": self.status,
            "bill": str(self.bill),
            "downloads": self.downloads,
            "sha256": hashlib.sha256(self.output()).hexdigest(),
        }


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    """After so many bytes of the body the connection is reset."""


class ResetError(Exception):
    """The connection is reset in place of an answer."""


class HostileServer:
    """The server of one seed. Times of the profile are multiplied by `factor`."""

    def __init__(self, seed: int, profile: Profile, *, factor: float = 1.0) -> None:
        self._seed, self._profile, self._factor = seed, profile, factor
        self._calm = False
        self._url = ""
        self._predictions: dict[str, Prediction] = {}
        self._files: dict[str, bytes] = {}
        self._counts: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._portal_until: float | None = None
        self._epoch = datetime.now(UTC) - timedelta(seconds=time.monotonic())
        """When the monotonic clock was at 0."""

    async def serve(self, listening: socket.socket) -> None:
        """Answer until the task is cancelled."""
        self._url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = await asyncio.start_server(self._converse, sock=listening)
        async with server:
            await server.serve_forever()

    # -- the wire -----------------------------------------------------------------------------------------------------

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _read(reader):
                answer = await self._answer(request)
                writer.write(_head(answer, self._date()))
                writer.write(answer.body[: answer.cut_at])
                await writer.drain()
                if answer.cut_at is not None:
                    await asyncio.sleep(0.02)  # else the reset overtakes the bytes
                    raise ResetError
        except ResetError:
            _reset(writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the server ends
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    async def _answer(self, request: Request) -> Answer:
        path = request.path
        if path == "/hostile/ledger":
            return _json(200, self._ledger())
        if path == "/hostile/calls":
            return await self._count_calls(int(request.query["least"]), float(request.query["within_s"]))
        if path == "/hostile/calm":
            self._calm = True
            return _json(200, {})
        if path.startswith("/outputs/"):
            return await self._download(request)
        if path == "/login":
            return Answer(200, HOP_BODIES[0], {"Content-Type": "text/html"})
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _problem(401, "You did not pass a valid authentication token", title="Unauthenticated")
        if request.method == "POST" and path == "/v1/predictions":
            return await self._create(request, str(json.loads(request.body).get("version")).rpartition(":")[2])
        if request.method == "POST" and path.startswith("/v1/models/") and path.endswith("/predictions"):
            return await self._create(request, path.removeprefix("/v1/models/").removesuffix("/predictions"))
        return await self._other_call(request)

    async def _count_calls(self, least: int, within_s: float) -> Answer:
        """Answer how many calls there were, once there were enough or the time is up."""
        until = time.monotonic() + within_s
        while self._counts.total() < least and time.monotonic() < until:
            await asyncio.sleep(0.01)
        return _json(200, {"calls": self._counts.total()})

    async def _other_call(self, request: Request) -> Answer:
        """Answer a call that costs nothing, or have something on the way answer it."""
        method, path = request.method, request.path
        kind = "list" if path == "/v1/predictions" else f"{method} {'/'.join(path.split('/')[1:3])}"
        chance = self._chance_of(kind)
        await self._lag(chance)
        if not self._calm:
            if kind == "list" and self._counts["list"] <= self._profile.list_refusals:
                return self._hop(chance, statuses=(302, 400, 403, 404, 422))
            roll = chance.random()
            if roll < self._profile.hops / 3:
                self._faults["reset"] += 1
                raise ResetError
            if roll < self._profile.hops:
                return self._hop(chance)
            if roll < self._profile.hops + self._profile.throttled:
                return self._throttle(chance)
        if path == "/v1/account":
            return _json(200, {"type": "user", "username": "hostile", "name": "Hostile"})
        if path == "/v1/files" and method == "POST":
            return self._keep_file(request)
        if path == "/v1/predictions":
            return self._list(request, chance)
        return self._look_at(request, chance)

    def _hop(self, chance: random.Random, statuses: tuple[int, ...] = HOP_STATUSES) -> Answer:
        status, body = chance.choice(statuses), chance.choice(HOP_BODIES)
        self._faults[f"hop {status}"] += 1
        kind = "application/json" if body.startswith(b"{") else "text/html"
        return Answer(status, body, {"Content-Type": kind} | ({"Location": "/login"} if status == 302 else {}))

    def _throttle(self, chance: random.Random) -> Answer:
        self._faults["throttled"] += 1
        answer = _problem(429, "Request was throttled. Your rate limit resets in ~1s.")
        hint = chance.choice(("header", "date", "body", "text"))
        if hint == "body":
            answer = _problem(429, "Request was throttled.", retry_after=1)
        elif hint == "header":
            answer = _problem(429, "Request was throttled.")
            answer.headers["Retry-After"] = "1"
        elif hint == "date":
            answer = _problem(429, "Request was throttled.")
            answer.headers["Retry-After"] = email.utils.format_datetime(self._now() + timedelta(seconds=1), usegmt=True)
        return answer

    # -- predictions --------------------------------------------------------------------------------------------------

    async def _create(self, request: Request, endpoint: str) -> Answer:
        chance = self._chance_of("create")
        await self._lag(chance)
        inputs = json.loads(request.body).get("input")
        if endpoint not in (ENDPOINT, VERSION):
            return _problem(404, "The requested resource could not be found.")
        if not isinstance(inputs, dict) or not isinstance(inputs.get("prompt"), str):
            return _problem(422, "- input: prompt is required\n", title="Input validation failed")
        fault = self._draw(chance, self._profile.creates)
        if not fault and not self._calm and chance.random() < self._profile.throttled:
            return self._throttle(chance)
        if not fault and not self._calm and chance.random() < self._profile.no_credit:
            self._faults["no credit"] += 1
            return _problem(402, "You have insufficient credit to run this model.", title="Insufficient credit")
        accept = partial(self._accept, endpoint, inputs, float(request.headers.get("cancel-after", "86400s")[:-1]))
        if not fault:
            return _json(201, self._shown(accept()))
        self._faults[f"create {fault}"] += 1
        return await self._break(fault, accept, chance)

    async def _break(self, fault: str, accept: Callable[[], Prediction], chance: random.Random) -> Answer:
        """Make one of the `CREATE_FAULTS`, with the prediction accepted now, later, or not at all."""
        shown: Json = {}
        if fault.endswith("-after"):
            shown = self._shown(accept())
        elif fault.endswith("-late"):
            late_s = chance.uniform(0.3, 1.0) * self._profile.late_s * self._factor
            asyncio.get_running_loop().call_later(late_s, accept)
        if fault.startswith("reset"):
            raise ResetError
        if fault.startswith("hop"):
            return self._hop(chance)
        if fault.startswith("cut"):
            answer = _json(201, shown)
            answer.cut_at = len(answer.body) // 2
            return answer
        if fault.startswith("silent"):
            await asyncio.sleep(SILENCE_S)
            return _json(201, shown)
        return Answer(504 if fault == "gateway-late" else 200, HOP_BODIES[0], {"Content-Type": "text/html"})

    def _accept(self, endpoint: str, inputs: Json, cancel_after_s: float) -> Prediction:
        number = len(self._predictions)
        chance = random.Random(f"{self._seed}/prediction/{number}")
        fate = self._draw(chance, self._profile.fates) or "succeeded"
        now, queued_s, run_s = time.monotonic(), chance.uniform(0, 0.1), chance.uniform(0.1, 0.8)
        ends_at = now + (0.2 if self._calm else queued_s + run_s)
        if fate == "stuck":
            ends_at = float("inf")
        prediction = Prediction(
            id=self._new_id(chance, number),
            number=number,
            endpoint=endpoint,
            inputs=inputs,
            picture=self._picture(inputs),
            accepted_at=now,
            started_at=float("inf") if fate == "aborted" else now + queued_s,
            ends_at=min(ends_at, now + max(cancel_after_s, 5.0)),
            fate=fate,
        )
        self._predictions[prediction.id] = prediction
        return prediction

    def _new_id(self, chance: random.Random, number: int) -> str:
        plain = "".join(chance.choices(string.ascii_lowercase + string.digits, k=26))
        if not self._profile.odd_ids or self._calm:
            return plain
        return chance.choice((plain, f"{plain * 3}", f"../../{plain}", f"{plain}.Ünï", f"CON.{number}", plain.upper()))

    def _settle(self) -> None:
        """End the predictions whose time has come."""
        now = time.monotonic()
        for prediction in self._predictions.values():
            if prediction.ended_at is None and prediction.ends_at <= now:
                self._end(prediction, _STATUSES.get(prediction.fate, "succeeded"), at=prediction.ends_at)

    def _end(self, prediction: Prediction, status: str, *, at: float) -> None:
        prediction.ended_at, prediction.status = at, status
        was_started = prediction.started_at < at
        is_billed = status == "succeeded" or (status == "canceled" and was_started)
        if is_billed or prediction.fate in ("failed-billed", "odd-end"):
            if prediction.endpoint == VERSION:
                prediction.bill = GPU_PRICE_PER_S * Decimal(str(round(at - prediction.started_at, 3)))
            else:
                prediction.bill = PRICE_PER_S * int(prediction.inputs.get("duration", 5))

    def _look_at(self, request: Request, chance: random.Random) -> Answer:
        wanted = request.path.removeprefix("/v1/predictions/")
        is_cancel = request.method == "POST" and wanted.endswith("/cancel")
        prediction = self._predictions.get(
            urllib.parse.unquote(wanted.removesuffix("/cancel") if is_cancel else wanted)
        )
        self._settle()
        now = time.monotonic()
        if prediction is None or now < prediction.accepted_at + self._span(
            prediction, "unknown", self._profile.unknown_s
        ):
            self._faults["unknown id"] += prediction is not None
            return _problem(404, "The requested resource could not be found.")
        prediction.looks += 1
        if is_cancel and prediction.ended_at is None:
            races = (
                self._profile.cancel_races and not self._calm and chance.random() < 0.5 and prediction.fate != "stuck"
            )
            self._end(prediction, _STATUSES.get(prediction.fate, "succeeded") if races else "canceled", at=now)
        return _json(200, self._shown(prediction))

    def _list(self, request: Request, chance: random.Random) -> Answer:
        """A page of the predictions that the list knows by now, newest first if it keeps its order."""
        self._settle()
        lag_s = 0.0 if self._calm else self._profile.list_lag_s * self._factor
        now = time.monotonic()
        known = [each for each in self._predictions.values() if each.accepted_at + lag_s <= now]
        since = request.query.get("created_after")
        if since:
            after = datetime.fromisoformat(since.replace("Z", "+00:00"))
            known = [each for each in known if self._at(each.accepted_at) >= after]
        known.sort(key=lambda each: -each.number)
        if self._profile.list_shuffled and not self._calm:
            random.Random(f"{self._seed}/shuffle").shuffle(known)
        start, size = int(request.query.get("cursor", "0")), self._profile.page_size
        rest = {"created_after": since or "", "cursor": str(start + size)}
        following = f"{self._url}/v1/predictions?{urllib.parse.urlencode(rest)}" if start + size < len(known) else None
        shown = [self._shown(each) for each in known[start : start + size]]
        return _json(200, {"next": following, "previous": None, "results": shown})

    def _shown(self, prediction: Prediction) -> Json:
        """The prediction as the API shows it now."""
        self._settle()
        profile, at, ended = self._profile, self._at, prediction.ended_at
        chance = random.Random(f"{self._seed}/shown/{prediction.number}/{prediction.looks}")
        address = f"{self._url}/v1/predictions/{urllib.parse.quote(prediction.id, safe='')}"
        has_output = ended is not None and prediction.status == "succeeded" and prediction.fate != "removed"
        if has_output and time.monotonic() < (ended or 0) + self._span(prediction, "null", profile.output_null_s):
            has_output = False
            self._faults["null output"] += 1
        shown: Json = {
            "id": prediction.id,
            "model": prediction.endpoint if prediction.endpoint == ENDPOINT else "somebody/community-video",
            "version": "hidden" if prediction.endpoint == ENDPOINT else prediction.endpoint,
            "input": self._shown_inputs(prediction),
            "output": f"{self._url}/outputs/{urllib.parse.quote(prediction.id, safe='')}.mp4" if has_output else None,
            "logs": "",
            "error": None,
            "status": prediction.status,
            "source": "api",
            "data_removed": prediction.fate == "removed" and ended is not None,
            "created_at": _rfc3339(at(prediction.accepted_at)),
            "urls": {"get": address, "cancel": f"{address}/cancel"},
        }
        if prediction.started_at <= (ended or time.monotonic()):
            shown["started_at"] = _rfc3339(at(prediction.started_at))
        elif ended is None:
            shown["status"] = "starting"
        if ended is None:
            if profile.odd_statuses and not self._calm:
                shown["status"] = chance.choice(("booting", "queued", shown["status"]))
            return shown
        shown["completed_at"] = _rfc3339(at(ended))
        shown["metrics"] = self._metrics(prediction)
        if prediction.status in ("failed", "expired"):
            shown["error"] = MODERATED if prediction.fate == "moderation" else chance.choice(PROVIDER_FAILURES)
            if profile.odd_texts and prediction.fate != "moderation":
                shown["error"] += chance.choice(ODD_TEXTS)
        if profile.odd_texts:
            shown["logs"] = chance.choice(ODD_TEXTS)
        return shown

    def _metrics(self, prediction: Prediction) -> Json:
        """What was billed: a failure that costs nothing has no output to be billed for."""
        if prediction.bill == 0:
            return {}
        run_s = round((prediction.ended_at or 0) - prediction.started_at, 3)
        if prediction.endpoint == VERSION:
            return {"predict_time": run_s, "total_time": run_s}
        if self._profile.odd_numbers:
            chance = random.Random(f"{self._seed}/metrics/{prediction.number}")
            odd: Any = chance.choice((float("inf"), float("nan"), 10**30, -1, "12", None))
            return {"predict_time": odd, "video_output_duration_seconds": prediction.inputs.get("duration")}
        return {"predict_time": run_s, "video_output_duration_seconds": float(prediction.inputs.get("duration", 5))}

    def _shown_inputs(self, prediction: Prediction) -> Json:
        if not self._profile.hides_pictures:
            return prediction.inputs
        elsewhere = f"https://replicate.delivery/pbxt/{prediction.number}/picture.jpg"
        return {name: elsewhere if _is_picture(value) else value for name, value in prediction.inputs.items()}

    # -- files --------------------------------------------------------------------------------------------------------

    def _keep_file(self, request: Request) -> Answer:
        boundary = request.headers["content-type"].partition("boundary=")[2].encode()
        part = request.body.split(b"--" + boundary)[1]
        name = f"file{len(self._files)}"
        self._files[name] = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return _json(201, {"id": name, "urls": {"get": f"{self._url}/v1/files/{name}"}})

    def _picture(self, inputs: Json) -> str | None:
        """The colour of the first picture among the inputs; None where there is none."""
        for value in inputs.values():
            if not _is_picture(value):
                continue
            with contextlib.suppress(OSError, binascii.Error, KeyError):
                data = (
                    base64.b64decode(value.partition(",")[2])
                    if value.startswith("data:")
                    else self._files[value.rpartition("/")[2]]
                )
                return _colour(data)
            return "unknown"
        return None

    async def _download(self, request: Request) -> Answer:
        prediction = self._predictions.get(urllib.parse.unquote(request.path[len("/outputs/") :].removesuffix(".mp4")))
        chance, now = self._chance_of("download"), time.monotonic()
        await self._lag(chance)
        if prediction is None or prediction.fate == "removed" or prediction.ended_at is None:
            return Answer(404, b"")
        if self._portal_until is None:
            self._portal_until = now + self._profile.portal_s * self._factor
        if now < self._portal_until and not self._calm:
            self._faults["portal"] += 1
            return Answer(200, HOP_BODIES[0], {"Content-Type": "text/html"})
        if now < prediction.ended_at + self._span(prediction, "late", self._profile.output_late_s):
            self._faults["output late"] += 1
            return Answer(chance.choice((403, 404)), b"<Error><Code>AccessDenied</Code></Error>")
        body, first = prediction.output(), 0
        if found := request.headers.get("range", "").removeprefix("bytes=").rstrip("-"):
            first = int(found)
            if first >= len(body):
                return Answer(416)
        headers = {"Content-Type": "video/mp4"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        answer = Answer(206 if first else 200, body[first:], headers)
        if not self._calm and chance.random() < self._profile.cuts:
            self._faults["download cut"] += 1
            answer.cut_at = len(answer.body) // 2
        else:
            prediction.downloads += 1
        return answer

    # -- chance, clock, ledger ----------------------------------------------------------------------------------------

    def _chance_of(self, kind: str) -> random.Random:
        self._counts[kind] += 1
        return random.Random(f"{self._seed}/{kind}/{self._counts[kind]}")

    def _draw(self, chance: random.Random, shares: Mapping[str, float]) -> str | None:
        """Return one of the names, each with its share (together at most 0.8), or None."""
        roll, most = chance.random(), max(1.0, sum(shares.values()) / 0.8)
        for name, share in shares.items():
            roll -= share / most
            if roll < 0:
                return None if self._calm else name
        return None

    def _span(self, prediction: Prediction, kind: str, most_s: float) -> float:
        """How long something of this prediction lasts, at most `most_s`; nothing once the server is calm."""
        if self._calm or not most_s:
            return 0.0
        chance = random.Random(f"{self._seed}/{kind}/{prediction.number}")
        return chance.choice((0.0, chance.uniform(0.2, 1.0))) * most_s * self._factor

    async def _lag(self, chance: random.Random) -> None:
        if not self._calm and self._profile.latency_s:
            await asyncio.sleep(chance.random() ** 2 * self._profile.latency_s * self._factor)

    def _now(self) -> datetime:
        """The server's own clock, which need not be right."""
        return self._at(time.monotonic())

    def _at(self, monotonic: float) -> datetime:
        return self._epoch + timedelta(seconds=monotonic + self._profile.clock_shift_s)

    def _date(self) -> str:
        return email.utils.format_datetime(self._now(), usegmt=True)

    def _ledger(self) -> Json:
        self._settle()
        return {
            "predictions": [each.entry() for each in self._predictions.values()],
            "paid_twice": self._paid_twice(),
            "calls": dict(self._counts),
            "faults": dict(self._faults),
        }

    def _paid_twice(self) -> list[list[Any]]:
        """For each create: what was asked, its id, and the ids of those before it that were worth their money then."""
        found = []
        for later in self._predictions.values():
            earlier = [
                each.id
                for each in self._predictions.values()
                if each.number < later.number
                and each.asked == later.asked
                and each.is_worth_its_money_at(later.accepted_at)
            ]
            found.append([list(later.asked), later.id, earlier])
        return found


_STATUSES = {
    "failed": "failed",
    "failed-billed": "failed",
    "moderation": "failed",
    "canceled": "canceled",
    "stuck": "canceled",
    "aborted": "aborted",
    "odd-end": "expired",
}


@contextlib.contextmanager
def serving(seed: int, profile: Profile, *, factor: float = 1.0) -> Iterator["Hostile"]:
    """Run the seed's server in a process of its own for as long as the block lasts."""
    for seconds in (2.0, 5.0):
        small_clip(seconds)  # rendered once, before the processes part
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        process = multiprocessing.get_context("fork").Process(target=_run, args=(seed, profile, factor, listening))
        process.start()
    try:
        yield Hostile(url)
    finally:
        process.kill()
        process.join()


def _run(seed: int, profile: Profile, factor: float, listening: socket.socket) -> None:
    asyncio.run(HostileServer(seed, profile, factor=factor).serve(listening))


@dataclass(frozen=True)
class Hostile:
    """What the test may do with the server, past its API."""

    url: str

    def count_calls(self, *, least: int = 0, within_s: float = 0.0) -> int:
        """Return how many calls there were, once there were `least`, or after this time."""
        return int(self._ask(f"calls?least={least}&within_s={within_s}")["calls"])

    def calm_down(self) -> None:
        """Make no new faults from here on."""
        self._ask("calm")

    def ledger(self) -> Json:
        return self._ask("ledger")

    def _ask(self, what: str) -> Json:
        with urllib.request.urlopen(f"{self.url}/hostile/{what}", timeout=30) as answer:
            data: Json = json.load(answer)
            return data


# -- bytes ------------------------------------------------------------------------------------------------------------


@cache
def small_clip(seconds: float) -> bytes:
    """An mp4 of stripes that move."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(8))
            stream.width, stream.height, stream.pix_fmt = 128, 72, "yuv420p"
            for index in range(round(seconds * 8)):
                picture = Image.linear_gradient("L").resize((128, 72)).rotate(9 * index).convert("RGB")
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))  # type: ignore[no-untyped-call]
            container.mux(stream.encode())
        return path.read_bytes()


def clip_of(seconds: float, prediction_id: str) -> bytes:
    """A clip that no other prediction delivers: the id is in it, in a box that players skip."""
    name = prediction_id.encode()
    return small_clip(seconds) + struct.pack(">I4s", 8 + len(name), b"free") + name


def picture_of(colour: str) -> bytes:
    """A PNG filled with one of the `COLOURS`."""
    file = io.BytesIO()
    Image.new("RGB", (256, 144), COLOURS[colour]).save(file, "PNG")
    return file.getvalue()


def _colour(data: bytes) -> str:
    """The name of the colour that a picture is filled with."""
    shown = Image.open(io.BytesIO(data)).convert("RGB").resize((1, 1)).getpixel((0, 0))
    assert isinstance(shown, tuple)

    def distance(name: str) -> float:
        return sum((a - b) ** 2 for a, b in zip(shown, COLOURS[name], strict=True))

    return min(COLOURS, key=distance)


def _is_picture(value: Any) -> bool:
    return isinstance(value, str) and (value.startswith("data:") or "/v1/files/" in value)


def _json(status: int, data: Json, kind: str = "application/json") -> Answer:
    return Answer(status, json.dumps(data).encode(), {"Content-Type": kind})


def _problem(status: int, detail: str, **more: Any) -> Answer:
    """An error as the provider itself tells it."""
    return _json(status, {"detail": detail, "status": status, **more}, "application/problem+json")


def _rfc3339(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _head(answer: Answer, date: str) -> bytes:
    headers = {**answer.headers, "Content-Length": str(len(answer.body)), "Date": date}
    lines = [f"HTTP/1.1 {answer.status} Told", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """Return the next request of a connection, None once the client has closed it."""
    if not (line := await reader.readline()).strip():
        return None
    method, target, _ = line.decode().split()
    headers: dict[str, str] = {}
    while (line := await reader.readline()).strip():
        name, _, value = line.decode().partition(":")
        headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    path, _, query = target.partition("?")
    return Request(method, path, dict(urllib.parse.parse_qsl(query)), headers, body)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection so that the client sees a reset and not an end."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
