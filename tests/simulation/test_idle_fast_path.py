"""What a service at rest does for a fact is what all managers together would do: the same runs without rest."""

from collections.abc import Callable

import pytest

from harness.cluster_service.core.messages import Action, Event, HostReported, VoterAnswered
from harness.cluster_service.idle_fast_path import IdleFastPath
from harness.cluster_service.service import ClusterService, ServiceConfiguration
from harness.simulation.faults.schedule import run_schedule
from harness.simulation.world.composition import Composition


class _NoRest(IdleFastPath):
    __slots__ = ()

    def handle(self, now: int, event: Event) -> list[Action] | None:
        del now, event
        return None

    def concerns_one(self, now: int, event: VoterAnswered | HostReported) -> bool:
        del now, event
        return False


class _Counting(IdleFastPath):
    __slots__ = ()
    heard = taken = 0

    def handle(self, now: int, event: Event) -> list[Action] | None:
        actions = super().handle(now, event)
        _Counting.heard += 1
        _Counting.taken += actions is not None
        return actions


def with_rest(rest: type[IdleFastPath]) -> Composition:
    """Services that rest in that way."""

    class Service(ClusterService):
        def _begin(self) -> None:
            super()._begin()
            self._rest.__class__ = rest

    class Parts(Composition):
        def service(self, *, configuration: ServiceConfiguration, jitter: Callable[[], float]) -> ClusterService:
            return Service(configuration=configuration, codec=self.codec, jitter=jitter)

    return Parts()


@pytest.mark.parametrize("seed", range(700, 708))
def test_a_run_is_the_same_without_rest(seed: int) -> None:
    assert run_schedule(seed).world.trace == run_schedule(seed, composition=with_rest(_NoRest)).world.trace


def test_most_of_what_a_service_hears_it_hears_at_rest() -> None:
    _Counting.heard = _Counting.taken = 0
    world = run_schedule(700, composition=with_rest(_Counting), planned=()).world
    world.run(60_000_000)

    assert _Counting.taken > _Counting.heard * 0.6
