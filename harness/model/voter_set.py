"""The voter set: which voters count, under which incarnations, and the version of that set."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["MIN_VOTERS", "VoterSet"]

MIN_VOTERS = 2
"""A set never shrinks below two by itself: one voter alone would be a majority, and so would the one that was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoterSet:
    """The voters that count, by name with their incarnations, and the version of that set."""

    version: int
    members: Mapping[str, str]

    @property
    def majority(self) -> int:
        """How many of them are a strict majority."""
        return len(self.members) // 2 + 1

    def has(self, voter: str, incarnation: str) -> bool:
        """Whether that life of that voter counts."""
        return bool(incarnation) and self.members.get(voter) == incarnation

    def without(self, voter: str) -> "VoterSet":
        """The next set, with one voter removed."""
        members = {name: incarnation for name, incarnation in self.members.items() if name != voter}
        return VoterSet(version=self.version + 1, members=members)

    def plus(self, voter: str, incarnation: str) -> "VoterSet":
        """The next set, with one voter added."""
        return VoterSet(version=self.version + 1, members={**self.members, voter: incarnation})

    def follows(self, old: "VoterSet") -> bool:
        """Whether this set may come after `old`: the next version, with exactly one voter added or removed."""
        changed = set(self.members.items()) ^ set(old.members.items())
        return self.version == old.version + 1 and len(changed) == 1 and len(self.members) >= MIN_VOTERS
