"""What is in the journal, for everybody who watches: models, runs, their events as they happen, and a live page."""

from videogen.gateway.server import Gateway, GatewaySettings, running, serve

__all__ = ["Gateway", "GatewaySettings", "running", "serve"]
