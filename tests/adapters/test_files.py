"""What is in a job's folder under a final name is whole, and one run at a time holds the folder."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from videogen.adapters.files import FileStore, lock_folder
from videogen.errors import JobLockedError, StorageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "job"


@pytest.fixture
def store(folder: Path) -> FileStore:
    return FileStore(folder)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


# -- kept -------------------------------------------------------------------------------------------------------------


def test_a_finished_file_gets_its_name_and_leaves_the_scratch(store: FileStore, folder: Path) -> None:
    """Moved, not copied; the folder of the name is made."""
    scratch = store.scratch("p1.part")
    scratch.write_bytes(b"clip")
    inode = scratch.stat().st_ino
    store.put(scratch, "clips/storm.mp4")
    assert names(folder) == {"clips/storm.mp4"}
    assert store.path("clips/storm.mp4").stat().st_ino == inode
    assert store.path("clips/storm.mp4").read_bytes() == b"clip"


def test_a_newer_file_takes_the_place_of_an_older_one(store: FileStore, folder: Path) -> None:
    """A re-run writes the manifest anew."""
    store.put_text("old", "manifest.json")
    store.put_text("nëw", "manifest.json")
    assert (folder / "manifest.json").read_text(encoding="utf-8") == "nëw"
    assert names(folder) == {"manifest.json"}


def test_a_reader_never_sees_half_a_file(store: FileStore, folder: Path) -> None:
    """Whoever looks while it is replaced sees the one or the other, whole."""
    texts = {"a" * 200_000, "b" * 200_000}
    seen: set[str] = set()
    done = threading.Event()
    store.put_text("a" * 200_000, "manifest.json")

    def look() -> None:
        while not done.is_set():
            seen.add((folder / "manifest.json").read_text(encoding="utf-8"))

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(30):
        for text in texts:
            store.put_text(text, "manifest.json")
    done.set()
    reader.join()
    assert seen == texts


def test_a_process_killed_while_writing_leaves_the_old_file(store: FileStore, folder: Path) -> None:
    """SIGKILL in the middle of a large text: under the final name is the whole one from before."""
    store.put_text("whole", "manifest.json")
    script = "\n".join(
        [
            "import sys, pathlib, videogen.adapters.files as files",
            "store = files.FileStore(pathlib.Path(sys.argv[1]))",
            "print('ready', flush=True)",
            "while True: store.put_text('x' * 50_000_000, 'other.json')",
        ]
    )
    with running(script, folder) as process:
        while not store.scratch("other.json.part").exists():
            assert process.poll() is None
        process.kill()
        process.wait()
    assert (folder / "manifest.json").read_text() == "whole"
    assert not (folder / "other.json").exists() or (folder / "other.json").stat().st_size == 50_000_000


def test_a_full_disk_keeps_the_old_file_and_leaves_no_part(store: FileStore, folder: Path) -> None:
    """The journal of what was done before is not lost to what could not be written."""
    store.put_text("whole", "manifest.json")
    store.scratch("manifest.json.part").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"cannot write manifest\.json: No space left"):
        store.put_text("more", "manifest.json")
    assert (folder / "manifest.json").read_text() == "whole"
    assert names(folder) == {"manifest.json"}


def test_a_name_that_cannot_be_written_is_said_and_the_file_kept(store: FileStore, folder: Path) -> None:
    """What was paid for stays in the scratch for the next run."""
    (folder / "clips").touch()
    scratch = store.scratch("p1.part")
    scratch.write_bytes(b"clip")
    with pytest.raises(StorageError, match=r"cannot write clips/storm\.mp4: "):
        store.put(scratch, "clips/storm.mp4")
    assert scratch.read_bytes() == b"clip"


def test_a_file_that_is_not_there_cannot_be_finished(store: FileStore, folder: Path) -> None:
    """The old one stays."""
    store.put_text("old", "manifest.json")
    with pytest.raises(StorageError, match="No such file"):
        store.put(store.scratch("none.part"), "manifest.json")
    assert (folder / "manifest.json").read_text() == "old"


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """With its name and the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot make the folder .*file/job: Not a directory"):
        FileStore(tmp_path / "file" / "job")


# -- locked -----------------------------------------------------------------------------------------------------------

HOLD = "\n".join(
    [
        "import sys, pathlib, videogen.adapters.files as files",
        "with files.lock_folder(pathlib.Path(sys.argv[1])):",
        "    print('ready', flush=True)",
        "    sys.stdin.read()",
    ]
)


@contextmanager
def running(script: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs the script and has said `ready`."""
    command = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_a_second_run_is_told_who_holds_the_folder(store: FileStore, folder: Path) -> None:
    """By process id and host, whether the holder is another process or this one."""
    with running(HOLD, folder) as holder:
        told = rf"{folder}: process {holder.pid} on {socket.gethostname()}"
        with pytest.raises(JobLockedError, match=told), lock_folder(folder):
            pass
    with lock_folder(folder):
        for _ in range(2):  # the first to be refused frees nothing when it closes the file
            with pytest.raises(JobLockedError, match=f"process {os.getpid()} on"), lock_folder(folder):
                pass


def test_a_dead_holders_lock_is_free(store: FileStore, folder: Path) -> None:
    """SIGKILL leaves the lock file but no lock, and the next holder is the one that is named."""
    with running(HOLD, folder) as holder:
        holder.kill()
        holder.wait()
        assert str(holder.pid) in (folder / ".lock").read_text()
        with lock_folder(folder):
            assert (folder / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_a_run_that_fails_lets_go_of_the_folder(store: FileStore, folder: Path) -> None:
    """Also by an exception."""
    with pytest.raises(ZeroDivisionError), lock_folder(folder):
        raise ZeroDivisionError
    with lock_folder(folder):
        pass


def test_a_process_that_outlives_the_run_does_not_hold_its_folder(store: FileStore, folder: Path) -> None:
    """The emulator that a run starts inherits no lock."""
    with lock_folder(folder):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with lock_folder(folder):
            pass
    finally:
        child.kill()
        child.wait()


def test_two_folders_are_held_at_once(tmp_path: Path) -> None:
    """Jobs of different names do not wait for each other."""
    FileStore(tmp_path / "a"), FileStore(tmp_path / "b")
    with lock_folder(tmp_path / "a"), lock_folder(tmp_path / "b"):
        pass
