"""What is in a bucket under a final name is whole, and "not there" is not said of what cannot be asked."""

import hashlib
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.servers import Bucket
from videogen.errors import SettingsError, StorageError
from videogen.storage.base import Store
from videogen.storage.local import FileStore, LocalFolder
from videogen.storage.objects import PART_BYTES, ObjectStore
from videogen.storage.open import open_folder, open_store

pytestmark = pytest.mark.integration

CLIP = os.urandom(300_000)
SHA256 = hashlib.sha256(CLIP).hexdigest()


@pytest.fixture
def store(bucket: Bucket, tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"{bucket.address}/films/job", tmp_path / "work")


def put(store: Store, data: bytes, name: str) -> None:
    scratch = store.scratch("p1.part")
    scratch.write_bytes(data)
    store.put(scratch, name)


# -- kept -------------------------------------------------------------------------------------------------------------


def test_a_finished_file_becomes_an_object_that_says_what_it_is(store: ObjectStore, bucket: Bucket) -> None:
    """Its bytes, its type for a browser, its digest; a folder of another machine tells it without reading it."""
    put(store, CLIP, "clips/storm.mp4")
    found = bucket.get("films/job/clips/storm.mp4")
    assert found["Body"].read() == CLIP
    assert found["ContentType"] == "video/mp4"
    assert found["Metadata"] == {"sha256": SHA256}
    bucket.wire.asked.clear()
    assert open_folder(store.address).sha256("clips/storm.mp4") == SHA256
    assert [line.split()[0] for line in bucket.wire.asked] == ["HEAD"]


def test_an_object_of_many_parts_is_whole(store: ObjectStore, bucket: Bucket) -> None:
    """Above the size of a part it is uploaded in parts, and under its name only once they are all there."""
    large = os.urandom(2 * PART_BYTES + 1)
    put(store, large, "clips/long.mp4")
    assert bucket.read("films/job/clips/long.mp4") == large
    assert any("partNumber=3" in line for line in bucket.wire.asked)
    assert bucket.uploads() == 0


def test_a_text_and_its_newer_version(store: ObjectStore) -> None:
    """A re-run writes the manifest anew."""
    store.put_text("old", "manifest.json")
    store.put_text("nëw", "manifest.json")
    assert open_folder(store.address).text("manifest.json") == "nëw"


def test_what_is_not_there_is_not_there(bucket: Bucket) -> None:
    """Of a folder, of a digest, of a text and of a file."""
    folder = open_folder(f"{bucket.address}/none")
    assert not folder.exists()
    assert folder.sha256("clips/a.mp4") is None
    assert folder.text("manifest.json") is None
    assert not folder.fetch("clips/a.mp4", Path("nowhere"))


def test_a_folder_exists_once_something_is_in_it(store: ObjectStore, bucket: Bucket) -> None:
    """And one whose name only begins like it does not."""
    store.put_text("{}", "manifest.json")
    assert open_folder(f"{bucket.address}/films/job").exists()
    assert not open_folder(f"{bucket.address}/films/jo").exists()


def test_an_object_that_lost_its_metadata_is_read(bucket: Bucket) -> None:
    """Tools that copy between buckets may drop it; the clip is none the less paid for."""
    bucket.write("job/clips/a.mp4", CLIP)
    assert open_folder(f"{bucket.address}/job").sha256("clips/a.mp4") == SHA256


# -- broken -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size_bytes", "cut_bytes"),
    [pytest.param(300_000, 100_000, id="one-call"), pytest.param(2 * PART_BYTES, 3_000_000, id="parts")],
)
def test_a_connection_cut_in_mid_upload_leaves_no_object(
    store: ObjectStore, bucket: Bucket, size_bytes: int, cut_bytes: int
) -> None:
    """Nor a part that is paid for by the month. The file stays, and goes up once the wire is whole."""
    scratch = store.scratch("p1.part")
    scratch.write_bytes(os.urandom(size_bytes))
    bucket.wire.cut_at = (b"PUT ", cut_bytes)
    with pytest.raises(StorageError, match=r"cannot write clips/a\.mp4 to s3://films-.*: .*PUT"):
        store.put(scratch, "clips/a.mp4")
    assert bucket.names() == set()
    assert bucket.uploads() == 0
    bucket.wire.cut_at = None
    store.put(scratch, "clips/a.mp4")
    assert len(bucket.read("films/job/clips/a.mp4")) == size_bytes


def test_an_upload_that_fails_keeps_the_old_object(store: ObjectStore, bucket: Bucket) -> None:
    """Whole, as it was."""
    store.put_text("old", "manifest.json")
    bucket.wire.cut_at = (b"PUT ", 1_000)
    with pytest.raises(StorageError):
        store.put_text("new" * 10_000, "manifest.json")
    assert bucket.read("films/job/manifest.json") == b"old"


def test_a_call_that_fails_once_is_repeated(store: ObjectStore, bucket: Bucket) -> None:
    """Nobody hears of it."""

    class Once(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            bucket.wire.cut_at = (b"PUT ", 1_000) if len(self) == 1 else None

    bucket.wire.asked = Once()
    put(store, CLIP, "clips/a.mp4")
    assert bucket.wire.asked[0] == bucket.wire.asked[1]
    assert bucket.read("films/job/clips/a.mp4") == CLIP


def test_a_store_that_cannot_be_asked_has_not_lost_the_clip(store: ObjectStore, bucket: Bucket) -> None:
    """A clip that counts as gone is made, and paid, again."""
    put(store, CLIP, "clips/a.mp4")
    folder = open_folder(store.address)
    bucket.wire.cut_at = (b"/films/job/", 0)
    for ask in (folder.sha256, folder.text):
        with pytest.raises(StorageError, match=r"cannot read clips/a\.mp4 in s3://"):
            ask("clips/a.mp4")


def test_a_bucket_that_there_is_not_is_said(bucket: Bucket, tmp_path: Path) -> None:
    """Before anything is paid for, since what is there is asked first; in one line, with the store's own word."""
    folder = open_folder("s3://nobody-has-made-it/films/job")
    with pytest.raises(StorageError, match=r"^cannot read what is in s3://nobody\S+: .*\(NoSuchBucket\)$"):
        folder.exists()
    with pytest.raises(StorageError, match=r"^cannot write a\.txt to s3://nobody\S+: .*\(NoSuchBucket\)$"):
        ObjectStore(folder.address, tmp_path).put_text("a", "a.txt")


@pytest.mark.parametrize("ask", ["text", "fetch"])
def test_without_its_bucket_a_file_is_not_said_to_be_gone(bucket: Bucket, tmp_path: Path, ask: str) -> None:
    """All would be made, and paid, again for a name that is spelled wrong."""
    folder = open_folder("s3://nobody-has-made-it/films/job")
    with pytest.raises(StorageError, match=r"cannot read manifest\.json in s3://nobody\S+: .*\(NoSuchBucket\)$"):
        folder.text("manifest.json") if ask == "text" else folder.fetch("manifest.json", tmp_path / "copy")


class Forbidden(BaseHTTPRequestHandler):
    """A store that refuses everything, as one does for a missing object without the permission to list."""

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline()
        if self.raw_requestline and self.parse_request():
            self.send_response(403)
            self.send_header("content-length", "0")
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_what_may_not_be_read_is_not_gone(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And it is said which permissions are needed."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Forbidden) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        store = ObjectStore(f"{bucket.address}/job", tmp_path)
        for ask in (store.sha256, store.text, lambda name: store.fetch(name, tmp_path / "copy")):
            with pytest.raises(StorageError, match=r"cannot read a\.mp4 in s3://.*the permission .*to list the bucket"):
                ask("a.mp4")
        with pytest.raises(StorageError, match=r"cannot write \.probe to s3://"):
            store.check_writable()
        server.shutdown()


def test_a_bucket_that_can_be_written_is_left_as_it_was(store: ObjectStore, bucket: Bucket) -> None:
    store.put_text("{}", "manifest.json")
    before = bucket.names()
    store.check_writable()
    assert bucket.names() == before
    assert [line for line in bucket.wire.asked if line.startswith("PUT") and ".probe" in line]


def test_a_full_disk_is_not_blamed_on_the_bucket(store: ObjectStore) -> None:
    """The file is there; there is no room for it here."""
    put(store, CLIP, "clips/a.mp4")
    with pytest.raises(StorageError, match=r"cannot write /dev/full: No space left"):
        open_folder(store.address).fetch("clips/a.mp4", Path("/dev/full"))


# -- here and elsewhere -----------------------------------------------------------------------------------------------


def test_a_file_that_another_machine_made_is_fetched(store: ObjectStore, tmp_path: Path) -> None:
    """Also where an older one of that name is here; and not again when it is the same."""
    here = ObjectStore(store.address, tmp_path / "here")
    put(here, b"older", "posters/a.jpg")
    put(store, b"newer", "posters/a.jpg")
    path = here.path("posters/a.jpg")
    assert path.read_bytes() == b"newer"
    inode = path.stat().st_ino
    assert here.path("posters/a.jpg").stat().st_ino == inode


def test_a_clip_of_another_job_is_copied_in_the_bucket(store: ObjectStore, bucket: Bucket, tmp_path: Path) -> None:
    """Its bytes do not pass over the wire, it keeps its digest, and it is copied once."""
    put(store, CLIP, "clips/a.mp4")
    other = ObjectStore(f"{bucket.address}/films/other", tmp_path / "other")
    bucket.wire.asked.clear()
    for _ in range(2):
        other.take_over(open_folder(store.address), "clips/a.mp4", "clips/b.mp4")
    assert [line.split()[0] for line in bucket.wire.asked].count("PUT") == 1
    assert not [line for line in bucket.wire.asked if line.startswith("GET")]
    assert bucket.read("films/other/clips/b.mp4") == CLIP
    assert other.sha256("clips/b.mp4") == SHA256


def test_a_clip_moves_between_the_disk_and_a_bucket(store: ObjectStore, tmp_path: Path) -> None:
    """In both directions, whole."""
    local = FileStore(tmp_path / "local")
    put(local, CLIP, "clips/a.mp4")
    store.take_over(LocalFolder(tmp_path / "local"), "clips/a.mp4", "clips/b.mp4")
    local.take_over(open_folder(store.address), "clips/b.mp4", "clips/c.mp4")
    assert local.sha256("clips/c.mp4") == SHA256


# -- set up -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["s3://", "s3:///job", "s4://bucket/job", "s3://bucket/../job", "s3://bucket//job"])
def test_an_address_that_is_none_is_said(address: str) -> None:
    """With what one looks like."""
    with pytest.raises(SettingsError, match=r"not the address of a folder in an object store \(s3://, gs://, az://"):
        open_folder(address)


def test_a_store_without_its_settings_is_said() -> None:
    """By the name of what is missing."""
    with pytest.raises(SettingsError, match=r"^az://container/job: .*Account must be specified$"):
        open_folder("az://container/job")


def test_a_bucket_without_credentials_is_said(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names of the variables, not by the address of the service that was asked for them last."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", bucket.wire.url)
    bucket.wire.cut_at = (b"/latest/", 0)
    with pytest.raises(StorageError, match=r": no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY$"):
        open_folder(f"{bucket.address}/job").exists()


def test_without_the_extra_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a path on this disk needs none."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "videogen.storage.objects")
    told = r"s3://bucket/job: .*pip install 'videogen-batch\[s3\]', or in a checkout: uv sync --extra s3"
    with pytest.raises(SettingsError, match=told):
        open_folder("s3://bucket/job")
    with pytest.raises(SettingsError, match=told):
        open_store("s3://bucket/job", tmp_path)
    assert open_store(str(tmp_path), tmp_path).address == str(tmp_path)
