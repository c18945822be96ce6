"""Forms a new cluster; run once by `up` inside the first node, as root: `python3 -I -m harness.live.form_cluster <
topology.json`.

It makes each VM's place on the cluster shared volume, gives every voter its incarnation, and writes the first
registers. It refuses unless every voter answers and is empty: a cluster never forms from voters that merely lost
their disks, because only `up`, and only with volumes that it has just made, runs this. Prints JSON lines; ends with
0, or with {"error": ..., "begun": ...} and 1. `begun` says that these voters belong to a cluster already, whether its
forming came to its end or not.
"""

import asyncio
import json
import os
import random
import secrets
import sys
from pathlib import Path
from typing import Protocol

from harness.database.proposer import PHASE_LIMIT_US, Proposer, Result, Settlement
from harness.database.protocol import Address, Call, Form, Formed, Hello, HelloAnswer, Reply
from harness.database.register import JsonCodec
from harness.live.runtime import boot_time_us
from harness.live.voters import RedisVoters, VoterUnanswered
from harness.model.changes import CreateRegister
from harness.model.initial_registers import first_registers
from harness.model.serialization import from_json_value, to_json_value
from harness.model.topology import ResourceSpec, Topology
from harness.model.voter_set import VoterSet

__all__ = ["ProvisionError", "VoterCalls", "form_voter", "main"]

SHARED_VOLUME = Path("/csv")
PASSWORD_FILE = Path("/run/secrets/voter-password")
SERVICE_UID = 900
GUEST_UID_FIRST = 10_000
VOTERS_LIMIT_S = 30.0
POLL_S = 0.1
FORM_ATTEMPTS = 10
"""Each with a limit of its own; a disk that is written to by everybody may be slow for a second."""
OPERATION_LIMIT_US = 10_000_000


class VoterCalls(Protocol):
    """A way to the voters. A call raises VoterUnanswered when it gets no answer within its limit, in microseconds."""

    async def call(self, voter: str, call: Call, *, limit_us: int) -> tuple[Reply, int]: ...


class ProvisionError(Exception):
    """The cluster was not formed; the text says why."""


class FormedBefore(ProvisionError):
    """A voter belongs to a cluster already: an earlier forming was begun, and perhaps completed."""


def main() -> int:
    """Read the topology from standard input and form the cluster. Returns the exit code."""
    try:
        topology = from_json_value(Topology, json.load(sys.stdin))
        _make_places(topology)
        _become_service()
        asyncio.run(_form(topology, PASSWORD_FILE.read_text().strip()))
    except (ProvisionError, ValueError, OSError) as error:
        print(json.dumps({"error": str(error), "begun": isinstance(error, FormedBefore)}), flush=True)
        return 1
    return 0


def _say(text: str) -> None:
    print(json.dumps({"say": text}), flush=True)


def _make_places(topology: Topology) -> None:
    for group in topology.groups:
        for resource in group.resources:
            if resource.type == "virtual-machine":
                _make_place(group.name, resource)


def _make_place(group: str, resource: ResourceSpec) -> None:
    user = int(resource.properties["user"])
    if user < GUEST_UID_FIRST:
        raise ProvisionError(f"VM {resource.name}: user {user} is not a guest's, {GUEST_UID_FIRST} and up are")
    place = SHARED_VOLUME / resource.name
    disk = place / "disk"
    disk.mkdir(mode=0o755, parents=True, exist_ok=True)
    os.chown(disk, user, user)
    for name in json.loads(resource.properties.get("volumes", "{}")):
        volume = place / "volumes" / name
        volume.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(volume, user, user)
    configuration = {"vm": resource.name, "group": group, "properties": to_json_value(resource.properties)}
    (place / "config.json").write_text(json.dumps(configuration, sort_keys=True) + "\n")


def _become_service() -> None:
    """The password is readable by the service's user only, and nothing after this needs root."""
    os.setgroups([])
    os.setresgid(SERVICE_UID, SERVICE_UID, SERVICE_UID)
    os.setresuid(SERVICE_UID, SERVICE_UID, SERVICE_UID)


async def _form(topology: Topology, password: str) -> None:
    voters = RedisVoters({node.name: node.address for node in topology.voters}, password=password)
    try:
        await _wait_for_empty_voters(topology, voters)
        voter_set = VoterSet(version=1, members={node.name: secrets.token_hex(8) for node in topology.voters})
        for name, incarnation in voter_set.members.items():
            to = Address(rig=topology.rig, voter=name, incarnation=incarnation, set_version=voter_set.version)
            await form_voter(voters, name, Form(to=to, members=voter_set.members))
        _say(f"voters formed: {', '.join(voter_set.members)}")
        await _write_first_registers(topology, voters, voter_set)
    except VoterUnanswered as error:
        raise ProvisionError(f"{error}; the cluster is not formed to the end") from error
    finally:
        await voters.close()


async def form_voter(voters: VoterCalls, name: str, form: Form) -> None:
    """Ask until it answers: the same call twice forms one voter, once."""
    unanswered = VoterUnanswered(f"voter {name}: not asked")
    for _ in range(FORM_ATTEMPTS):
        try:
            reply, _ = await voters.call(name, form, limit_us=PHASE_LIMIT_US)
        except VoterUnanswered as error:
            unanswered = error
            continue
        if not isinstance(reply, Formed):
            raise ProvisionError(f"voter {name} answered {type(reply).__name__} and was not formed")
        return
    raise unanswered


async def _wait_for_empty_voters(topology: Topology, voters: RedisVoters) -> None:
    waiting = {node.name: "no answer yet" for node in topology.voters}
    for _ in range(int(VOTERS_LIMIT_S / POLL_S)):
        for name in list(waiting):
            try:
                reply, _ = await voters.call(name, Hello(rig=topology.rig, voter=name), limit_us=PHASE_LIMIT_US)
            except VoterUnanswered as error:
                waiting[name] = str(error)
                continue
            if not isinstance(reply, HelloAnswer):
                raise ProvisionError(f"voter {name} answered {type(reply).__name__} to a greeting")
            if reply.incarnation:
                raise FormedBefore(f"voter {name} belongs to a cluster already")
            del waiting[name]
        if not waiting:
            return
        await asyncio.sleep(POLL_S)
    saw = "; ".join(f"{name}: {text}" for name, text in waiting.items())
    raise ProvisionError(f"waited {VOTERS_LIMIT_S:g} s for every voter to answer; last saw: {saw}")


async def _write_first_registers(topology: Topology, voters: RedisVoters, voter_set: VoterSet) -> None:
    numbers = iter(range(1, sys.maxsize))
    proposer = Proposer(
        identity=f"up.{secrets.token_hex(8)}",
        rig=topology.rig,
        voter_set=voter_set,
        codec=JsonCodec(),
        jitter=random.Random(0).random,
        numbers=lambda: next(numbers),
    )
    for operation, (key, record) in enumerate(first_registers(topology, voter_set)):
        proposer.change(
            boot_time_us(),
            operation=operation,
            key=key,
            change=CreateRegister(first=record),
            limit_us=OPERATION_LIMIT_US,
        )
        settled = await _settle(proposer, voters)
        if settled.result is not Result.DONE:
            raise ProvisionError(f"register {key} was not created: {settled.result}: {settled.reason}")
    _say(f"{len(topology.groups)} groups created")


async def _settle(proposer: Proposer, voters: RedisVoters) -> Settlement:
    while not proposer.settlements:
        sends, proposer.sends = proposer.sends, []
        replies = await asyncio.gather(
            *(voters.call(send.voter, send.call, limit_us=PHASE_LIMIT_US) for send in sends),
            return_exceptions=True,
        )
        for send, outcome in zip(sends, replies, strict=True):
            if isinstance(outcome, VoterUnanswered):
                proposer.failed(boot_time_us(), send.number, send.voter)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                proposer.answered(boot_time_us(), send.number, outcome[0])
        if not sends:
            await asyncio.sleep(max(0, (proposer.next_wake() or 0) - boot_time_us()) / 1e6)
            proposer.tick(boot_time_us())
    return proposer.settlements.pop(0)


if __name__ == "__main__":
    sys.exit(main())
