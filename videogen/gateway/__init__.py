"""Serve the journal over HTTP: models, runs, their events as they happen, and a live page."""

from videogen.gateway.server import Gateway, GatewaySettings, run_gateway_in_thread, serve_gateway

__all__ = ["Gateway", "GatewaySettings", "run_gateway_in_thread", "serve_gateway"]
