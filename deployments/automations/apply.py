"""Creates the automations of this folder on the Prefect server, or updates those that it has under the same name.

python deployments/automations/apply.py
"""

import asyncio
from pathlib import Path

import yaml
from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient, get_client

HERE = Path(__file__).parent


async def apply(client: PrefectClient, file: Path) -> None:
    """An automation is known by its name: what a person has changed under that name is changed back."""
    automation = AutomationCore.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    there = await client.read_automations_by_name(automation.name)
    if there:
        await client.update_automation(there[0].id, automation)
    else:
        await client.create_automation(automation)
    print(f"{'updated' if there else 'created'} automation {automation.name}")


async def main() -> None:
    async with get_client() as client:
        for file in sorted(HERE.glob("*.yaml")):
            await apply(client, file)


if __name__ == "__main__":
    asyncio.run(main())
