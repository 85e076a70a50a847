"""Compare a request with a prediction of the account's list, to find the prediction of a create whose answer was
lost."""

import base64
import binascii
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from videogen.planning.requests import ClipRequest, digest
from videogen.providers.base import Prediction

Match = Literal["yes", "no", "unclear"]
"""`unclear` means: everything that can be compared is equal, but an image is shown under a URL that we do not know."""

NameAt = Callable[[str], str | None]
"""Returns the name of the image that was sent under a URL, or None if it is unknown."""


def find_lookalikes(requests: Iterable[ClipRequest]) -> frozenset[str]:
    """Return the keys of the clips that differ from another clip only in their images."""
    alike = defaultdict[str, list[ClipRequest]](list)
    for request in (part for one in requests for each in one.alternatives for part in each.parts):
        alike[request.prediction.digest_without_images].append(request)
    differ = (same for same in alike.values() if len({digest(each.prediction.inputs) for each in same}) > 1)
    return frozenset(each.key for same in differ for each in same)


def match_inputs(
    request: ClipRequest, inputs: Mapping[str, Any], prediction: Prediction, *, name_at: NameAt = lambda _: None
) -> Match:
    """Compare a prediction with a request.

    Args:
        inputs: the request's inputs as they are sent, with a URL in place of each image's name.
        prediction: as the list shows it. Inputs that it does not show are not compared.
    """
    if request.prediction.version not in (None, prediction.version) or prediction.model not in (
        "",
        request.prediction.endpoint,
    ):
        return "no"
    found: list[Match] = []
    for name, planned in request.prediction.inputs.items():
        if name not in prediction.input:
            if planned != inputs[name]:
                found.append("unclear")
            continue
        shown, sent = prediction.input[name], inputs[name]
        found.append(
            ("yes" if shown == sent else "no") if planned == sent else _match_images(planned, sent, shown, name_at)
        )
    return _combine(found) if "yes" in found else "no"


def _match_images(planned: Any, sent: Any, shown: Any, name_at: NameAt) -> Match:
    """Compare an input that contains images."""
    if isinstance(planned, list):
        if not isinstance(shown, list) or len(shown) != len(planned):
            return "no"
        each = [_match_images(*values, name_at) for values in zip(planned, sent, shown, strict=True)]
        return _combine(each)
    if shown == sent:
        return "yes"
    if not isinstance(shown, str) or planned == sent:
        return "no"
    if known := name_at(shown):
        return "yes" if known == planned else "no"
    if shown.startswith("data:"):  # a provider may give a picture an address of its own, but not the reverse
        return "yes" if sent.startswith("data:") and _digest_data_url(shown) == _digest_data_url(sent) else "no"
    return "unclear"


def _combine(matches: list[Match]) -> Match:
    if "no" in matches:
        return "no"
    return "unclear" if "unclear" in matches else "yes"


def _digest_data_url(data_url: str) -> str:
    """Return the digest of the content of a `data:` URL. Its media type is left out, because it may be spelled
    differently."""
    _, _, content = data_url.partition(",")
    try:
        return hashlib.sha256(base64.b64decode(content, validate=True)).hexdigest()
    except binascii.Error:
        return content
