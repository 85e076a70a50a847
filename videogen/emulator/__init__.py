"""A server that speaks Replicate's HTTP API and renders real clips, for demos, tests and faults on purpose."""

from videogen.emulator.app import create_app
from videogen.emulator.plan import FaultPlanError
from videogen.emulator.server import AddressError, Emulator, running, serve
from videogen.emulator.settings import EmulatorSettings

__all__ = ["AddressError", "Emulator", "EmulatorSettings", "FaultPlanError", "create_app", "running", "serve"]
