"""Have a person approve the cost of a flow run of a deployment before it spends money.

The run is suspended, not paused: its process ends, and it waits without a worker, a slot or a lock. Once the person has
answered, any worker runs the flow again from its beginning, which plans anew. The answer of a flow run is final.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRunInput
from prefect.flow_runs import asuspend_flow_run
from prefect.input import RunInput, keyset_from_base_key
from prefect.runtime import deployment, flow_run
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from videogen.errors import InvalidError
from videogen.execution.options import PreparedJob
from videogen.flows.artifacts import escape_markdown, make_artifact_key
from videogen.planning.budgets import list_budget_lines
from videogen.planning.plan import Plan
from videogen.planning.requests import ClipRequest
from videogen.settings import FREE_ORIGIN
from videogen.text import format_money, list_first

APPROVAL_LABEL = "videogen.approval"
"""Label of a flow run with its latest `Question`."""
HOW_TO_ANSWER = "open the menu at the top right of the run's page, choose Resume, and approve or refuse"
MAX_LISTED_SCENES = 20
"""How many scenes the form lists. Prefect's page draws all of it at once."""


class NotApprovedError(Exception):
    """The cost of a flow run was not approved."""


class Question(BaseModel):
    """A question whether a flow run may spend money. Money is in USD."""

    model_config = ConfigDict(frozen=True)

    number: int
    """Which question of its flow run it is, from 1."""
    spent_before: Decimal
    """Cost of the job so far, including the amount reserved, when the question was asked."""
    cost: Decimal
    """Cost of the plan when the question was asked."""
    until: datetime
    """Later answers do not count."""

    @property
    def key(self) -> str:
        """The key of the suspension, which Prefect carries out once."""
        return f"approval-{self.number}"


class Answer(BaseModel):
    """The answer of a person. Money is in USD."""

    model_config = ConfigDict(frozen=True)

    decision: Literal["approve", "refuse"]
    max_cost: Annotated[Decimal, Field(ge=0)] | None = None
    """The amount that the run may spend; None means the cost of the plan."""
    note: str = ""


async def require_approval(prepared: PreparedJob, *, above: Decimal | None, within: timedelta) -> PreparedJob:
    """Return the job, with the approved cap if a person had to approve its cost.

    If its plan costs more than `above` USD, suspend this flow run until a person has answered, which ends its process.
    Runs on the emulator that they start for themselves cost nothing, and are not asked about.

    Raises:
        NotApprovedError: the person has refused, or has not answered `within` this time.
        InvalidError: the flow runs without a deployment or as a subflow, and cannot be suspended.
    """
    if above is None or prepared.origin == FREE_ORIGIN:
        return prepared
    run_id = UUID(flow_run.id)
    async with get_client() as client:
        run = await client.read_flow_run(run_id)
        question = read_question(run.labels)
        found = await _find_answer(client, run_id, question) if question else None
        if question and found:
            return _apply_answer(prepared, question, found)
        if prepared.plan.total_cost <= above:
            return prepared
        if not deployment.id or run.parent_task_run_id:  # Prefect suspends no subflow
            raise InvalidError(
                "approve_above works for runs of a deployment only, and not for subflows: run the flow from a "
                "deployment, or leave it out"
            )
        asked = Question(
            number=question.number + 1 if question else 1,
            spent_before=prepared.plan.spent_before,
            cost=prepared.plan.total_cost,
            until=datetime.now(UTC) + within,
        )
        await client.update_flow_run_labels(run_id, {APPROVAL_LABEL: asked.model_dump_json()})
    await _tell_how_to_answer(prepared.plan, asked, above)
    await asuspend_flow_run(wait_for_input=make_form(prepared.plan, asked, above), key=asked.key)
    raise AssertionError("a suspended flow run ends its process")


async def _tell_how_to_answer(plan: Plan, question: Question, above: Decimal) -> None:
    """Log how to answer, and publish the question as an artifact, because Prefect's state `Suspended` has no message.

    If Prefect refuses the artifact, only log that: the form has the question, too.
    """
    cost, until = format_money(question.cost), _format_time(question.until)
    get_run_logger().info("this run would cost %s and waits for an approval until %s: %s", cost, until, HOW_TO_ANSWER)
    how = HOW_TO_ANSWER[0].upper() + HOW_TO_ANSWER[1:]
    text = f"# {escape_markdown(plan.job_id)}: waits for an approval\n\n**{how}.**\n\n"
    try:
        await acreate_markdown_artifact(
            key=make_artifact_key(plan.job_id, "approval"),
            markdown=text + render_question(plan, question, above),
            description=f"{cost} until {until}: {HOW_TO_ANSWER}",
        )
    except Exception as exc:
        get_run_logger().warning("an artifact of this run could not be published: %s", exc)


def read_question(labels: dict[str, Any]) -> Question | None:
    """Return the latest question of a flow run with these labels; None if it has none."""
    text = labels.get(APPROVAL_LABEL)
    return Question.model_validate_json(text) if isinstance(text, str) else None


def describe_silence(question: Question) -> str:
    """Return why a flow run ends whose question was not answered in time."""
    return (
        f"nobody approved {format_money(question.cost)} until {_format_time(question.until)}: nothing was spent. Run "
        "the job again to ask again"
    )


async def _find_answer(client: PrefectClient, run_id: UUID, question: Question) -> FlowRunInput | None:
    key = keyset_from_base_key(f"suspended-{question.key}")["response"]
    found = await client.filter_flow_run_input(run_id, key_prefix=key, limit=1, exclude_keys=set())
    return found[0] if found else None


def _apply_answer(prepared: PreparedJob, question: Question, found: FlowRunInput) -> PreparedJob:
    """Return the job with the cap that was approved: the cost of the job when it was asked, and the approved amount.

    It holds for the whole flow run, also after a take-over, and never raises the cap of the job.
    """
    answer = Answer.model_validate(found.decoded_value)
    if answer.decision == "refuse":
        why = f": {answer.note.rstrip(' .')}" if answer.note else ""
        raise NotApprovedError(
            f"refused to spend {format_money(question.cost)}{why}. Nothing was spent. Run the job again to ask again"
        )
    if found.created and found.created > question.until:
        raise NotApprovedError(describe_silence(question))
    cap = question.spent_before + (question.cost if answer.max_cost is None else answer.max_cost)
    plan = prepared.plan
    if plan.max_cost is not None and plan.max_cost <= cap:
        return prepared
    return replace(prepared, plan=plan.model_copy(update={"max_cost": cap}))


# -- the form ---------------------------------------------------------------------------------------------------------


class _Decision(RunInput):
    decision: Literal["approve", "refuse"] = Field(title="Decision", json_schema_extra={"position": 0})


def make_form(plan: Plan, question: Question, above: Decimal) -> type[RunInput]:
    """Return the form with the plan, its price and the budget.

    A decision has to be made in it, so that nobody approves by accident.
    """
    amount = Annotated[Decimal, WithJsonSchema({"type": "number", "minimum": 0})]  # one field of numbers
    max_cost = Field(
        question.cost,
        title="Approved amount",
        description="USD that this run may spend. Leave room for further attempts, or approve less: clips that it does "
        "not cover are not made.",
        json_schema_extra={"default": float(question.cost), "position": 1},
    )
    note = Field(
        "", title="Note", description="Reason for a refusal.", max_length=500, json_schema_extra={"position": 2}
    )
    form = create_model("Approval", __base__=_Decision, max_cost=(amount, max_cost), note=(str, note))
    form._description = render_question(plan, question, above)
    return form


def render_question(plan: Plan, question: Question, above: Decimal) -> str:
    """Return the plan, its price and the budget as Markdown."""
    return "\n".join(_iterate_lines(plan, question, above)) + "\n"


def _iterate_lines(plan: Plan, question: Question, above: Decimal) -> Iterator[str]:
    cost = plan.describe_cost()
    yield f"**{escape_markdown(plan.job_id)}** costs **{cost}**, above the {format_money(above)} that need no approval."
    yield from ("", "| model | clips | cost |", "| --- | ---: | ---: |")
    by_model: dict[str, list[ClipRequest]] = {}
    for request in plan.to_create:
        by_model.setdefault(request.model, []).append(request)
    for model, requests in by_model.items():
        of_model = sum((plan.get_remaining_cost(request) for request in requests), Decimal(0))
        yield f"| {escape_markdown(model)} | {len(requests)} | {format_money(of_model)} |"
    yield from ("", f"If every attempt is needed, it costs {format_money(plan.worst_case_cost)}.")
    yield from ("", f"S{plan.describe_spending()[1:]}.")
    for line in list_budget_lines(plan):
        yield from ("", f"{escape_markdown(line[:1].upper() + line[1:])}.")
    scenes = list_first([request.scene.id for request in plan.to_create], most=MAX_LISTED_SCENES)
    yield from ("", f"Scenes: {escape_markdown(scenes)}.")
    for warning in plan.warnings:
        yield from ("", f"**Warning:** {escape_markdown(warning)}.")
    yield from ("", f"Without an answer until {_format_time(question.until)}, the run is cancelled.")


def _format_time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
