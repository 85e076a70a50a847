"""The eight models: true inputs, prices, sizes and the quirks of what they deliver.

Sources, unless one stands beside the value: the models' API pages on replicate.com as copied in
https://github.com/genfeedai/genfeed (packages/types/src/replicate/schemas.json), measured deliveries in
https://github.com/receptron/mulmocast-cli (src/types/provider2agent.ts). "Estimate" marks what no source confirms.
"""

import functools
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from videogen.emulator.hints import describe_unknown_model
from videogen.emulator.models import Model, ModelError, Shape, Size, same_area
from videogen.emulator.problems import not_found
from videogen.emulator.schemas import Inputs, boolean, choice, image, images, integer, number, seed, text

HD = Size(1280, 720)
FULL_HD = Size(1920, 1080)
FILM = Fraction(24)

_PROMPT = text("Text prompt for video generation")
_NEGATIVE = text("Things you do not want to see in the video", default="")
_RATIOS = {"16:9": Size(16, 9), "9:16": Size(9, 16), "1:1": Size(1, 1)}


def _seconds(inputs: Inputs) -> int:
    return int(inputs["duration"])


def _follow(resolution: Size, start: Size | None) -> Size:
    """The resolution's pixel count in the shape of the start image; the resolution itself without one."""
    return same_area(resolution, start) if start else resolution


def _kling_21_shape(inputs: Inputs, start: Size | None) -> Shape:
    resolution = FULL_HD if inputs["mode"] == "pro" else HD
    return Shape(_follow(resolution, start), 24 * _seconds(inputs), FILM)


def _kling_21_refusal(inputs: Inputs) -> str | None:
    if inputs.get("end_image") and inputs["mode"] != "pro":
        return "End image is only supported in pro mode"
    return None


KLING_21 = Model(
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
    shape=_kling_21_shape,
    refusal=_kling_21_refusal,
    start_images=("start_image",),
    price=lambda inputs: _seconds(inputs) * Decimal("0.09" if inputs["mode"] == "pro" else "0.05"),  # pro: estimate
    run_s=(120.0, 300.0),  # estimate
)


def _kling_25_shape(inputs: Inputs, start: Size | None) -> Shape:
    ratio = start or _RATIOS[inputs["aspect_ratio"]]
    return Shape(same_area(FULL_HD, ratio), 24 * _seconds(inputs), FILM)


KLING_25 = Model(
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
    shape=_kling_25_shape,
    start_images=("start_image", "image"),
    price=lambda inputs: _seconds(inputs) * Decimal("0.07"),
    run_s=(90.0, 240.0),  # estimate
)


def _hailuo_shape(inputs: Inputs, start: Size | None) -> Shape:
    resolution = FULL_HD if inputs["resolution"] == "1080p" else Size(1366, 768)
    frames = 24 * _seconds(inputs) - 3  # 6 s: 141 frames, 5.875 s as measured; 10 s by analogy
    return Shape(_follow(resolution, start), frames, FILM)


def _hailuo_refusal(inputs: Inputs) -> str | None:
    if inputs["resolution"] == "1080p" and _seconds(inputs) == 10:
        return "1080p resolution only supports a duration of 6 seconds"
    return None


def _hailuo_price(inputs: Inputs) -> Decimal:
    if inputs["resolution"] == "1080p":
        return Decimal("0.49")  # estimate
    return Decimal("0.28") if _seconds(inputs) == 6 else Decimal("0.56")


HAILUO_23 = Model(
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
    shape=_hailuo_shape,
    refusal=_hailuo_refusal,
    start_images=("first_frame_image",),
    price=_hailuo_price,
    run_s=(150.0, 320.0),  # as video-01 of the same maker: 188 to 319 s
)

_WAN_SIZES = {"480p": Size(832, 480), "720p": HD, "1080p": FULL_HD}
_WAN_USD_PER_S = {"480p": "0.05", "720p": "0.10", "1080p": "0.15"}  # estimates

WAN_25 = Model(
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
    shape=lambda inputs, start: Shape(_follow(_WAN_SIZES[inputs["resolution"]], start), 24 * _seconds(inputs), FILM),
    start_images=("image",),
    other_files=("audio",),
    price=lambda inputs: _seconds(inputs) * Decimal(_WAN_USD_PER_S[inputs["resolution"]]),
    run_s=(60.0, 200.0),  # estimate
)


def _veo_shape(inputs: Inputs, _start: Size | None) -> Shape:
    resolution = FULL_HD if inputs["resolution"] == "1080p" else HD
    size = resolution if inputs["aspect_ratio"] == "16:9" else Size(resolution.height_px, resolution.width_px)
    return Shape(size, 24 * _seconds(inputs), FILM, audio=inputs["generate_audio"])


def _veo_refusal(inputs: Inputs) -> str | None:
    if inputs["reference_images"] and (inputs["aspect_ratio"], _seconds(inputs)) != ("16:9", 8):
        return "Reference images are only supported with 16:9 aspect ratio and 8-second duration"
    return None


VEO_31 = Model(
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
    shape=_veo_shape,
    refusal=_veo_refusal,
    start_images=("image", "reference_images"),
    price=lambda inputs: _seconds(inputs) * Decimal("0.40" if inputs["generate_audio"] else "0.20"),
    run_s=(60.0, 180.0),  # estimate
)

# Source: https://runware.ai/docs/models/bytedance-seedance-1-0-pro for 480p and 1080p; 720p is an estimate.
_SEEDANCE_SIZES: Mapping[str, Mapping[str, Size]] = {
    "480p": {
        "16:9": Size(864, 480),
        "4:3": Size(736, 544),
        "1:1": Size(640, 640),
        "3:4": Size(544, 736),
        "9:16": Size(480, 864),
        "21:9": Size(960, 416),
        "9:21": Size(416, 960),
    },
    "720p": {
        "16:9": Size(1248, 704),
        "4:3": Size(1120, 832),
        "1:1": Size(960, 960),
        "3:4": Size(832, 1120),
        "9:16": Size(704, 1248),
        "21:9": Size(1504, 640),
        "9:21": Size(640, 1504),
    },
    "1080p": {
        "16:9": Size(1920, 1088),
        "4:3": Size(1664, 1248),
        "1:1": Size(1440, 1440),
        "3:4": Size(1248, 1664),
        "9:16": Size(1088, 1920),
        "21:9": Size(2176, 928),
        "9:21": Size(928, 2176),
    },
}
_SEEDANCE_USD_PER_S = {"480p": "0.03", "720p": "0.06", "1080p": "0.15"}  # below 1080p: estimates


def _seedance_shape(inputs: Inputs, start: Size | None) -> Shape:
    sizes = _SEEDANCE_SIZES[inputs["resolution"]]
    size = _nearest_ratio(start, list(sizes.values())) if start else sizes[inputs["aspect_ratio"]]
    return Shape(size, 24 * _seconds(inputs) + 1, FILM)  # one frame more: 6.042 s for 6 s


def _nearest_ratio(start: Size, sizes: list[Size]) -> Size:
    wanted = start.width_px / start.height_px
    return min(sizes, key=lambda size: abs(size.width_px / size.height_px - wanted))


SEEDANCE_1 = Model(
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
    shape=_seedance_shape,
    start_images=("image",),
    price=lambda inputs: _seconds(inputs) * Decimal(_SEEDANCE_USD_PER_S[inputs["resolution"]]),
    run_s=(40.0, 120.0),  # estimate
)


def _svd_shape(inputs: Inputs, start: Size | None) -> Shape:
    frames = 14 if inputs["video_length"] == "14_frames_with_svd" else 25
    size = _svd_size(inputs["sizing_strategy"], start or Size(1024, 576))
    return Shape(size, frames, Fraction(inputs["frames_per_second"]))


def _svd_size(strategy: str, start: Size) -> Size:
    """Source: https://github.com/replicate/cog-svd/blob/main/sizing_strategy.py; the memory limit is an estimate."""
    if strategy == "crop_to_16_9":
        return Size(1024, 576)
    scale = min(1.0, 1024 / start.width_px, 576 / start.height_px) if strategy == "maintain_aspect_ratio" else 1.0
    width, height = (int(round(length * scale, 6)) // 64 * 64 for length in start)
    if not width or not height:
        raise ModelError("height and width must be > 0")
    if width * height > 2_100_000:
        raise ModelError("CUDA out of memory. Tried to allocate 20.25 GiB")
    return Size(width, height)


SVD = Model(
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
    shape=_svd_shape,
    start_images=("input_image",),
    gpu_usd_per_s=Decimal("0.0014"),  # one A100 80 GB; source: https://replicate.com/pricing
    run_s=(28.0, 36.0),
    cold_s=150.0,
)

COGVIDEOX = Model(
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
    shape=lambda _inputs, _start: Shape(Size(720, 480), 49, Fraction(8)),
    gpu_usd_per_s=Decimal("0.0014"),  # estimate: one A100 80 GB
    run_s=(232.0, 415.0),
    cold_s=120.0,  # estimate
)

MODELS: Mapping[str, Model] = {
    model.full_name: model for model in (KLING_21, KLING_25, HAILUO_23, WAN_25, VEO_31, SEEDANCE_1, SVD, COGVIDEOX)
}


def by_version(version: str) -> Model | None:
    """Return the model whose version this is, community or official, by its 64 hex digits."""
    return _versions().get(version)


@functools.cache
def _versions() -> Mapping[str, Model]:
    return {model.version_id: model for model in MODELS.values()}


def find_model(name: str) -> Model:
    """Return the model of that name.

    Raises:
        ApiError: 404; it says which models there are.
    """
    model = MODELS.get(name)
    if model is None:
        raise not_found(describe_unknown_model(name, MODELS))
    return model


def describe(model: Model, web: str) -> dict[str, Any]:
    """The body of GET /v1/models/{owner}/{name}; `web` is the address that stands for replicate.com."""
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
        "latest_version": describe_version(model),
    }


def describe_version(model: Model) -> dict[str, Any]:
    """The body of GET /v1/models/{owner}/{name}/versions/{id}."""
    return {
        "id": model.version_id,
        "created_at": "2025-10-15T12:00:00.000000Z",
        "cog_version": "0.16.8",
        "openapi_schema": model.openapi_schema(),
    }
