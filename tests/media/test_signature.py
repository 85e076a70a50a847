"""C2PA manifests: signed with a key of one's own, and verified by the reader of C2PA."""

import io
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.media.test_record import RECORD, box, decode
from tests.support.certificates import OWNER, PrivateKey, write_signing_pair
from videogen.errors import SettingsError, StorageError
from videogen.media import (
    MADE_BY_AI,
    ClipSigner,
    Signature,
    embed_record,
    inspect_video,
    read_provenance,
    read_signature,
)

c2pa = pytest.importorskip("c2pa", reason="pip install c2pa-python")


def read_manifests(path: Path) -> dict[str, dict[str, list[dict[str, object]]]]:
    """Return the manifests of a file, by their labels, as the reader of C2PA gives them."""
    import json

    with path.open("rb") as file, c2pa.Reader("video/mp4", file) as reader:
        manifests: dict[str, dict[str, list[dict[str, object]]]] = json.loads(reader.json())["manifests"]
        return manifests


def sign(source: Path, folder: Path) -> Path:
    """Return a signed copy of the film, by a signer of its own."""
    certificates, key = write_signing_pair(folder)
    out = folder / "signed.mp4"
    ClipSigner(certificates.read_bytes(), key.read_bytes()).sign(source, out, RECORD)
    return out


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), id="p-256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), id="p-384"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), id="p-521"),
        pytest.param(ed25519.Ed25519PrivateKey.generate(), id="ed25519"),
        pytest.param(rsa.generate_private_key(65537, 2048), id="rsa"),
    ],
)
def test_a_clip_is_signed_with_any_kind_of_key(tmp_path: Path, whole: Path, key: PrivateKey) -> None:
    """The reader of C2PA finds it as it was signed; nobody has heard of the signer."""
    certificates, private = write_signing_pair(tmp_path, key)
    out = tmp_path / "signed.mp4"
    ClipSigner(certificates.read_bytes(), private.read_bytes()).sign(whole, out, RECORD)
    assert read_signature(out) == Signature("valid", f"Editor, {OWNER}", (), RECORD)


def test_the_manifest_says_that_a_model_made_the_clip(tmp_path: Path, heard: Path) -> None:
    """Pictures, sound and the record before it stay as they are."""
    film = tmp_path / "film.mp4"
    film.write_bytes(heard.read_bytes())
    assert embed_record(film, RECORD) is None
    out = sign(film, tmp_path)
    (manifest,) = read_manifests(out).values()
    (actions,) = [each["data"] for each in manifest["assertions"] if each["label"] == "c2pa.actions.v2"]
    assert isinstance(actions, dict)
    (action,) = actions["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", MADE_BY_AI)
    assert action["softwareAgent"] == {"name": RECORD.endpoint}
    assert (read_provenance(out).record, decode(out)) == (RECORD, decode(film))
    assert inspect_video(out).frames == inspect_video(heard).frames


def test_a_change_after_signing_is_found(tmp_path: Path, whole: Path) -> None:
    """Of a picture, and by another XMP packet behind the last box: which is why none is written there."""
    out = sign(whole, tmp_path)
    data = out.read_bytes()
    for changed in (data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], data + box(b"uuid", bytes(16) + b"<x/>")):
        out.write_bytes(changed)
        found = read_signature(out)
        assert found is not None
        assert (found.state, found.problems) == ("invalid", ("assertion.bmffHash.mismatch",))


def test_the_manifest_of_the_model_stays_as_that_of_the_parent(tmp_path: Path, whole: Path) -> None:
    """Its provider's signature is verified with the file as it was, and the own one is valid."""
    (tmp_path / "provider").mkdir()
    made = sign(whole, tmp_path / "provider")
    out = sign(made, tmp_path)
    assert read_signature(out) == Signature("valid", f"Editor, {OWNER}", (), RECORD)
    provider, own = read_manifests(made), read_manifests(out)
    assert set(provider) < set(own)
    (label,) = set(own) - set(provider)
    (parent,) = own[label]["ingredients"]
    assert (parent["relationship"], parent["active_manifest"]) == ("parentOf", *provider)
    assert "bmffHash.mismatch" not in str(parent["validation_results"])


def test_a_file_without_a_manifest_has_no_signature(tmp_path: Path, whole: Path) -> None:
    assert read_signature(whole) is None
    (tmp_path / "a.mp4").write_bytes(
        whole.read_bytes() + box(b"uuid", bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + bytes(40))
    )
    with pytest.raises(StorageError, match=r"a\.mp4: its C2PA manifest cannot be read"):
        read_signature(tmp_path / "a.mp4")


def test_what_cannot_be_signed_leaves_nothing(tmp_path: Path, whole: Path) -> None:
    certificates, key = write_signing_pair(tmp_path)
    signer = ClipSigner(certificates.read_bytes(), key.read_bytes())
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(StorageError, match=r"text\.mp4: cannot be signed"):
        signer.sign(tmp_path / "text.mp4", tmp_path / "out.mp4", RECORD)
    with pytest.raises(StorageError, match=r"none\.mp4: cannot be"):
        signer.sign(tmp_path / "none.mp4", tmp_path / "out.mp4", RECORD)
    assert not (tmp_path / "out.mp4").exists()


def make_unusable_key() -> bytes:
    key = dsa.generate_private_key(1024)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("wrong", ["other-key", "no-key", "kind", "no-certificate", "swapped"])
def test_a_key_and_a_certificate_that_cannot_sign_are_refused(tmp_path: Path, wrong: str) -> None:
    """Before there is anything to sign."""
    (tmp_path / "other").mkdir()
    certificates, key = (path.read_bytes() for path in write_signing_pair(tmp_path))
    _, other = (path.read_bytes() for path in write_signing_pair(tmp_path / "other"))
    pairs = {
        "other-key": (certificates, other),
        "no-key": (certificates, b"no key"),
        "kind": (certificates, make_unusable_key()),
        "no-certificate": (b"", key),
        "swapped": (key, certificates),
    }
    with pytest.raises(SettingsError) as caught:
        ClipSigner(*pairs[wrong])
    assert key.decode().splitlines()[1] not in str(caught.value)


def test_without_the_package_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    """A clip without a manifest is read all the same."""
    signed = sign(whole, tmp_path)
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(SettingsError, match=r"pip install 'videogen-batch\[c2pa\]'"):
        ClipSigner(b"", b"")
    with pytest.raises(SettingsError, match=r"pip install 'videogen-batch\[c2pa\]'"):
        read_signature(signed)
    assert read_signature(whole) is None
    assert read_provenance(signed).has_c2pa_manifest


def test_signing_calls_nobody(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of the library are those without remote manifests and status of certificates."""
    asked: list[dict[str, object]] = []
    original = c2pa.Context.from_dict

    def remember(settings: dict[str, object], *rest: object) -> object:
        asked.append(settings)
        return original(settings, *rest)

    monkeypatch.setattr(c2pa.Context, "from_dict", remember)
    assert read_signature(sign(whole, tmp_path)) is not None
    assert asked == [{"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}] * 3


def test_the_test_picture_is_one() -> None:
    from PIL import Image

    from videogen.media.signature import _PICTURE

    assert Image.open(io.BytesIO(_PICTURE), formats=("PNG",)).size == (1, 1)
