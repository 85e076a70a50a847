"""Open the provider of a run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from videogen.errors import SettingsError
from videogen.execution.options import PreparedJob
from videogen.providers.local import start_emulator
from videogen.registry.endpoint_schema import get_own_folder

NO_RETENTION = timedelta(0)
"""The emulator of a run ends with it, and its predictions are gone then."""


@asynccontextmanager
async def open_provider(prepared: PreparedJob) -> AsyncIterator[Any]:
    from videogen.providers.replicate import TOKENS_PAGE, ReplicateProvider

    if prepared.provider == "replicate":
        token = prepared.settings.replicate_api_token
        if token is None:
            unread = " (VIDEOGEN_TOKEN_BLOCK is, which only flows read)" if prepared.settings.token_block else ""
            raise SettingsError(f"REPLICATE_API_TOKEN is not set{unread}; get one at {TOKENS_PAGE}")
        provider = ReplicateProvider(
            token.get_secret_value(), base_url=prepared.settings.replicate_base_url, origin=prepared.origin
        )
        try:
            yield provider
        finally:
            await provider.aclose()
        return
    if not prepared.plan.to_make:  # everything is delivered: the provider is not called
        yield ReplicateProvider(
            "local", base_url="http://127.0.0.1:9", origin=prepared.origin, outputs_kept=NO_RETENTION
        )
        return
    registry = prepared.settings.registry
    own = get_own_folder(registry) if registry else None
    async with start_emulator(own if own and own.is_dir() else None) as url:
        provider = ReplicateProvider("local", base_url=url, origin=prepared.origin, outputs_kept=NO_RETENTION)
        try:
            yield provider
        finally:
            await provider.aclose()
