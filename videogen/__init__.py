"""Generate the video clips of a job from Python: `docs/library.md` shows how.

`import videogen` loads nothing. Each name below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videogen.errors import (
        AccountError,
        AuthenticationError,
        BillingError,
        CallError,
        InvalidError,
        JobLockedError,
        JournalError,
        LeaseLostError,
        Problem,
        SettingsError,
        StorageError,
        ValidationError,
        VideogenError,
    )
    from videogen.events import (
        ClipCompleted,
        ClipEnded,
        ClipFailed,
        ClipProgress,
        ClipRetrying,
        ClipStarted,
        RunCompleted,
        RunEvent,
        RunStarted,
    )
    from videogen.execution.options import RunOptions
    from videogen.execution.recorder import Listener
    from videogen.job.model import Job, Scene
    from videogen.library import plan_job, run_job
    from videogen.planning.plan import Plan
    from videogen.results.clip import Clip, ClipFailure
    from videogen.results.run_result import RunResult
    from videogen.results.verdict import Verdict

__all__ = [
    "AccountError",
    "AuthenticationError",
    "BillingError",
    "CallError",
    "Clip",
    "ClipCompleted",
    "ClipEnded",
    "ClipFailed",
    "ClipFailure",
    "ClipProgress",
    "ClipRetrying",
    "ClipStarted",
    "InvalidError",
    "Job",
    "JobLockedError",
    "JournalError",
    "LeaseLostError",
    "Listener",
    "Plan",
    "Problem",
    "RunCompleted",
    "RunEvent",
    "RunOptions",
    "RunResult",
    "RunStarted",
    "Scene",
    "SettingsError",
    "StorageError",
    "ValidationError",
    "Verdict",
    "VideogenError",
    "plan_job",
    "run_job",
]

_NAMES_BY_MODULE = {
    "errors": (
        "AccountError",
        "AuthenticationError",
        "BillingError",
        "CallError",
        "InvalidError",
        "JobLockedError",
        "JournalError",
        "LeaseLostError",
        "Problem",
        "SettingsError",
        "StorageError",
        "ValidationError",
        "VideogenError",
    ),
    "events": (
        "ClipCompleted",
        "ClipEnded",
        "ClipFailed",
        "ClipProgress",
        "ClipRetrying",
        "ClipStarted",
        "RunCompleted",
        "RunEvent",
        "RunStarted",
    ),
    "execution.options": ("RunOptions",),
    "execution.recorder": ("Listener",),
    "job.model": ("Job", "Scene"),
    "library": ("plan_job", "run_job"),
    "planning.plan": ("Plan",),
    "results.clip": ("Clip", "ClipFailure"),
    "results.run_result": ("RunResult",),
    "results.verdict": ("Verdict",),
}
_MODULES = {name: f"videogen.{module}" for module, names in _NAMES_BY_MODULE.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
