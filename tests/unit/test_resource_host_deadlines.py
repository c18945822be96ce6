"""The resource host against drivers that are slow, silent, stuck, incomplete or plainly wrong."""

from collections.abc import Callable
from typing import Any

import pytest
from vm_harness import SECOND, Bench, BenchHost, BenchVmms

from harness.errors import EngineUnanswered
from harness.model.host_messages import EntryPoint
from harness.model.states import ResourceState
from harness.model.topology import ResourcePolicy, ResourceSpec
from harness.model.vm import Proof
from harness.ports import Runtime
from harness.resource_host.driver import DriverContext, DriverServices, DriverStatus

OPEN, CLOSE, ONLINE, OFFLINE, TERMINATE = (
    EntryPoint.OPEN,
    EntryPoint.CLOSE,
    EntryPoint.ONLINE,
    EntryPoint.OFFLINE,
    EntryPoint.TERMINATE,
)
ON, OFF = DriverStatus(state=ResourceState.ONLINE), DriverStatus(state=ResourceState.OFFLINE)
PENDING = DriverStatus(state=ResourceState.ONLINE_PENDING)
POLICY = ResourcePolicy(pending_timeout_us=10 * SECOND, deadlock_timeout_us=30 * SECOND)


class Driver:
    """Does what a test sets `behaviour` to, entry point by entry point, and remembers what was called."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.contexts: list[DriverContext] = []
        self.behaviour: dict[str, Callable[[DriverContext], Any]] = {}
        self.runtime: Runtime

    def __call__(self, services: DriverServices) -> "Driver":
        self.runtime = services.runtime
        return self

    async def _do(self, entry: str, context: DriverContext, default: Any) -> Any:
        self.called.append(entry)
        self.contexts.append(context)
        behaviour = self.behaviour.get(entry)
        return default if behaviour is None else await behaviour(context)

    async def open(self, context: DriverContext) -> Any:
        return await self._do("open", context, OFF)

    async def close(self, context: DriverContext) -> Any:
        return await self._do("close", context, Proof.REMOVED)

    async def online(self, context: DriverContext) -> Any:
        return await self._do("online", context, ON)

    async def offline(self, context: DriverContext) -> Any:
        return await self._do("offline", context, OFF)

    async def terminate(self, context: DriverContext) -> Any:
        return await self._do("terminate", context, Proof.STOPPED)

    async def is_alive(self, context: DriverContext) -> Any:
        return await self._do("is_alive", context, ON)

    async def hang(self, context: DriverContext) -> None:
        del context
        await self.runtime.pending()

    async def fail(self, context: DriverContext) -> None:
        raise ValueError(f"{context.resource} does not want to")


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def host(driver: Driver) -> BenchHost:
    bench = Bench()
    return BenchHost(bench, BenchVmms(bench), drivers={"odd": driver})


def spec(name: str = "vm", policy: ResourcePolicy = POLICY) -> ResourceSpec:
    return ResourceSpec(name=name, type="odd", policy=policy)


def seconds(host: BenchHost) -> float:
    return host.bench.clock.now_us / SECOND


def test_silence_while_going_online_ends_terminated_and_failed(host: BenchHost, driver: Driver) -> None:
    host.call(OPEN, spec=spec())
    driver.behaviour["online"] = driver.hang
    began = seconds(host)

    report = host.call(ONLINE)

    assert report.state is ResourceState.FAILED
    assert 10 <= seconds(host) - began < 10.1
    assert driver.called == ["open", "online", "terminate"]


def test_silence_while_going_offline_ends_terminated_and_offline(host: BenchHost, driver: Driver) -> None:
    host.call(OPEN, spec=spec())
    host.call(ONLINE)
    driver.behaviour["offline"] = driver.hang

    report = host.call(OFFLINE)

    assert (report.state, report.proof) == (ResourceState.OFFLINE, Proof.STOPPED)
    assert driver.called[-2:] == ["offline", "terminate"]


def test_status_report_begins_the_silence_anew(host: BenchHost, driver: Driver) -> None:
    async def slowly(context: DriverContext) -> DriverStatus:
        for _ in range(3):
            await driver.runtime.sleep(8 * SECOND)
            context.report(PENDING)
        return ON

    host.call(OPEN, spec=spec())
    driver.behaviour["online"] = slowly

    report = host.call(ONLINE)

    assert report.state is ResourceState.ONLINE
    checkpoints = [report.checkpoint for report in host.reports if report.state is ResourceState.ONLINE_PENDING]
    assert checkpoints == [0, 1, 2, 3]


def test_driver_may_return_pending_and_tell_the_end_later(host: BenchHost, driver: Driver) -> None:
    async def later(context: DriverContext) -> DriverStatus:
        async def end() -> None:
            await driver.runtime.sleep(3 * SECOND)
            context.report(ON)

        driver.runtime.spawn(end(), name="later")
        return PENDING

    host.call(OPEN, spec=spec())
    driver.behaviour["online"] = later

    assert host.call(ONLINE).state is ResourceState.ONLINE


def test_driver_that_returned_pending_and_went_silent_is_terminated(host: BenchHost, driver: Driver) -> None:
    async def pending(context: DriverContext) -> DriverStatus:
        del context
        return PENDING

    host.call(OPEN, spec=spec())
    driver.behaviour["online"] = pending
    began = seconds(host)

    assert host.call(ONLINE).state is ResourceState.FAILED
    assert 10 <= seconds(host) - began < 10.1


def test_offline_is_heard_while_online_is_pending(host: BenchHost, driver: Driver) -> None:
    async def pending(context: DriverContext) -> DriverStatus:
        del context
        return PENDING

    host.call(OPEN, spec=spec())
    driver.behaviour["online"] = pending
    online = host.ask(ONLINE)
    host.bench.run(1)

    assert host.call(OFFLINE, limit_s=2).state is ResourceState.OFFLINE
    assert host.answer(online).error is not None


def test_entry_point_that_does_not_return_is_a_deadlock(host: BenchHost, driver: Driver) -> None:
    driver.behaviour["open"] = driver.hang
    began = seconds(host)

    report = host.call(OPEN, spec=spec())

    assert report.state is ResourceState.FAILED
    assert 30 <= seconds(host) - began < 30.1
    assert host.deadlocked == ["vm"]
    assert ("entry-point-deadlocked", 1230) in [(event, number) for event, _, number in host.log.lines]


def test_error_from_online_leads_to_terminate_and_failed(host: BenchHost, driver: Driver) -> None:
    host.call(OPEN, spec=spec())
    driver.behaviour["online"] = driver.fail

    report = host.call(ONLINE)

    assert report.state is ResourceState.FAILED
    assert "does not want to" in (report.error or "")
    assert driver.called[-1] == "terminate"


def test_terminate_without_proof_is_an_error_and_never_a_proof(host: BenchHost, driver: Driver) -> None:
    host.call(OPEN, spec=spec())
    host.call(ONLINE)
    driver.behaviour["terminate"] = driver.fail

    report = host.call(TERMINATE)

    assert report.proof is None
    assert report.error is not None
    assert report.state is ResourceState.ONLINE


def test_terminate_after_a_failed_online_is_tried_again(host: BenchHost, driver: Driver) -> None:
    async def once_lost(context: DriverContext) -> Proof:
        del context
        if driver.called.count("terminate") < 2:
            raise EngineUnanswered("VMMS is gone")
        return Proof.STOPPED

    host.call(OPEN, spec=spec())
    driver.behaviour.update(online=driver.fail, terminate=once_lost)

    host.call(ONLINE)

    assert driver.called.count("terminate") == 2


def test_calls_of_one_resource_never_overlap(host: BenchHost, driver: Driver) -> None:
    under_way: list[str] = []

    async def slow(context: DriverContext) -> DriverStatus:
        del context
        under_way.append("in")
        await driver.runtime.sleep(SECOND)
        assert under_way == ["in"]
        under_way.clear()
        return OFF

    driver.behaviour.update(open=slow, offline=slow)
    host.ask(OPEN, spec=spec())
    last = [host.ask(OPEN, spec=spec()), host.ask(OFFLINE), host.ask(OPEN, spec=spec())][-1]

    assert host.answer(last).error is None


def test_what_comes_behind_a_terminate_waits_for_it(host: BenchHost, driver: Driver) -> None:
    async def slow(context: DriverContext) -> Proof:
        del context
        await driver.runtime.sleep(SECOND)
        driver.called.append("terminated")
        return Proof.STOPPED

    host.call(OPEN, spec=spec())
    driver.behaviour["terminate"] = slow
    host.ask(TERMINATE)

    host.call(ONLINE)

    assert driver.called == ["open", "terminate", "terminated", "online"]


def test_terminate_does_not_wait_for_an_online_that_hangs(host: BenchHost, driver: Driver) -> None:
    host.call(OPEN, spec=spec())
    driver.behaviour["online"] = driver.hang
    online = host.ask(ONLINE)
    host.bench.run(0.1)

    assert host.call(TERMINATE, limit_s=1).state is ResourceState.OFFLINE
    assert host.answer(online, limit_s=1).error is not None
    assert host.call(OFFLINE, limit_s=1).error is None


@pytest.mark.parametrize("wrong", [{"not_after_us": 0}, {"epoch": 3}])
def test_order_that_no_longer_holds_never_reaches_the_driver(
    host: BenchHost, driver: Driver, wrong: dict[str, int]
) -> None:
    host.call(OPEN, spec=spec(), epoch=4)

    report = host.call(ONLINE, **{"epoch": 4, **wrong})

    assert report.error is not None
    assert driver.called == ["open"]


def test_resources_do_not_wait_for_each_other(host: BenchHost, driver: Driver) -> None:
    async def one_hangs(context: DriverContext) -> DriverStatus:
        if context.resource == "stuck":
            await driver.runtime.pending()
        return OFF

    driver.behaviour["open"] = one_hangs
    host.ask(OPEN, "stuck", spec=spec("stuck"))

    assert host.call(OPEN, "free", spec=spec("free"), limit_s=1).error is None


def test_request_for_a_lacking_entry_point_is_discarded_and_logged() -> None:
    class OnlyOnline:
        def __init__(self, services: DriverServices) -> None:
            del services

        async def online(self, context: DriverContext) -> DriverStatus:
            del context
            return ON

    bench = Bench()
    host = BenchHost(bench, BenchVmms(bench), drivers={"odd": OnlyOnline})
    assert host.call(OPEN, spec=spec()).state is ResourceState.OFFLINE
    assert host.call(ONLINE).state is ResourceState.ONLINE

    report = host.call(OFFLINE)

    assert (report.state, report.error, report.proof) == (ResourceState.ONLINE, None, None)
    assert "request-discarded" in host.log.events()


def test_check_that_does_not_answer_is_a_bad_answer(host: BenchHost, driver: Driver) -> None:
    host.call(OPEN, spec=spec())
    host.call(ONLINE)
    driver.behaviour["is_alive"] = driver.hang

    host.bench.wait_until(lambda: host.states()[-1] == "Failed", limit_s=11)

    assert "did not answer" in host.reports[-1].evidence


async def cannot_tell(context: DriverContext) -> DriverStatus:
    """A check of a driver that gets no answer from VMMS."""
    del context
    raise EngineUnanswered("VMMS is gone")


def test_check_that_cannot_reach_vmms_is_no_answer(host: BenchHost, driver: Driver) -> None:
    host.call(OPEN, spec=spec(policy=ResourcePolicy()))
    host.call(ONLINE)
    driver.behaviour["is_alive"] = cannot_tell

    host.bench.run(30)

    assert host.states()[-1] == "Online"


def test_what_nobody_can_tell_of_for_a_pending_timeout_has_failed(host: BenchHost, driver: Driver) -> None:
    lost = 0

    async def lost_but_for_a_while(context: DriverContext) -> DriverStatus:
        nonlocal lost
        lost += 1
        return ON if lost in (3, 7) else await cannot_tell(context)

    host.call(OPEN, spec=spec(policy=ResourcePolicy(is_alive_interval_us=SECOND, pending_timeout_us=4 * SECOND)))
    host.call(ONLINE)
    driver.behaviour["is_alive"] = lost_but_for_a_while

    host.bench.run(10)
    assert host.states()[-1] == "Online"
    host.bench.run(3)

    assert host.states()[-1] == "Failed"
    assert host.reports[-1].evidence == "is_alive could not tell for 4 s"


def test_one_check_alone_that_cannot_tell_is_no_failure_however_seldom_it_is_asked(
    host: BenchHost, driver: Driver
) -> None:
    host.call(OPEN, spec=spec(policy=ResourcePolicy(is_alive_interval_us=10 * SECOND, pending_timeout_us=4 * SECOND)))
    host.call(ONLINE)
    driver.behaviour["is_alive"] = cannot_tell

    host.bench.run(15)
    assert host.states()[-1] == "Online"
    host.bench.run(10)

    assert host.states()[-1] == "Failed"


def test_the_thorough_check_may_tell_nothing_for_ever(host: BenchHost, driver: Driver) -> None:
    host.call(OPEN, spec=spec(policy=ResourcePolicy(looks_alive_interval_us=SECOND, pending_timeout_us=4 * SECOND)))
    host.call(ONLINE)
    driver.behaviour["looks_alive"] = cannot_tell

    host.bench.run(20)

    assert host.states()[-1] == "Online"


def test_each_resource_is_polled_at_its_own_interval(host: BenchHost, driver: Driver) -> None:
    host.call(OPEN, "fast", spec=spec("fast", ResourcePolicy(is_alive_interval_us=SECOND)))
    host.call(OPEN, "slow", spec=spec("slow", ResourcePolicy(is_alive_interval_us=4 * SECOND)))
    host.call(ONLINE, "fast")
    host.call(ONLINE, "slow")
    driver.contexts.clear()

    host.bench.run(20)

    polled = [context.resource for context in driver.contexts]
    assert 19 <= polled.count("fast") <= 21
    assert 4 <= polled.count("slow") <= 6


def test_resource_that_went_off_and_on_is_polled_once_per_interval(host: BenchHost, driver: Driver) -> None:
    host.call(OPEN, spec=spec())
    for _ in range(5):
        host.call(ONLINE)
        host.call(OFFLINE)
    host.call(ONLINE)
    driver.called.clear()

    host.bench.run(20)

    assert 3 <= driver.called.count("is_alive") <= 5


def test_driver_is_told_the_states_of_its_group(host: BenchHost, driver: Driver) -> None:
    host.call(OPEN, "a", spec=spec("a"))
    host.call(ONLINE, "a")
    host.call(OPEN, "b", spec=spec("b"))
    host.call(OPEN, "stranger", spec=spec("stranger"), group="other")

    host.call(ONLINE, "b")

    assert driver.contexts[-1].siblings == {"a": ResourceState.ONLINE, "b": ResourceState.ONLINE_PENDING}


def test_driver_that_cannot_start_up_does_not_stop_the_others() -> None:
    class Broken:
        def __init__(self, services: DriverServices) -> None:
            del services

        async def startup(self) -> None:
            raise RuntimeError("no licence")

    bench = Bench()
    host = BenchHost(bench, BenchVmms(bench), drivers={"broken": Broken, "odd": Driver()})

    assert host.call(OPEN, spec=spec()).error is None
    assert "driver-startup-failed" in host.log.events()
