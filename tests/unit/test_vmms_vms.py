"""VMMS: orders and ends of VMs."""

import contextlib
from collections.abc import Coroutine
from typing import Any

import pytest
from vm_harness import FAR, MS, SECOND, Bench, BenchVmms, spec

from harness.errors import EngineError, EngineTooLate, EngineUnanswered
from harness.model.vm import Ending, Proof, VmState
from harness.ports import OrderRefused
from harness.simulation.twins.container import SimulatedContainer


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def node(bench: Bench) -> BenchVmms:
    return BenchVmms(bench)


def only(boxes: list[SimulatedContainer]) -> SimulatedContainer:
    assert len(boxes) == 1
    return boxes[0]


def test_session_names_the_container_and_its_start(bench: Bench, node: BenchVmms) -> None:
    box = bench.engine.node("n1")

    assert (node.session.node, node.session.container, node.session.started) == ("n1", box.id[:12], box.started)


def test_prepared_vm_stands_ready_and_does_not_run(node: BenchVmms) -> None:
    view = node.prepare()

    assert view.state is VmState.STOPPED
    assert not only(node.boxes()).alive


def test_start_runs_the_prepared_container(node: BenchVmms) -> None:
    node.prepare()
    prepared = only(node.boxes()).id

    view = node.start()

    assert view.state is VmState.RUNNING
    assert view.run == only(node.boxes()).started
    assert only(node.boxes()).id == prepared


def test_start_of_a_running_vm_tells_its_run(node: BenchVmms) -> None:
    node.prepare()
    first = node.start()

    second = node.start()

    assert second.run == first.run


def test_start_in_place_after_a_crash_uses_the_same_container(bench: Bench, node: BenchVmms) -> None:
    container = node.running()
    bench.engine.crash_vm(container)
    bench.run(0.1)

    node.start()

    assert only(node.boxes()).id == container
    assert only(node.boxes()).alive


@pytest.mark.parametrize("wrong", ["session", "epoch", "time"])
def test_order_that_no_longer_holds_is_refused(bench: Bench, node: BenchVmms, wrong: str) -> None:
    node.prepare(epoch=5)
    other = type(node.session)("n1", node.session.container, "before")
    orders = {
        "session": node.order(epoch=5, session=other),
        "epoch": node.order(epoch=4),
        "time": node.order(epoch=5, not_after_us=bench.clock.now_us - 1),
    }

    with pytest.raises(OrderRefused):
        bench.do(node.vmms.start("vm", order=orders[wrong]))

    bench.run(10)
    assert bench.alive == []
    assert "order-refused" in node.log.events()


def test_order_is_checked_after_the_container_was_made_anew(bench: Bench, node: BenchVmms) -> None:
    node.prepare()
    node.client.lose_next_answer("start")
    node.client.lose_next_answer("inspect")
    with pytest.raises(EngineUnanswered):
        node.start()
    bench.engine.kill_guests("n1")
    bench.run(0.5)
    starts = len(bench.alive)
    node.client.stall(bench.clock.now_us + SECOND)

    with pytest.raises(OrderRefused):
        node.start(not_after_us=bench.clock.now_us + SECOND // 2)

    bench.run(5)
    assert len(bench.alive) == starts


def test_close_ends_all_orders_of_its_epoch(bench: Bench, node: BenchVmms) -> None:
    node.running()
    bench.do(node.vmms.close("vm", epoch=1))
    node.prepare(epoch=1)

    with pytest.raises(OrderRefused):
        node.start(epoch=1)

    assert node.start(epoch=2).state is VmState.RUNNING


def test_terminate_of_a_running_vm_proves_it_stopped(bench: Bench, node: BenchVmms) -> None:
    node.running()

    proof = bench.do(node.vmms.terminate("vm"))

    assert proof is Proof.STOPPED
    assert not only(node.boxes()).alive


def test_terminate_ends_a_frozen_vm(bench: Bench, node: BenchVmms) -> None:
    container = node.running()
    bench.engine.pause(container)

    bench.do(node.vmms.terminate("vm"))

    assert all(not box.alive for box in node.boxes())


def test_terminate_removes_the_container_whose_start_is_unanswered(bench: Bench, node: BenchVmms) -> None:
    """Safety review, finding 3: a start that the engine still holds is carried out after 'nothing runs here'."""
    node.prepare()
    node.client.lose_next_answer("start")
    node.client.lose_next_answer("inspect")
    with pytest.raises(EngineUnanswered):
        node.start()

    proof = bench.do(node.vmms.terminate("vm"))

    assert proof is Proof.REMOVED
    assert node.boxes() == []


def test_start_held_by_a_stalled_engine_meets_no_container_after_terminate(bench: Bench, node: BenchVmms) -> None:
    """The start reaches the engine through another, slower way than the removal: it must find nothing."""
    for seed in range(20):
        bench = Bench(seed=seed)
        node = BenchVmms(bench)
        node.prepare()
        held = only(node.boxes()).id
        node.client.lose_next_request("start")
        with pytest.raises(EngineError):
            node.start()

        bench.do(node.vmms.terminate("vm"))
        bench.engine.start_by_hand(held)  # what the engine had in its queue
        bench.run(1)

        assert not any(box.alive for box in node.boxes())


def test_terminate_overtakes_a_start_that_hangs(bench: Bench, node: BenchVmms) -> None:
    node.prepare()
    node.client.stall(bench.clock.now_us + 3 * SECOND)
    start = bench.begin(node.vmms.start("vm", order=node.order()))
    bench.run(0.5)

    proof = bench.do(node.vmms.terminate("vm"))

    bench.run(5)
    assert proof is Proof.REMOVED
    assert start.done
    assert isinstance(start.error, EngineError)
    assert not any(box.alive for box in node.boxes())


def test_terminate_without_an_answering_engine_gives_no_proof(bench: Bench, node: BenchVmms) -> None:
    node.running()
    node.client.stall(bench.clock.now_us + 60 * SECOND)

    with pytest.raises(EngineUnanswered):
        bench.do(node.vmms.terminate("vm"))


def test_next_start_after_an_unanswered_one_uses_a_new_container(node: BenchVmms) -> None:
    node.prepare()
    first = only(node.boxes()).id
    node.client.lose_next_request("start")
    with pytest.raises(EngineUnanswered):
        node.start()

    node.start()

    assert only(node.boxes()).id != first


def test_start_whose_answer_was_lost_but_runs_is_a_success(bench: Bench, node: BenchVmms) -> None:
    node.prepare()
    node.client.lose_next_answer("start")

    view = node.start()

    assert view.state is VmState.RUNNING
    assert bench.do(node.vmms.terminate("vm")) is Proof.REMOVED


def test_shut_down_is_graceful_and_leaves_no_stop_event(bench: Bench, node: BenchVmms) -> None:
    node.running()
    seen: list[str] = []
    bench.engine.listeners.append(lambda event: seen.append(getattr(event, "action", "gap")))

    proof = bench.do(node.vmms.shut_down("vm", grace_us=5 * SECOND))

    bench.run(2)
    assert proof is Proof.STOPPED
    assert seen == ["kill", "die"]
    assert node.notices[-1].view.ending is Ending.ASKED


def test_shut_down_kills_what_does_not_obey(bench: Bench, node: BenchVmms) -> None:
    container = node.running()
    bench.engine.boxes[container].obeys_term = False
    began = bench.clock.now_us

    bench.do(node.vmms.shut_down("vm", grace_us=2 * SECOND))

    assert 2 * SECOND <= bench.clock.now_us - began < 2 * SECOND + 500 * MS
    assert not bench.engine.boxes[container].alive


def test_close_removes_also_what_a_lost_creation_left(bench: Bench, node: BenchVmms) -> None:
    node.client.lose_next_answer("create")
    with pytest.raises(EngineUnanswered):
        node.prepare()
    assert len(node.boxes()) == 1

    proof = bench.do(node.vmms.close("vm", epoch=1))

    assert proof is Proof.REMOVED
    assert node.boxes() == []


def test_close_overtakes_a_creation_and_nothing_is_left() -> None:
    for offset_ms in range(0, 25):
        bench = Bench(seed=offset_ms)
        node = BenchVmms(bench)
        prepare = bench.begin(node.vmms.prepare(spec("vm"), epoch=1, adopt=False))
        bench.run(offset_ms / 1000)

        bench.do(node.vmms.close("vm", epoch=1))
        bench.run(1)

        assert prepare.done
        assert node.boxes() == []


def test_prepare_without_adopting_ends_what_runs(node: BenchVmms) -> None:
    node.running()

    view = node.prepare(adopt=False)

    assert view.state is VmState.STOPPED
    assert not any(box.alive for box in node.boxes())


def test_prepare_with_a_changed_specification_makes_a_new_container(bench: Bench, node: BenchVmms) -> None:
    node.prepare()
    first = only(node.boxes()).id
    changed = spec("vm")
    object.__setattr__(changed, "image", "other")

    bench.do(node.vmms.prepare(changed, epoch=1, adopt=False))

    assert only(node.boxes()).id != first
    assert only(node.boxes()).spec == changed


class TestRestartOfVmms:
    """The process was killed; its VMs run on."""

    def test_running_vm_is_adopted_and_runs_on(self, bench: Bench, node: BenchVmms) -> None:
        container = node.running()

        again = node.restarted()
        view = again.prepare(adopt=True)

        assert view.state is VmState.RUNNING
        assert view.run == bench.engine.boxes[container].started

    def test_stopped_container_is_not_trusted_to_stay_so(self, node: BenchVmms) -> None:
        node.prepare()
        old = only(node.boxes()).id

        again = node.restarted()
        again.prepare(adopt=True)
        again.start()

        assert only(again.boxes()).id != old

    def test_terminate_of_a_stopped_one_removes_it(self, bench: Bench, node: BenchVmms) -> None:
        node.prepare()

        again = node.restarted()

        assert bench.do(again.vmms.terminate("vm")) is Proof.REMOVED
        assert again.boxes() == []

    def test_calls_wait_for_the_first_listing(self, bench: Bench, node: BenchVmms) -> None:
        node.running()
        node.runtime.kill()
        node.client.stall(bench.clock.now_us + 2 * SECOND)
        again = BenchVmms(bench, "n1", node.client)

        assert bench.do(again.vmms.view("vm")).state is VmState.RUNNING

    def test_killed_in_the_middle_of_a_start_leaves_one_vm_at_most(self) -> None:
        for kill_after_ms in range(0, 140, 7):
            bench = Bench(seed=kill_after_ms)
            node = BenchVmms(bench)
            node.prepare()
            node.runtime.spawn(_quietly(node.vmms.start("vm", order=node.order())), name="start")
            bench.run(kill_after_ms / 1000)

            again = node.restarted()
            again.prepare(adopt=True)
            again.start(not_after_us=FAR)
            bench.run(2)

            assert sum(box.alive for box in again.boxes()) == 1


async def _quietly(coroutine: Coroutine[Any, Any, Any]) -> None:
    with contextlib.suppress(EngineError, OrderRefused):
        await coroutine


def test_a_start_that_was_not_sent_is_a_refusal_and_leaves_the_container_as_it_was(
    bench: Bench, node: BenchVmms, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.prepare()
    before = [box.id for box in node.boxes()]

    async def waits_too_long(container: str, *, not_after_us: int | None = None) -> None:
        raise EngineTooLate(f"start of {container[:12]}: not sent after {not_after_us}")

    with monkeypatch.context() as patched:
        patched.setattr(node.client, "start", waits_too_long)
        with pytest.raises(OrderRefused, match="its time has passed"):
            node.start()
    bench.run(1)

    assert node.start().state is VmState.RUNNING
    assert [box.id for box in node.boxes()] == before
