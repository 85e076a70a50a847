"""Two threads that render, and the folder of what they made."""

import asyncio
import secrets
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from videogen.emulator.shots import RenderSpec

THREADS = 2


class RenderPool:
    """Renders each distinct shot once; the files live until `close`, or in a cache folder for longer."""

    def __init__(self, cache: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="videogen-emulator-", ignore_cleanup_errors=True)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="render")
        self._stop = threading.Event()
        self._cache = cache or self.folder
        self._cache.mkdir(parents=True, exist_ok=True)
        self._clips: dict[str, asyncio.Future[Path]] = {}

    @property
    def folder(self) -> Path:
        """Where this server may keep files."""
        return Path(self._folder.name)

    def submit(self, spec: RenderSpec, start: Image.Image | None) -> asyncio.Future[Path]:
        """The file of this shot, now or soon. The future is shared: shield it."""
        future = self._clips.get(spec.digest)
        if future is None or (future.done() and future.exception() is not None):
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._pool, self._render, spec, start)
            self._clips[spec.digest] = future
        return future

    def close(self) -> None:
        """Stop rendering and remove the files."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    def _render(self, spec: RenderSpec, start: Image.Image | None) -> Path:
        path = self._cache / f"{spec.digest}.mp4"
        if not path.exists():
            from videogen.emulator.render import render_clip  # costs an import of PyAV, not needed to start a server

            part = self.folder / f"{spec.digest}.part.mp4"
            render_clip(spec, start, part, self._stop)
            _move_file(part, path)
        return path


def _move_file(part: Path, path: Path) -> None:
    """Put a finished file where others look for it, at once, also from another file system."""
    try:
        part.replace(path)
    except OSError:
        near = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        shutil.copyfile(part, near)
        near.replace(path)
