"""Search the account's list for predictions that the journal does not know."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from videogen.errors import AccountError, CallError, UnreachableError
from videogen.events import SEARCHING, ClipProgress
from videogen.execution.context import RunContext
from videogen.execution.matching import match_inputs
from videogen.journal.attempts import Attempt
from videogen.planning.requests import ClipRequest
from videogen.providers.base import Prediction

logger = logging.getLogger(__name__)

CLOCK_SKEW = timedelta(seconds=30)
"""Possible error of a time that we recorded by the provider's clock."""
MAX_CREATE_S = 60.0
"""Longest time that a create may be under way before it is given up."""


@dataclass(frozen=True)
class AccountSearch:
    """A search for the prediction of one attempt, which has no id yet."""

    request: ClipRequest
    run: RunContext
    inputs: Mapping[str, Any]
    """As they are sent, with the addresses of images."""
    attempt: Attempt

    async def find_lost_create(self) -> tuple[Attempt, Prediction] | None:
        """Return the prediction of a create whose answer was lost, assigned to this attempt, or None if there
        certainly is none.

        The list may lag behind, and a gateway may give up before the provider accepts. Therefore the list is read
        repeatedly until `unknown_s` have passed and it shows something newer, or until `unknown_at_most_s` have passed.
        Both times count from now if the create may have been under way until now, and else from its intent.

        Raises:
            UnreachableError: the list cannot be read, or a prediction may belong to this clip or to another one. The
                attempt stays open, and nothing is created for it.
        """
        request, run, attempt = self.request, self.run, self.attempt
        patience, pauses, began = run.patience, run.patience.make_backoff(), run.provider.now()
        created_after = attempt.intended_at - CLOCK_SKEW
        logger.info("%s: the answer to a create was lost, searching the account for its prediction", request.scene.id)
        if attempt.intended_at > began:  # the clock was ahead then, so the time of the create is not known
            created_after = began - run.provider.capabilities.outputs_kept
        elif run.age_s(attempt.intended_at) > MAX_CREATE_S + patience.unknown_at_most_s:
            began = attempt.intended_at
        while True:
            age_s = run.age_s(
                began
            )  # before the list is read, which takes time, and shows nothing that comes meanwhile
            try:
                found, newest = await self._search_once(created_after)
            except (CallError, AccountError) as exc:
                raise UnreachableError(f"whether a prediction was created cannot be looked up: {exc}") from exc
            if found:
                logger.info("%s: adopted prediction %s from the account's list", request.scene.id, found[1].id)
                return found
            shows_newer = newest is not None and newest > began
            if age_s >= patience.unknown_at_most_s or (age_s >= patience.unknown_s and shows_newer):
                logger.info("%s: the account has no prediction of the lost create", request.scene.id)
                return None
            self._report_search(age_s)
            await asyncio.sleep(pauses.next_s())

    def _report_search(self, elapsed_s: float) -> None:
        """Report that the search for a lost create goes on, because nothing else is heard of the clip meanwhile."""
        request, run = self.request, self.run
        remaining_s = max(0.0, run.patience.unknown_at_most_s - elapsed_s)
        logger.info("%s: searching the account for the prediction of a create whose answer was lost", request.scene.id)
        run.events.emit(
            ClipProgress(
                clip_index=request.clip_index,
                scene_id=request.scene.id,
                prediction_id="",
                status=SEARCHING,
                elapsed=round(max(0.0, elapsed_s), 1),
                remaining=round(remaining_s, 1),
                fraction=0.0,
            )
        )

    async def find_despite_lost_journal(self) -> tuple[Attempt, Prediction] | None:
        """Return a prediction that a run with a lost journal paid for, as long as the provider still has its output."""

        def is_worth_it(prediction: Prediction) -> bool:
            return prediction.status == "succeeded" and not prediction.data_removed if prediction.ended else True

        request, run, attempt = self.request, self.run, self.attempt
        created_after = attempt.intended_at - run.provider.capabilities.outputs_kept
        try:
            found, _ = await self._search_once(created_after, accept=is_worth_it, is_of_earlier_run=True)
        except CallError as exc:
            raise UnreachableError(f"whether this clip was paid for before cannot be looked up: {exc}") from exc
        if found is None:
            return None
        logger.info("%s: adopted prediction %s, which a run with a lost journal created", request.scene.id, found[1].id)
        return found

    async def _search_once(
        self,
        created_after: datetime,
        accept: Callable[[Prediction], bool] = lambda _: True,
        *,
        is_of_earlier_run: bool = False,
    ) -> tuple[tuple[Attempt, Prediction] | None, datetime | None]:
        """Assign to the attempt a prediction of the account that has these inputs and that no attempt has.

        Returns:
            The attempt with its prediction, or None, and the creation time of the newest prediction in the list.

        Raises:
            UnreachableError: a prediction matches that may as well belong to another clip.
        """

        request, run, attempt, origin = self.request, self.run, self.attempt, self.run.provider.origin

        async def search() -> tuple[tuple[Attempt, Prediction] | None, datetime | None]:
            newest, unclear = None, None
            async for prediction in run.provider.list_since(created_after):
                newest = max(filter(None, (newest, prediction.created_at)), default=None)
                match = match_inputs(request, self.inputs, prediction, name_at=run.images.name_at)
                if match == "no" or not accept(prediction):
                    continue
                if match == "unclear" and await self._may_belong_to_another_clip():
                    unclear = unclear or (
                        None if await run.journal.has_prediction(prediction.id, origin=origin) else prediction
                    )
                    continue
                creator = _find_unrecorded_creator(run, prediction, is_of_earlier_run=is_of_earlier_run)
                if adopted := await run.journal.record_prediction(
                    attempt, prediction.id, prediction.created_at, begun_by=creator
                ):
                    return (adopted, prediction), newest
            if unclear:
                raise _make_ambiguous_error(unclear, run)
            return None, newest

        return await run.gate.call_with_retries(search)

    async def _may_belong_to_another_clip(self) -> bool:
        """Return whether a clip of this job, or an open attempt of another one, differs from this clip only in its
        images."""
        request, run = self.request, self.run
        return request.key in run.lookalikes or await run.journal.has_unknown_lookalike(
            request, origin=run.provider.origin
        )


def _find_unrecorded_creator(run: RunContext, prediction: Prediction, *, is_of_earlier_run: bool) -> str | None:
    """Return the run that created a prediction if only the job's folder knows that run."""
    unrecorded = run.unrecorded
    if unrecorded is None:
        return None
    is_included = is_of_earlier_run if unrecorded.prediction_ids is None else prediction.id in unrecorded.prediction_ids
    return unrecorded.id if is_included else None


def _make_ambiguous_error(prediction: Prediction, run: RunContext) -> UnreachableError:
    minutes = run.provider.capabilities.outputs_kept.total_seconds() / 60
    return UnreachableError(
        f"prediction {prediction.id} may belong to this clip, or to a scene with the same prompt and another image: "
        "the provider does not show which. It is not used, and nothing is created. Run the job again "
        f"{minutes:.0f} minutes later, or give the scenes different prompts"
    )
