"""An administrator of a simulated world: asks for things at bad moments, asks again where it is told to, and knows what
may have become of it.

A request that was answered is over; one that was not, or whose answer is that nobody knows, may take effect at any time
after it was made. From that follows which PersistentStates the requests can have left.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.cluster_service.messages import Answer, AnswerCode
from harness.model.topology import Topology
from harness.simulation.node import SimulatedNode
from harness.simulation.runtime import Clock

__all__ = ["Administrator", "drawn_command"]

REDIRECTIONS = 3

VERBS = (
    *("group.move", "group.offline", "group.online", "resource.offline", "resource.online", "resource.fail") * 2,
    *("node.pause", "node.resume", "node.resume"),
)
"""What is asked how often: more is resumed than paused, so that not everything ends on Paused nodes."""

Arguments = Mapping[str, str | bool]


@dataclass(slots=True)
class _Wish:
    """One request's effect on one machine. `end_us` None: it may still take effect."""

    machine: str
    wanted: bool
    begin_us: int
    end_us: int | None = None
    done: bool = False
    void: bool = False


def drawn_command(rng: random.Random, topology: Topology, node: str, about: str) -> tuple[str, dict[str, str | bool]]:
    """A call and its arguments: of the group `about`, else of any, or of that node or another."""
    names = sorted(spec.name for spec in topology.nodes)
    verb = rng.choice(VERBS)
    group = rng.choice([spec for spec in topology.groups if about in ("", spec.name)])
    arguments: dict[str, str | bool] = {}
    if verb.startswith("group."):
        arguments["group"] = group.name
        if verb == "group.move" and rng.random() < 0.5:
            arguments["target"] = rng.choice(names)
    elif verb.startswith("resource."):
        arguments["resource"] = rng.choice(group.resources).name
    else:
        arguments["node"] = node if rng.random() < 0.5 else rng.choice(names)
        if verb == "node.pause":
            arguments["drain"] = rng.random() < 0.6
        else:
            arguments["failback"] = rng.choice(("none", "immediate", "policy"))
    return verb, arguments


class Administrator:
    """`asked` counts the requests, `answers` how they ended; what is asked of a node that does not live is lost."""

    def __init__(self, clock: Clock, *, topology: Topology, nodes: Mapping[str, SimulatedNode]) -> None:
        self.asked = 0
        self.answers: list[tuple[str, Answer]] = []
        self._clock = clock
        self._topology = topology
        self._nodes = nodes
        self._machines = {
            spec.name: [one.name for one in spec.resources if one.type == "virtual-machine"]
            for spec in topology.groups
        }
        self._wishes: list[_Wish] = []

    def command(self, rng: random.Random, node: str, about: str = "") -> None:
        """Ask `node` for something drawn."""
        verb, arguments = drawn_command(rng, self._topology, node, about)
        self.ask(node, verb, arguments)

    def ask(
        self,
        node: str,
        verb: str,
        arguments: Arguments,
        *,
        told: Callable[[Answer], None] | None = None,
        redirections: int = REDIRECTIONS,
    ) -> bool:
        """One request, asked again of the owner that an answer names; `told` gets the last answer, if there is one.
        False: the node takes no request.
        """
        self.asked += 1
        wishes = self._wishes_of(verb, arguments)
        self._wishes += wishes
        return self._send(node, verb, arguments, wishes, redirections, told)

    def by_hand(self, machine: str, wanted: bool) -> None:
        """Somebody starts or stops it past the cluster, which may take that for a wish at any time after."""
        self._wishes.append(_Wish(machine, wanted, self._clock.now_us))

    def may_be_wanted(self, machine: str) -> set[bool]:
        """The PersistentStates that the requests can have left, from 1 at the beginning."""
        mine = [wish for wish in self._wishes if wish.machine == machine and not wish.void]
        mine.insert(0, _Wish(machine, True, -1, -1, done=True))
        return {
            wish.wanted
            for wish in mine
            if wish.end_us is None or not any(later.done and later.begin_us > wish.end_us for later in mine)
        }

    def _wishes_of(self, verb: str, arguments: Arguments) -> list[_Wish]:
        kind, _, what = verb.partition(".")
        if what not in ("online", "offline"):
            return []
        wanted = what == "online"
        if kind == "group":
            machines = self._machines[str(arguments["group"])]
        else:
            machines = self._concerned(str(arguments["resource"]), wanted)
        return [_Wish(machine, wanted, self._clock.now_us) for machine in machines]

    def _concerned(self, resource: str, wanted: bool) -> list[str]:
        """The machine itself; or, when its address goes, the machine that depends on that."""
        for group in self._topology.groups:
            for spec in group.resources:
                depends = any(resource in alternatives for alternatives in spec.depends_on)
                if spec.type == "virtual-machine" and (spec.name == resource or (depends and not wanted)):
                    return [spec.name]
        return []

    def _send(
        self,
        node: str,
        verb: str,
        arguments: Arguments,
        wishes: list[_Wish],
        redirections: int,
        told: Callable[[Answer], None] | None,
    ) -> bool:
        def answered(answer: Answer) -> None:
            self.answers.append((verb, answer))
            if answer.code is AnswerCode.NOT_OWNER and redirections:
                owner = str(answer.result["owner"])
                self._send(owner, verb, arguments, wishes, redirections - 1, told)
                return
            self._end(answer, wishes)
            if told is not None:
                told(answer)

        taken = self._nodes[node].request(verb, arguments, answered=answered)
        if not taken:
            for wish in wishes:
                wish.void = True
        return taken

    def _end(self, answer: Answer, wishes: list[_Wish]) -> None:
        made = answer.code is AnswerCode.DONE or "persistent_state" in answer.result
        for wish in wishes:
            if answer.code is AnswerCode.UNKNOWN:
                continue
            wish.end_us, wish.done, wish.void = self._clock.now_us, made, not made
