"""Features that only some operating systems have. On the others each function here does without."""

import ctypes
import os
import sys
import threading
from contextlib import suppress

SAFE_OPEN_FLAGS = sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""Flags for `os.open` that follow no link, do not block on a fifo and do not translate line ends."""


def lower_thread_priority() -> None:
    """Lower the priority of this thread. Only Linux has priorities by thread."""
    if sys.platform == "linux" and hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def release_memory() -> None:
    """Return freed memory to the system. glibc keeps blocks of up to 32 MB, which add up."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def get_open_file_limit() -> int | None:
    """Return how many files this process may have open; None if there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if files < 0 else files
