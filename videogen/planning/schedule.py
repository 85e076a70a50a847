"""The order in which the clips of a plan are made: a graph, because some are made from frames of others."""

import heapq
from collections.abc import Container, Sequence
from functools import cached_property
from graphlib import TopologicalSorter

from videogen.planning.requests import ClipRequest


class Schedule:
    """The graph of a plan's requests, by the ids of their scenes, with the typical times of their predictions.

    A clip that is reused takes no time.
    """

    def __init__(self, requests: Sequence[ClipRequest], reused: Container[str] = ()) -> None:
        self._requests = {request.scene.id: request for request in requests}
        self._reused = reused

    @property
    def has_edges(self) -> bool:
        """Whether any clip is made from another one."""
        return any(request.upstream_ids for request in self._requests.values())

    @cached_property
    def dependents(self) -> dict[str, list[ClipRequest]]:
        """By scene id: the requests whose clips are made from its clip."""
        found: dict[str, list[ClipRequest]] = {scene_id: [] for scene_id in self._requests}
        for request in self._requests.values():
            for scene_id in request.upstream_ids:
                found[scene_id].append(request)
        return found

    @cached_property
    def paths_s(self) -> dict[str, float]:
        """By scene id: the expected seconds from the start of its clip to the end of all clips that depend on it."""
        paths: dict[str, float] = {}
        for scene_id in reversed(self._sort_upstreams_first()):
            after = (paths[request.scene.id] for request in self.dependents[scene_id])
            paths[scene_id] = max(after, default=0.0) + self._get_expected_s(scene_id)
        return paths

    @property
    def upstreams_first(self) -> list[ClipRequest]:
        """The requests in an order in which each comes after those from whose clips it is made."""
        return [self._requests[scene_id] for scene_id in self._sort_upstreams_first()]

    @property
    def waves(self) -> tuple[tuple[str, ...], ...]:
        """The ids of the scenes whose clips need no other one, then of those that need only the first, and so on."""
        numbers: dict[str, int] = {}
        for scene_id in self._sort_upstreams_first():
            before = (numbers[each] for each in self._requests[scene_id].upstream_ids)
            numbers[scene_id] = 1 + max(before, default=-1)
        waves: list[list[str]] = [[] for _ in range(1 + max(numbers.values(), default=-1))]
        for scene_id in self._requests:
            waves[numbers[scene_id]].append(scene_id)
        return tuple(map(tuple, waves))

    @property
    def critical_path(self) -> tuple[str, ...]:
        """The ids of the scenes that must be made one after another, and take longest."""
        path: list[str] = []
        choices = [scene_id for scene_id, request in self._requests.items() if not request.upstream_ids]
        while choices:
            path.append(max(choices, key=lambda scene_id: self.paths_s[scene_id]))
            choices = [request.scene.id for request in self.dependents[path[-1]]]
        return tuple(path)

    @cached_property
    def start_order(self) -> tuple[ClipRequest, ...]:
        """The requests in the order in which they start as far as their upstreams allow it: those with the longest path
        first, then the longest clips, so that all slots end at about one time."""
        return tuple(
            sorted(
                self._requests.values(),
                key=lambda request: (
                    -self.paths_s[request.scene.id],
                    -request.typical_run_s * request.requested_duration,
                ),
            )
        )

    def compute_expected_s(self, slots: int) -> float:
        """Return the duration in seconds of a run with that many slots, if every first prediction succeeds."""
        places = {request.scene.id: place for place, request in enumerate(self.start_order)}
        missing = {scene_id: len(request.upstream_ids) for scene_id, request in self._requests.items()}
        ready = [places[scene_id] for scene_id, number in missing.items() if number == 0]
        heapq.heapify(ready)
        running: list[tuple[float, str]] = []
        now_s = 0.0
        while ready or running:
            if ready and len(running) < slots:
                scene_id = self.start_order[heapq.heappop(ready)].scene.id
                heapq.heappush(running, (now_s + self._get_expected_s(scene_id), scene_id))
                continue
            now_s, ended = heapq.heappop(running)
            for request in self.dependents[ended]:
                missing[request.scene.id] -= 1
                if missing[request.scene.id] == 0:
                    heapq.heappush(ready, places[request.scene.id])
        return now_s

    def _get_expected_s(self, scene_id: str) -> float:
        return 0.0 if scene_id in self._reused else self._requests[scene_id].typical_run_s

    def _sort_upstreams_first(self) -> list[str]:
        graph = {scene_id: request.upstream_ids for scene_id, request in self._requests.items()}
        return list(TopologicalSorter(graph).static_order())
