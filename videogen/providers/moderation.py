"""Classify the error text of a failed prediction: refused content, a wrong input, or a transient failure.

Providers forward the messages of many models and of the filters around them, in several languages. Therefore these are
rules, in the order in which they apply; `tests/providers/test_moderation.py` lists texts that they must and must not
match. A refusal that is taken for a transient failure is paid for three times. A transient failure that is taken for a
refusal loses its clip. Each pattern therefore names the refused content together with the refusal: `safety` or `policy`
alone also occurs in the error of a filter that did not load.
"""

import re

from videogen.providers.base import FailureKind

_CONTENT = (
    r"(?:content|prompts?|inputs?|outputs?|images?|pictures?|videos?|audio|text|words?|material|request|media|faces?)"
)
_RULES = (
    r"(?:polic(?:y|ies)|guidelines?|terms of (?:use|service)|usage terms|community (?:standards|rules)|principles"
    r"|responsible ai practices)"
)
_BAD = r"(?:sensitive|unsafe|inappropriate|harmful|explicit|sexual|violent|violence|offensive|prohibited|objectionable)"
_REFUSED = (
    r"(?:reject\w*|block\w*|refus\w*|flag\w*|stopped|caught|declin\w*|den(?:y|ied)|prevented|intercepted|withheld"
    r"|trigger\w*|violat\w*|restrict\w*|not pass\w*)"
)
_FILTER = r"(?:safety|moderation|moderator|nsfw|risk[ -]control|content[ _-]?(?:policy|filter\w*|safety|management))"

CERTAIN = (
    r"\bE005\b",  # Replicate: flagged as sensitive
    r"\b(?:input|output)?(?:text|image|video|audio)?sensitivecontentdetected\b",  # ByteDance
    r"\b(?:data_?inspection_?failed|content_policy_violation|prohibited_content|moderation_blocked|prompt_blocked"
    r"|image_safety|content_filtered|sexual_content)\b",  # Alibaba, OpenAI, Google, Azure
    r"\bpublic_error_(?:unsafe|prominent|minor|sexual|violence|safety|audio_filtered)\w*",  # Google
)
"""Codes that mean a refusal, whatever else the text says."""

PASSING = (
    r"\bout of (?:gpu )?memory\b|\bOOM\b|\bCUDA\b|\bcuDNN\b|\bNCCL\b|\bsegmentation fault\b|\baccess violation\b",
    r"\btimed? ?-?out\b|\btimeout\b|\bdeadline exceeded\b|超时",
    r"\b(?:rate|concurrency|quota)[ -]?limit|\bquota\b|\btoo many requests\b|\bthrottl|\bretry policy\b",
    r"\b(?:temporarily|currently|service|server|system|model|endpoint|checker|filter|detector|moderation)\b.{0,40}"
    r"\b(?:unavailable|overloaded|busy|down|unreachable)\b",
    r"\b(?:failed|failure|unable|could ?n[o']t|cannot|error) (?:to |while |during )?(?:be )?"
    r"(?:load|download|initiali[sz]|import|reach|connect|contact|start|open|read|parse|decod)\w*",
    r"\bconnection (?:error|refused|reset|aborted|closed)\b|\bbroken pipe\b|\b50[0234]\b",
    r"\bno (?:such file|module named|space left)\b|\bnot found\b|\bhas no attribute\b",
    r"\bDirector: unexpected error\b|\bPrediction interrupted\b",
    r"服务(?:器)?(?:繁忙|不可用|异常|错误)|系统(?:繁忙|错误|异常)|稍[后候]再?重?试",
)
"""Failures of machines, also of those that filter content. They apply after `CERTAIN` only."""

MODERATION = (
    r"\bnsfw\b|\bnot safe for work\b|\bnudity\b|\bpornograph",
    rf"\bflagged\b.{{0,80}}\b(?:{_BAD}|{_FILTER}|{_RULES}|filters?)\b",
    rf"\b(?:{_BAD}|adult|disallowed|restricted|illegal|copyrighted)[ _-]{_CONTENT}\b",
    rf"\b(?:contain\w*|include[sd]?|detected)\b.{{0,60}}\b{_BAD}\b",
    rf"\b{_CONTENT}\b.{{0,60}}\b(?:sensitive|unsafe|inappropriate|harmful)\b",
    rf"\b(?:violat\w+|against|breach\w*|n[o']t comply with)\b.{{0,80}}\b{_RULES}\b",
    rf"\b(?:content|safety|usage|acceptable use|moderation|community)[ _-]?{_RULES}.{{0,20}}\bviolat",
    rf"\b{_REFUSED}\b.{{0,80}}\b(?:{_FILTER}|{_BAD}|celebrit\w+|likeness|copyright|responsible ai)\b",
    rf"\b{_FILTER}\b.{{0,60}}\b{_REFUSED}(?!\w)",
    r"\b(?:safety|content|moderation|policy) violations?\b",
    rf"\b(?:not|n't|failure to|failed to|fails to) pass\w*\b.{{0,40}}\b(?:{_FILTER}|audit|content)\b",
    r"\b(?:celebrity|public figure|prominent (?:person|people)|real (?:person|people)|recogni[sz]able \w+|likeness"
    r"|minors?)\b.{0,60}\b(?:not (?:allowed|permitted|supported)|prohibited|blocked|restricted|rejected|detected)\b",
    r"\b(?:prompt|input|request|image)\b.{0,30}"
    r"\b(?:was|has been|is) (?:rejected|refused|blocked|moderated|disallowed)\b"
    r"(?!.{0,60}\b(?:schedul|queue|worker|pool|cluster)\w*)",
    r"未通过|不通过|没有?通过|敏感|违规|违反|不合规|涉黄|涉政|色情|裸露|风控|禁止生成|审核(?:失败|拒绝|不过)",
    r"不適切な|センシティブ|ポリシーに違反|ガイドラインに違反|부적절한|민감한|정책을? 위반",
)
"""Refusals of the content of a prompt, an image or the video itself."""

INPUT = (
    r"\bE006\b",  # Replicate: an invalid combination of inputs
    r"\binvalid (?:combination|parameters?|inputs?|resolution|duration|aspect[ _]ratio)\b",
    r"\bparameters?\b.{0,80}\b(?:is|are) not valid\b",
    r"\b(?:is|are) (?:only|not) (?:supported|allowed|available) (?:for|with|at|in|when|by)\b|\bonly supports?\b",
    r"\bnot within the range of allowed\b|\bmust be (?:one of|between|at least|at most|divisible by|a multiple of)\b",
)
"""Inputs that the model accepts one by one, but not together: the same call fails again."""

_CERTAIN, _PASSING, _MODERATION, _INPUT = (
    re.compile("|".join(f"(?:{each})" for each in rules), re.IGNORECASE)
    for rules in (CERTAIN, PASSING, MODERATION, INPUT)
)


def classify_failure(error: str) -> FailureKind:
    """Return the kind of failure that a failed prediction's error text describes."""
    text = " ".join(_last_of_traceback(error).split())
    if _CERTAIN.search(text):
        return "moderation"
    if _PASSING.search(text):
        return "passing"
    if _MODERATION.search(text):
        return "moderation"
    return "input" if _INPUT.search(text) else "passing"


def _last_of_traceback(error: str) -> str:
    """Return the exception of a traceback. The file names above it, such as `safety_checker.py`, would mislead."""
    lines = error.strip().splitlines()
    return lines[-1] if "Traceback (most recent call last)" in error else error
