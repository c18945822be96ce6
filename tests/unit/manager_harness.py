"""A bench for the Administration Manager and the Resource Control Manager: registers that change at once, a resource
host that answers as it is told to, and a cluster that is what the test says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.cluster_service.administration.administration import AdministrationManager
from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import (
    Action,
    CallHost,
    ChangeRegister,
    ChangeSettled,
    Event,
    HostConnected,
    HostReported,
    Log,
    RegisterSeen,
    RequestAnswered,
    RequestReceived,
    ResetNode,
    Tick,
)
from harness.cluster_service.core.pending_requests import OpenRequests
from harness.cluster_service.placement.ranking import rank_claimants
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.database.proposer import Result
from harness.model.changes import Refusal
from harness.model.host_messages import EntryPoint, HostReport, HostRequest
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry, SessionState
from harness.model.register_keys import CLUSTER_KEY
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import GroupSpec, ResourcePolicy, ResourceSpec, Settings
from harness.model.vm import Ending, Proof

SECOND = 1_000_000
NODES = ("node1", "node2", "node3")
HERE = Session("node1", "a", "1")
ELSEWHERE = Session("node2", "b", "1")


def resource(name: str, *depends_on: tuple[str, ...], **policy: Any) -> ResourceSpec:
    return ResourceSpec(name=name, type="virtual-machine", depends_on=depends_on, policy=ResourcePolicy(**policy))


def sessions() -> dict[str, Session]:
    return {name: Session(name, "ab"[index % 2], "1") for index, name in enumerate(NODES)}


@dataclass
class _Cluster:
    """Node, membership and failover as the managers see them."""

    cluster: ClusterRecord
    groups: dict[str, GroupRecord] = field(default_factory=dict)
    lease_live_now: bool = True
    silent: set[str] = field(default_factory=set)

    def lease_end_us(self) -> int:
        return 10**15

    def lease_live(self, now: int) -> bool:
        del now
        return self.lease_live_now

    def may_act(self, now: int) -> bool:
        return self.lease_live(now)

    @property
    def own_entry(self) -> NodeEntry | None:
        return self.cluster.node(HERE.node)

    def candidates(self, now: int) -> tuple[str, ...]:
        del now
        return tuple(entry.name for entry in self.cluster.up_nodes() if entry.name not in self.silent)

    def groups_asked(self) -> int:
        return len(self.cluster.groups)

    def targets(self, groups: list[GroupSpec], able: Sequence[str]) -> dict[str, list[str]]:
        return rank_claimants(orphans=groups, candidates=able, groups_owned={})

    def keeps(self, name: str) -> bool:
        del name
        return True

    def owner_node(self, name: str) -> str:
        owner = self.groups[name].owner
        return owner.node if owner is not None else ""


class ManagerBench:
    """One group, by default owned by node1, on which the managers run. `calls` are the host's, as `online vm`;
    `settles` is how the next change ends, if not as its record says.
    """

    def __init__(
        self, *resources: ResourceSpec, owner: Session | None = HERE, wanted: bool = True, **group: Any
    ) -> None:
        spec = GroupSpec(name="web", resources=resources, **group)
        entries = tuple(
            NodeEntry(name=name, address="", session=session, state=SessionState.UP)
            for name, session in sessions().items()
        )
        cluster = ClusterRecord(rig="r", nodes=entries, groups=("web",), settings=Settings())
        self.around = _Cluster(cluster)
        self.record = GroupRecord(
            spec=spec, owner=owner, epoch=1, persistent=dict.fromkeys((one.name for one in resources), wanted)
        )
        self.now = SECOND
        self.hour = 12
        self.calls: list[str] = []
        self.logs: list[Log] = []
        self.resets: list[str] = []
        self.answers: list[RequestAnswered] = []
        self.changes: list[str] = []
        self.fails_online: set[str] = set()
        self.cannot_open: set[str] = set()
        self.holds: set[EntryPoint] = set()
        self.held: list[HostRequest] = []
        self.settles: Result | None = None
        self.holds_changes = False
        self._held_changes: list[ChangeRegister] = []
        self.guests_ended_us: int | None = None
        self.requests = OpenRequests()
        self._numbers = 0
        self._states: dict[str, ResourceState] = {}
        around: Any = self.around
        ids = Ids()
        self.administration = AdministrationManager(
            session=HERE, node=around, membership=around, failover=around, requests=self.requests, ids=ids
        )
        self.control = ResourceControlManager(
            session=HERE,
            node=around,
            membership=around,
            failover=around,
            requests=self.requests,
            ids=ids,
            guests_ended_us=lambda: self.guests_ended_us,
            hour_of_day=lambda: self.hour,
        )
        self.see(self.record)
        self.deliver(HostConnected())

    # What a test does.

    def ask(self, call: str, **arguments: str | bool) -> RequestAnswered | None:
        """Ask, and return the answer if there is one already."""
        self._numbers += 1
        self.deliver(RequestReceived(id=self._numbers, call=call, arguments=arguments))
        return self.answer()

    def answer(self) -> RequestAnswered | None:
        """The answer to the last request."""
        found = [answer for answer in self.answers if answer.id == self._numbers]
        assert len(found) <= 1
        return found[0] if found else None

    def wait(self, seconds: float) -> None:
        """Let time pass, in steps of a tenth of a second at most."""
        end = self.now + round(seconds * SECOND)
        while self.now < end:
            self.now = min(end, self.now + max((end - self.now) // 20, 100_000))
            self.deliver(Tick())

    def report(self, name: str, state: ResourceState, *, ending: Ending | None = None, run: str = "") -> None:
        """The host tells something that it was not asked for."""
        self._states[name] = state
        report = self._report(name, state, ending=ending, run=run or f"run{len(self.calls)}")
        self.deliver(HostReported(report))

    def crash(self, name: str) -> None:
        self.report(name, ResourceState.FAILED, ending=Ending.CRASHED)

    def let_go(self) -> None:
        """The host carries out what it has held back."""
        self.holds.clear()
        held, self.held = self.held, []
        for request in held:
            self._carry_out(request)

    def let_changes_go(self) -> None:
        """The database makes the changes that it has held back."""
        self.holds_changes = False
        held, self._held_changes = self._held_changes, []
        for wish in held:
            self._change(wish)

    def set_node(self, name: str, **fields: Any) -> None:
        """Change a member's entry."""
        entry = self.around.cluster.node(name)
        assert entry is not None
        self.around.cluster = self.around.cluster.with_node(replace(entry, **fields))
        self.deliver(RegisterSeen(key=CLUSTER_KEY, record=self.around.cluster, version=1))

    def see(self, record: GroupRecord) -> None:
        """The group's register is this now."""
        self.record = record
        self.around.groups["web"] = record
        self.deliver(RegisterSeen(key="group/web", record=record, version=1))

    def state(self, name: str) -> ResourceState:
        return self.control.states("web")[name]

    def why(self, name: str) -> str:
        return str(self.control.told(self.now, "web")[name]["why"])

    def since(self, mark: int) -> list[str]:
        return self.calls[mark:]

    def events(self) -> list[str]:
        return [log.event for log in self.logs]

    # How the world answers.

    def deliver(self, event: Event) -> None:
        wishes: list[Action] = [
            *self.administration.handle(self.now, event),
            *self.control.handle(self.now, event),
        ]
        for wish in wishes:
            match wish:
                case ChangeRegister():
                    self._change(wish)
                case CallHost(request):
                    self.calls.append(f"{request.entry_point} {request.resource}")
                    self._carry_out(request)
                case RequestAnswered():
                    self.answers.append(wish)
                case Log():
                    self.logs.append(wish)
                case ResetNode(reason):
                    self.resets.append(reason)
                case _:
                    raise AssertionError(f"nobody here carries out {wish!r}")

    def _change(self, wish: ChangeRegister) -> None:
        if self.holds_changes:
            self._held_changes.append(wish)
            return
        self.changes.append(type(wish.change).__name__)
        if self.settles is not None:
            result, self.settles = self.settles, None
            self.deliver(ChangeSettled(id=wish.id, key=wish.key, result=result))
            return
        record = self.around.cluster if wish.key == "cluster" else self.record
        changed = wish.change.apply(record)
        if isinstance(changed, Refusal):
            self.deliver(ChangeSettled(id=wish.id, key=wish.key, result=Result.REFUSED, reason=changed.reason))
            return
        if isinstance(changed, ClusterRecord):
            self.around.cluster = changed
            self.deliver(RegisterSeen(key="cluster", record=changed, version=1))
        else:
            self.see(changed)
        self.deliver(ChangeSettled(id=wish.id, key=wish.key, result=Result.DONE))

    def _carry_out(self, request: HostRequest) -> None:
        if request.entry_point in self.holds:
            self.held.append(request)
            return
        name = request.resource
        error: str | None = None
        proof: Proof | None = None
        match request.entry_point:
            case EntryPoint.OPEN:
                error = "no image" if name in self.cannot_open else None
                self._states.setdefault(name, ResourceState.OFFLINE)
            case EntryPoint.ONLINE:
                error = "it does not start" if name in self.fails_online else None
                self._states[name] = ResourceState.FAILED if error else ResourceState.ONLINE
            case _:
                self._states[name] = ResourceState.OFFLINE
                proof = Proof.STOPPED
        report = self._report(name, self._states[name], number=request.number, error=error, proof=proof)
        self.deliver(HostReported(report))

    def _report(self, name: str, state: ResourceState, **told: Any) -> HostReport:
        return HostReport(
            sequence=0, resource=name, group="web", epoch=self.record.epoch, state=state, at_us=self.now, **told
        )
