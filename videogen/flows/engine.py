"""Run Prefect's engine so that a flow run can end in order when its worker is stopped.

`python -m videogen.flows.engine` is the command of the runs of process workers, see `deployments/prefect.yaml`. A
worker that is stopped kills the processes that it has started. It has started this one, whose child is the engine. The
kernel then sends SIGTERM to the engine, and the flow cancels its predictions.
"""

import ctypes
import os
import runpy
import signal
import sys
from contextlib import suppress
from types import FrameType

ENGINE = [sys.executable, "-m", "prefect.engine"]
GRACE_S = 28
"""How long the engine may go on after SIGTERM. Prefect kills this process after 30 s, but not the engine."""
PR_SET_PDEATHSIG = 1
"""Number of the option of `prctl` for the signal that a process gets when its parent ends."""


def main() -> int:
    """Run the engine, and return its exit code. Systems without `prctl` run it in this process."""
    if not sys.platform.startswith("linux"):
        runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the worker's terminal is for the worker
    outputs = [start_relay(stream) for stream in (sys.stdout.fileno(), sys.stderr.fileno())]
    engine = start_engine(outputs)
    for output in outputs:
        os.close(output)

    def pass_on(number: int, _: FrameType | None) -> None:
        os.kill(engine, number)
        signal.alarm(GRACE_S)

    def kill(_: int, __: FrameType | None) -> None:
        os.kill(engine, signal.SIGKILL)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGALRM, kill)
    _, status = os.waitpid(engine, 0)
    return os.waitstatus_to_exitcode(status)


def start_relay(stream: int) -> int:
    """Start a process that copies its input to this stream, and return the file descriptor of that input.

    It outlives the worker, which reads the stream: an engine that logs to a pipe without a reader would end at once.
    """
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with the engine, also if all processes are told to end
        os.close(writer)
        while text := os.read(reader, 65_536):
            with suppress(OSError):  # nobody reads it any more
                os.write(stream, text)
        os._exit(0)
    os.close(reader)
    return writer


def start_engine(outputs: list[int]) -> int:
    """Start the engine with these file descriptors as its output and errors, and return the id of its process."""
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()
    engine = os.fork()
    if engine == 0:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for stream, output in enumerate(outputs, start=1):
            os.dup2(output, stream)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended before
            os._exit(1)
        os.execv(ENGINE[0], ENGINE)  # noqa: S606
    return engine


if __name__ == "__main__":
    code = main()
    if code < 0:  # a signal has ended it
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
