"""The catalogue: eight models with their real inputs, prices, sizes and quirks, and the models of snapshots.

Sources, unless one stands beside the value: the models' API pages on replicate.com as copied in
https://github.com/genfeedai/genfeed (packages/types/src/replicate/schemas.json), measured deliveries in
https://github.com/receptron/mulmocast-cli (src/types/provider2agent.ts). "Estimate" marks unconfirmed values.
"""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from videogen.emulator.api_errors import make_not_found_error
from videogen.emulator.hints import make_unknown_model_hint
from videogen.emulator.models import ClipFormat, EmulatedModel, ModelError, PixelSize, scale_to_area
from videogen.emulator.schemas import Inputs, boolean, choice, image, images, integer, number, seed, text
from videogen.emulator.snapshot_models import make_models
from videogen.emulator.snapshots import find_shipped_folder, read_snapshots

HD = PixelSize(1280, 720)
FULL_HD = PixelSize(1920, 1080)
FILM = Fraction(24)

_PROMPT = text("Text prompt for video generation")
_NEGATIVE = text("Things you do not want to see in the video", default="")
_RATIOS = {"16:9": PixelSize(16, 9), "9:16": PixelSize(9, 16), "1:1": PixelSize(1, 1)}


def _get_duration_s(inputs: Inputs) -> int:
    return int(inputs["duration"])


def _match_start_image(resolution: PixelSize, start: PixelSize | None) -> PixelSize:
    """Return the size with the start image's shape and the resolution's area; the resolution if there is no image."""
    return scale_to_area(resolution, start) if start else resolution


def _get_kling_21_format(inputs: Inputs, start: PixelSize | None) -> ClipFormat:
    resolution = FULL_HD if inputs["mode"] == "pro" else HD
    return ClipFormat(_match_start_image(resolution, start), 24 * _get_duration_s(inputs), FILM)


def _find_kling_21_conflict(inputs: Inputs) -> str | None:
    if inputs.get("end_image") and inputs["mode"] != "pro":
        return "End image is only supported in pro mode"
    return None


KLING_21 = EmulatedModel(
    owner="kwaivgi",
    name="kling-v2.1",
    description="Use Kling v2.1 to generate 5s and 10s videos in 720p and 1080p resolution from a starting image",
    properties={
        "prompt": _PROMPT,
        "negative_prompt": _NEGATIVE,
        "start_image": image("First frame of the video"),
        "end_image": image("Last frame of the video (pro mode is required when this parameter is set)", nullable=True),
        "mode": choice(
            ("standard", "pro"), "standard", "Standard has a resolution of 720p, pro is 1080p. Both are 24fps."
        ),
        "duration": choice((5, 10), 5, "Duration of the video in seconds"),
    },
    required=("prompt", "start_image"),
    get_format=_get_kling_21_format,
    find_conflict=_find_kling_21_conflict,
    start_images=("start_image",),
    end_images=("end_image",),
    price=lambda inputs: (
        _get_duration_s(inputs) * Decimal("0.09" if inputs["mode"] == "pro" else "0.05")
    ),  # pro: estimate
    run_s=(120.0, 300.0),  # estimate
)


def _get_kling_25_format(inputs: Inputs, start: PixelSize | None) -> ClipFormat:
    ratio = start or _RATIOS[inputs["aspect_ratio"]]
    return ClipFormat(scale_to_area(FULL_HD, ratio), 24 * _get_duration_s(inputs), FILM)


KLING_25 = EmulatedModel(
    owner="kwaivgi",
    name="kling-v2.5-turbo-pro",
    description="Pro-level text-to-video and image-to-video creation with smooth motion and cinematic depth",
    properties={
        "prompt": _PROMPT,
        "negative_prompt": _NEGATIVE,
        "start_image": image("First frame of the video"),
        "end_image": image("Last frame of the video"),
        "aspect_ratio": choice(("16:9", "9:16", "1:1"), "16:9", "Ignored if start_image is provided."),
        "duration": choice((5, 10), 5, "Duration of the video in seconds"),
        "image": image("Deprecated: Use start_image instead.", nullable=True, deprecated=True),
    },
    required=("prompt",),
    get_format=_get_kling_25_format,
    start_images=("start_image", "image"),
    end_images=("end_image",),
    price=lambda inputs: _get_duration_s(inputs) * Decimal("0.07"),
    run_s=(90.0, 240.0),  # estimate
)


def _get_hailuo_format(inputs: Inputs, start: PixelSize | None) -> ClipFormat:
    resolution = FULL_HD if inputs["resolution"] == "1080p" else PixelSize(1366, 768)
    frames = 24 * _get_duration_s(inputs) - 3  # 6 s: 141 frames, 5.875 s as measured; 10 s by analogy
    return ClipFormat(_match_start_image(resolution, start), frames, FILM)


def _find_hailuo_conflict(inputs: Inputs) -> str | None:
    if inputs["resolution"] == "1080p" and _get_duration_s(inputs) == 10:
        return "1080p resolution only supports a duration of 6 seconds"
    return None


def _compute_hailuo_price(inputs: Inputs) -> Decimal:
    if inputs["resolution"] == "1080p":
        return Decimal("0.49")  # estimate
    return Decimal("0.28") if _get_duration_s(inputs) == 6 else Decimal("0.56")


HAILUO_23 = EmulatedModel(
    owner="minimax",
    name="hailuo-2.3",
    description="A high-fidelity video generation model with realistic human motion and cinematic effects",
    properties={
        "prompt": _PROMPT,
        "first_frame_image": image("First frame; the output video will have its aspect ratio.", nullable=True),
        "duration": choice((6, 10), 6, "Duration of the video in seconds. 10 seconds is only available for 768p."),
        "resolution": choice(("768p", "1080p"), "768p", "1080p supports only 6-second duration."),
        "prompt_optimizer": boolean(True, "Use prompt optimizer"),
    },
    required=("prompt",),
    get_format=_get_hailuo_format,
    find_conflict=_find_hailuo_conflict,
    start_images=("first_frame_image",),
    price=_compute_hailuo_price,
    run_s=(150.0, 320.0),  # as video-01 of the same maker: 188 to 319 s
)

_WAN_SIZES = {"480p": PixelSize(832, 480), "720p": HD, "1080p": FULL_HD}
_WAN_USD_PER_S = {"480p": "0.05", "720p": "0.10", "1080p": "0.15"}  # estimates

WAN_25 = EmulatedModel(
    owner="wan-video",
    name="wan-2.5-i2v",
    description="Alibaba Wan 2.5 image to video generation with background audio",
    properties={
        "image": image("Input image for video generation"),
        "prompt": _PROMPT,
        "negative_prompt": _NEGATIVE,
        "audio": image("Audio file (wav/mp3, 3-30s, ≤15MB) for voice/music synchronization", nullable=True),
        "resolution": choice(("480p", "720p", "1080p"), "720p", "Video resolution"),
        "duration": choice((5, 10), 5, "Duration of the generated video in seconds"),
        "enable_prompt_expansion": boolean(True, "If set to true, the prompt optimizer will be enabled"),
        "seed": seed(),
    },
    required=("image", "prompt"),
    get_format=lambda inputs, start: ClipFormat(
        _match_start_image(_WAN_SIZES[inputs["resolution"]], start), 24 * _get_duration_s(inputs), FILM
    ),
    start_images=("image",),
    other_files=("audio",),
    price=lambda inputs: _get_duration_s(inputs) * Decimal(_WAN_USD_PER_S[inputs["resolution"]]),
    run_s=(60.0, 200.0),  # estimate
)


def _get_veo_format(inputs: Inputs, _start: PixelSize | None) -> ClipFormat:
    resolution = FULL_HD if inputs["resolution"] == "1080p" else HD
    size = resolution if inputs["aspect_ratio"] == "16:9" else PixelSize(resolution.height_px, resolution.width_px)
    return ClipFormat(size, 24 * _get_duration_s(inputs), FILM, audio=inputs["generate_audio"])


def _find_veo_conflict(inputs: Inputs) -> str | None:
    if inputs["reference_images"] and (inputs["aspect_ratio"], _get_duration_s(inputs)) != ("16:9", 8):
        return "Reference images are only supported with 16:9 aspect ratio and 8-second duration"
    return None


VEO_31 = EmulatedModel(
    owner="google",
    name="veo-3.1",
    description="Higher-fidelity video, context-aware audio, reference image and last frame support",
    properties={
        "prompt": _PROMPT,
        "aspect_ratio": choice(("16:9", "9:16"), "16:9", "Video aspect ratio"),
        "duration": choice((4, 6, 8), 8, "Video duration in seconds"),
        "image": image("Input image to start generating from. Ideal images are 16:9 or 9:16.", nullable=True),
        "last_frame": image("Ending image for interpolation with the input image.", nullable=True),
        "reference_images": images(
            "1 to 3 reference images, only with 16:9 aspect ratio and 8-second duration; last frame is ignored then.",
            most=3,
        ),
        "negative_prompt": text("Description of what to exclude from the generated video", nullable=True),
        "resolution": choice(("720p", "1080p"), "1080p", "Resolution of the generated video"),
        "generate_audio": boolean(True, "Generate audio with the video"),
        "seed": seed(),
    },
    required=("prompt",),
    get_format=_get_veo_format,
    find_conflict=_find_veo_conflict,
    start_images=("image", "reference_images"),
    end_images=("last_frame",),
    price=lambda inputs: _get_duration_s(inputs) * Decimal("0.40" if inputs["generate_audio"] else "0.20"),
    run_s=(60.0, 180.0),  # estimate
)

# Source: https://runware.ai/docs/models/bytedance-seedance-1-0-pro for 480p and 1080p; 720p is an estimate.
_SEEDANCE_SIZES: Mapping[str, Mapping[str, PixelSize]] = {
    "480p": {
        "16:9": PixelSize(864, 480),
        "4:3": PixelSize(736, 544),
        "1:1": PixelSize(640, 640),
        "3:4": PixelSize(544, 736),
        "9:16": PixelSize(480, 864),
        "21:9": PixelSize(960, 416),
        "9:21": PixelSize(416, 960),
    },
    "720p": {
        "16:9": PixelSize(1248, 704),
        "4:3": PixelSize(1120, 832),
        "1:1": PixelSize(960, 960),
        "3:4": PixelSize(832, 1120),
        "9:16": PixelSize(704, 1248),
        "21:9": PixelSize(1504, 640),
        "9:21": PixelSize(640, 1504),
    },
    "1080p": {
        "16:9": PixelSize(1920, 1088),
        "4:3": PixelSize(1664, 1248),
        "1:1": PixelSize(1440, 1440),
        "3:4": PixelSize(1248, 1664),
        "9:16": PixelSize(1088, 1920),
        "21:9": PixelSize(2176, 928),
        "9:21": PixelSize(928, 2176),
    },
}
_SEEDANCE_USD_PER_S = {"480p": "0.03", "720p": "0.06", "1080p": "0.15"}  # below 1080p: estimates


def _get_seedance_format(inputs: Inputs, start: PixelSize | None) -> ClipFormat:
    sizes = _SEEDANCE_SIZES[inputs["resolution"]]
    size = _find_nearest_ratio(start, list(sizes.values())) if start else sizes[inputs["aspect_ratio"]]
    return ClipFormat(size, 24 * _get_duration_s(inputs) + 1, FILM)  # one extra frame: 6.042 s for 6 s


def _find_nearest_ratio(start: PixelSize, sizes: list[PixelSize]) -> PixelSize:
    wanted = start.width_px / start.height_px
    return min(sizes, key=lambda size: abs(size.width_px / size.height_px - wanted))


SEEDANCE_1 = EmulatedModel(
    owner="bytedance",
    name="seedance-1-pro",
    description="Text-to-video and image-to-video for 2 to 12 second videos at 480p, 720p and 1080p",
    properties={
        "prompt": _PROMPT,
        "image": image("Input image for image-to-video generation", nullable=True),
        "last_frame_image": image("Input image for last frame generation", nullable=True),
        "duration": integer("Video duration in seconds", minimum=2, maximum=12, default=5),
        "resolution": choice(("480p", "720p", "1080p"), "1080p", "Video resolution"),
        "aspect_ratio": choice(
            ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "9:21"), "16:9", "Ignored if an image is used."
        ),
        "fps": choice((24,), 24, "Frame rate (frames per second)"),
        "camera_fixed": boolean(False, "Whether to fix camera position"),
        "seed": seed(),
    },
    required=("prompt",),
    get_format=_get_seedance_format,
    start_images=("image",),
    end_images=("last_frame_image",),
    price=lambda inputs: _get_duration_s(inputs) * Decimal(_SEEDANCE_USD_PER_S[inputs["resolution"]]),
    run_s=(40.0, 120.0),  # estimate
)


def _get_svd_format(inputs: Inputs, start: PixelSize | None) -> ClipFormat:
    frames = 14 if inputs["video_length"] == "14_frames_with_svd" else 25
    size = _compute_svd_size(inputs["sizing_strategy"], start or PixelSize(1024, 576))
    return ClipFormat(size, frames, Fraction(inputs["frames_per_second"]))


def _compute_svd_size(strategy: str, start: PixelSize) -> PixelSize:
    """Return the size that a sizing strategy makes of a start image.

    Source: https://github.com/replicate/cog-svd/blob/main/sizing_strategy.py; the memory limit is an estimate.
    """
    if strategy == "crop_to_16_9":
        return PixelSize(1024, 576)
    scale = min(1.0, 1024 / start.width_px, 576 / start.height_px) if strategy == "maintain_aspect_ratio" else 1.0
    width, height = (int(round(length * scale, 6)) // 64 * 64 for length in start)
    if not width or not height:
        raise ModelError("height and width must be > 0")
    if width * height > 2_100_000:
        raise ModelError("CUDA out of memory. Tried to allocate 20.25 GiB")
    return PixelSize(width, height)


SVD = EmulatedModel(
    owner="stability-ai",
    name="stable-video-diffusion",
    description="SVD is a research-only image to video model",
    version="3f0457e4619daac51203dedb472816fd4af51f3149fa7a9e0b5ffcf1b8172438",
    properties={
        "input_image": image("Input image"),
        "video_length": choice(
            ("14_frames_with_svd", "25_frames_with_svd_xt"),
            "14_frames_with_svd",
            "Use svd to generate 14 frames or svd_xt for 25 frames",
        ),
        "sizing_strategy": choice(
            ("maintain_aspect_ratio", "crop_to_16_9", "use_image_dimensions"),
            "maintain_aspect_ratio",
            "Decide how to resize the input image",
        ),
        "frames_per_second": integer("Frames per second", minimum=5, maximum=30, default=6),
        "motion_bucket_id": integer("Increase overall motion", minimum=1, maximum=255, default=127),
        "cond_aug": number("Amount of noise to add to input image", default=0.02),
        "decoding_t": integer("Number of frames to decode at a time", default=14),
        "seed": integer("Random seed. Leave blank to randomize the seed"),
    },
    required=("input_image",),
    get_format=_get_svd_format,
    start_images=("input_image",),
    gpu_usd_per_s=Decimal("0.0014"),  # one A100 80 GB; source: https://replicate.com/pricing
    run_s=(28.0, 36.0),
    cold_s=150.0,
)

COGVIDEOX = EmulatedModel(
    owner="cuuupid",
    name="cogvideox-5b",
    description="Generate high quality videos from a prompt",
    version="5b14e2c2c648efecc8d36c6353576552f8a124e690587212f8e8bb17ecda3d8c",
    properties={
        "prompt": text("Prompt for the input"),
        "extend_prompt": boolean(True, "If enabled, will use GLM-4 to make the prompt long (recommended)."),
        "steps": integer("Number of inference steps", minimum=1, maximum=120, default=50),
        "guidance": number("The scale for classifier-free guidance", minimum=0, maximum=12, default=6),
        "num_outputs": integer("# of output videos", minimum=1, default=1),
        "seed": integer("Seed for reproducibility.", default=42),
    },
    required=("prompt",),
    get_format=lambda _inputs, _start: ClipFormat(PixelSize(720, 480), 49, Fraction(8)),
    gpu_usd_per_s=Decimal("0.0014"),  # estimate: one A100 80 GB
    run_s=(232.0, 415.0),
    cold_s=120.0,  # estimate
)

MODELS: dict[str, EmulatedModel] = {
    model.full_name: model for model in (KLING_21, KLING_25, HAILUO_23, WAN_25, VEO_31, SEEDANCE_1, SVD, COGVIDEOX)
}


class Catalogue:
    """The models of one server: the eight of `MODELS`, and those that are made from snapshots."""

    def __init__(self, schemas: Path | None = None) -> None:
        """Add the models of the shipped snapshots, and of those in the folder `schemas`, which come first.

        Raises:
            SnapshotError: a folder or a snapshot in it cannot be read.
        """
        self._added: dict[str, list[EmulatedModel]] = {}
        shipped = find_shipped_folder()
        folders = [shipped] if shipped.is_dir() else []
        for folder in [*folders, schemas] if schemas else folders:
            self._added |= _read_models(folder, _list_states(folder))

    def list_models(self) -> list[EmulatedModel]:
        """Return the latest version of each model, by name."""
        return sorted((versions[0] for versions in self._get_all().values()), key=lambda model: model.full_name)

    def find_model(self, name: str) -> EmulatedModel:
        """Return the latest version of the model of that name.

        Raises:
            ApiError: 404, there is no such model; the error names the closest one and says how to add it.
        """
        return self.list_versions(name)[0]

    def list_versions(self, name: str) -> list[EmulatedModel]:
        """Return the versions of the model of that name, the latest first.

        Raises:
            ApiError: 404, there is no such model.
        """
        known = self._get_all()
        if name not in known:
            raise make_not_found_error(make_unknown_model_hint(name, known))
        return known[name]

    def find_official_model(self, name: str) -> EmulatedModel | None:
        """Return the official model of that name, or None if there is none."""
        versions = self._get_all().get(name)
        return versions[0] if versions and versions[0].official else None

    def find_model_by_version(self, version: str) -> EmulatedModel | None:
        """Return the community or official model with this version (64 hex digits), or None if there is none."""
        versions = (model for models in self._get_all().values() for model in models)
        return next((model for model in versions if model.version_id == version), None)

    def _get_all(self) -> dict[str, list[EmulatedModel]]:
        return self._added | {name: [model] for name, model in MODELS.items()}


@lru_cache(maxsize=8)
def _read_models(folder: Path, _states: tuple[tuple[Path, int, int], ...]) -> Mapping[str, list[EmulatedModel]]:
    """Return the versions of each model in a folder of snapshots, once for the same states of its files."""
    found = {snapshot.name: list(make_models(snapshot)) for snapshot in read_snapshots(folder)}
    return {name: models for name, models in found.items() if models}


def _list_states(folder: Path) -> tuple[tuple[Path, int, int], ...]:
    """Return path, time of the last change and size of each file."""
    stats = ((path, path.stat()) for path in sorted(folder.glob("*/*.json")))
    return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats)


def make_model_body(model: EmulatedModel, web: str) -> dict[str, Any]:
    """Return the body of GET /v1/models/{owner}/{name}; `web` is the address to use for replicate.com."""
    return {
        "url": f"{web}/{model.full_name}",
        "owner": model.owner,
        "name": model.name,
        "description": model.description,
        "visibility": "public",
        "is_official": model.official,
        "github_url": None,
        "paper_url": None,
        "license_url": None,
        "run_count": 100_000,
        "cover_image_url": None,
        "default_example": None,
        "latest_version": make_version_body(model),
    }


def make_version_body(model: EmulatedModel) -> dict[str, Any]:
    """Return the body of GET /v1/models/{owner}/{name}/versions/{id}."""
    return {
        "id": model.version_id,
        "created_at": "2025-10-15T12:00:00.000000Z",
        "cog_version": "0.16.8",
        "openapi_schema": model.make_openapi_schema(),
    }
