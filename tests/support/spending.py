"""Write the spending of runs into a journal, as runs do, but on other days."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tests.support.builders import change_prediction, request_of
from videogen.journal.attempts import Attempt
from videogen.journal.store import Journal
from videogen.results.clip import Clip, get_planned_fields

ORIGIN = "api.replicate.com"
PRICES = {
    "kling-v2.5-turbo": Decimal("0.35"),
    "veo-3.1": Decimal("1.60"),
    "seedance-1-pro": Decimal("0.75"),
    "hailuo-2.3": Decimal("0.28"),
}
JOBS = ("lighthouse", "harbour-film", "spring-campaign")


def record_prediction(
    journal: Journal,
    take: int,
    *,
    at: datetime | None = None,
    cost: Decimal | None = Decimal("0.35"),
    error: str | None = None,
    job_id: str = "film",
    model: str = "kling-v2.5-turbo",
    origin: str = ORIGIN,
    scene_id: str = "a",
) -> Attempt:
    """Record the prediction `p` and the number of a take, in a run of its own, and that it became a clip.

    Args:
        journal: where it is recorded.
        take: a number that no other prediction has.
        at: when it was created; None means now.
        cost: USD that it was billed; None means that it is running.
        error: the code of the error with which it ended; None means none.
        job_id: its job.
        model: its model.
        origin: the provider's account.
        scene_id: its scene.
    """
    run_id, asked = f"run{take}", request_of(id=scene_id, take=take)
    request = change_prediction(asked, cost=PRICES.get(model, asked.cost)).model_copy(update={"model": model})
    journal.start_run(run_id, job_id=job_id, origin=origin, folder=run_id)
    created = journal.record_prediction(
        journal.record_intent(request, run_id=run_id, origin=origin, folder=run_id), f"p{take}", at or datetime.now(UTC)
    )
    assert created
    if cost is None:
        return created
    if error:
        return journal.record_end(journal.record_cost(created, cost, "known"), error=error, message="no")
    succeeded = journal.record_success(created, cost, "known")
    clip = Clip(status="success", video_path="clips/a.mp4", **get_planned_fields(request))
    journal.record_delivery(succeeded, request, origin=origin, folder=run_id, clip=clip)
    return succeeded


def record_month(journal: Journal, *, seed: int = 7) -> None:
    """Record four weeks of three jobs until today, with failures and canceled predictions."""
    chance, take = random.Random(seed), 0
    for days_ago in range(27, -1, -1):
        for _ in range(chance.choice((0, 2, 3, 5, 8))):
            take += 1
            model = chance.choices(list(PRICES), weights=(8, 2, 4, 1))[0]
            error = chance.choices((None, "model-error", "duration", "canceled"), weights=(12, 1, 1, 1))[0]
            record_prediction(
                journal,
                take,
                at=datetime.now(UTC) - timedelta(days=days_ago),
                cost=Decimal(0) if error == "model-error" else PRICES[model],
                error=error,
                job_id=chance.choice(JOBS),
                model=model,
                scene_id=f"scene-{chance.randint(1, 6)}",
            )
    record_prediction(journal, take + 1, cost=None, job_id=JOBS[0])
