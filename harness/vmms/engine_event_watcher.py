"""VMMS's one event stream: keeps the book right, judges how runs ended, and tells the subscribers.

The stream is the evidence; a listing replaces it after a gap, and then nothing is known of how a run ended. A `stop`
event, or a VM's own exit with code 0, counts as a wish only if it was seen live, the node itself was not told to
stop, and one second later the VM still is stopped and the engine answers: an orderly shutdown of the engine looks
exactly the same at first (safety review, finding 8).
"""

from collections.abc import Callable

from harness.errors import EngineError
from harness.model import labels as label
from harness.model.labels import Role
from harness.model.vm import Ending, VmNotice
from harness.ports import Container, Engine, EngineEvent, EventGap, Log, Runtime
from harness.vmms.exit_cause import SIGKILL, SIGTERM
from harness.vmms.inventory import VmContainer, VmInventory, VmRecord

__all__ = ["EngineEventWatcher"]

EVIDENCE_US = 1_000_000
"""How long a `stop` may follow its `die`, and how long a stopped VM must stay so to count as stopped on purpose.
"""
RETRY_US = 200_000


class EngineEventWatcher:
    """Follows the engine for one session. `serve` runs for ever; `ready` is settled when the book is right for the
    first time.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        engine: Engine,
        book: VmInventory,
        publish: Callable[[VmNotice], None],
        log: Log,
        labels: dict[str, str],
        session_label: str,
        own_container: str,
    ) -> None:
        """`labels` are those of everything of this rig and node; `own_container` is the full id of the node's."""
        self._runtime = runtime
        self._engine = engine
        self._book = book
        self._publish = publish
        self._log = log
        self._labels = labels
        self._session = session_label
        self._own_container = own_container
        self._told_to_stop = False
        self.ready = runtime.pending()

    async def serve(self) -> None:
        """Read the stream for ever, and list whenever it may have lost something."""
        while True:
            stream = self._engine.events(labels=self._labels)
            await self._list_until_right()
            if not self.ready.done():
                self.ready.set_result(None)
            try:
                async for item in stream:
                    if isinstance(item, EventGap):
                        self._log("event-gap", "the event stream may have lost events; listing the VMs")
                        await self._list_until_right()
                    else:
                        self._see(item)
            except EngineError as error:
                self._log("event-stream-lost", f"the event stream broke: {error}")
                await self._runtime.sleep(RETRY_US)

    # Events.

    def _see(self, event: EngineEvent) -> None:
        if event.container == self._own_container:
            if event.action == "kill" and event.signal != SIGKILL:
                self._told_to_stop = True
            return
        if event.labels.get(label.ROLE) != Role.VM:
            return
        found = self._book.container(event.container)
        if found is None:
            if event.action == "start":
                self._start_of_a_stranger(event)
            return
        record, box = found
        if event.at_ns < box.started_ns:
            return  # of an earlier run: the stream is behind what a call has learned
        self._apply(record, box, event)
        record.changed.notify()

    def _apply(self, record: VmRecord, box: VmContainer, event: EngineEvent) -> None:
        box.version += 1
        match event.action:
            case "start":
                self._started(record, box)
            case "kill":
                box.evidence.signals.append(event.signal or SIGKILL)
            case "oom":
                box.evidence.out_of_memory = True
            case "pause" | "unpause":
                box.paused = event.action == "pause"
                self.tell(record)
            case "die":
                self._died(record, box, event.exit_code)
            case "stop":
                box.evidence.stop_seen = True
            case "destroy":
                self.container_gone(record)
            case _:
                pass

    def _started(self, record: VmRecord, box: VmContainer) -> None:
        own = box.awaited_starts > 0
        box.awaited_starts = max(box.awaited_starts - 1, 0)
        if box.running and box.run:
            return  # an order's answer, or a listing, came first: a new run would need a `die` before
        asked = box.evidence.asked and record.ends_under_way > 0
        box.begin_run()
        box.evidence.asked = asked
        if not own:
            self._log(
                "vm-started-by-hand", f"VM {record.name} was started outside the cluster", vm=record.name
            )
        self._runtime.spawn(self._learn_run(record, box), name=f"learn run of {record.name}")

    async def _learn_run(self, record: VmRecord, box: VmContainer) -> None:
        """Ask the engine which run it is, and tell it; the call that ordered the start usually has the answer first."""
        runs = box.runs
        if record.starts_under_way:
            await record.changed.wait_until(lambda: bool(box.run) or not record.starts_under_way, limit_us=RETRY_US)
        while record.current is box and box.runs == runs and not box.run:
            try:
                seen = await self._engine.inspect(box.id)
            except EngineError:
                await self._runtime.sleep(RETRY_US)
                continue
            if seen is None:
                return  # its destroy event tells
            if box.runs == runs and not box.run:
                box.name_run(seen)
                record.changed.notify()
                if box.running or box.ending is not None:
                    self.tell(record)

    def _died(self, record: VmRecord, box: VmContainer, exit_code: int | None) -> None:
        if not box.running:
            return  # a failed start emits this too
        box.running = box.paused = False
        box.exit_code = exit_code
        box.evidence.asked |= record.ends_under_way > 0
        verdict = box.evidence.ending(exit_code)
        if verdict is None:
            self._runtime.spawn(self._look_again(record, box, box.runs), name=f"evidence of {record.name}")
        else:
            self._conclude(record, box, *verdict)

    async def _look_again(self, record: VmRecord, box: VmContainer, runs: int) -> None:
        """A second after what may have been a wish: was it one?"""
        seen = box.evidence
        by_signal = SIGTERM in seen.signals

        def overtaken() -> bool:
            # It runs again, or is gone, or a listing has concluded: that has been told.
            return box.runs != runs or record.current is not box or box.ending is not None

        if by_signal:
            await record.changed.wait_until(lambda: seen.stop_seen or overtaken(), limit_us=EVIDENCE_US)
        doubt = ""
        if (seen.stop_seen or not by_signal) and not overtaken():
            await self._runtime.sleep(EVIDENCE_US)
            doubt = await self._doubt(box)
        if overtaken():
            return
        if by_signal and not seen.stop_seen:
            self._conclude(record, box, Ending.KILLED, "signal 15 through the engine, and no stop event followed")
        elif doubt:
            self._conclude(record, box, Ending.UNKNOWN, doubt)
        elif by_signal:
            self._conclude(record, box, Ending.STOPPED, "a stop event, and still stopped one second later")
        else:
            reason = "exit code 0 without any signal, and still stopped one second later"
            self._conclude(record, box, Ending.SHUT_DOWN, reason)

    async def _doubt(self, box: VmContainer) -> str:
        """Why an end may not have been a wish about this VM; empty when it was."""
        if self._told_to_stop:
            return "stopped while the node itself was told to stop"
        try:
            seen = await self._engine.inspect(box.id)
        except EngineError as error:
            return f"stopped, and the engine does not answer since: {error}"
        return "stopped, but running again" if seen is not None and seen.running else ""

    def _conclude(self, record: VmRecord, box: VmContainer, ending: Ending, reason: str) -> None:
        box.conclude(ending, reason)
        self._log(
            "vm-ended", f"VM {record.name} ended: {ending.value}, {reason}", vm=record.name, run=box.run
        )
        record.changed.notify()
        if box.run:
            self.tell(record)

    def container_gone(self, record: VmRecord, *, live: bool = True) -> None:
        """The current container does not exist any more."""
        box = record.current
        if box is None:
            return
        if box.running or (box.run and box.ending is None):
            asked = box.evidence.asked or record.ends_under_way > 0
            box.running = False
            box.conclude(Ending.ASKED if asked else Ending.UNKNOWN, "its container was removed")
        self._book.forget_container(record)
        record.changed.notify()
        self.tell(record, live=live)

    def tell(self, record: VmRecord, *, live: bool = True) -> None:
        """A notice of the VM as it is known now."""
        self._publish(VmNotice(view=record.view(), live=live, at_us=self._runtime.now()))

    def _start_of_a_stranger(self, event: EngineEvent) -> None:
        # A container of an earlier session, or one whose creation was never answered: nobody has ordered it to run.
        vm = event.labels.get(label.RESOURCE, "")
        self._log(
            "stranger-started", f"an unknown container of VM {vm} was started; removing it", vm=vm
        )
        self._runtime.spawn(self._remove_stranger(event.container), name="remove stranger")

    async def _remove_stranger(self, container: str) -> None:
        try:
            await self._engine.remove(container)
        except EngineError as error:
            self._log("stranger-left", f"could not remove {container[:12]}: {error}")

    # Listings.

    async def _list_until_right(self) -> None:
        """Make the book agree with the engine. What a call or an event changed meanwhile is newer than the listing, so
        list again.
        """
        for box in self._boxes():
            box.evidence.lost_events = True
            box.awaited_starts = 0
        vms = {**self._labels, label.ROLE: Role.VM.value, label.SESSION: self._session}
        settled = False
        while not settled:
            versions = {box.id: box.version for box in self._boxes()}
            try:
                listed = await self._engine.containers(labels=vms)
            except EngineError as error:
                self._log("engine-unanswered", f"cannot list the VMs, trying again: {error}")
                await self._runtime.sleep(RETRY_US)
                continue
            settled = self._agree(listed, versions)
        for record in self._book.vms.values():
            record.changed.notify()
            self.tell(record, live=False)

    def _boxes(self) -> list[VmContainer]:
        return [record.current for record in self._book.vms.values() if record.current is not None]

    def _agree(self, listed: list[Container], versions: dict[str, int]) -> bool:
        settled = True
        seen = {container.id: container for container in listed}
        for record in list(self._book.vms.values()):
            box = record.current
            if box is None or box.id not in versions:
                continue
            if box.version != versions[box.id]:
                settled = False
            elif box.id not in seen:
                self.container_gone(record, live=False)
            else:
                self._correct(record, box, seen[box.id])
        for container in sorted(listed, key=lambda found: (not found.running, found.id)):
            if container.id not in versions and self._book.container(container.id) is None:
                self._adopt(container)
        return settled

    def _correct(self, record: VmRecord, box: VmContainer, seen: Container) -> None:
        if seen.started and seen.started != box.run:
            box.begin_run()
            box.name_run(seen)
            box.evidence.lost_events = True
        box.paused = seen.paused
        if seen.running:
            return
        box.paused = False
        if box.running:
            box.running = False
            box.exit_code = seen.exit_code
            box.evidence.asked |= record.ends_under_way > 0
        if box.run and box.ending is None:
            asked = box.evidence.asked
            box.conclude(Ending.ASKED if asked else Ending.UNKNOWN, "found stopped by listing")

    def _adopt(self, seen: Container) -> None:
        """A container of this session that the book does not know: VMMS was restarted, or a creation was never
        answered.
        """
        name, group = seen.labels.get(label.RESOURCE, ""), seen.labels.get(label.GROUP, "")
        record = self._book.record(name, group)
        if record.current is not None or record.creates_under_way:
            if not record.creates_under_way:
                self._log("stranger-removed", f"a second container of VM {name}; removing it", vm=name)
                self._runtime.spawn(self._remove_stranger(seen.id), name="remove stranger")
            return
        box = VmContainer(id=seen.id, spec=None)
        if seen.started:
            box.begin_run()
            box.name_run(seen)
            box.evidence.lost_events = True
        box.running, box.paused = seen.running, seen.paused
        if not seen.running:
            # Whoever ordered its start is gone, and the engine may still carry the order out.
            box.start_unanswered = True
            box.exit_code = seen.exit_code
            if seen.started:
                box.conclude(Ending.UNKNOWN, "found stopped by listing")
        self._book.put(record, box)
