"""The resource host with the real drivers and the real VMMS on the simulated engine."""

from collections.abc import AsyncIterator, Collection

import pytest
from vm_harness import MS, SECOND, Bench, BenchHost, BenchVmms, address, vm

from harness.model.host_messages import EntryPoint
from harness.model.states import ResourceState
from harness.model.topology import ResourcePolicy
from harness.model.vm import Ending, Proof, VmNotice
from harness.simulation.kernel.runtime import SimulatedRuntime
from harness.simulation.twins.vmms_link import VmmsLink, VmmsProcess

OPEN, CLOSE, ONLINE, OFFLINE, TERMINATE = (
    EntryPoint.OPEN,
    EntryPoint.CLOSE,
    EntryPoint.ONLINE,
    EntryPoint.OFFLINE,
    EntryPoint.TERMINATE,
)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def node(bench: Bench) -> BenchVmms:
    return BenchVmms(bench)


@pytest.fixture
def host(bench: Bench, node: BenchVmms) -> BenchHost:
    return BenchHost(bench, node)


def test_vm_goes_online_through_online_pending(host: BenchHost) -> None:
    report = host.online()

    assert report.error is None
    assert host.states() == ["Offline", "OnlinePending", "Online"]
    assert report.run


def test_sequence_grows_with_every_report(host: BenchHost) -> None:
    host.online()
    host.call(OFFLINE)

    sequences = [report.sequence for report in host.reports]
    assert sequences == sorted(set(sequences))


def test_offline_is_graceful_and_proven(host: BenchHost, node: BenchVmms) -> None:
    host.online()

    report = host.call(OFFLINE)

    assert (report.state, report.proof) == (ResourceState.OFFLINE, Proof.STOPPED)
    assert not any(box.alive for box in node.boxes())


def test_crash_is_reported_at_once(bench: Bench, host: BenchHost, node: BenchVmms) -> None:
    online = host.online()
    seen = len(host.reports)

    bench.engine.crash_vm(node.boxes()[0].id)
    took = bench.wait_until(lambda: len(host.reports) > seen)

    report = host.reports[-1]
    assert took < 0.05
    assert (report.state, report.ending, report.live) == (ResourceState.FAILED, Ending.CRASHED, True)
    assert report.number is None
    assert report.run == online.run


def test_clean_stop_by_hand_is_reported_as_offline(bench: Bench, host: BenchHost, node: BenchVmms) -> None:
    host.online()

    bench.engine.stop_by_hand(node.boxes()[0].id)
    bench.run(3)

    report = host.reports[-1]
    assert (report.state, report.ending, report.live) == (ResourceState.OFFLINE, Ending.STOPPED, True)


def test_start_by_hand_is_reported_as_online(bench: Bench, host: BenchHost, node: BenchVmms) -> None:
    host.call(OPEN, spec=vm())

    bench.engine.start_by_hand(node.boxes()[0].id)
    bench.run(1)

    report = host.reports[-1]
    assert (report.state, report.number, report.live) == (ResourceState.ONLINE, None, True)


def test_own_start_and_end_are_never_reported_as_by_hand(bench: Bench, host: BenchHost) -> None:
    host.online()
    host.call(TERMINATE)
    bench.run(5)

    assert host.states() == ["Offline", "OnlinePending", "Online", "Offline"]


def test_start_that_is_told_after_the_vm_was_ended_is_no_start_by_hand(bench: Bench, node: BenchVmms) -> None:
    """Answers and notices travel separately: the news of a run may arrive when its end has been answered."""

    class LateNews(VmmsLink):
        async def notices(self) -> AsyncIterator[VmNotice]:
            async for notice in super().notices():
                await self._caller.sleep(SECOND)
                yield notice

    place = VmmsProcess()
    place.started(node.runtime, node.vmms)
    caller = SimulatedRuntime(bench.clock, on_error=lambda _task, error: pytest.fail(str(error)))
    host = BenchHost(bench, node, hypervisor=LateNews(bench.clock, place, caller))
    host.call(OPEN, spec=vm())
    bench.run(1)
    bench.engine.start_by_hand(node.boxes()[0].id)
    bench.run(0.5)
    host.call(TERMINATE)

    bench.run(5)

    assert "Online" not in host.states()


def test_order_that_came_too_late_is_dropped(bench: Bench, host: BenchHost) -> None:
    host.call(OPEN, spec=vm())

    report = host.call(ONLINE, not_after_us=bench.clock.now_us - 1)

    assert report.error is not None
    assert report.state is ResourceState.OFFLINE
    assert bench.alive == []


def test_order_of_an_older_epoch_is_refused(bench: Bench, host: BenchHost) -> None:
    host.call(OPEN, spec=vm(), epoch=4)

    report = host.call(ONLINE, epoch=3)

    assert report.error is not None
    assert bench.alive == []


def test_order_that_vmms_refuses_fails_nothing(host: BenchHost, node: BenchVmms) -> None:
    host.call(OPEN, spec=vm())
    node.prepare(epoch=9)

    report = host.call(ONLINE, epoch=1)

    assert report.error is not None
    assert report.state is ResourceState.OFFLINE


def test_failed_start_ends_terminated_and_failed(host: BenchHost, node: BenchVmms) -> None:
    host.call(OPEN, spec=vm())
    node.client.lose_next_request("start")

    report = host.call(ONLINE)

    assert report.state is ResourceState.FAILED
    assert report.error is not None
    assert node.boxes() == []


def test_close_proves_that_no_container_is_left(host: BenchHost, node: BenchVmms) -> None:
    host.online()

    report = host.call(CLOSE)

    assert (report.state, report.proof, report.error) == (ResourceState.OFFLINE, Proof.REMOVED, None)
    assert node.boxes() == []
    assert host.host.hello() == []


def test_resource_can_be_opened_again_after_close(host: BenchHost) -> None:
    host.online()
    host.call(CLOSE)

    host.call(OPEN, spec=vm(), epoch=2)
    report = host.call(ONLINE, epoch=2)

    assert report.state is ResourceState.ONLINE


def test_terminate_overtakes_an_online_under_way(bench: Bench, host: BenchHost, node: BenchVmms) -> None:
    host.call(OPEN, spec=vm())
    node.client.stall(bench.clock.now_us + 2 * SECOND)
    online = host.ask(ONLINE)
    bench.run(0.5)

    report = host.call(TERMINATE)

    bench.run(10)
    assert report.proof is not None
    assert host.answer(online).error is not None
    assert host.states()[-1] == "Offline"
    assert not any(box.alive for box in node.boxes())


def test_terminate_drops_an_online_that_waits_before_it(bench: Bench, host: BenchHost) -> None:
    host.ask(OPEN, spec=vm())
    waiting = host.ask(ONLINE)
    host.ask(TERMINATE)

    bench.run(5)

    assert host.answer(waiting).error is not None
    assert bench.alive == []


def test_request_for_what_is_not_open_is_answered(host: BenchHost) -> None:
    assert "not open" in (host.call(ONLINE).error or "")


def test_unknown_resource_type_is_answered(host: BenchHost) -> None:
    spec = vm()
    object.__setattr__(spec, "type", "tape-robot")

    assert "tape-robot" in (host.call(OPEN, spec=spec).error or "")


def test_wrong_property_is_told_by_name(host: BenchHost) -> None:
    assert "memory" in (host.call(OPEN, spec=vm(memory="a lot")).error or "")


class TestPolls:
    """IsAlive and LooksAlive."""

    POLICY = ResourcePolicy(is_alive_interval_us=2 * SECOND, looks_alive_interval_us=7 * SECOND)

    def test_paused_vm_fails_at_the_next_is_alive(self, bench: Bench, host: BenchHost, node: BenchVmms) -> None:
        host.online(policy=self.POLICY)

        bench.engine.pause(node.boxes()[0].id)
        took = bench.wait_until(lambda: host.states()[-1] == "Failed")

        assert took <= 2.3
        assert host.reports[-1].live is False

    def test_missing_disk_fails_at_looks_alive_not_before(self, bench: Bench, host: BenchHost) -> None:
        host.online(policy=self.POLICY)
        bench.run(0.5)

        host.storage.lost["vm"] = ("disk",)
        took = bench.wait_until(lambda: host.states()[-1] == "Failed")

        assert 6 <= took <= 7

    def test_offline_resource_is_not_polled(self, bench: Bench, host: BenchHost) -> None:
        host.online(policy=self.POLICY)
        host.call(OFFLINE)
        seen = len(host.reports)

        host.storage.lost["vm"] = ("disk",)
        bench.run(30)

        assert len(host.reports) == seen

    def test_poll_waits_for_the_evidence_of_a_clean_stop(self, bench: Bench, host: BenchHost, node: BenchVmms) -> None:
        """A poll between `stop` and VMMS's verdict would call an administrator's wish a failure."""
        host.online(policy=ResourcePolicy(is_alive_interval_us=100 * MS))

        bench.engine.stop_by_hand(node.boxes()[0].id)
        bench.run(4)

        report = host.reports[-1]
        assert (report.state, report.ending, report.live) == (ResourceState.OFFLINE, Ending.STOPPED, True)
        assert "Failed" not in host.states()

    def test_lost_vmms_says_nothing_about_the_vm(self, bench: Bench, host: BenchHost) -> None:
        host.online(policy=self.POLICY)

        host.place.ended()
        bench.run(20)

        assert host.states()[-1] == "Online"
        assert "poll-unanswered" in host.log.events()

    def test_resources_of_one_group_are_checked_at_one_moment(self, bench: Bench, host: BenchHost) -> None:
        asked: list[tuple[int, str]] = []

        class Probe:
            async def missing(self, vm: str, *, volumes: Collection[str] = ()) -> tuple[str, ...]:
                del volumes
                asked.append((bench.clock.now_us, vm))
                return ()

        host.storage.missing = Probe().missing  # type: ignore[method-assign]
        host.online("a", policy=self.POLICY)
        bench.run(3)
        host.online("b", policy=self.POLICY)
        bench.run(15)

        moments = {name: [at for at, who in asked if who == name] for name in ("a", "b")}
        assert moments["a"][-1] == moments["b"][-1]


class TestProcesses:
    """VMMS, host and service may each be lost and come back."""

    def test_new_vmms_is_used_and_its_view_taken_on(self, bench: Bench, host: BenchHost, node: BenchVmms) -> None:
        host.online()
        container = node.boxes()[0].id
        node.runtime.kill()
        host.place.ended()
        bench.engine.crash_vm(container)
        bench.run(0.5)

        host.replace_vmms(BenchVmms(bench, "n1", node.client))
        bench.run(1)

        report = host.reports[-1]
        assert (report.state, report.ending, report.live) == (ResourceState.FAILED, Ending.UNKNOWN, False)

    def test_vm_survives_the_loss_of_vmms(self, bench: Bench, host: BenchHost, node: BenchVmms) -> None:
        host.online()
        container = node.boxes()[0].id
        host.replace_vmms(node.restarted())

        bench.run(30)

        assert bench.engine.boxes[container].alive
        assert host.states()[-1] == "Online"

    def test_online_after_a_vmms_restart_needs_no_new_open(self, host: BenchHost, node: BenchVmms) -> None:
        host.call(OPEN, spec=vm())
        host.replace_vmms(node.restarted())

        assert host.call(ONLINE).state is ResourceState.ONLINE

    def test_killed_host_adopts_what_runs(self, bench: Bench, host: BenchHost, node: BenchVmms) -> None:
        run = host.online().run
        host.runtime.kill()

        again = BenchHost(bench, node)
        report = again.call(OPEN, spec=vm(), adopt=True)

        assert (report.state, report.run) == (ResourceState.ONLINE, run)
        bench.engine.crash_vm(node.boxes()[0].id)
        bench.run(0.1)
        assert again.reports[-1].state is ResourceState.FAILED

    def test_stop_asked_for_by_a_killed_host_is_no_wish_of_an_administrator(
        self, bench: Bench, host: BenchHost, node: BenchVmms
    ) -> None:
        host.online()
        node.boxes()[0].obeys_term = False
        host.ask(OFFLINE)
        bench.run(1)
        host.runtime.kill()

        again = BenchHost(bench, node)
        again.call(OPEN, spec=vm(), adopt=True)
        bench.run(30)

        assert not any(report.ending in (Ending.STOPPED, Ending.SHUT_DOWN) for report in again.reports)

    def test_hello_tells_every_open_resource_as_not_live(self, host: BenchHost) -> None:
        host.online("a")
        host.call(OPEN, "b", spec=vm("b"))

        hello = {report.resource: report for report in host.host.hello()}

        assert {name: report.state for name, report in hello.items()} == {
            "a": ResourceState.ONLINE,
            "b": ResourceState.OFFLINE,
        }
        assert not any(report.live for report in hello.values())

    def test_host_killed_anywhere_leaves_no_vm_twice(self) -> None:
        for kill_after_ms in range(0, 200, 9):
            bench = Bench(seed=kill_after_ms)
            node = BenchVmms(bench)
            host = BenchHost(bench, node)
            host.call(OPEN, spec=vm())
            host.ask(ONLINE)
            bench.run(kill_after_ms / 1000)
            host.runtime.kill()

            again = BenchHost(bench, node)
            again.call(OPEN, spec=vm(), adopt=True)
            if again.states()[-1] != "Online":
                again.call(ONLINE)
            bench.run(2)

            assert again.states()[-1] == "Online"
            assert sum(box.alive for box in node.boxes()) == 1


class TestAddress:
    """The ip-address driver."""

    def test_address_comes_is_announced_and_goes(self, bench: Bench, host: BenchHost) -> None:
        host.call(OPEN, "ip", spec=address())
        host.call(ONLINE, "ip")
        bench.run(5)
        assert bench.do(host.addresses.present()) == {"10.87.1.1/24"}
        assert len(host.addresses.announced) >= 3

        report = host.call(OFFLINE, "ip")

        assert report.proof is not None
        assert bench.do(host.addresses.present()) == frozenset()

    def test_address_taken_away_by_hand_fails_at_the_next_poll(self, bench: Bench, host: BenchHost) -> None:
        host.call(OPEN, "ip", spec=address())
        host.call(ONLINE, "ip")

        host.addresses.drop("10.87.1.1/24")
        bench.wait_until(lambda: host.states("ip")[-1] == "Failed", limit_s=6)

    def test_vm_depends_on_an_address_of_its_group(self, bench: Bench, host: BenchHost) -> None:
        spec = vm()
        object.__setattr__(spec, "depends_on", (("ip",),))
        host.call(OPEN, spec=spec)
        host.call(ONLINE)

        bench.wait_until(lambda: host.states()[-1] == "Failed", limit_s=6)

        assert "depends on ip" in host.reports[-1].evidence
