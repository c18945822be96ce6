"""The poll schedule: IsAlive and LooksAlive of every resource that is Online, each at its own interval.

The intervals of one group are counted from one common moment, so that its resources with equal intervals fall due
together and are checked side by side, each with its own deadline. A poll is the fallback: what a driver signals by
itself comes first, and a poll that cannot be answered because VMMS does not answer says nothing about the resource. But
where IsAlive cannot tell for a whole pending-timeout the resource counts as failed: no evidence either way is a failure
(the rules of the cluster, section 3), and what is not known to run must not be left alone for ever.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from harness.errors import EngineUnanswered
from harness.model.states import ResourceState
from harness.model.topology import SECOND_US, ResourcePolicy
from harness.ports import DeadlinePassed, Log, Runtime
from harness.resource_host.context import make_context
from harness.resource_host.driver import DriverContext, DriverStatus
from harness.resource_host.resource import HostedResource
from harness.resource_host.unsolicited_reports import hear

__all__ = ["Polls"]

MIN_INTERVAL_US = 10_000
MIN_DEADLINE_US = 5 * SECOND_US
"""A check may take its interval, but at least this long: it may have to wait two seconds for the evidence of a
VM's end.
"""

_Check = Callable[[DriverContext], Awaitable[DriverStatus]]


class Polls:
    """One task per Online resource and kind of check."""

    def __init__(self, *, runtime: Runtime, log: Log, siblings: Callable[[str], dict[str, ResourceState]]) -> None:
        self._runtime = runtime
        self._log = log
        self._siblings = siblings
        self._anchors_us: dict[str, int] = {}

    def begin(self, resource: HostedResource) -> None:
        """It has just gone Online; ends by itself when it ceases to be."""
        self._anchors_us.setdefault(resource.group, self._runtime.now())
        for entry in ("is_alive", "looks_alive"):
            check: _Check | None = getattr(resource.driver, entry, None)
            if check is None:
                self._log("poll-discarded", f"the driver of {resource.name} has no {entry}", resource=resource.name)
            else:
                self._runtime.spawn(self._poll(resource, entry, check), name=f"{entry} of {resource.name}")

    async def _poll(self, resource: HostedResource, entry: str, check: _Check) -> None:
        life = resource.online_life
        anchor_us = self._anchors_us[resource.group]
        silent_since_us: int | None = None
        while True:
            interval_us = _interval_us(resource.spec.policy, entry)
            await self._runtime.sleep(interval_us - (self._runtime.now() - anchor_us) % interval_us)
            if resource.online_life != life:
                return
            if resource.busy:
                silent_since_us = None
                continue
            status = await self._answer(resource, entry, check, max(interval_us, MIN_DEADLINE_US))
            if resource.online_life != life:
                return
            if status is not None:
                silent_since_us = None
            else:
                now_us = self._runtime.now()
                silent_since_us = now_us if silent_since_us is None else silent_since_us
                silent_us = now_us - silent_since_us
                if entry == "looks_alive" or silent_us < resource.spec.policy.pending_timeout_us:
                    continue
                evidence = f"{entry} could not tell for {silent_us / 1e6:.0f} s"
                status = DriverStatus(state=ResourceState.FAILED, evidence=evidence)
            if status.state is not ResourceState.ONLINE:
                message = f"{entry} of {resource.name}: {status.state}, {status.evidence}"
                self._log("poll-failed", message, resource=resource.name)
                hear(resource, replace(status, live=False))

    async def _answer(
        self,
        resource: HostedResource,
        entry: str,
        check: _Check,
        limit_us: int,
    ) -> DriverStatus | None:
        """None: it cannot tell."""
        context = make_context(resource, resource.request, siblings=self._siblings, report=hear)

        async def ask() -> DriverStatus:
            return await check(context)

        try:
            return await self._runtime.within(limit_us, ask())
        except DeadlinePassed:
            return DriverStatus(
                state=ResourceState.FAILED, evidence=f"{entry} did not answer within {limit_us / 1e6:g} s"
            )
        except EngineUnanswered as error:
            self._log("poll-unanswered", f"{entry} of {resource.name} cannot tell: {error}", resource=resource.name)
            return None
        except Exception as error:  # noqa: BLE001 - a check that raises is a bad answer, whatever the driver is made of
            return DriverStatus(state=ResourceState.FAILED, evidence=f"{entry}: {error!r}")


def _interval_us(policy: ResourcePolicy, entry: str) -> int:
    interval_us = policy.is_alive_interval_us if entry == "is_alive" else policy.looks_alive_interval_us
    return max(interval_us, MIN_INTERVAL_US)
