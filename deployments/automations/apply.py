"""Create the automations of this folder on the Prefect server, or update those that it has under the same name.

python deployments/automations/apply.py
"""

import asyncio
from pathlib import Path

import yaml
from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient, get_client

HERE = Path(__file__).parent
GONE = ["videogen-take-over"]
"""Names of automations that earlier versions had. The deployment `take-over` does the work of this one: it took over
runs of a schedule that had ended, without an end."""


async def apply(client: PrefectClient, file: Path) -> None:
    """An automation is known by its name: what a person has changed under that name is changed back."""
    automation = AutomationCore.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    there = await client.read_automations_by_name(automation.name)
    if there:
        await client.update_automation(there[0].id, automation)
    else:
        await client.create_automation(automation)
    print(f"{'updated' if there else 'created'} automation {automation.name}")


async def remove(client: PrefectClient, name: str) -> None:
    for automation in await client.read_automations_by_name(name):
        await client.delete_automation(automation.id)
        print(f"deleted automation {name}")


async def main() -> None:
    async with get_client() as client:
        for file in sorted(HERE.glob("*.yaml")):
            await apply(client, file)
        for name in GONE:
            await remove(client, name)


if __name__ == "__main__":
    asyncio.run(main())
