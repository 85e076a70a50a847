"""The record of requests, predictions and deliveries that makes a re-run free.

A row of `attempts` is written *before* its prediction is created (the intent), completed with the prediction's id as
soon as that is known, and ended with its result and cost. `deliveries` lists the clip keys that are on disk.
"""

from videogen.journal.attempts import AttemptStore
from videogen.journal.budgets import BudgetStore
from videogen.journal.commands import CommandStore
from videogen.journal.deliveries import DeliveryStore
from videogen.journal.event_log import EventLog
from videogen.journal.limits import LimitStore
from videogen.journal.runs import RunStore
from videogen.journal.spend_log import SpendLog
from videogen.journal.spending import SpendingStore


class Journal(
    RunStore, LimitStore, BudgetStore, DeliveryStore, AttemptStore, SpendingStore, SpendLog, EventLog, CommandStore
):
    """The journal at a SQLAlchemy URL (`sqlite:///…`, `postgresql+psycopg://…`). Missing tables are created.

    A SQLite file that is damaged, or of another version, is moved away and replaced by a new one. A read-only journal
    never does this, because a run may still be writing the file.

    Every method is one transaction, committed when it returns. While a database server is unreachable, it is retried
    for a minute at most, and takes effect once; a read-only journal does not wait. Methods raise `JournalError` if the
    database cannot be used, and `SettingsError` if the URL is invalid.

    The methods that change the state of an attempt (see `TRANSITIONS`) raise `LeaseLostError` if the attempt is no
    longer in a state, or of the run, that they may change: another run has continued it. To repeat such a call changes
    nothing.
    """
