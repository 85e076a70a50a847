"""Write the log of videogen to standard error."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from videogen.text import escape_unprintable

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class StderrHandler(logging.Handler):
    """Writes each record as one line to standard error.

    On a terminal it uses the stream that is `sys.stderr` at that time. While a live view is shown, that is the view's
    own, which prints the line above it. Elsewhere it uses the stream from before, because the view would take the line
    to standard output.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stderr
        self._is_terminal = self._stream.isatty()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = escape_unprintable(self.format(record))
            print(line, file=sys.stderr if self._is_terminal else self._stream, flush=True)
        except OSError:
            pass  # nobody reads it any more; the run goes on, because it is paid for


@contextmanager
def show_log(level: str | None) -> Iterator[None]:
    """Write the log from this level on to standard error while the block runs.

    None shows only that the journal does not answer: everything else that a person should know is printed anyway.
    """
    handler, silence = StderrHandler(), logging.NullHandler()
    logger = logging.getLogger("videogen")
    shown = logger if level else logging.getLogger("videogen.journal")
    before = logger.level, logger.propagate
    logger.addHandler(silence)  # otherwise Python prints the warnings that nothing handles
    shown.addHandler(handler)
    if level:
        handler.setFormatter(logging.Formatter(FORMAT))
        logger.setLevel(level.upper())
        logger.propagate = False  # Prefect's console is a handler of the root logger
    try:
        yield
    finally:
        logger.removeHandler(silence)
        shown.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
