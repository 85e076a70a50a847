"""Deployments on the Prefect server of the tests that events start."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from prefect.events import DeploymentEventTrigger

from tests.support.prefect_api import call_prefect, find_runs


@contextmanager
def deployment_with_triggers(api: str, flow: str, triggers: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Provide the id of a deployment that no worker runs, with these triggers of a `prefect.yaml`."""
    flow_id = call_prefect("POST", f"{api}/flows/", {"name": flow})["id"]
    fields = {"name": f"triggered-{uuid4().hex[:8]}", "flow_id": flow_id}
    deployment: str = call_prefect("POST", f"{api}/deployments/", fields)["id"]
    created = []
    try:
        for fields in triggers:
            trigger = DeploymentEventTrigger.model_validate(fields)
            trigger.set_deployment_id(UUID(deployment))
            automation = trigger.as_automation().model_dump(mode="json")
            created.append(call_prefect("POST", f"{api}/automations/", automation)["id"])
        yield deployment
    finally:
        for automation in created:
            call_prefect("DELETE", f"{api}/automations/{automation}")
        call_prefect("DELETE", f"{api}/deployments/{deployment}")


def emit(api: str, name: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
    """Emit an event as a program without Prefect does."""
    event = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": name}
    call_prefect("POST", f"{api}/events", [{**event, "resource": resource, "payload": payload}])


def has_run_with(api: str, deployment: str, parameters: dict[str, Any]) -> bool:
    """Return whether the deployment has a flow run with these parameters."""
    return parameters in [run["parameters"] for run in find_runs(api, deployment)]
