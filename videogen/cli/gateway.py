"""Serve the gateway until it is interrupted, with or without its review room."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from videogen.gateway import GatewaySettings, serve_gateway
from videogen.settings import Settings

if TYPE_CHECKING:
    from videogen.gateway.review_room import ReviewRoom


def serve_gateway_of(settings: Settings, *, host: str, port: int, jobs: Sequence[Path] | None) -> None:
    """Serve a gateway for the runs of these settings, and print its address.

    Args:
        settings: their token is the gateway's.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        jobs: job files of which takes can be made in the review room; None means no review room.

    Raises:
        ValidationError: a job file is not valid.
        SettingsError: see `serve_gateway`.
    """
    room = None if jobs is None else _make_room(settings, jobs)
    token = _reveal(settings.gateway_token)
    made = secrets.token_urlsafe(18) if room and token is None else None
    serve_gateway(
        GatewaySettings(
            out=settings.local_out,
            journal_url=settings.get_journal_url(),
            registry=settings.registry,
            host=host,
            port=port,
            token=token or made,
            watch_token=_reveal(settings.gateway_watch_token),
            room=room,
        ),
        on_ready=lambda url: print(f"listening on {url}{_describe_entrance(url, token, made)}", flush=True),
    )


def _describe_entrance(url: str, token: str | None, made: str | None) -> str:
    """Return how to open the page. Only a token that was made here is shown."""
    if made:
        return f", review at {url}/?token={made}"
    return ", open it with /?token=…" if token else ""


def _make_room(settings: Settings, jobs: Sequence[Path]) -> "ReviewRoom":
    from videogen.gateway.controller import JournalController
    from videogen.gateway.retakes import RetakeDesk
    from videogen.gateway.review_room import ReviewRoom

    return ReviewRoom(settings, RetakeDesk(jobs, settings), JournalController(settings.get_journal_url()))


def _reveal(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
