"""Two threads that render, and the folder of what they made."""

import asyncio
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from videogen.emulator.shots import Shot

THREADS = 2


class Studio:
    """Renders each distinct shot once; the files live until `close`."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="videogen-emulator-", ignore_cleanup_errors=True)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="render")
        self._stop = threading.Event()
        self._films: dict[str, asyncio.Future[Path]] = {}

    @property
    def folder(self) -> Path:
        """Where this server may keep files."""
        return Path(self._folder.name)

    def film(self, shot: Shot, start: Image.Image | None) -> asyncio.Future[Path]:
        """The file of this shot, now or soon. The future is shared: shield it."""
        future = self._films.get(shot.digest)
        if future is None or (future.done() and future.exception() is not None):
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._pool, self._render, shot, start)
            self._films[shot.digest] = future
        return future

    def close(self) -> None:
        """Stop rendering and remove the files."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    def _render(self, shot: Shot, start: Image.Image | None) -> Path:
        from videogen.emulator.render import film  # costs an import of PyAV, not needed to start a server

        path = self.folder / f"{shot.digest}.mp4"
        film(shot, start, path, self._stop)
        return path
