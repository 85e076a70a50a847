"""Ask a person before money is spent."""

import signal
import sys
from decimal import Decimal

from videogen.errors import InvalidError
from videogen.execution.options import PreparedJob
from videogen.settings import FREE_ORIGIN
from videogen.text import format_money


def needs_confirmation(prepared: PreparedJob, *, always: bool = False) -> bool:
    """Return whether the clips that a prepared job creates cost more than `VIDEOGEN_CONFIRM_ABOVE`.

    Clips of the emulator that a run starts for itself cost nothing. With `always`, clips of any price have to be
    confirmed if there is a terminal.
    """
    if always and sys.stdin.isatty():
        return bool(prepared.plan.to_make)
    limit = prepared.settings.confirm_above
    return limit is not None and prepared.origin != FREE_ORIGIN and prepared.plan.total_cost > limit


def confirm_cost(prepared: PreparedJob) -> bool:
    """Return whether the person at the terminal wants the clips of a prepared job at their price.

    Raises:
        InvalidError: there is no terminal to ask at.
    """
    plan = prepared.plan
    if not sys.stdin.isatty():
        limit = prepared.settings.confirm_above or Decimal(0)
        raise InvalidError(
            f"the plan costs {plan.describe_cost()}, more than the {format_money(limit)} above which "
            "VIDEOGEN_CONFIRM_ABOVE asks, and there is no terminal to ask at: add --yes to run it without a question"
        )
    clips = "1 clip" if len(plan.to_make) == 1 else f"{len(plan.to_make)} clips"
    question = f"make {clips} for {plan.describe_cost()}? [y/N] "
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # an event loop would only note a Ctrl-C
    try:
        print(question, end="", file=sys.stderr, flush=True)
        is_confirmed = sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was made", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if not is_confirmed:
        print("nothing was made", file=sys.stderr)
    return is_confirmed
