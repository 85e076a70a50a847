"""The graph of a job's scenes: which of them start or end on a frame of another one's clip."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from videogen.source_files.messages import Loc, did_you_mean

if TYPE_CHECKING:
    from videogen.job.model import Scene


def find_graph_problems(scenes: "Sequence[Scene]") -> Mapping[Loc, str]:
    """Return why the scenes are no graph that can be made, each reason by the index and the field of its scene."""
    numbers = {scene.id: number for number, scene in enumerate(scenes)}
    wrong: dict[Loc, str] = {}
    for number, scene in enumerate(scenes):
        for field, picture in (("continues", "start_image"), ("ends_on", "end_image")):
            upstream = getattr(scene, field)
            if upstream is None:
                continue
            if upstream not in numbers:
                wrong[number, field] = f"{upstream!r} is no scene of this job{did_you_mean(upstream, numbers)}"
            elif getattr(scene, picture) is not None:
                wrong[number, field] = f"and {picture} exclude each other: the clip has one frame there"
    return wrong or _find_cycles(scenes, numbers)


def _find_cycles(scenes: "Sequence[Scene]", numbers: Mapping[str, int]) -> dict[Loc, str]:
    """Return the problem of each cycle, told at the scene of it that comes first in the job."""
    wrong: dict[Loc, str] = {}
    graph = {scene.id: scene.upstream_ids for scene in scenes}
    while cycle := _find_cycle(graph):
        first = min(range(len(cycle)), key=lambda at: numbers[cycle[at]])
        chain = [*cycle[first:], *cycle[:first]]
        scene = scenes[numbers[chain[0]]]
        field = "continues" if scene.continues in cycle else "ends_on"
        told = " -> ".join([*chain, chain[0]])
        wrong[numbers[scene.id], field] = f"is part of a cycle, in which each clip waits for the one before it: {told}"
        graph[scene.id] = ()
    return wrong


def _find_cycle(graph: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the ids along a cycle, each upstream of the next one; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return list(exc.args[1][:-1])
    return []
