"""Watchers of what resource hosts do with resources, fed like those of `watch` with every event.

- One at a time: the calls for one resource never overlap, except `terminate`.
- Failed starts: what an error of `online` may have left behind is terminated before it is told as Failed.
- Silence: a call that neither returns nor reports within the pending-timeout is not waited for.
- Checks: a VM that stands still, while nothing else is wrong, is found by the next check.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from harness.model.host_messages import EntryPoint, HostReport, HostRequest
from harness.model.states import ResourceState
from harness.model.topology import SECOND_US, ResourcePolicy, Topology
from harness.ports import OrderRefused
from harness.resource_host.driver import DriverStatus
from harness.simulation.invariants.entry_points import STOPPED_TIMES, OfStandstills
from harness.simulation.invariants.failure_handling import RECOVERED_US
from harness.simulation.invariants.starts import AtMostOneInstance
from harness.simulation.kernel.runtime import Clock
from harness.simulation.world.driver_call_tap import DriverCall
from harness.simulation.world.fault_kinds import FaultKind, Planned

__all__ = ["FailedStartsAreTerminated", "HangsAreFound", "OneCallAtATime", "SilenceEndsACall"]

SLACK_US = SECOND_US // 2
"""For what a check or a time-out takes beside the time that it waits."""
FOR_EVER_US = 1 << 60

_ENDS = (ResourceState.FAILED, ResourceState.OFFLINE)


def _by_any_clock(limit_us: int) -> int:
    """By when that time has passed by the clock of any node."""
    return limit_us + limit_us // 50 + SLACK_US


class OneCallAtATime:
    """Hook `begun` and `ended` to the calls of drivers."""

    def __init__(self, *, told: Callable[[str], None]) -> None:
        self._told = told
        self._under_way: dict[tuple[object, str], DriverCall] = {}

    def begun(self, call: DriverCall) -> None:
        """A resource host calls a driver."""
        if call.entry_point is EntryPoint.TERMINATE:
            return
        other = self._under_way.setdefault((call.driver, call.resource), call)
        if other is not call:
            entry_points = f"{call.entry_point} of {call.resource} begins on {call.node}"
            self._told(f"{entry_points} while its {other.entry_point} is under way")

    def ended(self, call: DriverCall, outcome: object) -> None:
        """The call has ended, in whatever way."""
        del outcome
        key = call.driver, call.resource
        if self._under_way.get(key) is call:
            del self._under_way[key]


class FailedStartsAreTerminated:
    """Hook `begun` and `ended` to the calls of drivers, and `answered` to the reports of every node's resource host."""

    def __init__(self, *, told: Callable[[str], None]) -> None:
        self._told = told
        self._went_wrong: set[tuple[str, str]] = set()

    def begun(self, call: DriverCall) -> None:
        """A resource host calls a driver."""
        self._went_wrong.discard((call.node, call.resource))

    def ended(self, call: DriverCall, outcome: object) -> None:
        """The call has ended. An order that was refused has started nothing."""
        error = isinstance(outcome, Exception) and not isinstance(outcome, OrderRefused)
        bad = isinstance(outcome, DriverStatus) and outcome.state in _ENDS
        if call.entry_point is EntryPoint.ONLINE and (error or bad):
            self._went_wrong.add((call.node, call.resource))

    def answered(self, node: str, report: HostReport) -> None:
        """A resource host says something."""
        settles = report.number is not None and report.error is not None and report.state is ResourceState.FAILED
        if settles and (node, report.resource) in self._went_wrong:
            self._told(f"{report.resource} is Failed on {node} after its online went wrong, and was not terminated")


class SilenceEndsACall(OfStandstills):
    """Hook `begun` and `ended` to the calls of drivers, `answered` to the reports of every node's resource host, and
    `struck` to the faults; once `disturbed` otherwise nothing more is said here: how long a host stands still then
    nobody tells.
    """

    def __init__(self, topology: Topology, *, clock: Clock, told: Callable[[str], None]) -> None:
        self._clock = clock
        self._told = told
        self._limits_us = {name: policy.pending_timeout_us for name, policy in _policies(topology).items()}
        self._under_way: dict[tuple[str, str], DriverCall] = {}
        self._disturbed = False

    def disturbed(self) -> None:
        """Something else happens."""
        self._disturbed = True

    def begun(self, call: DriverCall) -> None:
        """A resource host calls a driver."""
        if call.entry_point in (EntryPoint.ONLINE, EntryPoint.OFFLINE) and not self._disturbed:
            self._under_way[call.node, call.resource] = call
            wait_us = _by_any_clock(self._limits_us[call.resource])
            self._clock.after(wait_us, partial(self._look, call, self._clock.now_us))

    def ended(self, call: DriverCall, outcome: object) -> None:
        """The call has ended, in whatever way."""
        del outcome
        self._is_over(call.node, call.resource, call)

    def answered(self, node: str, report: HostReport) -> None:
        """A resource host says something, perhaps because the driver has said that it is still at work."""
        self._is_over(node, report.resource)

    def _is_over(self, node: str, resource: str, call: DriverCall | None = None) -> None:
        """Nothing can be said any more of that call, or of whichever is under way."""
        if call is None or self._under_way.get((node, resource)) is call:
            self._under_way.pop((node, resource), None)

    def _look(self, call: DriverCall, begun_us: int) -> None:
        silent = self._under_way.get((call.node, call.resource)) is call
        if silent and begun_us > self.stopped_until_us and not self._disturbed:
            limit_s, for_s = self._limits_us[call.resource] / 1e6, (self._clock.now_us - begun_us) / 1e6
            self._told(
                f"{call.entry_point} of {call.resource} on {call.node} is waited for after {for_s:.6f} s of silence:"
                f" its pending-timeout is {limit_s:g} s"
            )


def _policies(topology: Topology) -> dict[str, ResourcePolicy]:
    return {spec.name: spec.policy for group in topology.groups for spec in group.resources}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Hang:
    node: str
    host: object
    at_us: int


class HangsAreFound:
    """Hook `asked` to every node's calls of its resource host, `answered` to the reports and `struck` to the faults;
    once `disturbed` otherwise nothing more is said here. `host_of` tells what is the same as long as a node's resource
    host is, None while there is none.

    A hang is certainly found by a check when its VM is Online, the engine freezes it for long enough, and nothing
    else befalls VM and node from well before the hang on.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        instances: AtMostOneInstance,
        host_of: Callable[[str], object | None],
        clock: Clock,
        told: Callable[[str], None],
    ) -> None:
        self._instances = instances
        self._host_of = host_of
        self._clock = clock
        self._told = told
        self._intervals_us = {
            name: min(policy.is_alive_interval_us, policy.looks_alive_interval_us)
            for name, policy in _policies(topology).items()
        }
        self._states: dict[tuple[str, str], ResourceState] = {}
        self._asked: dict[tuple[str, str], int] = {}
        self._troubled_until_us: dict[str, int] = {}
        self._hangs: dict[str, _Hang] = {}
        self._disturbed = False

    def struck(self, fault: Planned) -> None:
        """A fault is about to strike. That clocks drift, and have done so all the time, is none."""
        if fault.kind is FaultKind.CLOCK_DRIFT or self._disturbed:
            return
        if fault.kind is FaultKind.VM_HANG:
            self._hangs_now(fault)
        else:
            self._hangs.pop(fault.target, None)
        for vm, hang in list(self._hangs.items()):
            if hang.node == fault.target:
                del self._hangs[vm]
        lasts_us = STOPPED_TIMES * fault.duration_us
        if fault.kind in (FaultKind.DRIVER_BREAK, FaultKind.DRIVER_HANG):
            lasts_us = FOR_EVER_US  # it befalls the next calls, whenever these are
        until_us = fault.at_us + lasts_us + RECOVERED_US
        self._troubled_until_us[fault.target] = max(self._troubled_until_us.get(fault.target, 0), until_us)

    def disturbed(self) -> None:
        """Something else happens."""
        self._disturbed = True

    def asked(self, node: str, request: HostRequest) -> None:
        """A service asks something of its resource host."""
        self._asked[node, request.resource] = request.number
        hang = self._hangs.get(request.resource)
        if hang is not None and hang.node == node:
            del self._hangs[request.resource]

    def answered(self, node: str, report: HostReport) -> None:
        """A resource host says something."""
        about = node, report.resource
        self._states[about] = report.state
        if report.number is not None and report.number == self._asked.get(about):
            del self._asked[about]

    def _hangs_now(self, fault: Planned) -> None:
        self._hangs.pop(fault.target, None)
        running, wait_us = self._instances.running(fault.target), _by_any_clock(self._intervals_us[fault.target])
        if len(running) != 1 or running[0].paused or fault.duration_us <= wait_us:
            return
        vm, node, now_us = fault.target, running[0].node, self._clock.now_us
        host, about = self._host_of(node), (node, vm)
        calm = all(self._troubled_until_us.get(name, 0) <= now_us for name in about)
        if host is None or not calm or about in self._asked or self._states.get(about) is not ResourceState.ONLINE:
            return
        hang = self._hangs[vm] = _Hang(node=node, host=host, at_us=now_us)
        self._clock.after(wait_us, partial(self._look, vm, hang))

    def _look(self, vm: str, hang: _Hang) -> None:
        if self._hangs.get(vm) is not hang or self._disturbed or self._host_of(hang.node) != hang.host:
            return
        if self._states[hang.node, vm] is ResourceState.ONLINE:
            for_s, interval_s = (self._clock.now_us - hang.at_us) / 1e6, self._intervals_us[vm] / 1e6
            self._told(
                f"VM {vm} stands still on {hang.node} for {for_s:.6f} s and is Online:"
                f" it is to be checked every {interval_s:g} s"
            )
