"""Write into a clip how it was made, and sign it, before it gets its name."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from videogen import media
from videogen.errors import BadOutputError, SettingsError, StorageError
from videogen.planning.requests import ClipRequest
from videogen.settings import Settings
from videogen.text import make_loggable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipMarker:
    """Writes the record of each clip into its file, and signs the file."""

    writes_record: bool = True
    signer: media.ClipSigner | None = None
    """None if clips are not signed."""

    @classmethod
    def of(cls, settings: Settings) -> "ClipMarker":
        """Return the marker that the settings ask for.

        Raises:
            SettingsError: the certificate and the key cannot sign, or the package for it is missing.
        """
        certificate, key = settings.c2pa_cert, settings.c2pa_key
        if certificate is None and key is None:
            return cls(settings.record)
        if certificate is None or key is None:
            raise SettingsError("VIDEOGEN_C2PA_CERT and VIDEOGEN_C2PA_KEY sign together: set both, or none")
        try:
            signer = media.ClipSigner(certificate.read_bytes(), key.read_bytes())
        except OSError as exc:
            raise SettingsError(f"{exc.filename}: cannot be read: {exc.strerror or exc}") from exc
        except SettingsError as exc:
            raise SettingsError(f"VIDEOGEN_C2PA_CERT, VIDEOGEN_C2PA_KEY: clips cannot be signed: {exc}") from exc
        return cls(settings.record, signer)

    def mark(
        self, path: Path, record: media.ClipRecord, measured: media.VideoInfo, stop: Event
    ) -> tuple[Path, media.VideoInfo]:
        """Write the record into a finished clip and sign it. Return the path and the properties of the marked file.

        A clip that cannot be signed is paid for all the same: it is delivered with the note `unsigned`.

        Raises:
            StorageError: the file cannot be written, or `stop` was set.
        """
        if not self.writes_record and self.signer is None:
            return path, measured
        marked = path.with_suffix(".marked.mp4")  # a download that is resumed must not go on with a changed file
        try:
            path.replace(marked)
        except OSError as exc:
            raise StorageError(f"{path}: cannot be renamed: {exc.strerror or exc}") from exc
        if self.writes_record and (reason := media.embed_record(marked, record)):
            logger.info("%s: nothing is written into the file: %s", ", ".join(record.prediction_ids), reason)
        signed = self._sign(marked, record, measured, stop)
        sha256, size_bytes = media.measure_file(signed or marked)
        measured = replace(measured, sha256=sha256, size_bytes=size_bytes)
        if signed is None and self.signer is not None:
            measured = replace(measured, notes=(*measured.notes, "unsigned"))
        return signed or marked, measured

    def _sign(self, marked: Path, record: media.ClipRecord, measured: media.VideoInfo, stop: Event) -> Path | None:
        """Return the signed copy of a clip, which replaces the clip; None if it could not be signed.

        Signing moves the pictures inside the file, so it is decoded again.
        """
        if self.signer is None:
            return None
        signed = marked.with_suffix(".signed.mp4")
        try:
            self.signer.sign(marked, signed, record)
            made = media.inspect_video(signed, stop=stop)
            if (made.frames, made.sound) != (measured.frames, measured.sound):
                raise BadOutputError(f"{made.frames} of {measured.frames} frames are left")
        except (BadOutputError, StorageError) as exc:
            signed.unlink(missing_ok=True)
            if stop.is_set():
                raise
            logger.warning("the clip of %s is not signed: %s", ", ".join(record.prediction_ids), make_loggable(exc))
            return None
        marked.unlink()
        return signed


def make_record(request: ClipRequest, prediction_ids: Sequence[str], created_at: datetime | None) -> media.ClipRecord:
    """Return the record of a clip that these predictions made, the last of them at `created_at`."""
    asked = request.prediction
    return media.ClipRecord(
        model=request.model,
        endpoint=f"{asked.endpoint}:{asked.version}" if asked.version else asked.endpoint,
        prediction_ids=tuple(prediction_ids),
        prompt_sha256=media.compute_prompt_digest(request.scene.prompt),
        seed=request.scene.seed,
        created_at=created_at and created_at.astimezone(UTC).replace(microsecond=0),
    )
