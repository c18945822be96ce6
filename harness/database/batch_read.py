"""Reading many registers at once: one call for each voter instead of one for each register.

It is the plain read of each register (`proposer`): what a majority has accepted alike is told. Whatever they do not
agree on is left to a read of its own, which may have to decide. No I/O.
"""

from collections.abc import Callable, Sequence

from harness.database.proposer import READ_PATIENCE_US
from harness.database.protocol import Address, Ballot, Call, Content, ReadMany, ReadManyAnswer, Reply
from harness.model.voter_set import VoterSet

__all__ = ["MAX_KEYS", "Agreed", "BatchRead"]

MAX_KEYS = 100
"""Registers of one call: their contents are one answer, some hundred kilobytes."""

Agreed = tuple[str, Ballot, str | None]
"""A register, the ballot under which a majority has accepted its content, and that."""


class BatchRead:
    """One round with the voters. `calls` are to be sent; each is answered, or fails, once."""

    def __init__(
        self,
        *,
        keys: Sequence[str],
        voter_set: VoterSet,
        rig: str,
        numbers: Callable[[], int],
        seen: Callable[[str, str], int],
    ) -> None:
        """`seen` is the count of writes that a life of a voter has told."""
        self.left = dict.fromkeys(keys)
        self._majority = voter_set.majority
        self._addresses = {
            voter: Address(rig=rig, voter=voter, incarnation=life, set_version=voter_set.version)
            for voter, life in voter_set.members.items()
        }
        self.ends_us: int | None = None
        self._waiting: dict[int, str] = {}
        self._answers: list[dict[str, Content]] = []
        self.calls: list[tuple[int, str, Call]] = []
        for voter, to in self._addresses.items():
            number = numbers()
            self._waiting[number] = voter
            call = ReadMany(to=to, keys=tuple(keys), seen=seen(voter, to.incarnation))
            self.calls.append((number, voter, call))

    def over(self, now: int) -> bool:
        """Whether what is `left` needs a read of its own: all were heard, or a majority was and the others have had
        their time.
        """
        return not self._waiting or not self.left or (self.ends_us is not None and now >= self.ends_us)

    def answered(self, now: int, number: int, reply: Reply) -> list[Agreed]:
        """A voter answered: what is agreed upon by now, each register once."""
        voter = self._waiting.pop(number, None)
        if voter is None or not self.left:
            return []
        if not isinstance(reply, ReadManyAnswer) or reply.of != self._addresses[voter]:
            return []
        self._answers.append({content.key: content for content in reply.contents})
        if len(self._answers) < self._majority:
            return []
        if self.ends_us is None:
            self.ends_us = now + READ_PATIENCE_US
        agreed = [found for key in self.left if (found := self._agreed(key)) is not None]
        for key, _, _ in agreed:
            del self.left[key]
        return agreed

    def failed(self, number: int) -> None:
        """A voter did not answer."""
        self._waiting.pop(number, None)

    def _agreed(self, key: str) -> Agreed | None:
        told = [answer[key] for answer in self._answers if key in answer]
        for _, ballot, value in told:
            if sum([other == ballot for _, other, _ in told]) >= self._majority:
                return key, ballot, value
        return None
