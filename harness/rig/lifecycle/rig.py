"""A rig that stands: made from a topology, found again by its labels, and taken away.

    rig = Rig.up(topology, say=print)        # images, volumes, secrets, nodes, the cluster formed, everything Online
    rig = Rig.find("blackstart")             # nothing but the engine is asked; no file is needed
    rig.power_off("node2"); rig.power_on("node2")
    rig.down(say=print)

It starts and forms; from then on the cluster runs itself, and no call here is needed for it to live. Calls block,
each with a limit.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from harness.errors import (
    ApiUnanswered,
    EngineError,
    HarnessError,
    NoSuchContainer,
    NotOnline,
    NotOwned,
    RequestRefused,
    UsageError,
    WaitTimeout,
)
from harness.model import labels
from harness.model.name import check_rig_name
from harness.model.object_names import hold_volume, node_container
from harness.model.topology import Topology
from harness.rig.cluster.node_api_client import Address, ApiReply, NodeApiClient, addresses_of
from harness.rig.cluster.request_routing import Question, send_request, who_to_ask
from harness.rig.cluster.status import Condition, Power, RigStatus, merge
from harness.rig.engine.connection import connect, engine_call, in_parallel
from harness.rig.engine.ownership import kill_container, remove_volume
from harness.rig.images.build import Images, ensure_images, find_project_root
from harness.rig.lifecycle.compose_tool import ComposeTool, require_compose_tool
from harness.rig.lifecycle.create import (
    FormingBegun,
    check_vms,
    create,
    form,
    is_formed,
    make_missing_nodes,
    mark_formed,
    refuse_other,
    topology_of,
)
from harness.rig.lifecycle.rig_lock import Holder, claimed_rig
from harness.rig.lifecycle.teardown import remove_rig, rig_names

__all__ = ["UP_LIMIT_S", "Rig", "Vm"]

Say = Callable[[str], None]

UP_LIMIT_S = 120.0
"""From formed to everything Online. It takes some seconds; a loaded host with nine nodes needs more."""
LOOK_LIMIT_S = 12.0
"""A look that the managers answer may take ten seconds."""
SNAPSHOT_LIMIT_S = 2.0
"""A look takes milliseconds; a node that hangs must not hold up the answers of the others for long."""
POWER_LIMIT_S = 30.0
BEGUN_LIMIT_S = 15.0
"""A node that starts beside a whole cluster is Up after some two seconds; a loaded host needs more."""
LOOK_INTERVAL_S = 0.1
"""The nodes announce nothing to the outside that could be awaited; a look at three of them takes some 15 ms."""
ENGINE_LOOK_INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A VM's container as the engine lists it. `state` is the engine's word: running, exited, created, paused."""

    name: str
    group: str
    node: str
    session: str
    state: str
    status: str
    container: str


class Rig:
    """One rig of one engine. `topology` is what it was made from, with the addresses that it really has."""

    def __init__(self, client: docker.DockerClient, topology: Topology) -> None:
        """Only `up` and `find` make these."""
        self.client = client
        self.topology = topology
        self.name = topology.rig
        self._api = NodeApiClient(client, rig=topology.rig, note=_note)

    def note_to(self, note: Callable[[str], None]) -> None:
        """Have `note` called, on any thread, with the sentences that by default are lines on standard error: that a
        node is reached on another way than usual, and why.
        """
        self._api.note = note

    @classmethod
    def up(
        cls,
        topology: Topology,
        *,
        say: Say,
        limit_s: float = UP_LIMIT_S,
        client: docker.DockerClient | None = None,
        project_root: Path | None = None,
        say_each_look: bool = False,
        locked: bool = False,
        images: Images | None = None,
    ) -> "Rig":
        """Makes the rig, or completes one that stands already and is the same; returns when everything is Online.

        It holds the rig's lock meanwhile, unless the caller has it (`locked`), and builds the images, unless the caller
        has just done it (`images`).

        Raises UsageError when a rig of that name differs or another process holds its lock, WaitTimeout when it does
        not get Online within `limit_s`, HarnessError, EngineError. What was made stays for a look: `down` removes it.
        With `say_each_look` what it waits for is said at every look and not only when it changes, for a caller whose
        `say` raises in order to give up.
        """
        client = client or connect()
        tool = require_compose_tool()
        images = images or ensure_images(client, project_root=project_root or find_project_root(), say=say)
        check_vms(client, topology)
        image = images.hypervisor.tag
        name = topology.rig
        held = claimed_rig(client, name, holder=Holder.here("blackstart up"), image=image)
        with contextlib.nullcontext() if locked else held:
            standing = topology_of(client, name)
            if standing is None:
                rig = cls(client, create(client, tool, topology, image=image, say=say))
                rig.note_to(say)
            else:
                refuse_other(topology, standing)
                rig = cls(client, standing)
                rig.note_to(say)
                rig._complete(tool, image=image, say=say)
            rig._form(say=say)
            rig.wait_online(limit_s=limit_s, say=say, say_each_look=say_each_look)
        return rig

    @classmethod
    def find(cls, name: str, *, client: docker.DockerClient | None = None) -> "Rig":
        """The rig of that name. Raises UsageError when the engine has none, or only parts of it."""
        check_rig_name(name)
        client = client or connect()
        topology = topology_of(client, name)
        if topology is None:
            others = ", ".join(rig_names(client)) or "none at all"
            raise UsageError(f"there is no rig {name!r} on this engine, which has: {others}. `blackstart up` makes one")
        return cls(client, topology)

    def close(self) -> None:
        """Ends the connections to nodes and engine; the rig stands on."""
        self._api.close()
        self.client.close()

    def down(self, *, say: Say) -> None:
        """Removes everything that carries the rig's label. Raises CleanupError, naming what is left."""
        remove_rig(self.client, self.name, say=say)

    def standing(self) -> RigStatus:
        """What the engine and the nodes say now. A node that does not answer is Unknown, not an error."""
        nodes = self._containers(labels.Role.NODE)
        return merge(self.topology, self._powers(nodes), self._snapshots(_addresses(nodes)))

    def request(self, path: str, arguments: Mapping[str, str | bool] | None = None) -> ApiReply:
        """An administrator's request, such as `groups/web/move`, of the node that it concerns, or of the next that can
        carry it out. The answer says that the wish is durable; `wait_until` waits for what follows.

        Raises RequestRefused, ApiUnanswered when it may be done nevertheless, HarnessError when there is nobody to ask.
        """
        nodes = self._containers(labels.Role.NODE)
        addresses, powers = _addresses(nodes), self._powers(nodes)
        snapshots = self._snapshots(addresses)
        standing = merge(self.topology, powers, snapshots)
        silent = f"gave no answer within {SNAPSHOT_LIMIT_S:g} s"
        absent = {
            name: silent if name in addresses else f"is {power}"
            for name, power in powers.items()
            if name not in snapshots
        }
        question = Question(path=path, arguments=arguments or {})
        return send_request(
            self._api, question, addresses=addresses, order=who_to_ask(standing, path, snapshots), absent=absent
        )

    def look(self, path: str) -> Mapping[str, Any]:
        """What a node with quorum answers to `path`, such as `quorum`; any other that answers, when none has quorum.

        Raises HarnessError when none answers, RequestRefused.
        """
        addresses = _addresses(self._containers(labels.Role.NODE))
        snapshots = self._snapshots(addresses)
        for node in sorted(snapshots, key=lambda name: not snapshots[name]["quorum"]):
            with contextlib.suppress(ApiUnanswered):  # it has just gone: the next one
                return self._api.get(addresses[node], path, limit_s=LOOK_LIMIT_S).body
        shown = ", ".join(f"{name}: {power}" for name, power in self.powers().items())
        raise HarnessError(f"no node of rig {self.name} answers, so nobody could be asked for {path}; {shown}")

    def _snapshots(self, addresses: Mapping[str, Address]) -> dict[str, Mapping[str, Any]]:
        """What each node says of the cluster that answers in time."""
        answers = zip(addresses, in_parallel(self._snapshot, addresses.values()), strict=True)
        return {node: answer for node, answer in answers if answer is not None}

    def _snapshot(self, address: Address) -> Mapping[str, Any] | None:
        try:
            return self._api.get(address, "snapshot", limit_s=SNAPSHOT_LIMIT_S).body
        except (ApiUnanswered, RequestRefused):
            return None  # it hangs, is cut off, or its service has not begun yet

    def powers(self) -> dict[str, Power]:
        """Each node as the engine sees it, in the topology's order."""
        return self._powers(self._containers(labels.Role.NODE))

    def _powers(self, nodes: list[Any]) -> dict[str, Power]:
        held = self.holds()
        states = {found["Labels"][labels.NODE]: found["State"] for found in nodes}
        powers = {}
        for node in self.topology.nodes:
            power = _POWERS.get(states.get(node.name, ""), Power.OFF if node.name in states else Power.MISSING)
            powers[node.name] = Power.HELD_OFF if power is Power.OFF and node.name in held else power
        return powers

    def vms(self) -> list[Vm]:
        """Every VM's container that the engine has, running or not, by node and name."""
        found = [
            Vm(
                name=container["Labels"].get(labels.RESOURCE, "?"),
                group=container["Labels"].get(labels.GROUP, "?"),
                node=container["Labels"].get(labels.NODE, "?"),
                session=container["Labels"].get(labels.SESSION, ""),
                state=container["State"],
                status=container["Status"],
                container=container["Id"],
            )
            for container in self._containers(labels.Role.VM)
        ]
        return sorted(found, key=lambda vm: (vm.node, vm.name))

    def holds(self) -> frozenset[str]:
        """The nodes whose power is held off."""
        marks = {"label": [f"{labels.RIG}={self.name}", f"{labels.ROLE}={labels.Role.HOLD}"]}
        with engine_call(f"list the hold marks of rig {self.name}"):
            found = self.client.api.volumes(filters=marks).get("Volumes") or []
        return frozenset(volume["Labels"][labels.NODE] for volume in found)

    def power_off(self, node: str, *, hold: bool = True) -> None:
        """Cuts the power of `node`: its VMs go with it. Off means that the engine reports none of them running.

        With `hold`, nobody powers it on again before `power_on`; without, a survivor does as soon as it has fenced
        it. Raises WaitTimeout when something withstands, UsageError for an unknown node.
        """
        self._check_node(node)
        if hold:
            self._hold(node)
        deadline = time.monotonic() + POWER_LIMIT_S
        while True:
            alive = [found for found in self._of_node(node) if found["State"] not in _NOT_RUNNING]
            if not alive:
                return
            if time.monotonic() > deadline:
                saw = ", ".join(f"{found['Names'][0].lstrip('/')} {found['State']}" for found in alive)
                raise WaitTimeout(waited_for=f"the power of {node} to go", saw=saw, limit_s=POWER_LIMIT_S)
            if any(in_parallel(self._kill, [str(found["Id"]) for found in alive])):
                time.sleep(ENGINE_LOOK_INTERVAL_S)  # the engine refused a kill: between two lives, or already dying

    def power_on(self, node: str) -> None:
        """Removes the hold mark and gives `node` its power; returns when the engine has started it."""
        self._check_node(node)
        with contextlib.suppress(NoSuchContainer):  # it was not held
            remove_volume(self.client, hold_volume(self.name, node), rig=self.name, roles=(labels.Role.HOLD,))
        with engine_call(f"power on {node}"):
            self.client.api.start(node_container(self.name, node))

    def logs(self, node: str, *, lines: int = 20) -> str:
        """The end of the log of `node`, a line `component: message` each; empty when the engine does not say."""
        try:
            with engine_call(f"read the log of {node}"):
                text = self.client.api.logs(node_container(self.name, node), tail=lines)
        except EngineError:
            return ""
        return "\n".join(_log_line(line) for line in bytes(text).decode(errors="replace").rstrip("\n").split("\n"))

    def wait_online(self, *, limit_s: float = UP_LIMIT_S, say: Say, say_each_look: bool = False) -> None:
        """Returns when every node is Up and every group Online.

        Raises NotOnline when the nodes are Up and a group is not Online, else WaitTimeout, with what is missing.
        """
        seen: list[RigStatus] = []

        def missing(standing: RigStatus) -> str:
            seen[:] = [standing]
            return ", ".join(standing.missing(self.topology))

        waited_for = "every node to be Up and every group Online"
        try:
            self.wait_until(waited_for, missing, limit_s=limit_s, say=say, say_each_look=say_each_look)
        except WaitTimeout as error:
            culprit = seen[0].culprit() or self.topology.nodes[0].name
            log = f"The log of {culprit} ends with:\n{self.logs(culprit)}"
            if seen[0].missing_nodes():
                raise WaitTimeout(waited_for=waited_for, saw=error.saw, limit_s=limit_s, advice=log) from error
            # The nodes do their work; images, commands and readiness checks come from the document.
            advice = f"Check the image, the command and the readiness of what is not Online. {log}"
            saw = seen[0].not_online(self.topology) or error.saw
            raise NotOnline(waited_for=waited_for, saw=saw, limit_s=limit_s, advice=advice) from error

    def wait_until(
        self, waited_for: str, missing: Condition, *, limit_s: float, say: Say, say_each_look: bool = False
    ) -> RigStatus:
        """Looks until nothing is `missing` any more; the answer is what was seen then.

        `say` is told what is missing, when that changes or at each look. Raises WaitTimeout after `limit_s`.
        """
        deadline = time.monotonic() + limit_s
        told = ""
        while True:
            standing = self.standing()
            lacks = missing(standing)
            if not lacks:
                return standing
            if say_each_look or lacks != told:
                say(f"waiting for {lacks}")
                told = lacks
            if time.monotonic() > deadline:
                raise WaitTimeout(waited_for=waited_for, saw=lacks, limit_s=limit_s)
            time.sleep(LOOK_INTERVAL_S)

    def _form(self, *, say: Say) -> None:
        """Forms the cluster, unless that was done. A forming whose `up` ended before the mark is recognised by a node
        that is Up: the register by which nodes join is written last. Raises UsageError for one that was cut short.
        """
        try:
            form(self.client, self.topology, say=say)
        except FormingBegun as begun:
            say("the cluster was formed before, and not marked as formed: looking whether it works")

            def missing(standing: RigStatus) -> str:
                return "" if any(node.state == "Up" for node in standing.nodes) else "a node that is Up"

            try:
                self.wait_until("a node to be Up", missing, limit_s=BEGUN_LIMIT_S, say=say, say_each_look=True)
            except WaitTimeout as error:
                raise UsageError(
                    f"rig {self.name} is half made: {begun}, and no node is Up after {BEGUN_LIMIT_S:g} s. "
                    f"`blackstart down --name {self.name}` removes it, then `blackstart up` makes it"
                ) from error
            mark_formed(self.client, self.name)

    def _complete(self, tool: ComposeTool, *, image: str, say: Say) -> None:
        """Make the missing objects of a rig that stands or is half made, and power its nodes on."""
        half_made = not is_formed(self.client, self.name)
        off = {name: power for name, power in self.powers().items() if power is not Power.ON}
        if half_made:
            say(f"rig {self.name} is half made: its cluster is not marked as formed; completing it")
        elif not off:
            say(f"rig {self.name} stands already")
        else:
            say(f"rig {self.name} stands already, without {', '.join(off)}: powering on")
        if half_made or off:
            make_missing_nodes(self.client, tool, self.topology, image=image)
        self._resume_helpers()
        for name, power in off.items():
            if power is Power.PAUSED:
                with engine_call(f"unpause {name}"):
                    self.client.api.unpause(node_container(self.name, name))
            else:
                self.power_on(name)

    def _resume_helpers(self) -> None:
        """A run that was killed may have left an engine's proxy frozen; without it its node can do nothing. Without the
        keeper a voter loses its disk with its node. A witness that is off is a vote less.
        """
        helpers = (labels.Role.ENGINE_PROXY, labels.Role.KEEPER, labels.Role.WITNESS)
        for found in (found for role in helpers for found in self._containers(role)):
            if found["State"] != "running":
                with engine_call(f"resume {found['Names'][0].lstrip('/')}"):
                    resume = self.client.api.unpause if found["State"] == "paused" else self.client.api.start
                    resume(found["Id"])

    def _hold(self, node: str) -> None:
        mark = {labels.RIG: self.name, labels.ROLE: str(labels.Role.HOLD), labels.NODE: node}
        with engine_call(f"make the hold mark of {node}"):
            self.client.api.create_volume(hold_volume(self.name, node), labels=mark)

    def _kill(self, container: str) -> bool:
        """Whether the engine refused. Raises NotOwned."""
        try:
            kill_container(self.client, container, rig=self.name, roles=(labels.Role.NODE, labels.Role.VM))
        except NoSuchContainer:
            return False
        except NotOwned:
            raise
        except EngineError:
            return True
        return False

    def _of_node(self, node: str) -> list[Any]:
        return [
            found
            for role in (labels.Role.NODE, labels.Role.VM)
            for found in self._containers(role)
            if found["Labels"].get(labels.NODE) == node
        ]

    def _containers(self, role: labels.Role) -> list[Any]:
        filters = {"label": [f"{labels.RIG}={self.name}", f"{labels.ROLE}={role}"]}
        with engine_call(f"list the containers of rig {self.name}"):
            found: list[Any] = self.client.api.containers(all=True, filters=filters)
        return found

    def _check_node(self, node: str) -> None:
        names = [known.name for known in self.topology.nodes]
        if node not in names:
            raise UsageError(f"rig {self.name} has no node {node!r}, expected one of {', '.join(names)}")


def _note(text: str) -> None:
    # Never in the way of a command: its standard error may be closed.
    with contextlib.suppress(OSError, ValueError):
        print(f"note: {text}", file=sys.stderr, flush=True)


def _addresses(nodes: list[Any]) -> dict[str, Address]:
    """Of the nodes that run: one that is frozen could not answer."""
    return addresses_of([found for found in nodes if found["State"] == "running"])


_POWERS = {
    "running": Power.ON,
    "paused": Power.PAUSED,
    "restarting": Power.RESTARTING,
}
_NOT_RUNNING = ("exited", "created", "dead", "removing")


def _log_line(line: str) -> str:
    try:
        entry = json.loads(line)
        return f"  {entry['component']}: {entry['message']}"
    except (ValueError, KeyError, TypeError):
        return f"  {line}"
