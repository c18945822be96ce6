"""Readiness: whether what runs in a VM is ready for those who use it, asked from its node.

It asks and remembers; what follows is the driver's business. Nothing that a VM answers is believed beyond good or
not good.
"""

from harness.errors import EngineError, EngineUnanswered
from harness.model.vm import VmSpec
from harness.model.workload import Endpoint, Readiness
from harness.ports import Hypervisor, Log, Prober

__all__ = ["ReadinessChecks", "Waiting"]

LIVENESS_FAILURES = 2
"""One late answer of a busy VM is no failure; the next check follows after the resource's interval."""


class Waiting:
    """A VM that was started and is not known to be ready yet. `run` is empty until its start was answered."""

    def __init__(self) -> None:
        self.run = ""


class ReadinessChecks:
    """How often each VM that is Online was found not ready, one time after the other."""

    def __init__(self, *, hypervisor: Hypervisor, reach: Prober, log: Log) -> None:
        self._hypervisor = hypervisor
        self._reach = reach
        self._log = log
        self._failures: dict[str, int] = {}

    async def ask(self, spec: VmSpec, check: Readiness, *, limit_us: int) -> str:
        """Empty when it is ready, else what was seen. Raises EngineUnanswered when nobody can tell."""
        limit_us = min(limit_us, check.timeout_us)
        if check.endpoint:
            return await self._reach.ask(spec.address or "", Endpoint.parse(check.endpoint), limit_us=limit_us)
        shown = " ".join(check.command)
        try:
            status = await self._hypervisor.run_inside(spec.name, check.command, limit_us=limit_us)
        except EngineUnanswered:
            raise
        except EngineError as error:
            return f"{shown}: {error}"
        if status is None:
            return f"{shown} did not end within {limit_us / 1e6:g} s"
        return f"{shown} ended with status {status}" if status else ""

    async def failed(self, spec: VmSpec, check: Readiness) -> str:
        """Asks a VM that is Online, and tells when it ceases or begins to be ready. Empty unless it has failed by
        it.
        """
        try:
            seen = await self.ask(spec, check, limit_us=check.timeout_us)
        except EngineUnanswered as error:
            told = f"whether {spec.name} is ready cannot be told: {error}"
            self._log("readiness-unanswered", told, resource=spec.name, group=spec.group)
            return ""
        before = self._failures.get(spec.name, 0)
        if not seen:
            self.forget(spec.name)
            if before:
                self._log("vm-ready", f"{spec.name} is ready again", resource=spec.name, group=spec.group)
            return ""
        count = self._failures[spec.name] = before + 1
        if not before:
            self._log("vm-not-ready", f"{spec.name} is not ready: {seen}", resource=spec.name, group=spec.group)
        if not check.liveness or count < LIVENESS_FAILURES:
            return ""
        return f"not ready, asked {count} times: {seen}"

    def forget(self, vm: str) -> None:
        """A new life begins."""
        self._failures.pop(vm, None)
