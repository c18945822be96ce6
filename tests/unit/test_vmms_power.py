"""VMMS: fencing, power, and what earlier sessions left. Two nodes; n2 fences n1."""

import pytest
from vm_harness import FAR, RIG, SECOND, Bench, BenchVmms

from harness.errors import EngineError
from harness.model import labels as label
from harness.model.vm import VmState
from harness.simulation.twins.container import SimulatedContainer


@pytest.fixture
def bench() -> Bench:
    return Bench(nodes=("n1", "n2"))


@pytest.fixture
def victim(bench: Bench) -> BenchVmms:
    node = BenchVmms(bench, "n1")
    node.running()
    return node


@pytest.fixture
def survivor(bench: Bench) -> BenchVmms:
    return BenchVmms(bench, "n2")


def of_session(bench: Bench, session: object) -> list[SimulatedContainer]:
    return [box for box in bench.engine.boxes.values() if box.labels.get(label.SESSION) == str(session)]


def fence(bench: Bench, survivor: BenchVmms, victim: BenchVmms, *, not_after_us: int = FAR) -> None:
    bench.do(survivor.vmms.fence(victim.session, not_after_us=not_after_us))


def test_fence_leaves_node_off_and_no_container_of_the_session(
    bench: Bench, victim: BenchVmms, survivor: BenchVmms
) -> None:
    bench.engine.hold(RIG, "n1")
    began = bench.clock.now_us

    fence(bench, survivor, victim)

    assert not bench.engine.node("n1").alive
    assert of_session(bench, victim.session) == []
    assert bench.clock.now_us - began < SECOND // 2
    bench.run(60)
    assert not bench.engine.node("n1").alive


def test_fenced_node_is_switched_on_again_whatever_became_of_the_caller(
    bench: Bench, victim: BenchVmms, survivor: BenchVmms
) -> None:
    fence(bench, survivor, victim)
    bench.run(2)

    assert bench.engine.node("n1").alive
    assert of_session(bench, victim.session) == []


def test_fence_is_not_held_up_by_a_frozen_guest_and_node(bench: Bench, victim: BenchVmms, survivor: BenchVmms) -> None:
    bench.engine.pause(victim.boxes()[0].id)
    bench.engine.pause(bench.engine.node("n1").id)
    began = bench.clock.now_us

    fence(bench, survivor, victim)

    assert not bench.engine.node("n1").alive
    assert bench.clock.now_us - began < SECOND


def test_fence_kills_a_newer_life_with_a_frozen_guest_of_its_own(
    bench: Bench, victim: BenchVmms, survivor: BenchVmms
) -> None:
    bench.engine.end_node("n1", 87)
    bench.run(3)
    newer = BenchVmms(bench, "n1")
    newer.running("other")
    bench.engine.pause(newer.boxes("other")[0].id)

    fence(bench, survivor, victim)

    assert not bench.engine.node("n1").alive


def test_fence_ends_a_node_that_waits_for_its_restart_policy(
    bench: Bench, victim: BenchVmms, survivor: BenchVmms
) -> None:
    bench.engine.end_node("n1", 87)
    bench.wait_until(lambda: bench.engine.node("n1").restarting)
    bench.engine.hold(RIG, "n1")

    fence(bench, survivor, victim)
    bench.run(30)

    assert not bench.engine.node("n1").alive
    assert of_session(bench, victim.session) == []


def test_fence_that_comes_too_late_kills_nothing(bench: Bench, victim: BenchVmms, survivor: BenchVmms) -> None:
    with pytest.raises(EngineError, match="too late"):
        fence(bench, survivor, victim, not_after_us=bench.clock.now_us - 1)

    bench.run(5)
    assert bench.engine.node("n1").alive
    assert victim.boxes()[0].alive


@pytest.mark.parametrize("lost", ["list", "kill", "remove"])
def test_fence_without_sight_of_the_end_raises(bench: Bench, victim: BenchVmms, survivor: BenchVmms, lost: str) -> None:
    survivor.client.lose_next_request(lost)

    with pytest.raises(EngineError):
        fence(bench, survivor, victim)


def test_fence_through_a_stalled_engine_raises(bench: Bench, victim: BenchVmms, survivor: BenchVmms) -> None:
    survivor.client.stall(bench.clock.now_us + 60 * SECOND)

    with pytest.raises(EngineError):
        fence(bench, survivor, victim)


def test_fence_counts_what_the_engine_shows_not_what_it_answered(
    bench: Bench, victim: BenchVmms, survivor: BenchVmms
) -> None:
    survivor.client.lose_next_answer("kill")

    fence(bench, survivor, victim)

    assert not bench.engine.node("n1").alive


def test_fence_of_the_own_session_is_refused(bench: Bench, survivor: BenchVmms) -> None:
    with pytest.raises(EngineError, match="own session"):
        fence(bench, survivor, survivor)


def test_two_survivors_may_fence_at_once(bench: Bench, victim: BenchVmms, survivor: BenchVmms) -> None:
    other = BenchVmms(bench, "n2")
    calls = [bench.begin(node.vmms.fence(victim.session, not_after_us=FAR)) for node in (survivor, other)]

    bench.run(10)

    assert all(call.done and call.error is None for call in calls)


def test_start_that_the_engine_holds_meets_no_container_in_the_rebooted_node() -> None:
    """Finding 2: the order reaches the engine before the node dies, and is carried out in its next life."""
    for seed in range(30):
        bench = Bench(nodes=("n1", "n2"), seed=seed)
        victim, survivor = BenchVmms(bench, "n1"), BenchVmms(bench, "n2")
        victim.prepare()
        victim.client.stall(bench.clock.now_us + 2 * SECOND)
        bench.begin(victim.vmms.start("vm", order=victim.order()))
        bench.run(0.1)

        fence(bench, survivor, victim)
        assert bench.do(survivor.vmms.power_on("n1"))
        bench.run(10)

        assert bench.engine.node("n1").alive
        assert bench.alive == []


def test_power_on_leaves_a_held_node_off(bench: Bench, victim: BenchVmms, survivor: BenchVmms) -> None:
    fence(bench, survivor, victim)
    bench.engine.hold("bench", "n1")

    assert bench.do(survivor.vmms.power_on("n1")) is False
    bench.run(5)
    assert not bench.engine.node("n1").alive

    bench.engine.release("bench", "n1")
    assert bench.do(survivor.vmms.power_on("n1")) is True
    assert bench.engine.node("n1").alive


def test_power_on_of_a_running_node_changes_nothing(bench: Bench, survivor: BenchVmms) -> None:
    life = bench.engine.node("n1").started

    assert bench.do(survivor.vmms.power_on("n1")) is True
    assert bench.engine.node("n1").started == life


def test_power_on_of_a_node_without_a_container_says_so(bench: Bench, survivor: BenchVmms) -> None:
    with pytest.raises(EngineError, match="n9"):
        bench.do(survivor.vmms.power_on("n9"))


def test_joining_node_clears_its_earlier_sessions_only(bench: Bench, victim: BenchVmms, survivor: BenchVmms) -> None:
    survivor.running("elsewhere")
    bench.engine.end_node("n1", 87)
    bench.run(3)
    again = BenchVmms(bench, "n1")
    again.prepare("new")

    cleared = bench.do(again.vmms.clear_earlier_sessions())

    assert cleared == 1
    assert of_session(bench, victim.session) == []
    assert [view.name for view in bench.do(again.vmms.vms())] == ["new"]
    assert bench.do(survivor.vmms.view("elsewhere")).state is VmState.RUNNING


@pytest.mark.usefixtures("victim")
def test_clearing_that_is_not_seen_to_succeed_raises(bench: Bench) -> None:
    bench.engine.end_node("n1", 87)
    bench.run(3)
    again = BenchVmms(bench, "n1")
    for _ in range(3):
        again.client.lose_next_request("remove")

    with pytest.raises(EngineError):
        bench.do(again.vmms.clear_earlier_sessions())


def test_vm_of_an_earlier_session_that_starts_is_removed_at_once(bench: Bench, victim: BenchVmms) -> None:
    old = victim.boxes()[0].id
    bench.engine.end_node("n1", 87)
    bench.run(3)
    BenchVmms(bench, "n1")

    bench.engine.start_by_hand(old)
    bench.run(1)

    assert old not in bench.engine.boxes
