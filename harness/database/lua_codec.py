"""Calls and answers as the voter's Lua script takes and gives them: lists of text. Pure; the connection is an
adapter's business.
"""

import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from harness.database.protocol import (
    Accept,
    Accepted,
    Address,
    Admit,
    Admitted,
    Ballot,
    Beat,
    BeatAnswer,
    Call,
    Conflict,
    Content,
    Form,
    Formed,
    Hello,
    HelloAnswer,
    KeysAnswer,
    LeaseSeen,
    ListKeys,
    Notice,
    Prepare,
    Promise,
    Raise,
    Raised,
    Read,
    ReadAnswer,
    ReadMany,
    ReadManyAnswer,
    RefusalReason,
    Refused,
    Reply,
    Retire,
    Retired,
)
from harness.model.voter_set import VoterSet

__all__ = ["arguments_of", "reply_from", "script_text"]


def script_text() -> str:
    """The voter's script."""
    return resources.files("harness.database").joinpath("voter.lua").read_text()


def arguments_of(call: Call) -> list[str]:
    """The script's ARGV for a call."""
    match call:
        case Hello():
            return ["hello", call.rig, call.voter, "", "0", call.birth]
        case Form():
            return ["form", *_address(call.to), _members(call.members)]
        case Raise():
            return ["raise", *_address(call.to), _members(call.members)]
        case Admit():
            return ["admit", *_address(call.to), _members(call.members)]
        case Retire():
            return ["retire", *_address(call.to), _members(call.members), call.birth]
        case ListKeys():
            return ["keys", *_address(call.to)]
        case Prepare():
            return ["prepare", *_address(call.to), call.key, *_ballot(call.ballot), str(call.seen)]
        case Accept():
            ballots = (_ballot(call.ballot), _ballot(call.promise))
            about = (call.value, *ballots[1], call.owner, call.circle, str(call.seen))
            return ["accept", *_address(call.to), call.key, *ballots[0], *about]
        case Read():
            return ["read", *_address(call.to), call.key, str(call.seen)]
        case ReadMany():
            return ["read-many", *_address(call.to), str(call.seen), *call.keys]
        case Beat():
            return ["beat", *_address(call.to), call.session, str(call.since), str(call.seen), call.interest]


def reply_from(call: Call, raw: list[Any]) -> Reply:
    """The script's answer to that call as a record. Raises ValueError on anything the script does not say."""
    word, rig, voter, incarnation, version, *rest = raw
    of = Address(rig=rig, voter=voter, incarnation=incarnation, set_version=int(version))
    read = _READERS.get(word)
    if read is None:
        raise ValueError(f"the voter's script answered {word!r} to {type(call).__name__}")
    return read(of, rest)


def _voter_set(of: Address, members: str) -> VoterSet | None:
    return VoterSet(version=of.set_version, members=json.loads(members)) if members else None


def _refused(of: Address, rest: list[Any]) -> Reply:
    return Refused(of=of, why=RefusalReason(rest[0]), voter_set=_voter_set(of, rest[1]))


def _hello_answer(of: Address, rest: list[Any]) -> Reply:
    members, birth, behind = rest
    return HelloAnswer(
        rig=of.rig,
        voter=of.voter,
        incarnation=of.incarnation,
        voter_set=_voter_set(of, members),
        birth=birth,
        behind=bool(behind),
    )


def _promise(of: Address, rest: list[Any]) -> Reply:
    key, number, proposer, accepted_number, accepted_proposer, value, writes = rest
    return Promise(
        of=of,
        key=key,
        ballot=Ballot(int(number), proposer),
        accepted=Ballot(int(accepted_number), accepted_proposer),
        value=value,
        writes=int(writes),
    )


def _accepted(of: Address, rest: list[Any]) -> Reply:
    return Accepted(of=of, key=rest[0], ballot=Ballot(int(rest[1]), rest[2]), writes=int(rest[3]))


def _conflict(of: Address, rest: list[Any]) -> Reply:
    key, number, proposer, promised_number, promised_proposer = rest
    ballot, promised = Ballot(int(number), proposer), Ballot(int(promised_number), promised_proposer)
    return Conflict(of=of, key=key, ballot=ballot, promised=promised)


def _beat_answer(of: Address, rest: list[Any]) -> Reply:
    session, revision, number, proposer, clock, leases, changed = rest
    return BeatAnswer(
        of=of,
        session=session,
        revision=int(revision),
        cluster=Ballot(int(number), proposer),
        clock_us=int(clock),
        leases=tuple(
            LeaseSeen(session=leases[i], renewals=int(leases[i + 1]), at_us=int(leases[i + 2]))
            for i in range(0, len(leases), 3)
        ),
        changed=tuple(
            Notice(changed[i], Ballot(int(changed[i + 1]), changed[i + 2]), changed[i + 3])
            for i in range(0, len(changed), 4)
        ),
    )


def _contents(of: Address, rest: list[Any]) -> Reply:
    flat = rest[0]
    return ReadManyAnswer(
        of=of,
        contents=tuple(
            Content(key=flat[i], accepted=Ballot(int(flat[i + 1]), flat[i + 2]), value=flat[i + 3])
            for i in range(0, len(flat), 4)
        ),
    )


_READERS: dict[str, Callable[[Address, list[Any]], Reply]] = {
    "refused": _refused,
    "hello": _hello_answer,
    "promise": _promise,
    "accepted": _accepted,
    "conflict": _conflict,
    "value": lambda of, rest: ReadAnswer(
        of=of, key=rest[0], accepted=Ballot(int(rest[1]), rest[2]), value=rest[3]
    ),
    "values": _contents,
    "beat": _beat_answer,
    "formed": lambda of, _: Formed(of=of),
    "raised": lambda of, _: Raised(of=of),
    "admitted": lambda of, _: Admitted(of=of),
    "retired": lambda of, rest: Retired(of=of, birth=rest[0]),
    "keys": lambda of, rest: KeysAnswer(of=of, keys=tuple(rest[0])),
}


def _address(to: Address) -> tuple[str, str, str, str]:
    return to.rig, to.voter, to.incarnation, str(to.set_version)


def _members(members: Mapping[str, str]) -> str:
    return json.dumps(dict(members), sort_keys=True)


def _ballot(ballot: Ballot) -> tuple[str, str]:
    return str(ballot.number), ballot.proposer
