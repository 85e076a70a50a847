"""A server that implements Replicate's HTTP API and renders real clips, for demos, tests and fault injection."""

from videogen.emulator.app import create_emulator_app
from videogen.emulator.faults.plan import FaultPlanError
from videogen.emulator.server import AddressError, Emulator, run_emulator, serve_emulator
from videogen.emulator.settings import EmulatorSettings
from videogen.emulator.snapshots import SnapshotError

__all__ = [
    "AddressError",
    "Emulator",
    "EmulatorSettings",
    "FaultPlanError",
    "SnapshotError",
    "create_emulator_app",
    "run_emulator",
    "serve_emulator",
]
