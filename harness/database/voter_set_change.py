"""Carrying one recorded change of the voter set through: what to ask of which voter next. No I/O, no decision.

The change is in the cluster register before any of this begins, so whoever reads it there may carry it on, and any
number of nodes may do so at once: every step may be repeated. The steps, each derived from what the voters said:

| known | then |
|---|---|
| less than a majority of the old set has the new version | Raise at every voter of the old set |
| a majority has it: rounds of the old version are over | adopt the set; Admit the added voter, if there is one |
| a majority of the new set has told its registers | an identity change of every register under the new version |
| each register was rewritten | the change is carried through |

A voter without its disk refuses to be raised, so it never counts. That every register is rewritten on a majority of
the new set is what makes the next change safe: two sets that are two changes apart need not have a voter in common
(safety review, findings 5 and 6).
"""

from collections.abc import Callable

from harness.database.proposer import PHASE_LIMIT_US, Send
from harness.database.protocol import (
    Address,
    Admit,
    Admitted,
    Call,
    KeysAnswer,
    ListKeys,
    Raise,
    Refused,
    Reply,
)
from harness.model.voter_set import VoterSet

__all__ = ["VoterSetChange"]

AGAIN_US = PHASE_LIMIT_US
"""Between two calls of one kind to one voter: as long as one may stay unanswered."""


class VoterSetChange:
    """From `old` to `new`. `keys` are the registers that are known anyway; `numbers` gives numbers for calls.

    Collect `due` after each fact; `unwritten` are the registers that still need their identity change.
    """

    def __init__(
        self, *, rig: str, old: VoterSet, new: VoterSet, keys: tuple[str, ...], numbers: Callable[[], int]
    ) -> None:
        self.old = old
        self.new = new
        self._rig = rig
        self._number = numbers
        self._keys = set(keys)
        self._raised: set[str] = set()
        self._admitted: set[str] = set()
        self._listed: set[str] = set()
        self._rewritten: set[str] = set()
        self._calls: dict[int, str] = {}
        self._asked_us: dict[tuple[str, str], int] = {}

    @property
    def raised(self) -> bool:
        """Whether a majority of the old set refuses rounds of its version."""
        return len(self._raised) >= self.old.majority

    @property
    def unwritten(self) -> list[str]:
        """The registers that still need an identity change; empty while not all are known."""
        return sorted(self._keys - self._rewritten) if self._all_known else []

    @property
    def complete(self) -> bool:
        """Whether every register was rewritten under the new set."""
        return self._all_known and self._keys <= self._rewritten

    @property
    def _all_known(self) -> bool:
        return len(self._listed) >= self.new.majority

    def rewritten(self, key: str) -> None:
        """An identity change of that register was done under the new set."""
        self._rewritten.add(key)

    def due(self, now: int) -> list[Send]:
        """The calls that are due. Each ends with `answered` or with `failed`."""
        sends: list[Send] = []
        for voter, incarnation in self.old.members.items():
            if voter not in self._raised:
                sends += self._send(now, voter, Raise(to=self._to(voter, incarnation), members=self.new.members))
        if not self.raised:
            return sends
        for voter, incarnation in self.new.members.items():
            to = self._to(voter, incarnation)
            if voter not in self._admitted and not self.old.has(voter, incarnation):
                sends += self._send(now, voter, Admit(to=to, members=self.new.members))
            elif voter not in self._listed:
                sends += self._send(now, voter, ListKeys(to=to))
        return sends

    def next_wake(self, now: int) -> int:
        """When a call may be due again."""
        return min((at for at in self._asked_us.values() if at > now), default=now + AGAIN_US)

    def answered(self, number: int, reply: Reply) -> bool:
        """Take an answer in; whether it was one to this change's calls."""
        voter = self._calls.pop(number, None)
        if voter is None:
            return False
        of = getattr(reply, "of", None)
        if not isinstance(of, Address) or of.voter != voter or of.rig != self._rig:
            return True
        has_new = of.set_version >= self.new.version
        if self.old.has(voter, of.incarnation) and has_new:
            self._raised.add(voter)
        if self.new.has(voter, of.incarnation) and has_new and not isinstance(reply, Refused):
            if isinstance(reply, Admitted):
                self._admitted.add(voter)
            elif isinstance(reply, KeysAnswer):
                self._listed.add(voter)
                self._keys.update(reply.keys)
        return True

    def failed(self, number: int) -> bool:
        """No answer came; whether the call was one of this change's."""
        return self._calls.pop(number, None) is not None

    def _to(self, voter: str, incarnation: str) -> Address:
        return Address(rig=self._rig, voter=voter, incarnation=incarnation, set_version=self.new.version)

    def _send(self, now: int, voter: str, call: Call) -> list[Send]:
        kind = (type(call).__name__, voter)
        if now < self._asked_us.get(kind, now):
            return []
        self._asked_us[kind] = now + AGAIN_US
        number = self._number()
        self._calls[number] = voter
        return [Send(number, voter, call)]
