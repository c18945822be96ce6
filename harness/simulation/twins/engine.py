"""The container engine of a simulated world: one for all its nodes, with the habits of the real one that matter.

Containers start, die, are killed and removed on the virtual clock; VMs share the fate of their node's PID 1; a
frozen guest keeps its node from dying; the restart policy backs off. `alive` is the kernel's truth, `running` is what
the engine has noticed, a little later. What it is not: the way to the engine with its stalls and lost answers
(`engine_client`), nor anything inside a container: the world hangs its processes on `on_node_up` and `on_node_dying`,
after which a guest may keep the node from being down.
The latencies and races are those measured on Docker 20.10 (docker-trials, sections 1, 2 and 4). Each node has an engine
VM's two processors of its own for starts and creations, which take what they were measured to take on such a
VM (`tools/engine_starts.py`); on containers all nodes share one.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from harness.errors import EngineError, NoSuchContainer
from harness.model import labels as label
from harness.model.labels import Role
from harness.model.vm import VmSpec
from harness.ports import EngineEvent, EventGap
from harness.simulation.kernel.runtime import VirtualClock
from harness.simulation.twins.container import GuestReply, SimulatedContainer
from harness.simulation.twins.engine_faults import EngineTroubles, StopTrouble

__all__ = ["SimulatedEngine"]

MS_US = 1_000
KILL_LIMIT_US = 12_000_000
"""After so long the real engine gives up on a container that does not die of its SIGKILL."""
LONG_LIFE_US = 10_000_000
"""A node that lived longer restarts without back-off."""
SIGKILL, SIGTERM = 9, 15


@dataclass(slots=True, kw_only=True, eq=False)
class _CommandInside:
    """A command in one life of a container; `status` None while it runs."""

    box: SimulatedContainer
    life: int
    words: tuple[str, ...]
    status: int | None = None


class SimulatedEngine:
    """All containers of a world. Operations are carried out when they are called here; `SimulatedEngineClient` is the
    way to it with latency, stalls and losses.
    """

    def __init__(self, clock: VirtualClock, rng: random.Random) -> None:
        """`rng` draws every latency; nothing else here is random."""
        self.clock = clock
        self.rng = rng
        self.boxes: dict[str, SimulatedContainer] = {}
        self.on_started: list[Callable[[SimulatedContainer, int], None]] = []
        self.on_ended: list[Callable[[SimulatedContainer, int], None]] = []
        self.on_node_up: list[Callable[[str], None]] = []
        self.on_node_dying: list[Callable[[str], None]] = []
        self.on_node_down: list[Callable[[str], None]] = []
        self.on_by_hand: list[Callable[[str, bool], None]] = []
        self.listeners: list[Callable[[EngineEvent | EventGap], None]] = []
        self._listeners_of: dict[str, list[Callable[[EngineEvent | EventGap], None]]] = {}
        self.held: dict[str, set[str]] = {}
        self.stalled_until_us = 0
        self.ready_after_us: dict[str, int] = {}
        self.not_ready: set[str] = set()
        self.troubles = EngineTroubles()
        self._busy_until_us: dict[str, list[int]] = {}
        self._commands: dict[str, _CommandInside] = {}
        self._nodes: dict[str, SimulatedContainer] = {}
        self._guests: dict[str, dict[str, SimulatedContainer]] = {}
        self._made = 0

    def listen(self, node: str | None, listener: Callable[[EngineEvent | EventGap], None]) -> None:
        """From now on `listener` hears of that node's containers, or of all, once however often it asks."""
        listeners = self.listeners if node is None else self._listeners_of.setdefault(node, [])
        if listener not in listeners:
            listeners.append(listener)

    # The world's own hands: no latency, no stall.

    def add_node(self, name: str, labels: Mapping[str, str]) -> str:
        """A node's container, not started. `labels` must hold the rig's; role and node are added. Returns its id."""
        full = {**labels, label.ROLE: Role.NODE.value, label.NODE: name}
        return self._make(name=f"{labels.get(label.RIG, '')}-{name}", labels=full, host=None, spec=None).id

    def node(self, name: str) -> SimulatedContainer:
        """The container of a node. KeyError when there is none."""
        return self._nodes[name]

    def vm(self, name: str) -> SimulatedContainer:
        """The running container of a VM, wherever it runs. KeyError when none runs."""
        for box in self.boxes.values():
            if box.alive and box.vm == name:
                return box
        raise KeyError(name)

    def guests(self, node: str) -> list[SimulatedContainer]:
        """The VM containers that share a node's namespaces, running or not."""
        return list(self._guests.get(self._nodes[node].id, {}).values())

    def start_node(self, name: str) -> None:
        """Power on."""
        self.start(self.node(name).id, GuestReply())

    def power_off_node(self, name: str) -> None:
        """The power switch: the node and its guests are killed together, frozen ones too; it stays off."""
        for box in [*self.guests(name), self.node(name)]:
            if box.running or box.restarting:
                self.kill(box.id, SIGKILL, GuestReply())

    def end_node(self, name: str, exit_code: int) -> None:
        """PID 1 exits by itself: its guests die with it, and the restart policy brings the node back."""
        self._end(self.node(name), exit_code)

    def kill_guests(self, node: str) -> None:
        """PID 1 kills its guests by signal, without the engine; frozen ones die when they thaw."""
        for box in self.guests(node):
            if box.alive and box.paused:
                box.killed_while_paused = True
            elif box.alive:
                self._end(box, 137)

    def crash_vm(self, container: str, exit_code: int = 137) -> None:
        """The main process ends by itself."""
        self._end(self.boxes[container], exit_code)

    def stop_by_hand(self, container: str) -> None:
        """`docker stop`: TERM, then KILL where TERM is not obeyed, and a `stop` event."""
        box = self.boxes[container]
        if not box.alive:
            return
        self._by_hand(box, wanted=False)
        self._thaw(box)
        self._emit(box, "kill", signal=SIGTERM)
        if box.obeys_term:
            code = 0
        else:
            self._emit(box, "kill", signal=SIGKILL)
            code = 137
        box.when_down.append(lambda: self._emit(box, "stop"))
        self._end(box, code)

    def start_by_hand(self, container: str) -> None:
        """`docker start`."""
        if container in self.boxes:
            self._by_hand(self.boxes[container], wanted=True)
        self.start(container, GuestReply())

    def _by_hand(self, box: SimulatedContainer, *, wanted: bool) -> None:
        for told in self.on_by_hand:
            told(box.vm, wanted)

    def kill_by_hand(self, container: str, signal: int = SIGKILL) -> None:
        """`docker kill -s`."""
        self.kill(container, signal, GuestReply())

    def remove_by_hand(self, container: str) -> None:
        """`docker rm -f`."""
        self.remove(container, GuestReply())

    def pause(self, container: str) -> None:
        """Freeze the container's own processes: a node's guests run on."""
        box = self.boxes[container]
        if box.alive and not box.paused:
            box.paused = True
            self._emit(box, "pause")

    def unpause(self, container: str) -> None:
        """Thaw; what was killed meanwhile dies now."""
        box = self.boxes[container]
        if box.paused:
            self._thaw(box)
            self._emit(box, "unpause")

    def stall(self, until_us: int) -> None:
        """The engine itself hangs: nothing is carried out, noticed or answered until then. Processes go on."""
        self.stalled_until_us = max(self.stalled_until_us, until_us)

    def ready(self, box: SimulatedContainer) -> bool:
        """Whether what runs in a VM is ready: `ready_after_us` its start, by VM, and unless it is
        `not_ready`.
        """
        due_us = box.started_us + self.ready_after_us.get(box.vm, 0)
        goes_on = box.alive and not box.paused and not box.stopped
        return goes_on and self.clock.now_us >= due_us and box.vm not in self.not_ready

    def hold(self, rig: str, node: str) -> None:
        """Set the mark that keeps a node off."""
        self.held.setdefault(rig, set()).add(node)

    def release(self, rig: str, node: str) -> None:
        """Take the mark away."""
        self.held.get(rig, set()).discard(node)

    # What the engine carries out for its clients.

    def create(self, spec: VmSpec, *, host: str, labels: Mapping[str, str], answer: GuestReply) -> None:
        """A VM's container in the namespaces of the node container whose id begins with `host`."""
        node = next((box for box in self._nodes.values() if box.id.startswith(host)), None)
        if node is None:
            answer.fail(NoSuchContainer(f"create of {spec.name}: no such container: {host}"))
            return

        def made() -> None:
            name = "-".join((labels[label.RIG], labels[label.NODE], spec.name, f"{self._made + 1:x}"))
            box = self._make(name=name, labels=labels, host=node.id, spec=spec)
            self._emit(box, "create")
            answer.succeed(box.id)

        self._later(self._worked_ms(node.id, 16, 26), made)

    def start(self, container: str, answer: GuestReply) -> None:
        """Start; the answer comes when it runs. A VM goes into the life of its node that is there now, whoever
        asked when.
        """
        box = self.boxes.get(container)
        if box is None:
            answer.fail(NoSuchContainer(f"start of {container[:12]}: no such container"))
        elif box.removing:
            answer.fail(EngineError(f"start of {box.name}: container is marked for removal and cannot be started"))
        elif box.running or box.restarting:
            answer.succeed()
        elif box.starting:
            self._later(5, lambda: self.start(container, answer))
        elif box.is_node:
            box.switched_off, box.starting, box.short_lives = False, True, 0
            self._later(self.rng.randint(280, 350), lambda: self._node_up(box, answer))
        else:
            self._start_vm(box, answer)

    def kill(self, container: str, signal: int, answer: GuestReply) -> None:
        """Send a signal; for SIGKILL the answer waits for the end, and is an error when it does not come."""
        box = self.boxes.get(container)
        if box is None:
            answer.fail(NoSuchContainer(f"kill of {container[:12]}: no such container"))
        elif box.starting:
            self._later(5, lambda: self.kill(container, signal, answer))
        elif box.restarting:
            box.restarting, box.switched_off = False, True
            answer.succeed()
        elif not box.running:
            answer.fail(EngineError(f"kill of {box.name}: container is not running"))
        else:
            self._signal(box, signal, answer)

    def remove(self, container: str, answer: GuestReply) -> None:
        """Forced removal: kill, wait for the end, delete."""
        box = self.boxes.get(container)
        if box is None:
            answer.fail(NoSuchContainer(f"removal of {container[:12]}: no such container"))
        elif box.starting:
            self._later(5, lambda: self.remove(container, answer))
        elif box.removing:
            answer.fail(EngineError(f"removal of {box.name}: removal is already in progress"))
        else:
            box.removing = True
            box.restarting = False
            if box.running:
                self._signal(box, SIGKILL, GuestReply(lambda _: self._delete_soon(box, answer), answer.fail))
            else:
                self._delete_soon(box, answer)

    def begin_inside(self, container: str, command: tuple[str, ...], answer: GuestReply) -> None:
        """Begin `true`, `false`, `sleep SECONDS`, or anything else: a check, which succeeds when the VM is ready
        by then.
        """
        box = self.boxes.get(container)
        if box is None:
            answer.fail(NoSuchContainer(f"command in {container[:12]}: no such container"))
        elif not box.running or not box.alive or box.paused:
            answer.fail(EngineError(f"command in {box.name}: the container is not running, or is paused"))
        else:
            name = f"command-{len(self._commands) + 1}"
            self._commands[name] = _CommandInside(box=box, life=box.lives, words=command)
            slept_ms = round(float(command[1]) * 1000) if command[0] == "sleep" else 0
            self._later(self.rng.randint(30, 80) + slept_ms, lambda: self._end_inside(name))
            answer.succeed(name)

    def find(self, container: str) -> SimulatedContainer | None:
        """One container, by its id or a prefix of it."""
        box = self.boxes.get(container)
        if box is None:
            box = next((box for name, box in self.boxes.items() if name.startswith(container)), None)
        return box

    def ended_inside(self, begun: str, answer: GuestReply) -> None:
        """Its status; None while it runs."""
        command = self._commands[begun]
        if command.box.id not in self.boxes:
            answer.fail(NoSuchContainer(f"command {begun}: no such exec instance"))
            return
        if command.status is None and (not command.box.alive or command.box.lives != command.life):
            command.status = 137
        answer.succeed(command.status)

    def _end_inside(self, name: str) -> None:
        command = self._commands[name]
        known = {"true": 0, "false": 1, "sleep": 0}
        if command.box.alive and command.box.lives == command.life:
            command.status = known.get(command.words[0], 0 if self.ready(command.box) else 1)

    # How containers live and die.

    def _make(
        self, *, name: str, labels: Mapping[str, str], host: str | None, spec: VmSpec | None
    ) -> SimulatedContainer:
        self._made += 1
        box = SimulatedContainer(
            id=f"{self._made:012x}" + "0" * 52, name=name, labels=dict(labels), host=host, spec=spec
        )
        self.boxes[box.id] = box
        if host is None:
            self._nodes[box.node] = box
        else:
            self._guests.setdefault(host, {})[box.id] = box
        return box

    def _start_vm(self, box: SimulatedContainer, answer: GuestReply) -> None:
        host = self.boxes.get(box.host or "")
        if host is None:
            answer.fail(NoSuchContainer(f"start of {box.name}: no such container: {box.host}"))
        elif host.restarting:
            self._start_while_restarting(box, host, answer)
        elif not host.running:
            answer.fail(EngineError(f"start of {box.name}: cannot join network of a non running container"))
        elif not host.alive or host.doomed is not None:
            answer.fail(EngineError(f"start of {box.name}: namespace path: no such file"))
        else:
            try:
                longer_ms = self.troubles.start_takes_us(box.vm, self.clock.now_us) // MS_US
            except EngineError as error:
                answer.fail(error)
                return
            box.starting = True
            life = host.lives
            takes_ms = self._worked_ms(host.id, 80, 115) + longer_ms
            self._later(takes_ms, lambda: self._vm_up(box, host, life, answer))

    def _start_while_restarting(self, box: SimulatedContainer, host: SimulatedContainer, answer: GuestReply) -> None:
        # Both were seen: a refusal, and a start that waited for the engine's lock and ran in the node's next life.
        if self.rng.random() < 0.5:
            answer.fail(EngineError(f"start of {box.name}: container {host.name} is restarting"))
        else:
            self._later(50, lambda: self.start(box.id, answer))

    def _vm_up(self, box: SimulatedContainer, host: SimulatedContainer, life: int, answer: GuestReply) -> None:
        box.starting = False
        if host.lives != life or not host.alive or host.doomed is not None:
            answer.fail(EngineError(f"start of {box.name}: can't get final child's PID from pipe: EOF"))
            return
        self._up(box)
        answer.succeed()

    def _node_up(self, box: SimulatedContainer, answer: GuestReply) -> None:
        box.starting = box.restarting = False
        if box.id not in self.boxes:
            answer.fail(NoSuchContainer(f"start of {box.name}: no such container"))
            return
        self._up(box)
        answer.succeed()
        for callback in self.on_node_up:
            callback(box.node)

    def _up(self, box: SimulatedContainer) -> None:
        box.lives += 1
        box.alive = box.running = True
        box.exit_code = 0
        box.started_us = self.clock.now_us
        box.started = f"{box.started_us}.{box.lives}"
        for hook in self.on_started:
            hook(box, box.started_us)
        self._emit(box, "start")

    def _signal(self, box: SimulatedContainer, signal: int, answer: GuestReply) -> None:
        if self.troubles.stops_badly(box.vm, self.clock.now_us, StopTrouble.FAILING):
            box.removing = False
            answer.fail(EngineError(f"kill of {box.name}: permission denied"))
            return
        self._emit(box, "kill", signal=signal)
        if box.is_node:
            box.switched_off = True  # any signal through the engine suspends the restart policy
        if signal == SIGKILL:
            box.when_down.append(answer.succeed)
            self._later(self.rng.randint(5, 30), lambda: self._end(box, 137), life=box)
            gave_up = EngineError(f"kill of {box.name}: tried to kill container, but did not receive an exit event")
            self.clock.after(KILL_LIMIT_US, lambda: self._give_up(box, answer, gave_up))
            return
        self._thaw(box)
        deaf = self.troubles.stops_badly(box.vm, self.clock.now_us, StopTrouble.DEAF)
        if signal == SIGTERM and box.obeys_term and not box.is_node and not deaf:
            self._later(self.rng.randint(10, 60), lambda: self._end(box, 0), life=box)
        answer.succeed()

    def _give_up(self, box: SimulatedContainer, answer: GuestReply, error: EngineError) -> None:
        if not answer.given:
            box.removing = False
            answer.fail(error)

    def _end(self, box: SimulatedContainer, exit_code: int, *, with_node: bool = False) -> None:
        if not box.alive or (box.is_node and not self._guests_end(box, exit_code)):
            return
        takes_us = 0 if box.ending else self.troubles.end_takes(box.vm, self.clock.now_us)
        if takes_us:
            box.ending = True
            self._later(takes_us // MS_US + 1, lambda: self._end(box, exit_code), life=box)
            return
        box.alive = box.paused = box.stopped = box.killed_while_paused = box.ending = False
        box.doomed = None
        box.exit_code = exit_code
        for hook in self.on_ended:
            hook(box, self.clock.now_us)
        if box.is_node:
            for callback in self.on_node_down:
                callback(box.node)
        # The end of a guest that went with its node is noticed late; any other at once.
        self._later(
            self.rng.randint(10, 250) if with_node else self.rng.randint(1, 10), lambda: self._noticed_down(box)
        )
        if not box.is_node and not with_node:
            self._finish_doomed(self._host(box))

    def _guests_end(self, node: SimulatedContainer, exit_code: int) -> bool:
        """The namespace's death reaches its guests and all else in it; returns whether all are dead. A guest that is
        frozen, or that nothing can end, keeps PID 1 waiting.
        """
        guests = list(self._guests.get(node.id, {}).values())
        for box in guests:
            if not box.paused:
                self._end(box, 137, with_node=True)
        for callback in self.on_node_dying if node.doomed is None else ():
            callback(node.node)
        if any(box.alive for box in guests):
            node.doomed = exit_code
            return False
        return True

    def _finish_doomed(self, node: SimulatedContainer) -> None:
        if node.doomed is not None:
            self._end(node, node.doomed)

    def _host(self, guest: SimulatedContainer) -> SimulatedContainer:
        return self.boxes[guest.host or ""]

    def _noticed_down(self, box: SimulatedContainer) -> None:
        box.running = False
        self._emit(box, "die", exit_code=box.exit_code)
        waiting, box.when_down = box.when_down, []
        for callback in waiting:
            callback()
        if box.is_node and not box.switched_off and not box.removing:
            self._restart(box)

    def _restart(self, node: SimulatedContainer) -> None:
        if self.clock.now_us - node.started_us >= LONG_LIFE_US:
            node.short_lives = 0
        node.restarting = True
        delay_ms = 280 + 100 * 2 ** min(node.short_lives, 9)
        node.short_lives += 1
        self._later(delay_ms, lambda: self._node_up(node, GuestReply()) if node.restarting else None)

    def _thaw(self, box: SimulatedContainer) -> None:
        if not box.paused:
            return
        box.paused = False
        if box.killed_while_paused or (not box.is_node and self._host(box).doomed is not None):
            self._end(box, 137)

    def _delete_soon(self, box: SimulatedContainer, answer: GuestReply) -> None:
        self._later(self.rng.randint(5, 15), lambda: self._delete(box, answer))

    def _delete(self, box: SimulatedContainer, answer: GuestReply) -> None:
        self.boxes.pop(box.id, None)
        if box.host is not None:
            self._guests[box.host].pop(box.id, None)
        self._emit(box, "destroy")
        answer.succeed()

    def _worked_ms(self, host: str, least_ms: int, most_ms: int) -> int:
        """In how many milliseconds one of the two processors has done that much work for the node."""
        busy, now_us = self._busy_until_us.setdefault(host, [0, 0]), self.clock.now_us
        at = 0 if busy[0] <= busy[1] else 1
        busy[at] = max(busy[at], now_us) + self.rng.randint(least_ms, most_ms) * MS_US
        return (busy[at] - now_us) // MS_US

    def _later(self, delay_ms: int, callback: Callable[[], None], *, life: SimulatedContainer | None = None) -> None:
        """Run `callback` in `delay_ms`, or when the engine answers again; with `life` only if that container still is
        in its present life.
        """
        lives = life.lives if life is not None else 0
        self.clock.after(delay_ms * MS_US, partial(self._due, callback, life, lives))

    def _due(self, callback: Callable[[], None], life: SimulatedContainer | None, lives: int) -> None:
        if self.clock.now_us < self.stalled_until_us:
            self.clock.at(self.stalled_until_us, partial(self._due, callback, life, lives))
        elif life is None or life.lives == lives:
            callback()

    def _emit(
        self, box: SimulatedContainer, action: str, *, exit_code: int | None = None, signal: int | None = None
    ) -> None:
        event = EngineEvent(
            at_ns=self.clock.now_us * 1_000,
            container=box.id,
            action=action,
            exit_code=exit_code,
            signal=signal,
            labels=dict(box.labels),
        )
        for listener in (*self.listeners, *self._listeners_of.get(event.labels.get(label.NODE, ""), ())):
            listener(event)
