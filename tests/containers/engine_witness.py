"""A witness of a rig's whole life: hears the engine from before the first start on, and keeps the history on which the
checkers rule.

It belongs to the tests: it waits for events and asserts, with what it saw. It asks the cluster nothing.
"""

import queue
import time
from collections.abc import Callable

import docker

from chaos.arena.docker.artifacts import read_journals
from chaos.arena.docker.container_list import differences, list_containers
from chaos.arena.docker.engine_stream import EngineStream
from chaos.checkers import one_instance_by_events, one_instance_by_journals
from chaos.history.records import ContainerRole, EngineEventSeen, History, Reconciled, Record
from chaos.history.verdict import Ruling
from harness.model.object_names import node_container
from harness.rig.lifecycle.rig import Rig

__all__ = ["EVENT_LAG_S", "EVENT_LIMIT_S", "Witness"]

EVENT_LIMIT_S = 20.0
EVENT_LAG_S = 0.5
"""The engine tells the end of a container up to this long after it."""


class Witness:
    """Of one rig. Records come in on the stream's thread and enter the history on the caller's."""

    def __init__(self, client: docker.DockerClient, rig: str) -> None:
        """Listens from now on; the rig need not exist yet."""
        self.history = History()
        self.began_ns = time.time_ns()
        self._client = client
        self._rig = rig
        self._heard: queue.SimpleQueue[Record] = queue.SimpleQueue()
        self._stream = EngineStream(client, rig=rig, sink=self._heard.put)
        self._stream.open()

    def close(self) -> None:
        """Stop listening."""
        self._stream.close()

    def events(self, *, since_ns: int, action: str, role: ContainerRole = ContainerRole.VM) -> list[EngineEventSeen]:
        """What was heard until now, by time. `action` is the engine's word."""
        self._hear(0)
        events = self.history.of(EngineEventSeen)
        return [event for event in events if event.at_ns >= since_ns and event.action == action and event.role is role]

    def wait_event(
        self,
        what: str,
        *,
        since_ns: int,
        action: str,
        role: ContainerRole = ContainerRole.VM,
        vm: str = "",
        node: str = "",
        elsewhere: str = "",
        limit_s: float = EVENT_LIMIT_S,
    ) -> EngineEventSeen:
        """The first such event; looked for as soon as the engine has told it."""
        deadline = time.monotonic() + limit_s
        while True:
            for event in self.events(since_ns=since_ns, action=action, role=role):
                if vm in ("", event.vm) and node in ("", event.node) and event.node != elsewhere:
                    return event
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"waited {limit_s:g} s for {what}, saw {self.told(since_ns) or 'no event'}"
            self._hear(left_s)

    def watch(self, until_ns: int, look: Callable[[], None]) -> None:
        """Something must not happen: `look` asserts that it did not, until then and at least once."""
        while True:
            look()
            left_s = (until_ns - time.time_ns()) / 1e9
            if left_s <= 0:
                return
            self._hear(left_s)

    def told(self, since_ns: int) -> str:
        """What nodes and VMs did since then, in one line."""
        self._hear(0)
        return ", ".join(
            f"+{(event.at_ns - since_ns) / 1e9:.2f} s {event.action} {event.vm or 'node'} on {event.node}"
            for event in self.history.of(EngineEventSeen)
            if event.at_ns >= since_ns and event.role in (ContainerRole.NODE, ContainerRole.VM)
        )

    def rule(self, rig: Rig) -> None:
        """Both checkers of at most one instance must hold on everything until now."""
        deadline = time.monotonic() + EVENT_LIMIT_S
        while found := self._differences():
            assert time.monotonic() < deadline, f"the engine's list and its events do not agree: {found}"
            time.sleep(EVENT_LAG_S)
        self.history.append(Reconciled(at_ns=time.time_ns()))
        nodes = [node_container(rig.name, node.name) for node in rig.topology.nodes]
        resources = [resource for group in rig.topology.groups for resource in group.resources]
        vms = [resource.name for resource in resources if resource.type == "virtual-machine"]
        for journal in read_journals(self._client, nodes=nodes, vms=vms, at_ns=time.time_ns()):
            self.history.append(journal)
        for check in (one_instance_by_events.check, one_instance_by_journals.check):
            verdict = check(self.history)
            assert verdict.ruling is Ruling.HOLDS, f"{verdict}; {self.told(self.began_ns)}"
            print(verdict.checker, *verdict.notes)

    def _differences(self) -> list[str]:
        listed = list_containers(self._client, rig=self._rig, at_ns=time.time_ns(), with_start=True)
        self._hear(0)
        return differences(listed, self.history.of(EngineEventSeen), since_ns=self.began_ns)

    def _hear(self, limit_s: float) -> None:
        """Takes over what was heard; waits at most `limit_s` for the first."""
        try:
            self.history.append(self._heard.get(timeout=limit_s) if limit_s > 0 else self._heard.get_nowait())
            while True:
                self.history.append(self._heard.get_nowait())
        except queue.Empty:
            return
