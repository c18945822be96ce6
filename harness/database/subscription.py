"""What a node wants a voter to tell it of: every register that is accepted anew, or those of some circles and those
whose subject it owns, or nothing yet. Travels with each beat as text; the Lua script reads the same text.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Protocol

__all__ = ["EVERYTHING", "NOTHING", "Filed", "Kept", "interest_in"]

EVERYTHING = ""
NOTHING = "-"


def interest_in(node: str, circles: Iterable[str]) -> str:
    """In these circles, and in what that node owns."""
    return f"{node}|{','.join(circles)}"


@functools.lru_cache(maxsize=4096)
def _places(interest: str) -> tuple[str, ...]:
    node, _, circles = interest.partition("|")
    return (_owned_by(node), *(circle for circle in circles.split(",") if circle))


def _owned_by(node: str) -> str:
    return f"@{node}"


class Kept(Protocol):
    """What a voter keeps of a register, as far as this module looks at it."""

    owner: str
    circle: str
    revision: int


class Filed:
    """A voter's registers by circle and by owner, each in the order in which they were accepted last: what somebody is
    interested in is found without a look at all others.
    """

    def __init__(self, registers: Mapping[str, Kept]) -> None:
        self._places: dict[str, dict[str, Kept]] = {}
        self._owners: dict[str, str] = {}
        for key, register in registers.items():
            if register.revision:
                self.accepted(key, register)

    def accepted(self, key: str, register: Kept) -> None:
        """That register was accepted just now."""
        before = self._owners.get(key, "")
        if before and before != register.owner:
            del self._places[_owned_by(before)][key]
        self._owners[key] = register.owner
        for place in (register.circle, _owned_by(register.owner)) if register.owner else (register.circle,):
            there = self._places.setdefault(place, {})
            there.pop(key, None)
            there[key] = register

    def since(self, revision: int, interest: str) -> list[str]:
        """The keys of what is of interest and was accepted after that count of writes, in that order."""
        found: dict[str, int] = {}
        for place in _places(interest):
            for key, register in reversed(self._places.get(place, {}).items()):
                if register.revision <= revision:
                    break
                found[key] = register.revision
        return sorted(found, key=found.__getitem__)
