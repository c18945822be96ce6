"""A container of the simulated engine as the engine and the kernel know it, and how an operation on it is answered."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.errors import EngineError
from harness.model import labels as label
from harness.model.vm import VmSpec
from harness.ports import Container

__all__ = ["GuestReply", "SimulatedContainer"]


@dataclass(slots=True, kw_only=True, eq=False)
class SimulatedContainer:
    """One container. `host` is the node's container whose namespaces it shares; `doomed` the exit status of a PID 1
    that a frozen guest keeps from dying. `stopped` is SIGSTOP to its processes, of which the engine knows nothing;
    `ending` an end that takes its time.
    """

    id: str
    name: str
    labels: Mapping[str, str]
    host: str | None = None
    spec: VmSpec | None = None
    obeys_term: bool = True
    alive: bool = False
    running: bool = False
    paused: bool = False
    starting: bool = False
    restarting: bool = False
    removing: bool = False
    switched_off: bool = False
    stopped: bool = False
    killed_while_paused: bool = False
    ending: bool = False
    doomed: int | None = None
    started: str = ""
    started_us: int = 0
    exit_code: int = 0
    lives: int = 0
    short_lives: int = 0
    when_down: list[Callable[[], None]] = field(default_factory=list)

    @property
    def is_node(self) -> bool:
        """Whether it is a hypervisor node and not a guest."""
        return self.host is None

    @property
    def node(self) -> str:
        """The name of the node that it is, or runs on."""
        return self.labels.get(label.NODE, "")

    @property
    def vm(self) -> str:
        """The name of the VM that it stands for; empty for a node."""
        return self.labels.get(label.RESOURCE, "")

    def listed(self) -> Container:
        """As the engine's listing shows it."""
        return Container(
            id=self.id,
            name=self.name,
            running=self.running,
            paused=self.paused,
            started=self.started,
            started_ns=self.started_us * 1_000,
            exit_code=self.exit_code,
            labels=dict(self.labels),
        )


class GuestReply:
    """How an operation tells its outcome; the first call counts. By hand nobody listens."""

    __slots__ = ("_fail", "_succeed", "given")

    def __init__(
        self, succeed: Callable[[object], None] | None = None, fail: Callable[[EngineError], None] | None = None
    ) -> None:
        self._succeed = succeed
        self._fail = fail
        self.given = False

    def succeed(self, value: object = None) -> None:
        """The engine has done it."""
        if not self.given and self._succeed is not None:
            self._succeed(value)
        self.given = True

    def fail(self, error: EngineError) -> None:
        """The engine refuses, or gave up."""
        if not self.given and self._fail is not None:
            self._fail(error)
        self.given = True
