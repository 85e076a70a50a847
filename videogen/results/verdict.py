"""The verdict on a run: complete, partial or failed, and why."""

from typing import Literal

from videogen.planning.requests import FrozenModel
from videogen.results.clip import Clip
from videogen.text import list_first


class Verdict(FrozenModel):
    """Whether enough clips were delivered: `complete` (all), `partial` (enough), `failed` (too few)."""

    status: Literal["complete", "partial", "failed"]
    min_clips: int
    reason: str
    warnings: tuple[str, ...] = ()
    """What does not change the verdict, but what you should look at, such as a price that is out of date."""


def judge_by_model(
    clips: tuple[Clip, ...], *, models: tuple[str, ...], min_clips: int, required: frozenset[str]
) -> tuple[Verdict, dict[str, Verdict]]:
    """Return the verdict on all clips and, if several models are compared, the verdict on each by name.

    `min_clips` is the minimum for each model.
    """
    if len(models) == 1:
        return judge(clips, min_clips=min_clips, required=required), {}
    verdicts = {}
    for model in models:
        of_model = tuple(clip for clip in clips if clip.model == model)
        verdicts[model] = judge(of_model, min_clips=min_clips, required=required)
    statuses = {verdict.status for verdict in verdicts.values()}
    reason = "; ".join(f"{model} {verdict.status}, {verdict.reason}" for model, verdict in verdicts.items())
    status = statuses.pop() if len(statuses) == 1 else "partial"
    return Verdict(status=status, min_clips=min_clips, reason=reason), verdicts


def judge(clips: tuple[Clip, ...], *, min_clips: int, required: frozenset[str]) -> Verdict:
    """Return the verdict on the clips of a job.

    `min_clips` is capped at the number of clips. `required` are the ids of scenes without which the job fails.
    """
    wanted = min(min_clips, len(clips))
    good = sum(clip.status == "success" for clip in clips)
    missing = [clip.scene_id for clip in clips if clip.status != "success" and clip.scene_id in required]
    count = f"all {good} clips delivered" if good == len(clips) else f"{good} of {len(clips)} clips delivered"
    stopped = sum(clip.error is not None and clip.error.code == "budget" for clip in clips)
    if stopped:
        which = "the others" if stopped == len(clips) - good else f"{stopped} of the others"
        count += f", {which} stopped by the budget"
    if causes := list(dict.fromkeys(cause for clip in clips for cause in clip.blocked_by)):
        number = sum(clip.status == "blocked" for clip in clips)
        count += f", {number} not tried because of {list_first(causes)}"
    if missing:
        reason = f"required scenes failed: {', '.join(missing)}; {count}"
        return Verdict(status="failed", min_clips=wanted, reason=reason)
    if good < wanted:
        return Verdict(status="failed", min_clips=wanted, reason=f"{count}, at least {wanted} needed")
    if good < len(clips):
        return Verdict(status="partial", min_clips=wanted, reason=f"{count}, {wanted} were enough")
    return Verdict(status="complete", min_clips=wanted, reason=count)
