"""`rough_cut.mp4`: the delivered clips in the order of the film, each as long as it is wanted."""

from collections import Counter
from threading import Event

from videogen.clip import Batch, Clip
from videogen.errors import StorageError
from videogen.media import join
from videogen.ports import Store

NAME = "rough_cut.mp4"


def write(batch: Batch, store: Store, *, stop: Event | None = None) -> None:
    """Writes `rough_cut.mp4`, silent, in the size of the first clip and the most common frame rate.

    A clip is cut to its target, or used whole where it is shorter; scenes without a clip are left out. Busy for about
    as long as the film lasts: call it in a thread; `stop` gives it up.

    Raises:
        BadOutputError: a clip cannot be decoded.
        StorageError: there is no clip, or no room.
    """
    clips = in_order(batch)
    if not clips:
        raise StorageError("there is no clip to cut")
    scratch = store.scratch(f"{NAME}.part")
    parts = [(store.path(str(clip.video_path)), clip.target_duration) for clip in clips]
    join(parts, scratch, size=(clips[0].width or 0, clips[0].height or 0), fps=frame_rate(clips), stop=stop)
    store.put(scratch, NAME)


def in_order(batch: Batch) -> list[Clip]:
    """The delivered clips by their place in the film."""
    return sorted((clip for clip in batch.clips if clip.status == "success"), key=lambda clip: clip.clip_index)


def frame_rate(clips: list[Clip]) -> float:
    """The rate of most clips, of the earlier one where two are as common."""
    return Counter(clip.fps or 24.0 for clip in clips).most_common(1)[0][0]
