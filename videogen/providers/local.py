"""Start an emulator for one run, as a process that ends with it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from videogen.errors import TransientError

EMULATOR_START_S = 60.0
EMULATOR_LATENCY = "1:3"
"""Range of seconds that a clip takes on the emulator that a run starts for itself."""


@asynccontextmanager
async def start_emulator(schemas: Path | None = None) -> AsyncIterator[str]:
    """Start an emulator and yield its URL. It ends with this process, however that ends, because it watches its
    standard input.

    Args:
        schemas: folder of snapshots of further models.
    """
    command = ["-m", "videogen", "emulator", "--port", "0", "--exit-with-parent", "--latency", EMULATOR_LATENCY]
    command += ["--schemas", str(schemas)] if schemas else []
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C at a terminal is for us: our predictions are still to be cancelled there
    )
    assert process.stdin
    assert process.stdout
    try:
        async with asyncio.timeout(EMULATOR_START_S):
            line = (await process.stdout.readline()).decode()
        if "http://" not in line:
            raise TransientError("the emulator did not start")
        yield line[line.index("http://") :].strip()
    finally:
        process.stdin.close()
        await process.wait()
