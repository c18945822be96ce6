"""An administrator of a simulated world: asks for things at bad moments, asks again where it is told to, and knows what
may have become of it.

A request that was answered is over; one that was not, or whose answer is that nobody knows, may take effect at any time
after it was made. From that follows which PersistentStates the requests can have left.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.cluster_service.core.messages import AnswerCode, RequestAnswered
from harness.model.initial_registers import first_registers
from harness.model.records import GroupRecord
from harness.model.topology import ShutdownAction, Topology
from harness.model.voter_set import VoterSet
from harness.simulation.kernel.runtime import Clock
from harness.simulation.world.node import SimulatedNode

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
    """One request's effect on one VM. `end_us` None: it may still take effect. Not `sure`: it concerns another
    resource, and this one only if nothing else provides what that does.
    """

    vm: str
    wanted: bool
    begin_us: int
    end_us: int | None = None
    done: bool = False
    void: bool = False
    sure: bool = True


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
        self.answers: list[tuple[str, RequestAnswered]] = []
        self._clock = clock
        self._topology = topology
        self._nodes = nodes
        self._vms = {
            spec.name: [one.name for one in spec.resources if one.type == "virtual-machine"]
            for spec in topology.groups
        }
        self._wanted_first = {
            vm
            for key, record in first_registers(topology, VoterSet(version=1, members={}))
            if isinstance(record, GroupRecord)
            for vm, wanted in record.persistent.items()
            if wanted
        }
        self._failures = {
            spec.name
            for group in topology.groups
            for spec in group.resources
            if spec.policy.shutdown_action is ShutdownAction.FAIL
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
        told: Callable[[RequestAnswered], None] | None = None,
        redirections: int = REDIRECTIONS,
    ) -> bool:
        """One request, asked again of the owner that an answer names; `told` gets the last answer, if there is one.
        False: the node takes no request.
        """
        self.asked += 1
        wishes = self._wishes_of(verb, arguments)
        self._wishes += wishes
        return self._send(node, verb, arguments, wishes, redirections, told)

    def by_hand(self, vm: str, wanted: bool) -> None:
        """Somebody starts or stops it past the cluster, which may take that for a wish at any time after: of that
        VM, and with a start of what it depends on. A stop whose policy makes it a failure is no wish.
        """
        if not wanted and vm in self._failures:
            return
        concerned = self._concerned(vm, wanted) if wanted else [vm]
        self._wishes += [_Wish(name, wanted, self._clock.now_us) for name in concerned]

    def may_be_wanted(self, vm: str) -> set[bool]:
        """The PersistentStates that the requests can have left, from 1 at the beginning."""
        mine = [wish for wish in self._wishes if wish.vm == vm and not wish.void]
        mine.insert(0, _Wish(vm, vm in self._wanted_first, -1, -1, done=True))
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
            concerned = dict.fromkeys(self._vms[str(arguments["group"])], True)
        else:
            concerned = self._concerned(str(arguments["resource"]), wanted)
        now_us = self._clock.now_us
        return [_Wish(vm, wanted, now_us, sure=sure) for vm, sure in concerned.items()]

    def _concerned(self, resource: str, wanted: bool) -> dict[str, bool]:
        """Which VMs change with that resource, and whether they do for certain: with what goes, whatever depends
        on it; with what comes, whatever it depends on, of which some may be there.
        """
        specs = next(
            group.resources for group in self._topology.groups if any(one.name == resource for one in group.resources)
        )
        sure = {resource: True}
        look = [resource]
        while look:
            name = look.pop(0)
            for spec in specs:
                down = not wanted and any(name in alternatives for alternatives in spec.depends_on)
                up = wanted and any(
                    spec.name in alternatives for one in specs if one.name == name for alternatives in one.depends_on
                )
                if spec.name not in sure and (down or up):
                    # What is further off goes only if what is between is wanted.
                    sure[spec.name] = down and name == resource and (name,) in spec.depends_on
                    look.append(spec.name)
        return {spec.name: sure[spec.name] for spec in specs if spec.type == "virtual-machine" and spec.name in sure}

    def _send(
        self,
        node: str,
        verb: str,
        arguments: Arguments,
        wishes: list[_Wish],
        redirections: int,
        told: Callable[[RequestAnswered], None] | None,
    ) -> bool:
        def answered(answer: RequestAnswered) -> None:
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

    def _end(self, answer: RequestAnswered, wishes: list[_Wish]) -> None:
        made = answer.code is AnswerCode.DONE or "persistent_state" in answer.result
        for wish in wishes:
            if answer.code is AnswerCode.UNKNOWN:
                continue
            wish.end_us, wish.done, wish.void = self._clock.now_us, made and wish.sure, not made
