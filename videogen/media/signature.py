"""Sign clips with C2PA manifests (https://c2pa.org), and verify the manifests of files. Needs the extra `c2pa`."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from videogen.errors import SettingsError, StorageError, get_install_hint
from videogen.media.record import MADE_BY_AI, ClipRecord, read_provenance

_RECORD_LABEL = "videogen.record"
_VIDEO_TYPE = "video/mp4"
_UNTRUSTED = "signingCredential.untrusted"
_OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
"""Settings of the library with which it calls nobody over the network."""
_PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f6173855"
    "0000000049454e44ae426082"
)
"""A PNG of one black pixel, to try the key with."""
_ALGORITHMS = (
    (bytes.fromhex("06032b6570"), "ED25519"),
    (bytes.fromhex("06082a8648ce3d030107"), "ES256"),
    (bytes.fromhex("06052b81040022"), "ES384"),
    (bytes.fromhex("06052b81040023"), "ES512"),
    (bytes.fromhex("06092a864886f70d010101"), "PS256"),
)
"""The algorithm to sign with, by the identifier of the kind of key in DER."""


class ClipSigner:
    """Signs clips with the certificates and the private key of a user. Nobody is called over the network."""

    def __init__(self, certificates: bytes, key: bytes) -> None:
        """Take a chain of certificates and a private key in PEM, and sign a picture with them to try them.

        Raises:
            SettingsError: the package `c2pa` is missing, or the two cannot sign together.
        """
        c2pa = _import_c2pa()
        self._certificates, self._key = certificates, key
        self._algorithm = _find_algorithm(key)
        try:
            self._sign("image/png", io.BytesIO(_PICTURE), io.BytesIO(), [_make_created_action("test")])
        except c2pa.C2paError as exc:
            raise SettingsError(str(exc)) from exc

    def sign(self, path: Path, out: Path, record: ClipRecord) -> None:
        """Write the clip at `path` to `out`, with a signed manifest that has the facts of its record.

        A manifest that the model's provider has signed stays in the file, as that of the clip's parent.

        Raises:
            StorageError: the clip could not be signed. Nothing is left at `out`.
        """
        c2pa, has_parent = _import_c2pa(), read_provenance(path).has_c2pa_manifest
        facts = {"label": _RECORD_LABEL, "data": _describe(record)}
        assertions = [facts] if has_parent else [_make_created_action(record.endpoint), facts]
        try:
            with path.open("rb") as source, out.open("w+b") as target:
                self._sign(_VIDEO_TYPE, source, target, assertions, has_parent=has_parent)
        except (OSError, c2pa.C2paError) as exc:
            out.unlink(missing_ok=True)
            raise StorageError(f"{path}: cannot be signed: {exc}") from exc

    def _sign(
        self,
        media_type: str,
        source: BinaryIO,
        target: BinaryIO,
        assertions: Sequence[Mapping[str, Any]],
        *,
        has_parent: bool = False,
    ) -> None:
        c2pa = _import_c2pa()
        manifest = {"claim_generator_info": [{"name": "videogen"}], "format": media_type, "assertions": assertions}
        algorithm = getattr(c2pa.C2paSigningAlg, self._algorithm)
        info = c2pa.C2paSignerInfo(algorithm, self._certificates, self._key, None)
        with (
            c2pa.Context.from_dict(_OFFLINE) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(manifest, context) as builder,
        ):
            if has_parent:
                builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
            builder.sign(signer, media_type, source, target)


def _import_c2pa() -> Any:
    try:
        import c2pa
    except ModuleNotFoundError as exc:
        raise SettingsError(f"{exc}; to sign clips: {get_install_hint('c2pa')}") from exc
    return c2pa


def _find_algorithm(key: bytes) -> str:
    """Return the name of the algorithm for a private key in PEM. Raise `SettingsError` if there is none."""
    from cryptography.hazmat.primitives.serialization import (  # comes with c2pa
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    try:
        public = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError) as exc:
        raise SettingsError(f"no private key in PEM without a password: {exc}") from exc
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for identifier, name in _ALGORITHMS:
        if identifier in der[:40]:
            return name
    raise SettingsError("C2PA has no algorithm for this kind of key: use one for ES256 (P-256), Ed25519 or RSA")


def _make_created_action(model: str) -> dict[str, Any]:
    action = {"action": "c2pa.created", "digitalSourceType": MADE_BY_AI, "softwareAgent": {"name": model}}
    return {"label": "c2pa.actions.v2", "data": {"actions": [action]}}


def _describe(record: ClipRecord) -> dict[str, Any]:
    return {
        "model": record.model,
        "endpoint": record.endpoint,
        "prediction_ids": list(record.prediction_ids),
        "prompt_sha256": record.prompt_sha256,
        "seed": record.seed,
        "created_at": record.created_at and record.created_at.isoformat(),
    }


def _parse_facts(data: Any) -> ClipRecord | None:
    """Return the record of which these are the facts; None if they are of another form."""
    try:
        at, seed = data.get("created_at"), data.get("seed")
        return ClipRecord(
            model=str(data["model"]),
            endpoint=str(data["endpoint"]),
            prediction_ids=tuple(map(str, data["prediction_ids"])),
            prompt_sha256=str(data["prompt_sha256"]),
            seed=None if seed is None else int(seed),
            created_at=None if at is None else datetime.fromisoformat(at),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Signature:
    """The signed manifest of a file, as the reader of C2PA judges it."""

    state: Literal["trusted", "valid", "invalid"]
    """`valid` means that the file is as it was signed, by somebody who is on no list of trusted signers."""
    signed_by: str | None
    """The owner of the certificate, as the certificate names him."""
    problems: tuple[str, ...] = ()
    """Codes of the failed checks, such as `assertion.bmffHash.mismatch`."""
    record: ClipRecord | None = None
    """The record that videogen signed; None if another program made the manifest."""


def read_signature(path: Path) -> Signature | None:
    """Verify the C2PA manifest of an mp4 and return it; None if the file has none.

    Raises:
        SettingsError: the package `c2pa` is missing.
        StorageError: the file, or its manifest, cannot be read.
    """
    if not read_provenance(path).has_c2pa_manifest:
        return None
    c2pa = _import_c2pa()
    try:
        with (
            path.open("rb") as file,
            c2pa.Context.from_dict(_OFFLINE) as context,
            c2pa.Reader(_VIDEO_TYPE, file, context=context) as reader,
        ):
            state, manifest = reader.get_validation_state(), reader.get_active_manifest() or {}
            results = reader.get_validation_results() or {}
    except (OSError, c2pa.C2paError, json.JSONDecodeError) as exc:
        raise StorageError(f"{path}: its C2PA manifest cannot be read: {exc}") from exc
    signer = manifest.get("signature_info", {})
    failures = [str(each.get("code")) for each in results.get("activeManifest", {}).get("failure", [])]
    facts = (each.get("data") for each in manifest.get("assertions", []) if each.get("label") == _RECORD_LABEL)
    states: dict[object, Literal["trusted", "valid"]] = {"Trusted": "trusted", "Valid": "valid"}
    return Signature(
        state=states.get(state, "invalid"),
        signed_by=", ".join(filter(None, (signer.get("common_name"), signer.get("issuer")))) or None,
        problems=tuple(dict.fromkeys(code for code in failures if code != _UNTRUSTED)),
        record=_parse_facts(next(facts, None)),
    )
