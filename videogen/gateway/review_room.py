"""Routes of the review room, in which visitors with the token act: choose, rate, note, retake, and control the run."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from videogen.errors import InvalidError, VideogenError
from videogen.gateway.actions import ActionGuard
from videogen.gateway.app import RunDependency, Sources, SourcesDependency, serve_own_file
from videogen.gateway.auth import REVIEWER_KEY
from videogen.gateway.retakes import OutdatedOfferError, RetakeDesk, RetakePrice, describe_problem
from videogen.gateway.run_view import find_local_folder, fold_events, replace_surrogates
from videogen.gateway.takes_view import RunInProgress, TakesView, TakeView, view_scenes
from videogen.job.choices import Choices
from videogen.job.model import MAX_PROMPT_CHARS
from videogen.journal.runs import RunRecord
from videogen.journal.store import Journal
from videogen.review import Review
from videogen.settings import Settings
from videogen.storage.base import is_remote

HERE = Path(__file__).parent
OUTCOME_TIMEOUT_S = 10.0
"""How long an answer waits for the outcome of a command."""
RunAction = Literal["pause", "resume", "cancel", "retry", "cap"]
ACTIONS: tuple[RunAction, ...] = ("pause", "resume", "cancel", "retry", "cap")
T = TypeVar("T")


class RunController(Protocol):
    """Sends commands to runs in progress."""

    def send_command(
        self, run_id: str, action: RunAction, *, scene_id: str | None = None, value: Decimal | None = None
    ) -> int:
        """Record a command for a run, and return its number. Raise `InvalidError` if the run has ended."""

    def wait_for_outcome(self, command_id: int, timeout_s: float) -> str | None:
        """Return `accepted` or why the command was refused, once the run has answered; None after the timeout."""


# -- bodies of requests and answers -----------------------------------------------------------------------------------


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ChoiceBody(_Body):
    """A person's opinion of one take. A field that is left out stays as it is."""

    take_id: str
    chosen: Literal[True] | None = None
    """Put this take in the film."""
    rating: Annotated[int, Field(ge=0, le=5)] | None = None
    """1 to 5; 0 removes the rating."""
    note: Annotated[str, Field(max_length=MAX_PROMPT_CHARS)] | None = None
    """An empty note removes the one that is there."""


class RetakeBody(_Body):
    """A take to make."""

    take_id: str
    """The take that it is like, but for the fields below."""
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS)] | None = None
    """None means the prompt of that take."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None


class AcceptBody(_Body):
    """Consent to a price."""

    offer: str


class CommandBody(_Body):
    """A command to a run in progress."""

    action: RunAction
    scene_id: str | None = None
    """The clip of `cancel` and `retry`."""
    value: Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,4})?$")] | None = None
    """The new cap of `cap`, in USD."""


class OfferView(RetakePrice):
    """A price, and the offer to make the take for it."""

    offer: str
    """Accepts the offer, once and within an hour."""


class RetakeView(BaseModel):
    """The state of a retake."""

    take_id: str
    state: Literal["starting", "running", "ended", "failed"]
    run_id: str | None
    """The run that makes it; None while it starts."""
    said: str
    """The end of the run's output, if the run could not begin."""


class CommandView(BaseModel):
    """The answer to a command."""

    outcome: str | None
    """`accepted`, or why it was refused; None if the run has not answered yet."""


# -- the room ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReviewRoom:
    """The review room of the jobs below one folder."""

    settings: Settings
    retakes: RetakeDesk
    controller: RunController | None = None
    writing: threading.Lock = field(default_factory=threading.Lock)
    """Held while files of a job are written."""

    def add_to(self, app: FastAPI, actions: ActionGuard) -> None:
        """Add the routes to an app whose requests to act are admitted by `actions`."""
        app.state.room = self
        app.state.actions = actions
        app.include_router(router)
        app.add_exception_handler(RequestValidationError, _answer_invalid_body)

    def open_review(self, run: RunRecord, out: Path) -> Review:
        """Return the review of the run's job. Raise `HTTPException` if its files are not where the gateway's are."""
        if not self.has_files_of(run, out):
            raise HTTPException(409, f"the files of this run are in {run.folder}, not below this gateway's folder")
        return Review.open(self.settings, run.job_id)

    def has_files_of(self, run: RunRecord, out: Path) -> bool:
        """Return whether the run's job has its folder where these settings put it, below `out`."""
        folder = self.settings.get_job_folder(run.job_id)
        place = find_local_folder(out, folder)
        is_same = find_local_folder(out, run.folder) == place and is_remote(run.folder) == is_remote(folder)
        return is_same and place.is_relative_to(out) and (is_remote(folder) or place.is_dir())

    def read_own_prompts(self, job_id: str) -> tuple[dict[str, str], str | None]:
        """Return the prompts of the scenes in the job file, and why there are none."""
        if not self.retakes.has_job(job_id):
            return {}, None
        try:
            job = self.retakes.load_job(job_id)
        except InvalidError as exc:
            return {}, describe_problem(exc)
        return {scene.id: scene.prompt for scene in job.scenes if scene.take_of is None}, None


router = APIRouter()


@router.get("/review", include_in_schema=False)
def get_review_page() -> FileResponse:
    return serve_own_file(HERE / "review.html")


@router.get("/review.js", include_in_schema=False)
def get_review_script() -> FileResponse:
    return serve_own_file(HERE / "review.js")


@router.get("/review.css", include_in_schema=False)
def get_review_style() -> FileResponse:
    return serve_own_file(HERE / "review.css")


@router.get("/review/token", name="action-token")
async def get_action_token(request: Request) -> dict[str, str]:
    """Return a token that admits one action, as its header `X-Action-Token`."""
    if not _is_reviewer(request):
        raise HTTPException(403, "your token is for watching only")
    return {"token": request.app.state.actions.issue_token()}


@router.get("/runs/{run_id}/takes", name="takes")
def get_takes(request: Request, run: RunDependency, sources: SourcesDependency) -> TakesView:
    """Return the takes of each scene of the run's job, of all of its runs."""
    return _answer(lambda: _view_takes(request, run, sources)[0])


@router.post("/runs/{run_id}/choices", name="choose")
def change_choices(request: Request, run: RunDependency, sources: SourcesDependency, body: ChoiceBody) -> TakesView:
    """Choose a take, rate it, or note something on it. Return all takes as they are then."""

    def work() -> TakesView:
        with _get_room(request).writing:
            view, review = _view_takes(request, run, sources)
            scene_id, change = _describe_choice(view, body)
            review.change_choices({scene_id: change})
        return _view_takes(request, run, sources)[0]

    return _answer(work)


@router.post("/runs/{run_id}/retakes/price", name="retake-price")
def price_retake(request: Request, run: RunDependency, sources: SourcesDependency, body: RetakeBody) -> OfferView:
    """Return the price of another take, and the offer that makes it. Nothing is changed."""

    def work() -> OfferView:
        view, review = _view_takes(request, run, sources)
        _require_no_run(view)
        scene_id, changes = _describe_retake(view, review.read_choices(), body)
        token, offer = _get_room(request).retakes.make_offer(run.job_id, scene_id, changes)
        return OfferView(offer=token, **offer.price.model_dump())

    return _answer(work)


@router.post("/runs/{run_id}/retakes", name="retake", status_code=202)
def start_retake(request: Request, run: RunDependency, sources: SourcesDependency, body: AcceptBody) -> RetakeView:
    """Accept an offer: describe the take in `choices.toml`, and start a run that makes it."""

    def work() -> RetakeView:
        room = _get_room(request)
        with room.writing:
            _require_no_run(_view_takes(request, run, sources)[0])
            started = room.retakes.accept_offer(body.offer, run.job_id)
        return RetakeView(take_id=started.take_id, state="starting", run_id=None, said="")

    return _answer(work)


@router.get("/runs/{run_id}/retakes/{take_id}", name="retake-state")
def get_retake(request: Request, run: RunDependency, sources: SourcesDependency, take_id: str) -> RetakeView:
    """Return whether the run of a retake has begun."""
    started = _get_room(request).retakes.find_started(run.job_id, take_id)
    if started is None or not _is_reviewer(request):
        raise HTTPException(404, f"no retake {take_id!r} was started here")
    code = started.get_exit_code()  # before the journal is read: a process that has ended has written everything
    found = _find_run_of_take(sources.journal, run.folder, take_id)
    if found is None:
        state: Literal["starting", "failed"] = "starting" if code is None else "failed"
        said = "" if code is None else started.read_end_of_log()
        return RetakeView(take_id=take_id, state=state, run_id=None, said=said)
    return RetakeView(take_id=take_id, state="running" if code is None else "ended", run_id=found, said="")


@router.post("/runs/{run_id}/commands", name="command")
def command_run(request: Request, run: RunDependency, sources: SourcesDependency, body: CommandBody) -> CommandView:
    """Pause or resume the run, cancel or retry one clip, or raise the cap. Return the run's answer."""
    controller = _get_room(request).controller
    if controller is None:
        raise HTTPException(409, "this gateway cannot control runs")
    _check_command(body)
    in_progress = _read_run_in_progress(sources.journal, run)
    if in_progress is None:
        raise HTTPException(409, f"run {run.id} has ended: it takes no commands")
    if body.scene_id is not None and body.scene_id not in in_progress.clips:
        raise HTTPException(422, f"{body.scene_id!r} is no clip of run {run.id}")

    def work() -> CommandView:
        value = Decimal(body.value) if body.value is not None else None
        number = controller.send_command(run.id, body.action, scene_id=body.scene_id, value=value)
        return CommandView(outcome=controller.wait_for_outcome(number, OUTCOME_TIMEOUT_S))

    return _answer(work)


# -- helpers of the routes --------------------------------------------------------------------------------------------


def _get_room(request: Request) -> ReviewRoom:
    room: ReviewRoom = request.app.state.room
    return room


def _is_reviewer(request: Request) -> bool:
    return bool(request.scope["state"].get(REVIEWER_KEY))


async def _answer_invalid_body(_request: Request, exc: Exception) -> JSONResponse:
    """Answer with the reason alone: the input may have half a character, which no answer can repeat."""
    errors: list[dict[str, Any]] = list(exc.errors()) if isinstance(exc, RequestValidationError) else []
    reasons = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in errors]
    return JSONResponse({"detail": replace_surrogates("; ".join(reasons))}, 422)


def _answer(work: Callable[[], T]) -> T:
    """Return what a function returns, and answer its errors with their reason."""
    try:
        return work()
    except OutdatedOfferError as exc:
        raise HTTPException(409, describe_problem(exc)) from exc
    except InvalidError as exc:
        raise HTTPException(422, describe_problem(exc)) from exc
    except VideogenError as exc:
        raise HTTPException(503, str(exc)) from exc


def _view_takes(request: Request, run: RunRecord, sources: Sources) -> tuple[TakesView, Review]:
    room, is_reviewer = _get_room(request), _is_reviewer(request)
    review = room.open_review(run, sources.out)
    newest = next(iter(sources.journal.list_runs(limit=1, folder=run.folder)), run)
    last, choices = review.find_result(), review.read_choices()
    in_progress = _read_run_in_progress(sources.journal, newest)
    own_prompts, problem = room.read_own_prompts(run.job_id) if is_reviewer else ({}, None)
    can_act = is_reviewer and room.controller is not None
    view = TakesView(
        job_id=run.job_id,
        run_id=newest.id,
        status="running" if in_progress else newest.verdict or "interrupted",
        aspect_ratio=last.aspect_ratio if last else in_progress.aspect_ratio if in_progress else None,
        is_reviewer=is_reviewer,
        actions=_list_actions(in_progress) if can_act and in_progress else (),
        can_retake=bool(own_prompts),
        retake_problem=problem,
        scenes=view_scenes(last, in_progress, choices, own_prompts),
    )
    return view, review


def _read_run_in_progress(journal: Journal, run: RunRecord) -> RunInProgress | None:
    """Return the run as its events describe it; None if it has ended, or was killed, and takes no commands."""
    if run.is_over or not journal.is_seen(run.id):
        return None
    events = journal.snapshot_events(run.id)
    facts, clips = fold_events((number, type_, replace_surrogates(payload)) for number, type_, payload in events)
    return RunInProgress(run.id, run.model, facts.get("aspect_ratio"), clips, facts.get("paused", False))


def _list_actions(in_progress: RunInProgress) -> tuple[RunAction, ...]:
    """Return the commands that the run can obey now."""
    useless = "pause" if in_progress.is_paused else "resume"
    return tuple(action for action in ACTIONS if action != useless)


def _require_take(view: TakesView, take_id: str) -> tuple[str, TakeView]:
    found = view.find_take(take_id)
    if found is None:
        raise HTTPException(422, f"{take_id!r} is no take of {view.job_id}")
    return found


def _describe_choice(view: TakesView, body: ChoiceBody) -> tuple[str, dict[str, Any]]:
    """Return the scene's id and the change of its choices."""
    scene_id, take = _require_take(view, body.take_id)
    if take.label is None:
        raise HTTPException(409, f"{body.take_id} is being made: wait until its run has ended")
    if body.chosen and take.video is None:
        raise HTTPException(422, f"{body.take_id} was not delivered, and cannot be chosen")
    said = {name: getattr(body, name) or None for name in ("rating", "note") if getattr(body, name) is not None}
    if not said and not body.chosen:
        raise HTTPException(422, "give a choice, a rating or a note")
    change: dict[str, Any] = {"takes": {str(take.label): said}} if said else {}
    return scene_id, change | ({"chosen": take.label} if body.chosen else {})


def _require_no_run(view: TakesView) -> None:
    if view.status == "running":
        raise HTTPException(409, f"run {view.run_id} of {view.job_id} is in progress: wait for its end")


def _describe_retake(view: TakesView, choices: Choices, body: RetakeBody) -> tuple[str, dict[str, Any]]:
    """Return the scene's id, and the fields in which the new take differs from the scene in the job file."""
    scene_id, take = _require_take(view, body.take_id)
    if not view.can_retake:
        raise HTTPException(422, view.retake_problem or f"the job file of {view.job_id} was not given to --review")
    if take.own_prompt is None:
        raise HTTPException(422, f"{scene_id} is not in the job file any more")
    entry = choices.get_entries(scene_id).get(str(take.label))
    changes = {name: value for name, value in (entry.changes if entry else {}).items() if name != "seed"}
    if body.prompt is not None and body.prompt != take.own_prompt:
        changes["prompt"] = body.prompt
    if body.seed is not None:
        changes["seed"] = body.seed
    return scene_id, changes


def _find_run_of_take(journal: Journal, folder: str, take_id: str) -> str | None:
    """Return the first run that makes a take: its number was free before."""
    for run in reversed(journal.list_runs(limit=20, folder=folder)):
        for _, type_, payload in journal.read_events(run.id, after=0, limit=1):
            scenes = payload.get("scenes", ()) if type_ == "run.started" else ()
            if any(scene["scene_id"] == take_id for scene in scenes):
                return run.id
    return None


def _check_command(body: CommandBody) -> None:
    """Raise `HTTPException` unless the command has the fields that its action needs, and no others."""
    needs_scene, needs_value = body.action in ("cancel", "retry"), body.action == "cap"
    if needs_scene != (body.scene_id is not None) or needs_value != (body.value is not None):
        raise HTTPException(422, "`cancel` and `retry` need a scene_id, `cap` needs a value, and no other does")
