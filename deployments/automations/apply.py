"""Create the automations of this folder on the Prefect server, or update those that it has under the same name.

python deployments/automations/apply.py
"""

import asyncio
from pathlib import Path
from typing import Any

import yaml
from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient, get_client

HERE = Path(__file__).parent
GONE = ["videogen-take-over"]
"""Names of automations that earlier versions had. The deployment `take-over` does the work of this one: it took over
runs of a schedule that had ended, without an end."""


async def apply(client: PrefectClient, file: Path) -> None:
    """An automation is known by its name: what a person has changed under that name is changed back."""
    fields = yaml.safe_load(file.read_text(encoding="utf-8"))
    if missing := await resolve_blocks(client, fields):
        print(f"no automation {fields['name']} yet: it needs a notification block named {missing}")
        return
    automation = AutomationCore.model_validate(fields)
    there = await client.read_automations_by_name(automation.name)
    if there:
        await client.update_automation(there[0].id, automation)
    else:
        await client.create_automation(automation)
    print(f"{'updated' if there else 'created'} automation {automation.name}")


async def resolve_blocks(client: PrefectClient, fields: dict[str, Any]) -> str | None:
    """Replace the names of notification blocks by their ids. Return the name of one that is missing, or None."""
    for action in fields["actions"]:
        if name := action.get("block_document_id"):
            id_ = await find_block(client, name)
            if id_ is None:
                return str(name)
            action["block_document_id"] = id_
    return None


async def find_block(client: PrefectClient, name: str) -> str | None:
    """Return the id of the notification block of this name, whatever its type, or None."""
    wanted = {"name": {"any_": [name]}, "is_anonymous": {"eq_": False}}
    answer = await client.request(
        "POST", "/block_documents/filter", json={"block_documents": wanted, "include_secrets": False}
    )
    return next((str(found["id"]) for found in answer.json()), None)


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
