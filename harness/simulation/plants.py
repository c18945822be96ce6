"""Broken clusters: each weakens one rule of the design, to show that the search finds what the rule prevents.

They exist only here, as compositions of a simulated world; no production path knows of them. Each names the finding
of the safety review that it brings back.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, TypeVar

from harness.cluster_service.administration.administration import AdministrationManager
from harness.cluster_service.core.messages import Action, ChangeRegister, Event, ResetNode, VoterAnswered
from harness.cluster_service.core.pending_requests import OpenRequest
from harness.cluster_service.membership.membership import MembershipManager
from harness.cluster_service.membership.node import NodeManager
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.cluster_service.service import ClusterService, ServiceConfiguration
from harness.database.protocol import Ballot, BeatAnswer
from harness.errors import EngineError
from harness.model import labels as label
from harness.model.administrative_changes import RequestState
from harness.model.changes import Record, Refusal
from harness.model.records import ClusterRecord, GroupRecord, SessionState
from harness.model.register_keys import CLUSTER_KEY, group_key
from harness.model.session import Session
from harness.model.topology import Fencing
from harness.model.vm import Proof
from harness.ports import Container, Engine, Hypervisor
from harness.resource_host.driver import DriverFactory
from harness.simulation.invariants.reads import WatchedService
from harness.simulation.twins.vmms_link import VmmsLink
from harness.simulation.world.composition import Composition
from harness.simulation.world.fault_kinds import FaultKind
from harness.vmms.power import Power
from harness.vmms.vmms import Vmms

__all__ = [
    "PLANTS",
    "Plant",
    "StopsInsteadOfRemoving",
    "WeakService",
    "made_with",
    "service_of",
    "service_with",
    "vmms_with",
    "vms_driven_by",
    "with_class",
    "with_power",
]

T = TypeVar("T")


class Plant(Composition):
    """A composition with one weak rule, and in which rig it is searched.

    `fencing` is the mode in which the rule matters, `nodes` how many there are; `group`, `vm` and `address` are
    what is said of each of the `groups`, its VM and its address, `last_group` what is said of the last group
    besides, `second_address` whether there is another that would do; `among` are the kinds of fault to draw from, the
    default mix unless said otherwise. `unrest`: what it breaks shows in that the cluster does not come to rest.
    """

    fencing = Fencing.POWER
    nodes = 3
    unrest = False
    group: Mapping[str, Any] = {}
    last_group: Mapping[str, Any] = {}
    vm: Mapping[str, Any] = {}
    address: Mapping[str, Any] = {}
    groups = 4
    second_address = False
    among: tuple[FaultKind, ...] = ()


# Managers


class WeakService(WatchedService):
    """A service some of whose managers are replaced after they were built."""

    def __init__(self, change: Callable[[Any], Any], **named: Any) -> None:
        self._change = change
        super().__init__(**named)

    def _build(self) -> Any:
        return self._change(super()._build())


Weaken = Callable[[Any], None]


def service_with(weaken: Weaken) -> Callable[..., ClusterService]:
    """What makes a service whose managers `weaken` has changed: assigned to `service` of a composition."""

    def changed(managers: Any) -> Any:
        weaken(managers)
        return managers

    def service(
        self: Composition, *, configuration: ServiceConfiguration, jitter: Callable[[], float]
    ) -> ClusterService:
        return WeakService(
            changed, configuration=configuration, codec=self.codec, jitter=jitter, watchers=self.watchers
        )

    return service


def with_class(part: str, weak: type) -> Weaken:
    """A part of it gets another class; `part` may lead through others, with dots."""

    def weaken(whole: Any) -> None:
        attrgetter(part)(whole).__class__ = weak

    return weaken


def service_of(manager: str, weak: type) -> Callable[..., ClusterService]:
    """The same, where that manager, or that part of one, gets another class."""
    return service_with(with_class(manager, weak))


def made_with(make: Callable[..., T], weaken: Weaken) -> Callable[..., T]:
    """What makes the same, changed by `weaken`: for methods of a composition."""

    def changed(self: Composition, **named: Any) -> T:
        made = make(self, **named)
        weaken(made)
        return made

    return changed


def vmms_with(weaken: Weaken) -> Callable[..., Vmms]:
    """What makes a VMMS that `weaken` has changed: assigned to `vmms` of a composition."""
    return made_with(Composition.vmms, weaken)


def with_power(power: type[Power]) -> Weaken:
    """Its switch over nodes gets another class."""
    return with_class("_power", power)


def vms_driven_by(driver: DriverFactory) -> Callable[[Composition], Mapping[str, DriverFactory]]:
    """Drivers with that one for VMs: assigned to `drivers` of a composition."""
    return lambda composition: {**Composition.drivers(composition), "virtual-machine": driver}


class _OwnsByNode(ResourceControlManager):
    def _owns(self, record: GroupRecord) -> bool:
        return record.owner is not None and record.owner.node == self._session.node


class OwnerIsANode(Plant):
    """A rebooted node starts what its dead session owned, while a survivor claims it (finding 1)."""

    service = service_of("resource_control", _OwnsByNode)


class _WritesForOthers(AdministrationManager):
    def _about_group(self, cluster: ClusterRecord, record: GroupRecord, request: OpenRequest) -> list[Action]:
        if record.owner == self._session or not request.call.endswith("line"):
            return super()._about_group(cluster, record, request)
        wanted = request.call.endswith(".online")
        change = RequestState(owner=record.owner, epoch=record.epoch, resource=request.resource, wanted=wanted)
        return [self._change(request, group_key(record.spec.name), change)]


class RequestsAreWrittenAnywhere(Plant):
    """Whoever hears a request writes it, past the owner's starts: it starts what is not wanted (finding 21)."""

    service = service_of("administration", _WritesForOthers)


def _never_see_a_pause(managers: Any) -> None:
    managers.resource_control._moves.paused = lambda: False


class PauseHoldsNothing(Plant):
    """A Paused node starts what it owns."""

    service = service_with(_never_see_a_pause)


class _NeverDown(MembershipManager):
    """Renews whatever the register says, and does not mind to be declared Down."""

    def handle(self, now: int, event: Event) -> list[Action]:
        return [action for action in super().handle(now, event) if not isinstance(action, ResetNode)]

    def is_member(self) -> bool:
        entry = self.cluster.node(self._session.node) if self.cluster is not None else None
        return entry is not None and entry.session == self._session


def _never_be_down(managers: Any) -> None:
    managers.membership.__class__ = _NeverDown
    node: NodeManager = managers.node
    node._seen = lambda _key: Ballot(1 << 60, "")
    learn = node._learn_peers

    def stay_up(now: int, record: ClusterRecord) -> None:
        learn(now, record)
        node._up = True

    node._learn_peers = stay_up  # type: ignore[method-assign]
    answered = node._answered

    def forget_what_changed(now: int, event: VoterAnswered, answer: BeatAnswer) -> None:
        answered(now, event, answer)
        node.noticed.clear()

    node._answered = forget_what_changed  # type: ignore[method-assign]


class ExpiredSessionIsRenewed(Plant):
    """A voter renews whoever asks, also a session that was declared Down, and tells nothing of it (finding 12 a)."""

    fencing = Fencing.SELF
    service = service_with(_never_be_down)


class _DownAndFencedAtOnce:
    """The change that a cluster without the declaration makes: only after the wait, in one step."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def apply(self, record: Record | None) -> Record | Refusal:
        if not isinstance(record, ClusterRecord) or not record.is_up(self.session):
            return Refusal("not Up")
        entry = record.node(self.session.node)
        assert entry is not None
        return record.with_node(replace(entry, state=SessionState.DOWN, fenced=True))


class _DeclaresLate(MembershipManager):
    """Waits first and writes Down afterwards: nothing bars the session meanwhile."""

    _first_seen_us: dict[str, int]

    def _declare_lost(self, now: int) -> list[Action]:
        suspects: dict[str, int] = self.__dict__.setdefault("_first_seen_us", {})
        if self.cluster is None or not self.may_act(now):
            return []
        for entry in self.cluster.up_nodes():
            if entry.session is None or entry.session == self._session:
                continue
            if self._node.may_judge(now) and self._node.expired(now, entry.session):
                suspects.setdefault(str(entry.session), now)
        actions: list[Action] = []
        for name, since_us in list(suspects.items()):
            session = Session.parse(name)
            if now - since_us >= 3_150_000 and self.cluster.is_up(session):
                change = ChangeRegister(
                    id=self._ids.next(), key=CLUSTER_KEY, change=_DownAndFencedAtOnce(session)
                )
                actions.append(change)
                del suspects[name]
        return actions


class NotDeclaredBeforeTheFence(Plant):
    """The fence begins without a recorded Down, so that its victim can renew and go on (finding 12, and section 4)."""

    fencing = Fencing.SELF

    service = service_of("membership", _DeclaresLate)


# VMMS


async def _stop_only(engine: Engine, box: Container) -> None:
    if box.running:
        try:
            await engine.kill(box.id)
        except EngineError:
            return


class StoppedNotRemovedAtJoin(Plant):
    """A joining node stops what its earlier sessions left, and a late start runs it again (finding 2)."""

    async def clear_earlier_sessions(self, hypervisor: Hypervisor) -> None:
        assert isinstance(hypervisor, VmmsLink)
        vmms = hypervisor._process.vmms
        if vmms is None:
            raise EngineError("VMMS is not there")
        await vmms.identity()
        for box in await vmms._power._guests(vmms._node):
            if box.labels.get(label.SESSION) != str(vmms._session):
                await _stop_only(vmms._engine, box)


class StopsInsteadOfRemoving(Power):
    """Cuts the power and stops the VMs, but leaves their containers."""

    async def fence(self, session: Session, *, not_after_us: int) -> None:
        del not_after_us
        boxes = await self._node_containers(session.node)
        guests = await self._guests(session.node)
        for box in [*guests, *boxes]:
            await _stop_only(self._engine, box)
        await self._wait_node_off(session, {box.id: box.started for box in boxes})

    async def _wait_node_off(self, session: Session, killed: dict[str, str]) -> None:
        for _ in range(100):
            boxes = await self._node_containers(session.node)
            if not any(box.running and killed.get(box.id) == box.started for box in boxes):
                return
            await self._runtime.sleep(30_000)
        raise EngineError(f"{session.node} is still on")


class _FencesTheNodeAlone(StopsInsteadOfRemoving):
    """Kills the node only; what its guests do is not looked at."""

    async def fence(self, session: Session, *, not_after_us: int) -> None:
        del not_after_us
        boxes = await self._node_containers(session.node)
        for box in boxes:
            await _stop_only(self._engine, box)
        await self._wait_node_off(session, {box.id: box.started for box in boxes})


class StoppedNotRemovedAtFence(Plant):
    """A fenced session's containers stay, and a late start runs one in the node's next life (finding 2)."""

    vmms = vmms_with(with_power(StopsInsteadOfRemoving))


class FenceWithoutGuests(Plant):
    """The fence kills the node alone: a frozen guest keeps it alive, and containers stay (findings 2 and 4)."""

    vmms = vmms_with(with_power(_FencesTheNodeAlone))


class _StopsAtRelease(Vmms):
    """Takes "not seen running" for the end: no removal while a start is unanswered."""

    async def close(self, vm: str, *, epoch: int) -> Proof:
        record = self._book.vms.get(vm)
        if record is not None and record.current is not None:
            listed = await self._engine.inspect(record.current.id)
            if listed is not None:
                await _stop_only(self._engine, listed)
        self._book.raise_floor(record.group if record is not None else "", epoch + 1)
        self._book.vms.pop(vm, None)
        return Proof.STOPPED

    async def terminate(self, vm: str) -> Proof:
        record = self._book.vms.get(vm)
        if record is not None and record.current is not None:
            listed = await self._engine.inspect(record.current.id)
            if listed is not None:
                await _stop_only(self._engine, listed)
        return Proof.STOPPED


def _stop_at_release(vmms: Any) -> None:
    vmms.__class__ = _StopsAtRelease


class StoppedNotRemovedAtRelease(Plant):
    """An owner releases a group whose start is unanswered, without removing the container (finding 3)."""

    vmms = vmms_with(_stop_at_release)


PLANTS: tuple[type[Plant], ...] = (
    OwnerIsANode,
    RequestsAreWrittenAnywhere,
    PauseHoldsNothing,
    ExpiredSessionIsRenewed,
    NotDeclaredBeforeTheFence,
    StoppedNotRemovedAtJoin,
    StoppedNotRemovedAtFence,
    StoppedNotRemovedAtRelease,
    FenceWithoutGuests,
)
