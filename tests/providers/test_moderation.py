"""What the error texts of failed predictions mean: wordings of refusals, and of failures that look like them."""

import pytest

from videogen.providers.moderation import classify_failure

REFUSED = [
    "The input or output was flagged as sensitive. Please try again with different inputs. (E005)",
    "The input or output was flagged as sensitive. Please try again with different inputs.",
    "NSFW content detected. Try running it again, or try a different prompt.",
    "All generated images contained NSFW content. Try running it again with a different prompt.",
    "Potential NSFW content was detected in one or more images. A black image will be returned instead.",
    "Request blocked due to safety violations (harmful content). Please modify your input and retry.",
    "The service could not generate videos because the input image violates the Responsible AI practices.",
    "Veo could not generate videos because the input image violates Vertex AI's usage guidelines. Codes: 15236754",
    "The prompt could not be submitted: it contains words that violate the usage guidelines.",
    "The prompt could not be submitted. This prompt contains words that violate our policies.",
    "Content policy violation: celebrity likeness",
    "Failure to pass the risk control system",
    "Your request was rejected by our moderation system (content_policy)",
    "Your request was rejected as a result of our safety system.",
    "prompt_blocked: PROHIBITED_CONTENT",
    "Blocked: finish reason IMAGE_SAFETY",
    "Content was flagged by the safety system. Try different prompts or inputs.",
    "Your input was rejected. Please try again or with a different input.",
    "Request blocked: The uploaded audio was flagged by Google safety review.",
    "Your prompt was caught by our AI moderator. Please adjust it and try again!",
    "The request failed because the input text may contain sensitive information. Request id: 0217",
    "The request failed because the output video may contain sensitive information.",
    "InputTextSensitiveContentDetected: please change the prompt",
    "OutputVideoSensitiveContentDetected.PolicyViolation",
    "InputImageSensitiveContentDetected.PrivacyInformation: the image may contain a real person",
    "DataInspectionFailed: Input data may contain inappropriate content.",
    "data_inspection_failed: Output data may contain inappropriate content.",
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
    "This generation was blocked by our content filter.",
    "Content moderation check did not pass for the reference image.",
    "Sorry, the prompt is against our terms of service.",
    "This prompt may violate our content policy. Please revise it.",
    "Generation rejected: depiction of a public figure is not allowed.",
    "Nudity detected in output frame 14",
    "Your image contains sexually explicit content and cannot be used.",
    "PUBLIC_ERROR_PROMINENT_PEOPLE_FILTER_FAILED",
    "Safety filter triggered for the generated video",
    "safety checker blocked the output: unsafe content",
    "The video could not be generated: our community guidelines prohibit violent content.",
    "The prompt contains prohibited words.",
    "输入内容未通过内容安全审核",
    "提示词包含敏感词，请修改后重试",
    "内容违规，生成失败",
    "图片审核不通过",
    "触发风控，任务失败",
    "不適切なコンテンツが検出されました",
    'Traceback (most recent call last):\n  File "/src/predict.py", line 1\nException: NSFW content detected.',
    "Prediction failed: timeout of the retry; the output was flagged as sensitive (E005)",
]
"""Wordings of Replicate, of models there, and of the services that they ask."""

PASSING = [
    "",
    "CUDA out of memory. Tried to allocate 20.25 GiB",
    "Prediction interrupted; please retry (code: PA)",
    "Director: unexpected error handling prediction (E9828)",
    "Director: unexpected error handling prediction (E8765)",
    "Director: unexpected error handling prediction (E6716)",
    "Director: unexpected error handling prediction (E1001)",
    "Service is temporarily unavailable. Please try again later. (E004)",
    "The service is currently unavailable due to high demand. (E003)",
    "E002: something went wrong",
    "Safety checker failed to load",
    "Failed to load the safety_checker weights",
    "safety checker could not be loaded: no space left on device",
    "NSFW detector could not be initialized",
    "Failed to download the NSFW filter",
    "The moderation service is temporarily unavailable",
    "Content moderation timed out; please try again",
    "Moderation endpoint answered 503",
    "policy timeout",
    "Rate limit policy exceeded",
    "The request violates the rate limit policy of this account",
    "Retry policy exhausted after 3 attempts",
    "Quota policy: too many requests",
    "Memory access violation at address 0x0",
    "Segmentation fault in the content filter",
    "RuntimeError: Inappropriate ioctl for device",
    "sharing violation: file is used by another process",
    "NCCL watchdog: flagged node 3 as unhealthy",
    "ConnectionError: connection refused by the safety service",
    "Job rejected by the scheduler",
    "The request was rejected by the worker pool: no capacity",
    "Weights only load failed: unsafe pickle",
    "Content-Length does not match",
    "Unsupported content type text/html",
    "Time-sensitive job expired",
    "KeyError: 'case_sensitive'",
    "Resource blocked: waiting for a GPU",
    "Risk of numerical overflow: loss is nan",
    "Internal error",
    "internal error, please try again later",
    "the server is busy",
    "Model is currently experiencing high load.",
    "Error while processing the prompt 'a nude statue, nsfw': CUDA error: device-side assert triggered",
    "Traceback (most recent call last):\n  File \"/src/safety_checker.py\", line 3, in check_nsfw\nKeyError: 'x'",
    "ModuleNotFoundError: No module named 'nsfw_detector'",
    "服务繁忙，请稍后重试",
    "审核服务超时",
]

WRONG_INPUT = [
    "This combination is not possible. (E006)",
    "Invalid combination of resolution and duration",
    "1080p is only supported for clips of 6 seconds",
    "end_image is not supported in standard mode",
    "resolution is not within the range of allowed options",
    "The parameters `ratio` and `duration` specified in the request are not valid.",
    "Each reference video must be between 2 and 30 seconds",
    "ValueError: height must be a multiple of 8",
    "The first frame is not supported with reference images",
    "Invalid aspect ratio",
]


@pytest.mark.parametrize("error", REFUSED)
def test_a_refusal_is_known_in_whatever_words(error: str) -> None:
    """It is not asked for again: on models that bill their time, each time costs."""
    assert classify_failure(error) == "moderation"


@pytest.mark.parametrize("error", PASSING)
def test_a_failure_that_passes_is_not_taken_for_a_refusal(error: str) -> None:
    """Also where the filter itself has failed: the clip is made by the next attempt."""
    assert classify_failure(error) == "passing"


@pytest.mark.parametrize("error", WRONG_INPUT)
def test_inputs_that_do_not_go_together_are_known(error: str) -> None:
    """The same call would fail again."""
    assert classify_failure(error) == "input"
