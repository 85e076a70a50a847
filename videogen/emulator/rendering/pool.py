"""A pool of two rendering threads with a folder of rendered clips."""

import asyncio
import secrets
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from videogen.emulator.rendering.spec import RenderSpec

THREADS = 2


class RenderPool:
    """Renders each distinct specification once. Files are kept until `close`, or longer in a cache folder."""

    def __init__(self, cache: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="videogen-emulator-", ignore_cleanup_errors=True)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="render")
        self._stop = threading.Event()
        self._cache = cache or self.folder
        self._cache.mkdir(parents=True, exist_ok=True)
        self._clips: dict[str, asyncio.Future[Path]] = {}

    @property
    def folder(self) -> Path:
        """The temporary folder of this server's files."""
        return Path(self._folder.name)

    def submit(
        self, spec: RenderSpec, start: Image.Image | None, end: Image.Image | None = None
    ) -> asyncio.Future[Path]:
        """Return a future of the clip's path. Callers share the future, so shield it from cancellation."""
        future = self._clips.get(spec.digest)
        if future is None or (future.done() and future.exception() is not None):
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._pool, self._render, spec, start, end)
            self._clips[spec.digest] = future
        return future

    def close(self) -> None:
        """Stop rendering and remove the files."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    def _render(self, spec: RenderSpec, start: Image.Image | None, end: Image.Image | None) -> Path:
        path = self._cache / f"{spec.digest}.mp4"
        if not path.exists():
            from videogen.emulator.rendering.encode import (
                render_clip,  # imports PyAV, which is slow and not needed to start a server
            )

            part = self.folder / f"{spec.digest}.part.mp4"
            render_clip(spec, start, part, self._stop, end)
            _move_file(part, path)
        return path


def _move_file(part: Path, path: Path) -> None:
    """Move a finished file into place atomically, even from another file system."""
    try:
        part.replace(path)
    except OSError:
        near = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        shutil.copyfile(part, near)
        near.replace(path)
