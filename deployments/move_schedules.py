"""Move the active schedules of the deployments that version 0.1.0 created to those that have taken their place.

python deployments/move_schedules.py
"""

import asyncio

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

MOVED = {
    "generate/generate": "videogen/generate",
    "generate/retry-failed": "videogen/retry-failed",
    "take-over/take-over": "videogen-take-over/take-over",
}
"""The names of the deployments in version 0.1.0, and their names now."""


async def move_schedules(client: PrefectClient, old_name: str, new_name: str) -> None:
    """Add the active schedules of the old deployment to the new one, and deactivate them at the old one."""
    old, new = await find_deployment(client, old_name), await find_deployment(client, new_name)
    if old is None or new is None:
        return
    for schedule in old.schedules:
        if schedule.active:
            await move(client, schedule, old, new)
            print(f"moved the active schedule {schedule.slug or schedule.id} of {old_name} to {new_name}")
            if schedule.slug:
                print(f"  if {schedule.slug} is in prefect.yaml, write `active: true` there before the next set-up")


async def find_deployment(client: PrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return await client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


async def move(
    client: PrefectClient, schedule: DeploymentSchedule, old: DeploymentResponse, new: DeploymentResponse
) -> None:
    """Move one schedule, with the parameters of its runs. It replaces a schedule of the same slug."""
    for own in new.schedules:
        if schedule.slug and own.slug == schedule.slug:
            await client.delete_deployment_schedule(new.id, own.id)
    inherited = old.parameters if old.parameters != new.parameters else {}
    await client.create_deployment_schedules(
        new.id,
        [(schedule.schedule, True)],
        max_scheduled_runs=schedule.max_scheduled_runs,
        parameters={**inherited, **schedule.parameters},
        slug=schedule.slug or f"moved-{schedule.id}",  # `prefect deploy` keeps schedules that have one
    )
    await client.update_deployment_schedule(old.id, schedule.id, active=False)


async def main() -> None:
    async with get_client() as client:
        for old_name, new_name in MOVED.items():
            await move_schedules(client, old_name, new_name)


if __name__ == "__main__":
    asyncio.run(main())
