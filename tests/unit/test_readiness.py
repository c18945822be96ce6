"""A VM with a readiness check: OnlinePending until it is ready, given up in time, and watched while it is Online.

The real driver, resource host and VMMS on the simulated engine.
"""

import json
from typing import Any

import pytest
from vm_harness import SECOND, Bench, BenchHost, BenchVmms, vm

from harness.errors import EngineError, EngineUnanswered, NoSuchContainer
from harness.model.host_messages import EntryPoint
from harness.model.states import ResourceState
from harness.model.topology import ResourcePolicy, ResourceSpec
from harness.simulation.twins.vmms_link import VmmsLink

OPEN, CLOSE, ONLINE, OFFLINE, TERMINATE = (
    EntryPoint.OPEN,
    EntryPoint.CLOSE,
    EntryPoint.ONLINE,
    EntryPoint.OFFLINE,
    EntryPoint.TERMINATE,
)
ADDRESS = "10.87.0.100"
POLICY = ResourcePolicy(pending_timeout_us=20 * SECOND, is_alive_interval_us=SECOND)
CHECKS: list[dict[str, Any]] = [{"endpoint": "tcp:5432"}, {"endpoint": "http:8080/health"}, {"command": ["ready"]}]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def node(bench: Bench) -> BenchVmms:
    return BenchVmms(bench)


@pytest.fixture
def host(bench: Bench, node: BenchVmms) -> BenchHost:
    return BenchHost(bench, node)


def with_check(check: dict[str, Any] = CHECKS[0], **more: Any) -> ResourceSpec:
    return vm(policy=POLICY, address=ADDRESS, readiness=json.dumps({**check, **more}))


def ordered(bench: Bench, host: BenchHost, check: dict[str, Any] = CHECKS[0], **more: Any) -> int:
    """Opened, and its ONLINE under way for a second."""
    host.call(OPEN, spec=with_check(check, **more))
    number = host.ask(ONLINE)
    bench.run(1)
    return number


@pytest.mark.parametrize("check", CHECKS, ids=["tcp", "http", "command"])
def test_vm_is_online_when_it_is_ready_and_not_before(
    bench: Bench, host: BenchHost, check: dict[str, Any]
) -> None:
    bench.engine.ready_after_us["vm"] = 5 * SECOND

    number = ordered(bench, host, check)
    bench.run(3)
    before = host.states()
    report = host.answer(number)

    assert before == ["Offline", "OnlinePending"]
    assert (report.state, report.error) == (ResourceState.ONLINE, None)
    assert report.run == bench.engine.vm("vm").started
    assert 5 * SECOND <= report.at_us - bench.engine.vm("vm").started_us <= 6 * SECOND
    assert "vm-ready" in host.log.events()


@pytest.mark.parametrize("check", CHECKS, ids=["tcp", "http", "command"])
def test_vm_that_is_never_ready_has_failed_in_time_and_says_what_was_seen(
    bench: Bench, host: BenchHost, node: BenchVmms, check: dict[str, Any]
) -> None:
    bench.engine.not_ready.add("vm")

    report = host.answer(ordered(bench, host, check))

    assert report.state is ResourceState.FAILED
    assert report.error is not None
    assert "not ready" in report.error
    assert ("connection refused" if "endpoint" in check else "ready ended with status 1") in report.error
    assert not any(box.alive for box in node.boxes())
    assert bench.clock.now_us < 22 * SECOND


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "stop by hand"])
def test_end_while_it_is_not_ready_yet_is_told_at_once(
    bench: Bench, host: BenchHost, node: BenchVmms, crash: bool
) -> None:
    bench.engine.not_ready.add("vm")
    number = ordered(bench, host)
    (box,) = node.boxes()
    began_us = bench.clock.now_us

    (bench.engine.crash_vm if crash else bench.engine.stop_by_hand)(box.id)
    report = host.answer(number)

    assert report.state is ResourceState.FAILED
    assert report.at_us - began_us < 3 * SECOND


def test_end_that_nobody_tells_is_found_by_the_next_look(bench: Bench, host: BenchHost, node: BenchVmms) -> None:
    bench.engine.not_ready.add("vm")
    number = ordered(bench, host)
    host.place.ended()
    bench.engine.crash_vm(node.boxes()[0].id)
    bench.run(1)

    host.replace_vmms(node.restarted())
    report = host.answer(number)

    assert report.state is ResourceState.FAILED
    assert bench.clock.now_us < 10 * SECOND


@pytest.mark.parametrize("request_", [OFFLINE, TERMINATE, CLOSE])
def test_request_to_end_it_does_not_wait_until_it_is_ready(
    bench: Bench, host: BenchHost, node: BenchVmms, request_: EntryPoint
) -> None:
    bench.engine.not_ready.add("vm")
    number = ordered(bench, host)
    began_us = bench.clock.now_us

    report = host.call(request_)
    bench.engine.not_ready.clear()
    bench.run(5)

    assert report.proof is not None
    assert report.at_us - began_us < SECOND
    assert host.answer(number).error is not None
    assert "Online" not in host.states()
    assert not any(box.alive for box in node.boxes())


def test_restart_in_place_waits_anew(bench: Bench, host: BenchHost, node: BenchVmms) -> None:
    bench.engine.ready_after_us["vm"] = 2 * SECOND
    host.answer(ordered(bench, host))
    first = bench.engine.vm("vm").started

    bench.engine.crash_vm(node.boxes()[0].id)
    bench.wait_until(lambda: host.states()[-1] == "Failed")
    host.call(TERMINATE)
    report = host.call(ONLINE)

    assert report.state is ResourceState.ONLINE
    assert report.run == bench.engine.vm("vm").started != first
    assert report.at_us - bench.engine.vm("vm").started_us >= 2 * SECOND


def test_vm_started_by_hand_is_told_at_once_ready_or_not(bench: Bench, host: BenchHost, node: BenchVmms) -> None:
    """On a node that does not own it, it must end at once."""
    bench.engine.not_ready.add("vm")
    host.call(OPEN, spec=with_check())

    bench.engine.start_by_hand(node.boxes()[0].id)
    bench.run(1)

    assert host.reports[-1].state is ResourceState.ONLINE


def test_vm_that_ceases_to_be_ready_is_told_and_stays_online(bench: Bench, host: BenchHost) -> None:
    host.answer(ordered(bench, host))

    bench.engine.not_ready.add("vm")
    bench.run(10)
    bench.engine.not_ready.clear()
    bench.run(3)

    assert host.states()[-1] == "Online"
    assert host.log.events().count("vm-not-ready") == 1
    assert host.log.events()[-1] == "vm-ready"


@pytest.mark.parametrize("check", CHECKS, ids=["tcp", "http", "command"])
def test_with_liveness_a_vm_that_ceases_to_be_ready_has_failed(
    bench: Bench, host: BenchHost, check: dict[str, Any]
) -> None:
    host.answer(ordered(bench, host, check, liveness=True))

    bench.engine.not_ready.add("vm")
    took_s = bench.wait_until(lambda: host.states()[-1] == "Failed")

    assert took_s < 4
    assert "asked 2 times" in host.reports[-1].evidence


def test_one_bad_answer_alone_is_no_failure(bench: Bench, host: BenchHost) -> None:
    host.answer(ordered(bench, host, liveness=True))

    for _ in range(5):
        bench.engine.not_ready.add("vm")
        bench.run(1)
        bench.engine.not_ready.clear()
        bench.run(1)

    assert host.states()[-1] == "Online"
    assert "vm-not-ready" in host.log.events()


def test_lost_vmms_says_nothing_about_a_vm_that_is_asked_by_a_command(bench: Bench, host: BenchHost) -> None:
    host.answer(ordered(bench, host, {"command": ["ready"]}, liveness=True))

    host.place.ended()
    bench.run(10)

    assert host.states()[-1] == "Online"


def test_vm_that_runs_and_cannot_be_asked_is_not_taken_for_one_of_which_nobody_can_tell(
    bench: Bench, host: BenchHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_arguments: Any, **_named: Any) -> int | None:
        raise EngineUnanswered("the engine does not answer")

    host.answer(ordered(bench, host, {"command": ["ready"]}, liveness=True))
    monkeypatch.setattr(VmmsLink, "run_inside", lost)

    bench.run(2 * POLICY.pending_timeout_us // SECOND)

    assert host.states()[-1] == "Online"
    assert "readiness-unanswered" in host.log.events()


class TestCommandsInside:
    """VMMS runs a command in a VM for others."""

    def run_inside(self, bench: Bench, node: BenchVmms, *command: str, limit_s: float = 2) -> int | None:
        limit_us = round(limit_s * SECOND)
        status: int | None = bench.do(node.vmms.run_inside("vm", command, limit_us=limit_us))
        return status

    def test_status_is_the_answer(self, bench: Bench, node: BenchVmms) -> None:
        node.running()

        assert [self.run_inside(bench, node, "true"), self.run_inside(bench, node, "false")] == [0, 1]

    def test_command_that_does_not_end_is_joined_and_not_begun_again(self, bench: Bench, node: BenchVmms) -> None:
        node.running()
        began_us = bench.clock.now_us

        first = self.run_inside(bench, node, "sleep", "5")
        second = self.run_inside(bench, node, "sleep", "5", limit_s=10)

        assert (first, second) == (None, 0)
        assert bench.clock.now_us - began_us < 6 * SECOND

    def test_end_of_the_vm_ends_the_waiting(self, bench: Bench, node: BenchVmms) -> None:
        node.running()
        outcome = bench.begin(node.vmms.run_inside("vm", ("sleep", "50"), limit_us=60 * SECOND))
        bench.run(1)

        bench.engine.crash_vm(bench.engine.vm("vm").id)
        bench.run(1)

        assert outcome.done
        assert outcome.value != 0 or isinstance(outcome.error, NoSuchContainer)

    def test_vm_that_does_not_run_is_refused(self, bench: Bench, node: BenchVmms) -> None:
        node.prepare()

        with pytest.raises(EngineError, match="does not run"):
            self.run_inside(bench, node, "true")


def test_end_of_an_attempt_that_was_given_up_is_not_mistaken_for_the_next_ones(bench: Bench, host: BenchHost) -> None:
    bench.engine.not_ready.add("vm")
    host.answer(ordered(bench, host))
    bench.engine.not_ready.clear()

    report = host.call(ONLINE)
    bench.run(5)

    assert report.state is ResourceState.ONLINE
    assert host.states()[-1] == "Online"
