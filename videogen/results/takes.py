"""The takes of each scene, and which of them is chosen: the one that the film uses."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from videogen.job.choices import Choices, TakeEntry, TakeLabel, add_takes, find_take_numbers
from videogen.job.model import Job
from videogen.results.clip import Clip
from videogen.results.run_result import FilmScene, RunResult
from videogen.text import list_first


def group_takes(batch: RunResult) -> list[tuple[Clip, ...]]:
    """Return the clips of each scene, in film order: its takes, by all models."""
    step = max(1, batch.cells_per_scene)
    groups: dict[str, list[Clip]] = {}
    for number, clip in enumerate(batch.clips):
        of_old_manifest = batch.clips[number - number % step].scene_id
        groups.setdefault(clip.take_of or of_old_manifest, []).append(clip)
    return sorted(map(tuple, groups.values()), key=lambda takes: min(clip.clip_index for clip in takes))


def find_unmade_scenes(batch: RunResult) -> list[FilmScene]:
    """Return the scenes of the film of which the last run has no clip, because it was to make others only."""
    made = {get_scene_id(takes) for takes in group_takes(batch)}
    return [scene for scene in batch.scenes if scene.scene_id not in made]


def get_scene_id(takes: Sequence[Clip]) -> str:
    """Return the id of the scene in the job file that these are the takes of."""
    return takes[0].take_of or takes[0].scene_id


def make_label(clip: Clip, takes: Sequence[Clip]) -> TakeLabel:
    """Return the label of one of these takes: its number, its model, or both."""
    number = clip.take or 1
    if len({take.model for take in takes if (take.take or 1) == number}) == 1:
        return number
    of_model = [take for take in takes if take.model == clip.model]
    return clip.model if len(of_model) == 1 else f"{clip.model}/{number}"


def find_take(takes: Iterable[Clip], label: TakeLabel) -> Clip | None:
    """Return the take with this label; None if there is none."""
    wanted = str(label)
    for clip in takes:
        number = str(clip.take or 1)
        if wanted in (clip.scene_id, number, clip.model, f"{clip.model}/{number}"):
            return clip
    return None


def choose_take(takes: Sequence[Clip], label: TakeLabel | None = None) -> Clip:
    """Return the take of a scene that the film uses.

    It is the one with the label if that was delivered, else the newest delivered one, of the first model that has one.
    If none was delivered, it is the first.
    """
    delivered = [clip for clip in takes if clip.status == "success"]
    if label is not None and (clip := find_take(delivered, label)):
        return clip
    return max(delivered, key=lambda clip: clip.take or 1, default=takes[0])


def apply_choices(batch: RunResult, choices: Choices) -> RunResult:
    """Return the result with `chosen`, the rating and the note of each clip."""
    groups = group_takes(batch)
    marked = {clip.scene_id: clip for takes in groups for clip in mark_takes(takes, get_scene_id(takes), choices)}
    return batch.model_copy(update={"clips": tuple(marked[clip.scene_id] for clip in batch.clips)})


def mark_takes(takes: Sequence[Clip], scene_id: str, choices: Choices) -> list[Clip]:
    """Return the takes of a scene with `chosen`, the rating and the note of each."""
    chosen = choose_take(takes, choices.get_chosen(scene_id))
    marked = []
    for clip in takes:
        entry = find_entry(clip, takes, choices.get_entries(scene_id))
        update = {"chosen": clip is chosen, "rating": entry.rating, "note": entry.note}
        marked.append(clip.model_copy(update=update))
    return marked


def find_entry(clip: Clip, takes: Sequence[Clip], entries: Mapping[str, TakeEntry]) -> TakeEntry:
    """Return the entry of one of these takes; an empty one if there is none."""
    return next((entry for label, entry in entries.items() if find_take(takes, label) is clip), TakeEntry())


def get_chosen_clips(batch: RunResult) -> list[Clip]:
    """Return the chosen clip of each scene, in film order."""
    return [next((clip for clip in takes if clip.chosen), None) or choose_take(takes) for takes in group_takes(batch)]


def sort_for_review(batch: RunResult) -> list[Clip]:
    """Return all clips scene by scene, the chosen take of each first. Where models are compared, their order stays."""
    sorted_clips: list[Clip] = []
    for takes in group_takes(batch):
        is_comparison = len({clip.model for clip in takes}) > 1 and len(takes) == batch.cells_per_scene
        sorted_clips += takes if is_comparison else sorted(takes, key=lambda clip: not clip.chosen)
    return sorted_clips


def count_side_by_side(batch: RunResult) -> int:
    """Return the number of clips in a row of a contact sheet: those of a scene, if all scenes have as many; else 1, and
    the clips follow each other."""
    is_even = all(len(takes) == batch.cells_per_scene for takes in group_takes(batch))
    return batch.cells_per_scene if is_even else 1


def find_take_warnings(asked: Job, choices: Choices, last: RunResult | None) -> Iterator[str]:
    """Yield a warning for each take that was chosen or rated, and that neither the job nor its last run has.

    A take that is rated before it was made may be a mistake in its number, and would be paid for.

    Args:
        asked: the job as its file describes it.
        last: the result of the last run; None means that there was none.
    """
    labels: dict[str, list[str]] = {}
    for scene, model in add_takes(asked, choices).variants():
        number = str(scene.take or 1)
        names = (number, scene.id, model, f"{model}/{number}")
        labels.setdefault(scene.take_of or scene.id, []).extend(names)
    made = {get_scene_id(takes): takes for takes in group_takes(last)} if last else {}
    numbers = {scene.id: set(map(str, find_take_numbers(asked, scene))) for scene in asked.scenes}
    for scene_id, each in choices.root.items():
        if scene_id not in labels:
            continue
        known, takes = labels[scene_id], made.get(scene_id, ())
        chosen = [("chosen", str(each.chosen))] if each.chosen is not None else []
        for place, label in (*chosen, *(("takes", label) for label in each.takes)):
            loc = (scene_id, place) if place == "chosen" else (scene_id, place, label)
            is_made = find_take(takes, label) is not None
            if label not in known and not is_made:
                there = list_first([name for name in dict.fromkeys(known) if name.isdigit()])
                message = f"{scene_id} has no take {label}, so this is ignored: its takes are {there}"
                yield str(choices.locate_problem(message, *loc))
            elif place == "takes" and not is_made and label not in numbers[scene_id] and not each.takes[label].is_order:
                message = "this take was rated, but never made, and would be: remove these lines if that is a mistake"
                yield str(choices.locate_problem(message, *loc))


def find_unchosen_ids(choices: Choices, last: RunResult | None) -> frozenset[str]:
    """Return the ids of the clips of the last run that are not in the film, because another take is."""
    if last is None:
        return frozenset()
    chosen = {clip.scene_id for clip in get_chosen_clips(apply_choices(last, choices))}
    return frozenset(clip.scene_id for clip in last.clips if clip.scene_id not in chosen)


def find_chosen_ids(
    job: Job, choices: Choices, last: RunResult | None, *, making: Collection[str] = ()
) -> dict[str, str]:
    """Return the takes that other scenes continue, by the ids of the clips in whose place they do.

    These are the chosen takes of scenes for which a choice was made, or a take was added. Where a job only asks for
    several takes of each scene, each take continues the one with its own number.

    Args:
        last: the result of the last run; None means that there was none.
        making: the takes that this run makes. Takes of other scenes that it makes, too, continue them.
    """
    groups: dict[str, list[str]] = {}
    for variant, _ in job.variants():
        groups.setdefault(variant.take_of or variant.id, []).append(variant.id)
    added = {scene.take_of for scene in job.scenes}
    further = {scene.id for scene in job.scenes if scene.take_of is not None}
    delivered = {clip.scene_id: clip for clip in last.clips if clip.status == "success"} if last else {}
    found: dict[str, str] = {}
    for scene_id, ids in groups.items():
        label = choices.get_chosen(scene_id)
        if asked := [id_ for id_ in ids if id_ in making and id_ in further]:
            found |= {id_: asked[-1] for id_ in ids if id_ != asked[-1]}
            continue
        takes = [delivered[id_] for id_ in ids if id_ in delivered]
        if takes and (label is not None or scene_id in added):
            chosen = choose_take(takes, label).scene_id
            found |= {id_: chosen for id_ in ids if id_ != chosen}
    return found
