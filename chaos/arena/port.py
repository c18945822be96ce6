"""The port between an experiment and the world: what a runner, a fault, a probe and a checker's feed may do.

One experiment runs unchanged in every arena (containers today, the simulation later), so nothing above this page names
an engine, a socket or a thread. What is done to the world is an `Effect`, a plain record: an arena carries out those
that it can and says which. What happens in the world is appended to `Arena.history`, by as many independent witnesses
as the arena has. Coroutines here await calls of the arena and of its `runtime` only.
"""

from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

from chaos.arena.interrupt import Interrupt
from chaos.arena.process_effects import NodeInside, NodeProgram, ProcessEffect
from chaos.history.records import ClusterSeen, ContainerSeen, History, Record
from harness.model.topology import Topology
from harness.ports import DeadlinePassed, Runtime

__all__ = [
    "Arena",
    "Command",
    "CrashVm",
    "Direction",
    "Effect",
    "EngineSeen",
    "HangNode",
    "IsolateNode",
    "JoinNetwork",
    "NetworkSeen",
    "PowerOff",
    "PowerOn",
    "ResetNode",
    "ResumeEngine",
    "RunEnvironment",
    "StallEngine",
    "Subject",
    "ThawNode",
    "wait_record",
    "wait_until",
]

LOOK_INTERVAL_US = 100_000
"""Between two looks at something that announces nothing: an engine's list takes 5 ms, 5 % of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashVm:
    """SIGKILL to the main process of a VM's container, past the engine: nobody asked for it."""

    vm: str
    node: str
    container: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerOff:
    """Cut a node's power and hold it off.

    The node and its VMs are gone at once, and nobody powers it on but who removes the hold.
    """

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerOn:
    """Remove the hold and give a node its power back."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HangNode:
    """Freeze a node as a whole: its own processes and every VM on it stop where they are."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ThawNode:
    """Let whatever of a node is frozen go on. Nothing happens to a node that was killed while it was frozen."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetNode:
    """End a node's PID 1 from inside: the node reboots by itself, and nobody asked the engine for it."""

    node: str


class Direction(StrEnum):
    """Which packets of a node are dropped, as the node sees them."""

    IN = "in"
    OUT = "out"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolateNode:
    """Drop the packets between a node and its peers, through all its lives until `JoinNetwork`.

    Without `peers` that is everybody. Its loopback and the port of the node API stay.
    """

    node: str
    peers: tuple[str, ...] = ()
    direction: Direction = Direction.BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinNetwork:
    """Take away what isolates a node."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StallEngine:
    """The engine's socket in a node takes calls and answers none."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeEngine:
    """The engine's socket in a node answers again.

    What it took meanwhile is carried out now, late, or with `drop` never.
    """

    node: str
    drop: bool = False


Effect = (
    CrashVm
    | PowerOff
    | PowerOn
    | HangNode
    | ThawNode
    | ResetNode
    | IsolateNode
    | JoinNetwork
    | StallEngine
    | ResumeEngine
    | ProcessEffect
)


class Subject(StrEnum):
    """What a command is about."""

    GROUP = "group"
    RESOURCE = "resource"
    NODE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What an administrator asks of the cluster: a verb about one group, resource or node, and its arguments by the
    names that the cluster's API gives them.
    """

    subject: Subject
    name: str
    verb: str
    arguments: Mapping[str, str | bool] = field(default_factory=dict)

    def __str__(self) -> str:
        told = "".join(f", {key} {value}" for key, value in self.arguments.items())
        return f"{self.subject}.{self.verb} {self.name}{told}"

    @property
    def path(self) -> str:
        """Below the API's version."""
        return f"{self.subject}s/{self.name}/{self.verb}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSeen:
    """A node's network as it is now.

    `cut`: the present life of the node drops packets by the fault's rules, and so many it has dropped. `kept`: its next
    life will, too. `reached`: what `prober`, another node, sent it was answered; None when no other node could ask.
    """

    cut: bool
    kept: bool = False
    dropped: int = 0
    reached: bool | None = None
    prober: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSeen:
    """A node's way to the engine as it is now. `answers` is None when nobody could ask from inside of the node."""

    stalled: bool
    answers: bool | None = None


class Arena(Protocol):
    """A world that an experiment can run in.

    Every call raises a BlackstartError when it could not be carried out, and has a limit of its own.
    """

    history: History

    @property
    def runtime(self) -> Runtime: ...

    def unix_ns(self) -> int:
        """The time with which the arena's records are stamped."""
        ...

    def supports(self, effect: type[Effect]) -> str:
        """Empty when the arena can carry out such an effect, else a sentence that says why not."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What a reader of the journal needs to run it again: versions, image digests."""
        ...

    async def up(self, topology: Topology, *, say: Callable[[str], None]) -> None:
        """Open the feeds, bring the rig up, start the client.

        `say` is told what is being waited for; raising ends it.
        """
        ...

    async def keep_ledger_line(self, line: str) -> None:
        """Make a line of the ledger durable where it outlives the runner.

        Raises HarnessError when it is not certain that it is durable.
        """
        ...

    async def guard_lost(self) -> str:
        """A sentence when nothing would undo the faults of this run if its runner died, or has undone them already;
        empty while the run is guarded, and in a world that ends with its runner.
        """
        ...

    async def cluster(self) -> ClusterSeen:
        """The cluster as one of its nodes tells it now."""
        ...

    async def containers(self) -> tuple[ContainerSeen, ...]:
        """The rig's nodes and VMs as the engine lists them now; all records carry one time."""
        ...

    async def held(self, node: str) -> bool:
        """Whether the node's power is held off."""
        ...

    async def network(self, node: str) -> NetworkSeen:
        """Whether the node's packets are dropped now; asks from another node, which takes half a second at most."""
        ...

    async def engine(self, node: str) -> EngineSeen:
        """Whether the engine answers in the node now; asks from inside, which takes a second at most."""
        ...

    async def ask_engine(self) -> int:
        """Have the engine answer a call that does nothing. Returns the microseconds that its answer took, without the
        time that this process was late. Raises BlackstartError when the engine refuses or its answer is lost.
        """
        ...

    def load_average(self) -> float | None:
        """How many threads of the runner's host ran or waited for a processor, averaged over the last minute; None
        where the arena has no such host.
        """
        ...

    async def inside(self, node: str, *, ask: Collection[NodeProgram] = ()) -> NodeInside:
        """A node's processes as they are now; `ask` are programs to be asked, half a second each at most.

        Raises BlackstartError for a node that is off, frozen, or dies meanwhile.
        """
        ...

    async def apply(self, effect: Effect) -> int:
        """Carry out an effect. Answers the earliest time at which it acted, in Unix nanoseconds."""
        ...

    async def request(self, command: Command) -> str:
        """Ask the cluster as an administrator does, whichever node can carry it out. Answers its sentence, once the
        wish is in the database: what follows from it takes its time.

        Raises RequestRefused, ApiUnanswered when it may be done nevertheless, HarnessError when nobody could be asked.
        """
        ...

    async def settle(self) -> None:
        """Before the rig goes: compare list and events, read the guests' journals, into the history."""
        ...

    async def collect(self, directory: Path) -> None:
        """Write evidence below `directory`: the logs of nodes, voters and guests, and the engine's events."""
        ...

    async def down(self, *, keep: bool) -> None:
        """Close the feeds and take the rig down, or leave it standing; append what is left.

        Safe after a failed or missing `up`.
        """
        ...


R = TypeVar("R")


class RunEnvironment(Protocol):
    """What one run is played on: its arena, the request to stop as it hears it, and the passing of its time."""

    @property
    def arena(self) -> Arena: ...

    @property
    def interrupt(self) -> Interrupt: ...

    async def play(self, run: Coroutine[Any, Any, R]) -> R:
        """The outcome of the run. Raises HarnessError when a part of it failed that nobody awaits."""
        ...


T = TypeVar("T", bound=Record)


async def wait_record(arena: Arena, kind: type[T], accept: Callable[[T], bool], *, limit_us: int) -> T | None:
    """The first record of that kind, already there or still to come, that `accept` likes; None after `limit_us`."""
    found = next((record for record in arena.history.of(kind) if accept(record)), None)
    if found is not None:
        return found
    arrived = arena.runtime.pending()

    def listener(record: Record) -> None:
        if isinstance(record, kind) and accept(record) and not arrived.done():
            arrived.set_result(record)

    async def arrival() -> T:
        record: T = await arrived
        return record

    end = arena.history.listen(listener)
    try:
        return await arena.runtime.within(limit_us, arrival())
    except DeadlinePassed:
        return None
    finally:
        end()


async def wait_until(
    arena: Arena, look: Callable[[], Coroutine[Any, Any, str]], *, limit_us: int, interval_us: int = LOOK_INTERVAL_US
) -> tuple[bool, str]:
    """Look until the coroutine that `look` makes answers an empty sentence (it holds), at most `limit_us`.

    Answers whether, and the last sentence.
    """
    end_us = arena.runtime.now() + limit_us
    while True:
        missing = await look()
        if not missing:
            return True, ""
        if arena.runtime.now() >= end_us:
            return False, missing
        await arena.runtime.sleep(interval_us)
