"""The VMs of one node: prepares, starts and ends their containers, and proves the end.

Implements the `Hypervisor` port for one session. It decides nothing: it carries out orders whose session, epoch and
time still hold, checked just before the engine's call, and refuses the rest. The safety of the whole cluster leans on
two of its habits: a failed start is never believed to be without effect, and an end is only told when it is conclusive
(safety review, findings 2 and 3).
"""

from harness.errors import EngineError, EngineTooLate, EngineUnanswered, NoSuchContainer
from harness.model import labels as label
from harness.model.labels import Role
from harness.model.session import Session
from harness.model.vm import Order, Proof, VmNotice, VmSpec, VmState, VmView
from harness.ports import Container, Engine, Log, OrderRefused, Runtime
from harness.synchronization import all_of
from harness.vmms.engine_event_watcher import EngineEventWatcher
from harness.vmms.exit_cause import SIGKILL, SIGTERM
from harness.vmms.guest_exec import GuestExec
from harness.vmms.inventory import VmContainer, VmInventory, VmRecord
from harness.vmms.notifications import Notifications, Subscription
from harness.vmms.power import Power

__all__ = ["Vmms"]

IDENTITY_RETRY_US = 200_000
DIE_EVENT_US = 1_000_000
"""After a SIGKILL that the engine has acknowledged, its `die` event took at most 0.6 s."""
REMOVAL_ROUNDS = 5
REMOVAL_PAUSE_US = 100_000


class Vmms:
    """One process's life. `run` must be spawned once; every call waits until it has learned its session and listed the
    VMs.
    """

    def __init__(
        self, *, runtime: Runtime, engine: Engine, rig: str, node: str, log: Log, container: str | None = None
    ) -> None:
        """`container` is the id, or its beginning, of this node's container; None: found by the rig's labels."""
        self._runtime = runtime
        self._engine = engine
        self._rig = rig
        self._node = node
        self._log = log
        self._container = container
        self._book = VmInventory(runtime)
        self._notices = Notifications(runtime)
        self._inside = GuestExec(runtime=runtime, engine=engine)
        self._power = Power(runtime=runtime, engine=engine, rig=rig, log=log)
        self._ready = runtime.pending()
        self._session: Session | None = None
        self._cleared = False
        self._watch: EngineEventWatcher

    async def run(self) -> None:
        """Learn the session, then follow the engine for ever."""
        own, self._session = await self._learn_session()
        watch = self._watch = EngineEventWatcher(
            runtime=self._runtime,
            engine=self._engine,
            book=self._book,
            publish=self._notices.publish,
            log=self._log,
            labels={label.RIG: self._rig, label.NODE: self._node},
            session_label=str(self._session),
            own_container=own,
        )

        async def open_doors() -> None:
            await watch.ready
            self._ready.set_result(None)

        self._runtime.spawn(open_doors(), name="vmms ready")
        await watch.serve()

    async def alive(self) -> None:
        """Whether this process turns: answered at once, whatever engine and calls under way are doing."""

    # The session.

    async def identity(self) -> Session:
        """The session of this life of the node."""
        return await self._own_session()

    async def clear_earlier_sessions(self) -> int:
        """Remove what earlier sessions of this node left; returns how many containers. Raises EngineError unless
        none is left.

        Done once: what an earlier session asked for may still be created afterwards, but never started, because its
        start would name an id that nobody was told. So a restarted service does not wait for a stalled engine.
        """
        if self._cleared:
            return 0
        removed = await self._power.clear(self._node, keep=await self._own_session())
        self._cleared = True
        return removed

    async def fence(self, session: Session, *, not_after_us: int) -> None:
        """See `Power.fence`. Raises EngineError also when asked to fence this very session."""
        if session == await self._own_session():
            raise EngineError(f"fencing of {session}: that is this node's own session")
        await self._power.fence(session, not_after_us=not_after_us)
        # Its voter is missed, and whoever asked may be gone by now: not left to the caller.
        self._runtime.spawn(self._power_on_again(session.node), name=f"power on {session.node}")

    async def _power_on_again(self, node: str) -> None:
        try:
            await self._power.power_on(node)
        except EngineError as error:
            self._log("power-on-failed", f"power-on of {node} after its fence: {error}", node=node)

    async def power_on(self, node: str) -> bool:
        """See `Power.power_on`."""
        await self._ready
        return await self._power.power_on(node)

    # VMs.

    async def prepare(self, spec: VmSpec, *, epoch: int, adopt: bool) -> VmView:
        """Have a container that can be started; keep what runs if `adopt`, else end it conclusively. Raises
        EngineError.
        """
        await self._ready
        self._book.raise_floor(spec.group, epoch)
        record = self._book.record(spec.name, spec.group)
        record.group = spec.group
        async with record.calls:
            await self._no_end_under_way(record)
            record.spec = spec
            if record.current is not None and record.current.running and adopt:
                return record.view()
            if record.current is not None and record.current.running:
                await self._end(record, remove=False)
            turn = record.turn
            await self._startable(record, turn)
            return record.view()

    async def start(self, vm: str, *, order: Order) -> VmView:
        """Start a prepared VM; one that runs already is left alone. Raises OrderRefused or EngineError."""
        await self._ready
        record = self._book.vms.get(vm)
        if record is None or record.spec is None:
            raise self._refused(vm, order, "it is not prepared here")
        async with record.calls:
            await self._no_end_under_way(record)
            turn = record.turn
            self._check(record, order, turn)
            if record.current is not None and record.current.running:
                return record.view()
            box = await self._startable(record, turn)
            self._check(record, order, turn)
            return await self._start(record, box, order)

    async def shut_down(self, vm: str, *, grace_us: int) -> Proof:
        """End gracefully: TERM, then after `grace_us` microseconds KILL. Both leave no `stop` event. Raises EngineError
        without proof.
        """
        await self._ready
        record = self._book.vms.get(vm)
        if record is None:
            return await self._remove_unknown(vm)
        async with record.calls:
            box = record.current
            if box is not None and box.running and not box.start_unanswered:
                box.evidence.asked = True
                runs = box.runs
                try:
                    await self._engine.kill(box.id, signal=SIGTERM)
                except EngineError as error:
                    self._log("shut-down-failed", f"TERM for {vm}: {error}; killing it", vm=vm)
                else:
                    await record.changed.wait_until(
                        lambda: not box.running or box.runs != runs or record.current is not box, limit_us=grace_us
                    )
            return await self._end(record, remove=False)

    async def terminate(self, vm: str) -> Proof:
        """End at once and conclusively, overtaking any call under way. Raises EngineError without proof."""
        await self._ready
        record = self._book.vms.get(vm)
        if record is None:
            return await self._remove_unknown(vm)
        return await self._end(record, remove=False)

    async def close(self, vm: str, *, epoch: int) -> Proof:
        """End conclusively and forget; orders up to `epoch` no longer hold. Raises EngineError unless no container is
        left.
        """
        await self._ready
        record = self._book.vms.get(vm)
        if record is None:
            return await self._remove_unknown(vm)
        self._book.raise_floor(record.group, epoch + 1)
        proof = await self._end(record, remove=True)
        if record.current is None and not record.creates_under_way:
            self._book.vms.pop(vm, None)
        return proof

    async def view(self, vm: str) -> VmView:
        """The VM as known now; ABSENT when it is not known."""
        await self._ready
        record = self._book.vms.get(vm)
        if record is None:
            return VmView(name=vm, group="", state=VmState.ABSENT)
        return record.view()

    async def vms(self) -> list[VmView]:
        """Every VM of this session."""
        await self._ready
        return [record.view() for record in self._book.vms.values()]

    async def run_inside(self, vm: str, command: tuple[str, ...], *, limit_us: int) -> int | None:
        """The status of a command in a running VM; None when it has not ended within `limit_us` microseconds.
        Raises EngineError.
        """
        await self._ready
        record = self._book.vms.get(vm)
        if record is None or record.current is None or not record.current.running:
            raise EngineError(f"{command[0]} in {vm}: it does not run here")
        return await self._inside.run(record.current.id, command, limit_us=limit_us)

    def notices(self) -> Subscription:
        """From now on every change, after one notice (not live) of each VM as it is."""
        now = self._runtime.now()
        known = [VmNotice(view=record.view(), live=False, at_us=now) for record in self._book.vms.values()]
        return self._notices.subscribe(known)

    def drop_notices(self, subscription: Subscription) -> None:
        """The reader of the subscription is gone."""
        self._notices.unsubscribe(subscription)

    # Orders and starts.

    def _check(self, record: VmRecord, order: Order, turn: int) -> None:
        floor = self._book.floors.get(record.group, 0)
        if order.session != self._session:
            raise self._refused(record.name, order, f"the session here is {self._session}")
        if order.epoch < floor:
            raise self._refused(record.name, order, f"epochs below {floor} no longer hold")
        if self._runtime.now() > order.not_after_us:
            raise self._refused(record.name, order, "its time has passed")
        if record.turn != turn:
            raise self._refused(record.name, order, "the VM was ended meanwhile")

    def _refused(self, vm: str, order: Order, reason: str) -> OrderRefused:
        text = f"start of {vm} by {order.session} in epoch {order.epoch} refused: {reason}"
        self._log("order-refused", text, vm=vm, epoch=order.epoch, session=str(order.session))
        return OrderRefused(text)

    async def _start(self, record: VmRecord, box: VmContainer, order: Order) -> VmView:
        # Until the engine has answered, and for ever if it does not, this container may start at any time.
        box.start_unanswered = True
        box.awaited_starts += 1
        box.version += 1
        record.starts_under_way += 1
        turn = record.turn
        try:
            await self._start_and_look(record, box, order.not_after_us)
        except EngineTooLate as late:
            # Nothing was asked of the engine, so the container is as it was.
            box.start_unanswered = False
            box.awaited_starts = max(box.awaited_starts - 1, 0)
            raise self._refused(record.name, order, "its time has passed") from late
        finally:
            record.starts_under_way -= 1
            record.changed.notify()
        if record.turn != turn:
            raise EngineError(f"start of {record.name}: it was ended while it started")
        return record.view()

    async def _start_and_look(self, record: VmRecord, box: VmContainer, not_after_us: int) -> None:
        failure: EngineError | None = None
        runs = box.runs
        try:
            await self._engine.start(box.id, not_after_us=not_after_us)
        except EngineTooLate:
            raise
        except EngineError as error:
            failure = error
        seen = await self._engine.inspect(box.id)
        if failure is None:
            # Not before this look: an end that comes between answer and event must not take it for stopped.
            box.start_unanswered = False
        if seen is None:
            if record.current is box:
                self._watch.container_gone(record)
            raise NoSuchContainer(f"start of {record.name}: its container was removed meanwhile")
        if box.runs == runs and (seen.running or failure is None) and not box.running:
            # The answer came before the event.
            box.begin_run()
            box.evidence.asked = record.ends_under_way > 0
        if box.runs != runs and not box.run:
            box.name_run(seen)
            if box.running or box.ending is not None:
                self._watch.tell(record)
        if failure is not None and not seen.running:
            self._log(
                "start-failed", f"start of {record.name} failed and may still happen: {failure}", vm=record.name
            )
            raise failure

    async def _startable(self, record: VmRecord, turn: int) -> VmContainer:
        """A stopped container that no earlier order can start behind our back, made from the VM's present spec."""
        box = record.current
        if box is not None and not box.start_unanswered and box.spec == record.spec:
            return box
        if box is not None or record.create_unanswered:
            await self._remove_all(record)
        return await self._create(record, turn)

    async def _create(self, record: VmRecord, turn: int) -> VmContainer:
        spec = record.spec
        if spec is None:
            raise EngineError(f"creation of {record.name}: it is not prepared here")
        session = await self._own_session()
        record.create_unanswered = True
        record.creates_under_way += 1
        try:
            made = await self._engine.create_vm(
                spec, session=session, labels=self._labels_of(record.name, record.group)
            )
        finally:
            record.creates_under_way -= 1
        if record.turn != turn:
            await self._engine.remove(made)
            raise EngineError(f"creation of {record.name}: it was ended meanwhile")
        record.create_unanswered = False
        box = VmContainer(id=made, spec=spec)
        self._book.put(record, box)
        return box

    # Ends.

    async def _end(self, record: VmRecord, *, remove: bool) -> Proof:
        record.turn += 1
        record.ends_under_way += 1
        try:
            box = record.current
            if box is not None and box.running:
                box.evidence.asked = True
            if not remove and box is not None and not box.start_unanswered and await self._stopped(record, box):
                return Proof.STOPPED
            await self._remove_all(record)
            return Proof.REMOVED
        finally:
            record.ends_under_way -= 1
            record.changed.notify()

    async def _stopped(self, record: VmRecord, box: VmContainer) -> bool:
        """Whether the stream has shown its end. A stop that only a call has seen does not do: its late event would be
        taken for a later run's.
        """
        if not box.running:
            return True
        runs = box.runs
        try:
            await self._engine.kill(box.id, signal=SIGKILL)
        except EngineError as error:
            self._log("kill-failed", f"kill of {record.name}: {error}; looking, then removing it", vm=record.name)
            if isinstance(error, EngineUnanswered | NoSuchContainer):
                return False
        ended = await record.changed.wait_until(lambda: not box.running, limit_us=DIE_EVENT_US)
        return ended and box.runs == runs and record.current is box and not box.start_unanswered

    async def _remove_all(self, record: VmRecord) -> None:
        """Until the engine shows no container of this VM and session, also none from a creation whose answer was
        lost.
        """
        await self._remove_by_label(record.name)
        box = record.current
        if box is not None:
            self._watch.container_gone(record)
        record.create_unanswered = record.creates_under_way > 0

    async def _remove_unknown(self, vm: str) -> Proof:
        await self._remove_by_label(vm)
        return Proof.REMOVED

    async def _remove_by_label(self, vm: str) -> None:
        labels = {
            label.RIG: self._rig,
            label.NODE: self._node,
            label.ROLE: Role.VM.value,
            label.RESOURCE: vm,
            label.SESSION: str(self._session),
        }
        errors: list[Exception] = []
        for _ in range(REMOVAL_ROUNDS):
            left = await self._engine.containers(labels=labels)
            if not left:
                return
            removals = [self._engine.remove(box.id) for box in left]
            errors = await all_of(self._runtime, removals, name=f"remove {vm}")
            for error in errors:
                if isinstance(error, EngineUnanswered):
                    raise error
            if errors:
                await self._runtime.sleep(REMOVAL_PAUSE_US)
        told = "; ".join(str(error) for error in errors)
        raise EngineError(
            f"removal of {vm}: containers are left after {REMOVAL_ROUNDS} rounds; last errors: {told}"
        )

    async def _no_end_under_way(self, record: VmRecord) -> None:
        while record.ends_under_way:
            await record.changed.wait()

    # Identity.

    async def _own_session(self) -> Session:
        await self._ready
        assert self._session is not None  # set before `ready`
        return self._session

    async def _learn_session(self) -> tuple[str, Session]:
        while True:
            try:
                found = await self._own_container()
            except EngineError as error:
                self._log("engine-unanswered", f"cannot find this node's own container, trying again: {error}")
                await self._runtime.sleep(IDENTITY_RETRY_US)
                continue
            return found.id, Session(self._node, found.id[:12], found.started)

    async def _own_container(self) -> Container:
        if self._container is not None:
            found = await self._engine.inspect(self._container)
            if found is None:
                raise EngineError(f"no container {self._container}: does the socket lead to another engine?")
            return found
        labels = {label.RIG: self._rig, label.ROLE: Role.NODE.value, label.NODE: self._node}
        running = [box for box in await self._engine.containers(labels=labels) if box.running]
        if len(running) != 1:
            raise EngineError(
                f"{len(running)} running containers have the labels of node {self._node}, one is expected"
            )
        return running[0]

    def _labels_of(self, vm: str, group: str) -> dict[str, str]:
        return {
            label.RIG: self._rig,
            label.NODE: self._node,
            label.ROLE: Role.VM.value,
            label.GROUP: group,
            label.RESOURCE: vm,
            label.SESSION: str(self._session),
        }
