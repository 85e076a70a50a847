"""What is in a job's folder under a final name is whole, and one run at a time holds the folder."""

import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.builders import make_broken, make_file, make_loop
from videogen.errors import JobLockedError, StorageError
from videogen.storage.local import FileStore, LocalFolder, find_obstacle, lock_folder

Unsynced = Callable[[str, Callable[[int], bool]], None]


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> Unsynced:
    """Has fsync answer an error for files of a kind, as file systems do that cannot be mounted in a test."""
    fsync = os.fsync

    def answer(code: str, is_kind: Callable[[int], bool]) -> None:
        def failing(descriptor: int) -> None:
            if is_kind(os.fstat(descriptor).st_mode):
                raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", failing)

    return answer


def forbid(path: Path) -> None:
    """Makes a file, or a folder, of which nobody may see anything."""
    if path.suffix:
        path.touch(mode=0o000)
    else:
        path.mkdir(mode=0o000)


@contextmanager
def powerless(wanted: bool) -> Iterator[None]:
    """Inside, permissions count; for root they do not."""
    if not wanted or os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "job"


@pytest.fixture
def store(folder: Path) -> FileStore:
    return FileStore(folder)


class OnAFullDisk(FileStore):
    """What is unfinished finds no room."""

    def scratch(self, name: str) -> Path:
        path = super().scratch(name)
        path.symlink_to("/dev/full")
        return path


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
            "import sys, pathlib, videogen.storage.local as files",
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
    with pytest.raises(StorageError, match=r"cannot write manifest\.json: No space left"):
        OnAFullDisk(folder).put_text("more", "manifest.json")
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


# -- safe --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["EINVAL", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EBADF", "EACCES", "EPERM"])
def test_a_folder_that_cannot_be_synced_takes_files(store: FileStore, unsynced: Unsynced, code: str) -> None:
    """SMB, VirtualBox and rclone know no fsync of folders, Windows does not even open them."""
    unsynced(code, stat.S_ISDIR)
    store.put_text("whole", "manifest.json")
    assert store.text("manifest.json") == "whole"


@pytest.mark.parametrize("code", ["EINVAL", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EBADF"])
def test_a_file_that_cannot_be_synced_is_kept_all_the_same(store: FileStore, unsynced: Unsynced, code: str) -> None:
    """Where the file system does not do it."""
    unsynced(code, stat.S_ISREG)
    store.put_text("whole", "manifest.json")
    assert store.text("manifest.json") == "whole"


@pytest.mark.parametrize("kind", [stat.S_ISREG, stat.S_ISDIR])
@pytest.mark.parametrize("code", ["ENOSPC", "EIO", "EDQUOT", "EROFS"])
def test_bytes_that_could_not_be_stored_are_said(
    store: FileStore, unsynced: Unsynced, code: str, kind: Callable[[int], bool]
) -> None:
    """A disk that fails is not one that cannot be synced."""
    unsynced(code, kind)
    with pytest.raises(StorageError, match=rf"cannot write manifest\.json: {os.strerror(getattr(errno, code))}"):
        store.put_text("whole", "manifest.json")


def link_to(target: Path) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize(
    "name", [".scratch/manifest.json.part", "manifest.json", ".scratch/copy-a.mp4", "clips/a.mp4", "posters/a.jpg"]
)
@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_link_that_others_left_is_not_written_through(
    folder: Path, tmp_path: Path, name: str, make: Callable[[Path, Path], None], when: str
) -> None:
    """Before the store was opened or since: what it points at stays as it is, and what is delivered is a plain file."""
    (target := tmp_path / "letters.txt").write_text("precious")
    (tmp_path / "other" / "clips").mkdir(parents=True)
    (tmp_path / "other" / "clips" / "a.mp4").write_bytes(b"clip")
    (folder / name).parent.mkdir(parents=True, mode=0o777)
    if when == "before":
        make(folder / name, target)
    store = FileStore(folder)
    if when == "after":
        make(folder / name, target)
    store.put_text("{}", "manifest.json")
    for new_name in ("clips/a.mp4", "posters/a.jpg"):
        store.take_over(LocalFolder(tmp_path / "other"), "clips/a.mp4", new_name)
    store.check_writable()
    assert target.read_text() == "precious"
    assert [path for path in folder.rglob("*") if path.is_symlink()] == []
    assert (store.text("manifest.json"), store.text("clips/a.mp4")) == ("{}", "clip")


def test_a_scratch_folder_that_is_a_link_is_not_used(folder: Path, tmp_path: Path) -> None:
    """Another one is, of which nobody else may write to."""
    (tmp_path / "home").mkdir()
    folder.mkdir(parents=True)
    (folder / ".scratch").symlink_to(tmp_path / "home")
    store = FileStore(folder)
    store.put_text("{}", "manifest.json")
    store.scratch("p1.part").write_bytes(b"clip")
    assert list((tmp_path / "home").iterdir()) == []
    assert stat.S_IMODE(store.scratch("p1.part").parent.stat().st_mode) == 0o700


def test_a_scratch_folder_of_before_is_closed_to_others(folder: Path) -> None:
    """Its files stay, to be gone on with; finished ones are as open as this user's others."""
    (folder / ".scratch").mkdir(parents=True)
    (folder / ".scratch").chmod(0o777)
    (folder / ".scratch" / "p1.part").write_bytes(b"half")
    store = FileStore(folder)
    assert stat.S_IMODE((folder / ".scratch").stat().st_mode) == 0o700
    assert store.scratch("p1.part").read_bytes() == b"half"
    store.put_text("{}", "manifest.json")
    (folder / "usual").touch()
    assert (folder / "manifest.json").stat().st_mode == (folder / "usual").stat().st_mode


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_a_scratch_folder_of_another_user_is_not_used(folder: Path) -> None:
    """Who owns a folder can put links into it at any time."""
    (folder / ".scratch").mkdir(parents=True)
    os.chown(folder / ".scratch", 65534, 65534)
    assert FileStore(folder).scratch("p1.part").parent.name == ".scratch-0"


@pytest.mark.parametrize(
    "name",
    [
        "../../up.part",
        "/etc/passwd.part",
        "..",
        "a/b.part",
        "a\\b.part",
        "C:\\a.part",
        "con.part",
        "NUL.part",
        "com1.x.part",
        ".part",
        ".hidden.part",
        "",
        "x" * 300 + ".part",
        "\x00.part",
        "a\nb.part",
        "\ud83d.part",
        "Ünï.part",
        "a b.part",
        "a..part",
        "a:b.part",
        "a*?.part",
    ],
)
def test_whatever_a_server_calls_its_prediction_its_file_is_in_the_scratch(store: FileStore, name: str) -> None:
    """An id becomes a file name; it can be written, has its ending, and the files beside it are found by it."""
    path = store.scratch(name)
    path.write_bytes(b"x")
    assert path.resolve().parent == store.scratch("p1.part").parent.resolve()
    assert path.suffix == (".part" if name.endswith(".part") and name != ".part" else path.suffix)
    if name.endswith(".part"):
        assert path.with_suffix(".rejected") == store.scratch(f"{name.removesuffix('.part')}.rejected")


def test_names_that_are_one_on_some_disks_are_two_files(store: FileStore) -> None:
    """Whether `A` and `a` are the same, and what is left of an odd name, tells nothing."""
    ids = ["abc", "ABC", "Abc", "a/c", "a-c", "a\\c", "con", "CON", "x" * 101, "x" * 102]
    paths = [str(store.scratch(f"{id_}.part")).lower() for id_ in ids]
    assert len(set(paths)) == len(ids)
    assert paths[0].endswith("/abc.part")


# -- read --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [[], ["out/job"], ["out/job/clips"]])
def test_what_is_not_there_is_not_there(tmp_path: Path, there: list[str]) -> None:
    """However much of its path is."""
    for place in there:
        (tmp_path / place).mkdir(parents=True)
    folder = LocalFolder(tmp_path / "out" / "job")
    assert folder.exists() == bool(there)
    assert (folder.sha256("clips/a.mp4"), folder.text("clips/a.mp4")) == (None, None)
    assert not folder.fetch("clips/a.mp4", tmp_path / "copy")


def test_below_a_file_there_is_nothing(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "clips").touch()
    assert LocalFolder(folder).sha256("clips/a.mp4") is None


@pytest.mark.parametrize(
    ("place", "make", "says"),
    [
        pytest.param("out/job/clips/a.mp4", make_loop, "Too many levels", id="loop"),
        pytest.param("out/job/clips", make_loop, "Too many levels", id="folder-loop"),
        pytest.param("out/job/clips/a.mp4", make_broken, "link to /not/mounted, which is not there", id="broken"),
        pytest.param("out/job/clips", make_broken, "link to /not/mounted, which is not there", id="folder-broken"),
        pytest.param("out/job", make_broken, "link to /not/mounted, which is not there", id="job-broken"),
        pytest.param("out", make_broken, "link to /not/mounted, which is not there", id="out-broken"),
        pytest.param("out/job/clips/a.mp4", Path.mkdir, "in the way of a file", id="folder"),
        pytest.param("out/job/clips/a.mp4", os.mkfifo, "in the way of a file", id="pipe"),
        pytest.param("out/job/clips/a.mp4", link_to(Path("/dev/zero")), "in the way of a file", id="device"),
        pytest.param("out/job/clips/a.mp4", link_to(Path("/proc/self/mem")), "Input/output error", id="disk-error"),
        pytest.param("out/job/clips/a.mp4", forbid, "Permission denied", id="file-forbidden"),
        pytest.param("out/job/clips", forbid, "Permission denied", id="folder-forbidden"),
    ],
)
def test_what_cannot_be_read_is_not_gone(tmp_path: Path, place: str, make: Callable[[Path], None], says: str) -> None:
    """A clip that counts as gone is made, and paid, again."""
    folder, path = LocalFolder(tmp_path / "out" / "job"), tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    with powerless(make is forbid):
        for ask in (folder.sha256, folder.text, lambda name: folder.fetch(name, tmp_path / "copy")):
            with pytest.raises(StorageError, match=says):
                ask("clips/a.mp4")


@pytest.mark.parametrize("make", [make_loop, make_broken])
def test_a_folder_that_cannot_be_asked_may_exist(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "job")
    with pytest.raises(StorageError, match=r"job"):
        LocalFolder(tmp_path / "job").exists()


# -- writable ----------------------------------------------------------------------------------------------------------


def test_a_folder_that_can_be_written_is_left_as_it_was(store: FileStore, folder: Path) -> None:
    store.put_text("{}", "manifest.json")
    store.put_text("x", "clips/a.mp4")
    before = names(folder)
    store.check_writable()
    assert names(folder) == before


@pytest.mark.parametrize("place", ["out/job/clips", "out/job", "out", ""])
@pytest.mark.parametrize("make", [make_file, make_broken, make_loop])
def test_an_obstacle_is_found_without_creating_anything(
    tmp_path: Path, place: str, make: Callable[[Path], None]
) -> None:
    """It is named, wherever on the path it is."""
    at = tmp_path / "root" / place
    at.parent.mkdir(parents=True, exist_ok=True)
    make(at)
    before = sorted(tmp_path.rglob("*"))
    assert str(at) in (find_obstacle(tmp_path / "root/out/job/clips") or "")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("there", ["out/job/clips", "out/job", "out", ""])
def test_a_folder_that_can_be_made_has_no_obstacle(tmp_path: Path, there: str) -> None:
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    assert find_obstacle(tmp_path / "out/job/clips") is None


def test_a_folder_of_another_user_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system is asked, because the tests may run as a user who may write everywhere."""
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    assert find_obstacle(tmp_path / "out/job") == f"the folder {tmp_path} is not writable"


@pytest.mark.parametrize("place", ["clips", "posters"])
@pytest.mark.parametrize("make", [make_file, make_broken, make_loop])
def test_a_place_that_cannot_be_written_is_found_before_it_is_needed(
    store: FileStore, folder: Path, place: str, make: Callable[[Path], None]
) -> None:
    make(folder / place)
    with pytest.raises(StorageError, match=rf"job/{place}: files cannot be written and renamed here: .*--out"):
        store.check_writable()


def test_a_full_disk_is_found_before_it_is_needed(folder: Path) -> None:
    with pytest.raises(StorageError, match=r"job: files cannot be written .*: No space left"):
        OnAFullDisk(folder).check_writable()
    assert names(folder) == set()


def test_the_room_is_told_also_before_the_folder_is_there(tmp_path: Path) -> None:
    assert LocalFolder(tmp_path / "none" / "job").free_bytes() == pytest.approx(shutil.disk_usage("/tmp").free, rel=0.5)


# -- locked -----------------------------------------------------------------------------------------------------------

HOLD = "\n".join(
    [
        "import sys, pathlib, videogen.storage.local as files",
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
            assert (folder / ".lock").read_text() == f" process {os.getpid()} on {socket.gethostname()}\n"


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


@pytest.mark.parametrize("code", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL"])
def test_a_disk_without_locks_says_so(
    store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """The caller has to keep other runs out by itself."""

    def refuse(*_: object) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr("fcntl.flock", refuse)
    with lock_folder(folder) as is_held:
        assert not is_held
    monkeypatch.undo()
    with lock_folder(folder) as is_held:
        assert is_held


def test_without_fcntl_the_disk_is_one_without_locks(store: FileStore, folder: Path) -> None:
    """All is imported and works where there is none, as on Windows, whose own locks are then taken."""
    script = "\n".join(
        [
            "import sys, pathlib, warnings",
            "sys.modules['fcntl'] = None",
            "warnings.simplefilter('ignore')  # of the lock library, of which Windows has another half",
            "import videogen.storage.local as files",
            "folder = pathlib.Path(sys.argv[1])",
            "files.FileStore(folder).put_text('{}', 'manifest.json')",
            "with files.lock_folder(folder) as is_held: print('held' if is_held else 'free')",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("free\n", "")
    assert store.text("manifest.json") == "{}"


def test_a_lock_that_is_a_link_is_neither_taken_nor_written(store: FileStore, folder: Path, tmp_path: Path) -> None:
    (target := tmp_path / "letters.txt").write_text("precious")
    (folder / ".lock").symlink_to(target)
    with pytest.raises(StorageError, match=r"cannot lock .*\.lock: .* Remove it if it is a link"), lock_folder(folder):
        pass
    assert target.read_text() == "precious"


def test_a_lock_is_this_users_only(store: FileStore, folder: Path) -> None:
    with lock_folder(folder):
        assert stat.S_IMODE((folder / ".lock").stat().st_mode) == 0o600


def test_two_folders_are_held_at_once(tmp_path: Path) -> None:
    """Jobs of different names do not wait for each other."""
    FileStore(tmp_path / "a"), FileStore(tmp_path / "b")
    with lock_folder(tmp_path / "a"), lock_folder(tmp_path / "b"):
        pass
