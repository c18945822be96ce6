"""VMMS's book of VMs: which container stands for a VM now, what is known of it, and which of its orders may
still be carried out.

Records only; the calls that change them are in `vmms`, the events in `watch`.
"""

from dataclasses import dataclass, field

from harness.model.vm import Ending, VmSpec, VmState, VmView
from harness.ports import Container, Runtime
from harness.synchronization import Mutex, Signal
from harness.vmms.exit_cause import RunEvidence

__all__ = ["VmContainer", "VmInventory", "VmRecord"]


@dataclass(slots=True, kw_only=True, eq=False)
class VmContainer:
    """One container of a VM. `runs` counts its runs as far as seen; `run` is the StartedAt of the latest, empty
    until it is learned.

    `start_unanswered`: a start of it may still be carried out, so it may never be trusted to stay stopped.
    `awaited_starts`: own orders whose `start` event has not been seen yet.
    """

    id: str
    spec: VmSpec | None
    running: bool = False
    paused: bool = False
    run: str = ""
    started_ns: int = 0
    runs: int = 0
    exit_code: int | None = None
    ending: Ending | None = None
    reason: str = ""
    evidence: RunEvidence = field(default_factory=RunEvidence)
    start_unanswered: bool = False
    awaited_starts: int = 0
    version: int = 0

    @property
    def state(self) -> VmState:
        """What it does now."""
        if not self.running:
            return VmState.STOPPED
        return VmState.PAUSED if self.paused else VmState.RUNNING

    def begin_run(self) -> None:
        """A new run, of which nothing is known yet."""
        self.running, self.paused = True, False
        self.runs += 1
        self.run, self.started_ns = "", 0
        self.exit_code, self.ending, self.reason = None, None, ""
        self.evidence = RunEvidence()
        self.version += 1

    def name_run(self, seen: Container) -> None:
        """The engine has told which run it is."""
        self.run, self.started_ns = seen.started, seen.started_ns
        self.version += 1

    def conclude(self, ending: Ending, reason: str) -> None:
        """How the run ended."""
        self.ending, self.reason = ending, reason
        self.version += 1


class VmRecord:
    """A VM of this session. `turn` is raised by every conclusive end: whatever began under an earlier turn may
    start nothing any more.
    """

    def __init__(self, runtime: Runtime, *, name: str, group: str) -> None:
        self.name = name
        self.group = group
        self.spec: VmSpec | None = None
        self.current: VmContainer | None = None
        self.calls = Mutex(runtime)
        self.changed = Signal(runtime)
        self.turn = 0
        self.ends_under_way = 0
        self.creates_under_way = 0
        self.starts_under_way = 0
        self.create_unanswered = False
        self._last = VmView(name=name, group=group, state=VmState.ABSENT)

    def view(self) -> VmView:
        """The VM as it is known now; an absent one still tells how its last run ended."""
        box = self.current
        if box is None:
            return self._last
        return self._seen(box, box.state)

    def forget_container(self) -> None:
        """Its container is gone."""
        if self.current is not None:
            self._last = self._seen(self.current, VmState.ABSENT)
            self.current = None

    def _seen(self, box: VmContainer, state: VmState) -> VmView:
        return VmView(
            name=self.name,
            group=self.group,
            state=state,
            run=box.run,
            exit_code=box.exit_code,
            ending=box.ending,
            evidence=box.reason,
        )


class VmInventory:
    """All VMs of this session, and the floor under each group's epochs."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.vms: dict[str, VmRecord] = {}
        self._stood_for: dict[str, VmRecord] = {}
        self.floors: dict[str, int] = {}

    def record(self, name: str, group: str) -> VmRecord:
        """The VM's record, made when there is none."""
        record = self.vms.get(name)
        if record is None:
            record = self.vms[name] = VmRecord(self._runtime, name=name, group=group)
        return record

    def raise_floor(self, group: str, epoch: int) -> None:
        """Orders of an earlier ownership epoch of the group no longer hold."""
        self.floors[group] = max(self.floors.get(group, epoch), epoch)

    def container(self, container: str) -> tuple[VmRecord, VmContainer] | None:
        """The VM whose current container this is."""
        record = self._stood_for.get(container)
        if record is None or record.current is None or record.current.id != container:
            return None
        return record, record.current

    def put(self, record: VmRecord, box: VmContainer) -> None:
        """From now on that container stands for the VM."""
        if record.current is not None:
            self._stood_for.pop(record.current.id, None)
        record.current = box
        self._stood_for[box.id] = record

    def forget_container(self, record: VmRecord) -> None:
        """The VM's container is gone."""
        if record.current is not None:
            self._stood_for.pop(record.current.id, None)
        record.forget_container()
