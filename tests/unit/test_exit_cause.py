"""VMMS: how the end of a run is judged, and who is told what when."""

from collections.abc import Mapping

import pytest
from vm_harness import MS, SECOND, Bench, BenchVmms

from harness.errors import EngineUnanswered
from harness.model.vm import Ending, VmNotice, VmState
from harness.ports import Container, EngineEvent
from harness.simulation.twins.engine_client import SimulatedEngineClient


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def node(bench: Bench) -> BenchVmms:
    return BenchVmms(bench)


def endings(node: BenchVmms) -> list[tuple[Ending, bool]]:
    return [(notice.view.ending, notice.live) for notice in node.notices if notice.view.ending is not None]


def last(node: BenchVmms) -> VmNotice:
    return node.notices[-1]


def test_crash_is_told_at_once(bench: Bench, node: BenchVmms) -> None:
    container = node.running()
    told = len(node.notices)

    bench.engine.crash_vm(container, exit_code=137)
    took = bench.wait_until(lambda: len(node.notices) > told)

    assert took < 0.02
    assert endings(node) == [(Ending.CRASHED, True)]


def test_kill_through_the_engine_is_no_crash(bench: Bench, node: BenchVmms) -> None:
    container = node.running()

    bench.engine.kill_by_hand(container)
    bench.run(0.1)

    assert endings(node) == [(Ending.KILLED, True)]


def test_clean_stop_is_told_one_second_later(bench: Bench, node: BenchVmms) -> None:
    container = node.running()

    bench.engine.stop_by_hand(container)
    bench.run(0.9)
    assert endings(node) == []
    bench.run(0.3)

    assert endings(node) == [(Ending.STOPPED, True)]


def test_stop_of_a_vm_that_needs_the_kill_is_clean_as_well(bench: Bench, node: BenchVmms) -> None:
    container = node.running()
    bench.engine.boxes[container].obeys_term = False

    bench.engine.stop_by_hand(container)
    bench.run(3)

    assert endings(node) == [(Ending.STOPPED, True)]


def test_term_through_kill_is_never_a_stop(bench: Bench, node: BenchVmms) -> None:
    container = node.running()

    bench.engine.kill_by_hand(container, signal=15)
    bench.run(3)

    assert endings(node) == [(Ending.KILLED, True)]


def test_exit_code_zero_without_a_signal_is_a_shutdown_from_inside_one_second_later(
    bench: Bench, node: BenchVmms
) -> None:
    container = node.running()

    bench.engine.crash_vm(container, exit_code=0)
    bench.run(0.9)
    assert endings(node) == []
    bench.run(0.3)

    assert endings(node) == [(Ending.SHUT_DOWN, True)]


def test_exit_code_zero_while_the_node_is_told_to_stop_is_no_wish(bench: Bench, node: BenchVmms) -> None:
    container = node.running()

    bench.engine.crash_vm(container, exit_code=0)
    bench.run(0.3)
    bench.engine.kill_by_hand(bench.engine.node("n1").id, signal=15)
    bench.run(2)

    assert endings(node) == [(Ending.UNKNOWN, True)]


def test_restart_by_hand_is_a_new_run_and_no_end(bench: Bench, node: BenchVmms) -> None:
    container = node.running()
    first = last(node).view.run

    bench.engine.stop_by_hand(container)
    bench.run(0.2)
    bench.engine.start_by_hand(container)
    bench.run(3)

    assert last(node).view.state is VmState.RUNNING
    assert last(node).view.run != first
    assert not any(ending is Ending.STOPPED for ending, _ in endings(node))


def test_stop_is_in_doubt_when_the_engine_does_not_answer_a_second_later(bench: Bench, node: BenchVmms) -> None:
    container = node.running()

    bench.engine.stop_by_hand(container)
    bench.run(0.5)
    node.client.stall(bench.clock.now_us + 20 * SECOND)
    bench.run(30)

    assert endings(node) == [(Ending.UNKNOWN, True)]


def test_stop_is_in_doubt_when_the_node_is_told_to_stop(bench: Bench, node: BenchVmms) -> None:
    """An orderly shutdown of the engine stops every container, nodes included (safety review, finding 8)."""
    container = node.running()

    bench.engine.kill_by_hand(bench.engine.node("n1").id, signal=15)
    bench.engine.stop_by_hand(container)
    bench.run(3)

    assert endings(node) == [(Ending.UNKNOWN, True)]


def test_stop_inside_a_gap_is_unknown_and_not_live(bench: Bench, node: BenchVmms) -> None:
    container = node.running()

    node.client.lose_events(bench.clock.now_us + SECOND)
    bench.engine.stop_by_hand(container)
    bench.run(5)

    assert endings(node) == [(Ending.UNKNOWN, False)]


def test_stop_whose_die_was_seen_before_a_gap_is_unknown(bench: Bench, node: BenchVmms) -> None:
    container = node.running()
    bench.engine.stop_by_hand(container)
    bench.run(0.3)

    node.client.inject_gap()
    bench.run(3)

    assert endings(node) == [(Ending.UNKNOWN, False)]


def test_gap_without_a_change_ends_nothing(bench: Bench, node: BenchVmms) -> None:
    node.running()

    node.client.inject_gap()
    bench.run(1)

    assert last(node).view.state is VmState.RUNNING
    assert last(node).live is False
    assert endings(node) == []


def test_exit_code_zero_after_a_gap_is_no_wish(bench: Bench, node: BenchVmms) -> None:
    container = node.running()
    node.client.inject_gap()
    bench.run(0.2)

    bench.engine.crash_vm(container, exit_code=0)
    bench.run(0.2)

    assert endings(node) == [(Ending.UNKNOWN, True)]


def test_run_that_began_in_a_gap_is_found(bench: Bench, node: BenchVmms) -> None:
    node.prepare()
    node.client.lose_events(bench.clock.now_us + SECOND)

    bench.engine.start_by_hand(node.boxes()[0].id)
    bench.run(2)

    assert last(node).view.state is VmState.RUNNING
    assert last(node).view.run == node.boxes()[0].started


def test_listing_that_fails_is_repeated(bench: Bench, node: BenchVmms) -> None:
    container = node.running()
    node.client.lose_next_answer("list")
    node.client.lose_next_answer("list")

    node.client.lose_events(bench.clock.now_us + 200 * MS)
    bench.engine.crash_vm(container)
    bench.run(10)

    assert endings(node) == [(Ending.UNKNOWN, False)]


def test_listing_older_than_a_start_does_not_end_the_new_run() -> None:
    """A listing taken before a start, and read after it, is older than the start's answer."""

    class SlowListing(SimulatedEngineClient):
        async def containers(self, *, labels: Mapping[str, str]) -> list[Container]:
            found = await super().containers(labels=labels)
            await self._results.sleep(60 * MS)
            return found

    for offset_ms in range(0, 160, 10):
        bench = Bench(seed=offset_ms)
        node = BenchVmms(bench, client=SlowListing(bench.engine))
        node.prepare()
        start = bench.begin(node.vmms.start("vm", order=node.order()))
        bench.run(offset_ms / 1000)

        node.client.inject_gap()
        bench.run(1)

        assert start.error is None
        assert bench.do(node.vmms.view("vm")).state is VmState.RUNNING
        assert endings(node) == []
        assert len(node.boxes()) == 1


def test_start_by_hand_is_told_as_running(bench: Bench, node: BenchVmms) -> None:
    node.prepare()

    bench.engine.start_by_hand(node.boxes()[0].id)
    bench.run(0.3)

    assert last(node).view.state is VmState.RUNNING
    assert "vm-started-by-hand" in node.log.events()


def test_own_start_is_not_taken_for_one_by_hand(bench: Bench, node: BenchVmms) -> None:
    node.running()
    bench.run(1)

    assert "vm-started-by-hand" not in node.log.events()
    assert [notice.view.state for notice in node.notices] == [VmState.RUNNING]


def test_container_nobody_prepared_is_removed_when_it_is_started(bench: Bench, node: BenchVmms) -> None:
    node.client.lose_next_answer("create")
    with pytest.raises(EngineUnanswered):
        node.prepare()
    stray = node.boxes()[0].id

    bench.engine.start_by_hand(stray)
    bench.run(1)

    assert stray not in bench.engine.boxes


def test_removal_by_hand_ends_the_run_as_killed_and_absent(bench: Bench, node: BenchVmms) -> None:
    container = node.running()

    bench.engine.remove_by_hand(container)
    bench.run(1)

    view = bench.do(node.vmms.view("vm"))
    assert (view.state, view.ending) == (VmState.ABSENT, Ending.KILLED)
    assert node.start().state is VmState.RUNNING


def test_pause_by_hand_shows(bench: Bench, node: BenchVmms) -> None:
    container = node.running()

    bench.engine.pause(container)
    bench.run(0.1)
    assert last(node).view.state is VmState.PAUSED
    bench.engine.unpause(container)
    bench.run(0.1)

    assert last(node).view.state is VmState.RUNNING


def test_late_event_of_an_earlier_run_does_not_end_the_present_one(bench: Bench, node: BenchVmms) -> None:
    container = node.running()
    node.client.lose_events(bench.clock.now_us + 100 * MS)
    bench.engine.crash_vm(container)
    stale_ns = bench.clock.now_us * 1000
    bench.run(0.5)
    node.start()
    bench.run(0.2)

    stream = node.client._streams[0]
    stream.deliver_after(
        EngineEvent(
            at_ns=stale_ns,
            container=container,
            action="die",
            exit_code=137,
            labels=bench.engine.boxes[container].labels,
        ),
        0,
    )
    bench.run(0.2)

    assert bench.do(node.vmms.view("vm")).state is VmState.RUNNING


def test_new_subscriber_first_gets_every_vm_as_it_is(bench: Bench, node: BenchVmms) -> None:
    node.running("a")
    node.prepare("b")

    async def first_two() -> list[VmNotice]:
        stream = node.vmms.notices()
        return [await anext(stream), await anext(stream)]

    notices = bench.do(first_two())

    assert [(notice.view.name, notice.view.state, notice.live) for notice in notices] == [
        ("a", VmState.RUNNING, False),
        ("b", VmState.STOPPED, False),
    ]
