"""Calls and answers as the voter's Lua script takes and gives them: lists of text. Pure; the connection is an
adapter's business.
"""

import json
from importlib import resources
from typing import Any

from harness.database.protocol import (
    Accept,
    Accepted,
    Address,
    Ballot,
    Beat,
    BeatAnswer,
    Call,
    Conflict,
    Form,
    Formed,
    Hello,
    HelloAnswer,
    LeaseSeen,
    Prepare,
    Promise,
    Read,
    ReadAnswer,
    Refused,
    Reply,
    VoterSet,
    Why,
)

__all__ = ["arguments_of", "reply_from", "script_text"]


def script_text() -> str:
    """The voter's script."""
    return resources.files("harness.database").joinpath("voter.lua").read_text()


def arguments_of(call: Call) -> list[str]:
    """The script's ARGV for a call."""
    match call:
        case Hello():
            return ["hello", call.rig, call.voter, "", "0"]
        case Form():
            return ["form", *_address(call.to), json.dumps(dict(call.members), sort_keys=True)]
        case Prepare():
            return ["prepare", *_address(call.to), call.key, *_ballot(call.ballot)]
        case Accept():
            ballots = (_ballot(call.ballot), _ballot(call.promise))
            return ["accept", *_address(call.to), call.key, *ballots[0], call.value, *ballots[1]]
        case Read():
            return ["read", *_address(call.to), call.key]
        case Beat():
            return ["beat", *_address(call.to), call.session, str(call.since)]


def reply_from(call: Call, raw: list[Any]) -> Reply:
    """The script's answer to that call as a record. Raises ValueError on anything the script does not say."""
    word, rig, voter, incarnation, version, *rest = raw
    of = Address(rig=rig, voter=voter, incarnation=incarnation, set_version=int(version))
    match word:
        case "refused":
            return Refused(of=of, why=Why(rest[0]))
        case "hello":
            return HelloAnswer(
                rig=rig,
                voter=voter,
                incarnation=incarnation,
                voter_set=VoterSet(version=of.set_version, members=json.loads(rest[0])) if rest[0] else None,
            )
        case "formed":
            return Formed(of=of)
        case "promise":
            key, number, proposer, accepted_number, accepted_proposer, value = rest
            return Promise(
                of=of,
                key=key,
                ballot=Ballot(int(number), proposer),
                accepted=Ballot(int(accepted_number), accepted_proposer),
                value=value,
            )
        case "accepted":
            return Accepted(of=of, key=rest[0], ballot=Ballot(int(rest[1]), rest[2]))
        case "conflict":
            return Conflict(
                of=of,
                key=rest[0],
                ballot=Ballot(int(rest[1]), rest[2]),
                promised=Ballot(int(rest[3]), rest[4]),
            )
        case "value":
            return ReadAnswer(of=of, key=rest[0], accepted=Ballot(int(rest[1]), rest[2]), value=rest[3])
        case "beat":
            return _beat_answer(of, rest)
    raise ValueError(f"the voter's script answered {word!r} to {type(call).__name__}")


def _beat_answer(of: Address, rest: list[Any]) -> BeatAnswer:
    session, revision, number, proposer, leases, changed = rest
    return BeatAnswer(
        of=of,
        session=session,
        revision=int(revision),
        cluster=Ballot(int(number), proposer),
        leases=tuple(
            LeaseSeen(session=leases[i], renewals=int(leases[i + 1]), age_us=int(leases[i + 2]))
            for i in range(0, len(leases), 3)
        ),
        changed=tuple(
            (changed[i], Ballot(int(changed[i + 1]), changed[i + 2])) for i in range(0, len(changed), 3)
        ),
    )


def _address(to: Address) -> tuple[str, str, str, str]:
    return to.rig, to.voter, to.incarnation, str(to.set_version)


def _ballot(ballot: Ballot) -> tuple[str, str]:
    return str(ballot.number), ballot.proposer
