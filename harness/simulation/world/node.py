"""One hypervisor node of a simulated world: its PID 1, voter, VMMS, resource host and cluster service, each a
process that can die, hang or be slow.

The cluster service, VMMS, resource host and drivers are the real ones.
"""

import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from harness.cluster_service.core.messages import (
    Action,
    CallHost,
    CallVoter,
    Event,
    FenceNode,
    HostConnected,
    HostLost,
    HostReported,
    Log,
    PetWatchdog,
    PingProgram,
    PowerOnNode,
    ProgramAnswered,
    RequestAnswered,
    RequestReceived,
    ResetNode,
    RestartProgram,
    Tick,
    WatchedProgram,
)
from harness.cluster_service.service import ClusterService, ServiceConfiguration
from harness.errors import EngineError
from harness.model.host_messages import HostReport, HostRequest
from harness.model.session import Session
from harness.model.topology import Topology
from harness.resource_host.host import ResourceHost
from harness.simulation.kernel.fifo_channel import FifoChannel
from harness.simulation.kernel.runtime import Clock, SimulatedRuntime, SimulatedTask
from harness.simulation.twins.addresses import SimulatedAddresses
from harness.simulation.twins.engine import SimulatedEngine
from harness.simulation.twins.engine_client import SimulatedEngineClient
from harness.simulation.twins.network import SimulatedNetwork
from harness.simulation.twins.pid1 import SimulatedInit
from harness.simulation.twins.process import Process, Record, log_into
from harness.simulation.twins.reach import SimulatedReach
from harness.simulation.twins.vmms_link import CallFault, DriverBroke, VmmsLink, VmmsProcess
from harness.simulation.twins.voters import SimulatedVoter, VoterConnections
from harness.simulation.world.composition import Composition
from harness.simulation.world.pending_replies import Askers
from harness.simulation.world.power_calls import fenced, powered_on

__all__ = ["SimulatedNode"]

MS_US = 1_000
HOUR_US = 3_600_000_000
WATCHDOG_EXIT = 87
HOP_US = 150
PROCESSES = {WatchedProgram.RESOURCE_HOST: "host", WatchedProgram.VMMS: "vmms"}


class SimulatedNode:
    """A node through all its lives. Faults are methods; every process comes back by itself, as PID 1 would bring it
    back.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        name: str,
        topology: Topology,
        engine: SimulatedEngine,
        network: SimulatedNetwork,
        voters: Mapping[str, SimulatedVoter],
        composition: Composition,
        record: Record,
    ) -> None:
        self.name = name
        self.client = SimulatedEngineClient(engine, own_clock=clock)
        self.service: ClusterService | None = None
        self.frozen = False
        self.drivers = CallFault()
        self.on_fence: list[Callable[[Session, Session], None]] = []
        self.on_pet: list[Callable[[Session, int], None]] = []
        self.on_host_call: list[Callable[[str, HostRequest], None]] = []
        self.on_host_report: list[Callable[[str, HostReport], None]] = []
        self._clock = clock
        self._rng = rng
        self._topology = topology
        self._engine = engine
        self._network = network
        self._voters = voters
        self._composition = composition
        self._carry = composition.carry
        self._record = record
        self._life = 0
        self._up = False
        self._starts = 0
        self._init: SimulatedInit | None = None
        self._vmms = VmmsProcess()
        self._host: ResourceHost | None = None
        self._runtimes: dict[str, SimulatedRuntime] = {}
        self._started_us: dict[str, int] = {}
        self._voter_calls: VoterConnections | None = None
        self._addresses: SimulatedAddresses | None = None
        self._deferred: list[Callable[[], None]] = []
        self._held: set[str] = set()
        self._stopped: set[str] = set()
        self._wake_us: int | None = None
        self._dies_after: int | None = None
        self._noted_guests_end_us = 0
        self._to_host, self._from_host = FifoChannel(clock, rng), FifoChannel(clock, rng)
        self._askers = Askers(clock, rng)
        if name in voters:
            voters[name].on_disk_refused.append(self.voter_died)

    # Lives of the node, as the engine tells them.

    def booted(self) -> None:
        """PID 1 has started: everything else follows by itself."""
        self._life += 1
        self._up = True
        self.frozen = False
        self._held.clear()
        self._stopped.clear()
        self._deferred.clear()
        self._noted_guests_end_us = 0
        self._addresses = SimulatedAddresses(self._runtime("addresses"))
        self._init = self._composition.init(
            self._clock,
            kill_guests=lambda: self._engine.kill_guests(self.name),
            reset=lambda: self._engine.end_node(self.name, WATCHDOG_EXIT),
        )
        self._soon(100, 300, self._start_voter)
        self._soon(100, 250, self._start_vmms)
        self._soon(100, 250, self._start_host)
        self._soon(150, 400, self._start_service)

    def died(self) -> None:
        """PID 1 is gone and everything with it."""
        self._up = False
        if self._init is not None:
            self._init.end()
        for name in ("service", "host", "vmms"):
            self._end(name)
        if self.name in self._voters:
            self._voters[self.name].stop()
            self._composition.voter_lost_power(self._voters[self.name].acceptor)

    # Faults.

    def kill_process(self, name: str) -> None:
        """SIGKILL to `service`, `host`, `vmms` or `voter`; PID 1 starts it again."""
        if not self._up or self.frozen:
            return
        again: Callable[[], None] = getattr(self, f"_start_{name}")
        if name == "voter":
            voter = self._voters.get(self.name)
            if voter is None or not voter.running:
                return
            voter.stop()
        elif name in self._runtimes:
            self._end(name)
        else:
            return  # it is being started again already
        self._record(self.name, "init", "process-killed", {"process": name})
        self._soon(250, 600, again)

    def voter_died(self) -> None:
        """It has ended by itself; PID 1 starts it again."""
        self._soon(250, 600, self._start_voter)

    def crash_service_after(self, actions: int) -> None:
        """The service dies once it has carried out so many actions more: between two of one list as well."""
        self._dies_after = actions if self.service is not None else None

    def crash_service_accepting(self, late_us: int) -> None:
        """The service dies once it has asked voters to accept something, which they hear `late_us` later."""
        calls = self._voter_calls
        if self.service is not None and calls is not None:
            calls.hold_next_accept(
                late_us, lambda: self.kill_process("service") if self._voter_calls is calls else None
            )

    def hang_process(self, name: str, duration_us: int) -> None:
        """SIGSTOP to `service`, `host`, `vmms` or `voter`, SIGCONT later. Its successor is not hung."""
        hung = self._run_of(name)
        if hung is not None:
            self.stop_process(name)
            self._clock.after(duration_us, lambda: self.continue_process(name) if self._run_of(name) == hung else None)

    def _run_of(self, name: str) -> object | None:
        """What is the same as long as that process is."""
        if name != "voter":
            return self._runtimes.get(name)
        voter = self._voters.get(self.name)
        return voter.runs if voter is not None and voter.running else None

    def stop_process(self, name: str) -> None:
        """SIGSTOP to `service`, `host`, `vmms` or `voter`, until `continue_process` or its end."""
        if self._run_of(name) is not None:
            self._stopped.add(name)
            self._hold(name)

    def continue_process(self, name: str) -> None:
        """SIGCONT; in a node that is frozen it is heard at the thaw."""
        self._stopped.discard(name)
        self._release(name)

    @property
    def service_since_us(self) -> int:
        """When its service was started last."""
        return self._started_us.get("service", 0)

    @property
    def host_since_us(self) -> int | None:
        """When its resource host was started; None while it does not run."""
        return self._started_us["host"] if "host" in self._runtimes else None

    def processes(self) -> dict[str, Process]:
        """What runs of `service`, `host`, `vmms` and `voter`."""
        found: dict[str, Process] = {
            name: Process(started_us=self._started_us[name], stopped=name in self._held)
            for name in ("service", "host", "vmms")
            if name in self._runtimes
        }
        voter = self._voters.get(self.name)
        if self._up and voter is not None and voter.running:
            found["voter"] = Process(started_us=voter.started_us, stopped=voter.held)
        return found

    def snapshot(self) -> dict[str, Any] | None:
        """What this node's service believes; None while there is none."""
        return self.service.snapshot(self._clock.now_us) if self.service is not None else None

    def has_address(self, address: str) -> bool:
        """Whether the interface of this life of the node has that address."""
        there = self._addresses.now if self._up and self._addresses is not None else frozenset()
        return any(has.partition("/")[0] == address for has in there)

    def reaches(self, address: str) -> int | None:
        """When this life of the node announced that address last; None while its interface has it not."""
        addresses = self._addresses
        if addresses is None or not self.has_address(address):
            return None
        return max((at_us for at_us, told in addresses.announced if told.partition("/")[0] == address), default=None)

    def freeze(self) -> None:
        """Everything of the node stops, guests included; the engine and the network do not."""
        if not self._up or self.frozen:
            return
        self.frozen = True
        if self._init is not None:
            self._init.hold()
        for name in ("service", "host", "vmms", "voter"):
            self._hold(name)
        for box in [self._engine.node(self.name), *self._engine.guests(self.name)]:
            self._engine.pause(box.id)

    def thaw(self) -> None:
        """Everything goes on but what a signal has stopped, in a drawn order of guests and node."""
        if not self.frozen:
            return
        self.frozen = False
        boxes = [self._engine.node(self.name), *self._engine.guests(self.name)]
        self._rng.shuffle(boxes)
        for box in boxes:
            if box.id in self._engine.boxes:
                self._engine.unpause(box.id)
        if not self._up:
            return
        if self._init is not None:
            self._init.release()
        for name in ("voter", "vmms", "host", "service"):
            self._release(name)

    # Processes.

    def _runtime(self, name: str) -> SimulatedRuntime:
        runtime = SimulatedRuntime(self._clock, on_error=self._task_failed)
        self._runtimes[name] = runtime
        self._started_us[name] = self._clock.now_us
        return runtime

    def _task_failed(self, task: SimulatedTask, error: Exception) -> None:
        if isinstance(error, DriverBroke):
            self.kill_process("host")  # as the live process ends when a task of its own fails
            return
        raise AssertionError(f"{self.name}: task {task.name} failed: {error!r}") from error

    def _soon(self, least_ms: int, most_ms: int, step: Callable[[], None]) -> None:
        life = self._life

        def go() -> None:
            if self._life != life or not self._up:
                return
            if self.frozen:
                self._deferred.append(go)
            else:
                step()

        self._clock.after(self._rng.randint(least_ms, most_ms) * MS_US, go)

    def _hold(self, name: str) -> None:
        if name == "voter" and self.name in self._voters:
            self._voters[self.name].hold()
        self._held.add(name)
        if name in self._runtimes:
            self._runtimes[name].hold()

    def _release(self, name: str) -> None:
        if self.frozen or name in self._stopped:
            return
        self._held.discard(name)
        if name == "voter":
            if self.name in self._voters:
                self._voters[self.name].release()
            return
        if name in self._runtimes:
            self._runtimes[name].release()
        waiting, self._deferred = self._deferred, []
        for go_on in waiting:
            self._clock.at(self._clock.now_us, go_on)

    def _end(self, name: str) -> None:
        runtime = self._runtimes.pop(name, None)
        if runtime is not None:
            runtime.kill()
        self._held.discard(name)
        self._stopped.discard(name)
        if name == "vmms":
            self._vmms.ended()
        elif name == "host":
            self._host = None
            self._deliver(HostLost())
        elif name == "service":
            self.service = None
            self._askers.forget()
            if self._voter_calls is not None:
                self._voter_calls.close()

    def _start_voter(self) -> None:
        voter = self._voters.get(self.name)
        if voter is not None and not voter.running:
            self._stopped.discard("voter")
            voter.start()

    def _start_vmms(self) -> None:
        runtime = self._runtime("vmms")
        vmms = self._composition.vmms(
            runtime=runtime,
            engine=self.client,
            rig=self._topology.rig,
            node=self.name,
            log=log_into(self._record, node=self.name, component="vmms"),
            container=self._engine.node(self.name).id[:12],
        )
        runtime.spawn(vmms.run(), name="vmms")
        self._vmms.started(runtime, vmms)

    def _start_host(self) -> None:
        assert self._addresses is not None
        runtime = self._runtime("host")
        self._host = self._composition.resource_host(
            runtime=runtime,
            hypervisor=self._composition.vmms_link(self._clock, self._vmms, runtime, self.drivers),
            addresses=self._addresses,
            reach=SimulatedReach(self._engine, node=self.name, runtime=runtime),
            report=self._host_reports,
            log=log_into(self._record, node=self.name, component="resource-host"),
            on_deadlock=lambda _resource: self._clock.after(0, lambda: self.kill_process("host")),
        )
        runtime.spawn(self._host.run(), name="resource host")
        self._deliver(HostConnected())

    def _host_reports(self, report: HostReport) -> None:
        for hear in self.on_host_report:
            hear(self.name, report)
        life, host = self._life, self._host

        def arrive(told: HostReport) -> None:
            if self._life == life and self._host is host:
                self._deliver(HostReported(told))

        self._from_host.send(self._carry(arrive, report))

    def _start_service(self) -> None:
        self._starts += 1
        runtime = self._runtime("service")
        link = self._link()
        process = f"{self.name}.{self._life}.{self._starts}"

        async def start() -> None:
            while True:
                try:
                    session = await link.identity()
                    await self._composition.clear_earlier_sessions(link)
                except EngineError:
                    await runtime.sleep(100 * MS_US)
                    continue
                break
            self._serve(session, process)

        runtime.spawn(start(), name="service start")

    def _serve(self, session: Session, process: str) -> None:
        self._voter_calls = VoterConnections(
            self._clock, self._network, node=self.name, voters=self._voters, deliver=self._deliver_all
        )
        self.service = self._composition.service(
            configuration=ServiceConfiguration(
                rig=self._topology.rig,
                session=session,
                voters=tuple(self._voters),
                settings=self._topology.settings,
                process=process,
                guests_end_us=self._noted_guests_end_us,
                hour_of_day=lambda: self._clock.now_us // HOUR_US % 24,
            ),
            jitter=self._rng.random,
        )
        self._wake_us = self._dies_after = None
        self._deliver(HostConnected() if self._host is not None else HostLost())

    # Administrators.

    def request(
        self, call: str, arguments: Mapping[str, str | bool], *, answered: Callable[[RequestAnswered], None]
    ) -> bool:
        """Send a request; `answered` is called at most once: never when the service dies. False: no service runs."""
        if self.service is None or self.frozen:
            return False
        self._deliver(RequestReceived(id=self._askers.add(answered), call=call, arguments=arguments))
        return True

    @property
    def requests_open(self) -> int:
        """Requests that this node's service has not answered yet."""
        return len(self._askers)

    # The service's shell.

    def _deliver(self, event: Event) -> None:
        self._deliver_all([event])

    def _deliver_all(self, events: Sequence[Event]) -> None:
        service = self.service
        if service is None:
            return
        if "service" in self._held:
            self._deferred.append(lambda: self._deliver_all(events) if self.service is service else None)
            return
        for event in events:
            for action in service.handle(self._clock.now_us, event):
                if self.service is not service:
                    return
                self._carry_out(action, service)
                if self._dies_after is not None:
                    self._dies_after -= 1
                    if self._dies_after <= 0:
                        self._dies_after = None
                        self.kill_process("service")
        if self.service is service and self._voter_calls is not None:
            self._voter_calls.flush()
            self._schedule(service)

    def _schedule(self, service: ClusterService) -> None:
        wake, now = service.next_wake(), self._clock.now_us
        if wake is None or (wake == self._wake_us and now < wake):
            return
        wake = max(wake, now + MS_US)
        if self._wake_us is not None and now < self._wake_us <= wake:
            return
        self._wake_us = wake

        def tick() -> None:
            if self.service is service and self._wake_us == wake:
                self._wake_us = None
                self._deliver(Tick())

        self._clock.at(wake, tick)

    def _carry_out(self, action: Action, service: ClusterService) -> None:
        match action:
            case CallVoter():
                assert self._voter_calls is not None
                self._voter_calls.call(action)
            case CallHost(request):
                for listen in self.on_host_call:
                    listen(self.name, request)
                host = self._host
                if host is not None:
                    self._to_host.send(self._carry(lambda it: host.take(it) if self._host is host else None, request))
            case PetWatchdog(guests_end_us=guests_end_us, node_ends_us=node_ends_us):
                assert self._init is not None
                self._init.pet(guests_end_us, node_ends_us)
                for heed in self.on_pet if guests_end_us else ():
                    heed(service.session, guests_end_us - self._clock.now_us)
                self._noted_guests_end_us = guests_end_us or self._noted_guests_end_us
            case FenceNode(session=session):
                for hear in self.on_fence:
                    hear(service.session, session)
                self._spawn(self._tell(lambda: fenced(self._link(), action, self._composition), service), "fence")
            case PowerOnNode(node):
                self._spawn(self._tell(lambda: powered_on(self._link(), node), service), "power on")
            case ResetNode(reason):
                self._record(self.name, "membership-manager", "reset", {"reason": reason})
                self._engine.end_node(self.name, WATCHDOG_EXIT)
            case RequestAnswered():
                self._askers.answer(action)
            case PingProgram():
                self._ask_program(action, service)
            case RestartProgram(program=program, silent_since_us=since_us):
                if self._started_us.get(PROCESSES[program], since_us + 1) <= since_us:
                    self.kill_process(PROCESSES[program])
            case Log():
                told = {"message": action.message, "id": action.id, **action.fields}
                self._record(self.name, action.component, action.event, told)
            case _:
                raise AssertionError(f"the service let {action!r} out")

    def _ask_program(self, question: PingProgram, service: ClusterService) -> None:
        """The question and its answer take a hop each; in between stands the main loop of the one who is asked."""
        program = question.program
        asked = self._runtimes.get(PROCESSES[program])
        if asked is None:
            return

        def arrive(told: ProgramAnswered) -> None:
            if self.service is service:
                self._deliver(told)

        def answer() -> None:
            if self._runtimes.get(PROCESSES[program]) is asked:
                self._clock.after(HOP_US, self._carry(arrive, ProgramAnswered(program)))

        self._clock.after(HOP_US, self._carry(lambda _: asked.when_running(answer), question))

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        self._runtimes["service"].spawn(coroutine, name=name)

    def _link(self) -> VmmsLink:
        return self._composition.vmms_link(self._clock, self._vmms, self._runtimes["service"])

    async def _tell(self, event: Callable[[], Coroutine[Any, Any, Event]], service: ClusterService) -> None:
        told = await event()
        if self.service is service:
            self._deliver(told)
