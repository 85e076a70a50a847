"""Draft the entry of a model, and add it to the user's registry file."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

from videogen.cli.console import make_console, print_line
from videogen.cli.exit_codes import FAILED, OK
from videogen.cli.models import describe_check
from videogen.errors import InvalidError
from videogen.registry.append import append_model
from videogen.registry.draft import draft_model
from videogen.registry.endpoint_schema import Endpoint, Snapshots, get_own_folder, read_schema_file
from videogen.registry.load import read_registry
from videogen.registry.tables import REPLICATE_NAME
from videogen.settings import Settings, read_settings


def add_model(replicate: str, *, name: str | None, schema: Path | None, registry: Path | None) -> int:
    """Add the draft of a model to the registry file, and compare it with its schema. Return the exit code."""
    from videogen.model_check import check_added_model

    if not re.fullmatch(REPLICATE_NAME, replicate, re.ASCII):
        raise InvalidError(f"MODEL: {replicate[:80]!r} is not owner/name as on Replicate")
    settings = read_settings()
    path = registry or settings.registry
    if path is None:
        raise InvalidError("no registry file is named: name yours with --registry FILE or in VIDEOGEN_REGISTRY")
    name = replicate.partition("/")[2] if name is None else name
    known = read_registry(path if path.exists() else None)
    if not name or name in known.models:
        taken = "is in the registry already" if name else "is empty"
        raise InvalidError(f"{name!r} {taken}: choose another name with --name NAME")
    endpoint = _get_endpoint(replicate, schema, settings)
    append_model(path, draft_model(name, endpoint, datetime.now(UTC).date()))
    own = Snapshots(get_own_folder(path))
    own.write(endpoint)
    check = check_added_model(name, endpoint, path)
    console = make_console(stderr=False)
    print_line(console, f"{name} is added to {path}: look at the lines with “guess” and “QUESTION”")
    print_line(console, f"{name}: {describe_check(check)}")
    for problem in check.drift:
        print_line(console, f"  {problem}")
    print_line(
        console, f"its schema is in {own.folder}: with it, the emulator on this machine makes its clips at no cost"
    )
    source = f"https://replicate.com/{replicate}"
    print_line(console, f"THE PRICE IS NOT KNOWN: look it up at {source} and write it into {path}")
    return FAILED if check.drift else OK


def _get_endpoint(replicate: str, schema: Path | None, settings: Settings) -> Endpoint:
    from videogen.model_check import fetch_new_endpoint

    if schema:
        return read_schema_file(schema, replicate)
    return asyncio.run(fetch_new_endpoint(replicate, settings))
