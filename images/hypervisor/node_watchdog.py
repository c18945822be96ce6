"""The watchdog of a node: two deadlines, and what happens when they pass.

It does no I/O: pets, the time and what was seen come in as events, orders go out as actions. Times are nanoseconds of
CLOCK_BOOTTIME, the unit of the pipe.
"""

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from node_log import Log

__all__ = ["CountVms", "Exit", "Guests", "KillGuests", "Permit", "Pet", "Vms", "Watchdog", "Woke", "pets_of"]

MILLISECOND = 1_000_000
SWEEP_INTERVAL = 5 * MILLISECOND
"""Between two rounds of killing: a killed process needs a moment, a fork bomb must not get one."""
LOOK_INTERVAL = 250 * MILLISECOND
"""Between two looks for VMs while none may run."""
STATUS_WATCHDOG = 87
PET = struct.Struct("<qq")


@dataclass(frozen=True, slots=True)
class KillGuests:
    """Kill every guest process once; answered by `Guests` with the number that was alive."""


@dataclass(frozen=True, slots=True)
class CountVms:
    """Count the processes of VMs; answered by `Vms`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """End PID 1, and with it the node."""

    status: int


Action = Log | KillGuests | CountVms | Exit


@dataclass(frozen=True, slots=True)
class Woke:
    """Time has passed, nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pet:
    """What the service wrote: guests may run until the first, the node may run until the second.

    A first number of 0 says "I live, and hold no lease". It counts only until guests were permitted once: a service
    that was restarted, or has lost its lease, gets no new grace by it, and takes nothing from guests whose lease
    runs on.
    """

    guests_end_at: int
    node_ends_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Guests:
    """How many guest processes a round of killing found alive."""

    alive: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vms:
    """How many processes of VMs are alive while none may run."""

    alive: int


Event = Woke | Pet | Guests | Vms


class Permit(enum.Enum):
    """May guests run?"""

    NONE = "none may run, none does"
    GRANTED = "they may run until the first deadline"
    WITHDRAWN = "they are being killed"


class Watchdog:
    """Two deadlines, and what happens when they pass.

    Invariants: the clock is looked at before anything that an event says, so that after a freeze the fresh pet of a
    service that thawed too saves neither the guests nor the node. While guests are being killed pets wait: guests
    that cannot be killed (a fork bomb, a frozen one) end the node at the deadline that stood when their permit ended.

        NONE       --pet with a first deadline ahead-->  GRANTED
        GRANTED    --that deadline passes------------->  WITHDRAWN
        WITHDRAWN  --a round finds no guest----------->  NONE
        NONE       --a VM appears---------------->  WITHDRAWN   (an engine carries out starts long given up)
    """

    TRANSITIONS = frozenset(
        {
            (Permit.NONE, Permit.GRANTED),
            (Permit.GRANTED, Permit.WITHDRAWN),
            (Permit.WITHDRAWN, Permit.NONE),
            (Permit.NONE, Permit.WITHDRAWN),
        }
    )

    def __init__(self, *, node_ends_at: int) -> None:
        """No guest may run until a pet says so; without one the node ends at `node_ends_at`."""
        self.permit = Permit.NONE
        self.guests_end_at = 0
        self.node_ends_at = node_ends_at
        self.over = False
        self._waiting_pet: Pet | None = None
        self._permitted_once = False
        self._due = 0
        self._withdrawn_at = 0

    def handle(self, now: int, event: Event) -> list[Action]:
        """The clock first, then the event."""
        actions = self._look_at_deadlines(now)
        if self.over:
            return actions
        match event:
            case Woke():
                actions = actions or self._look_around(now)
            case Pet() if event.node_ends_at <= now:
                # A service that ends its own session is believed whatever else goes on.
                self.node_ends_at = event.node_ends_at
                actions += self._look_at_deadlines(now)
            case Pet(guests_end_at=0) if self._permitted_once:
                pass
            case Pet() if self.permit is Permit.WITHDRAWN:
                self._waiting_pet = event
            case Pet():
                actions += self._believe(now, event)
            case Guests(alive=0) if self.permit is Permit.WITHDRAWN:
                actions += self._no_guest_left(now)
            case Vms(alive=alive) if self.permit is Permit.NONE and alive:
                actions += self._withdraw(now, "a VM appeared without a permit", {"processes": alive})
            case _:
                pass  # an answer that was overtaken, or that leaves something to do at the next look
        return actions

    def next_wake(self) -> int:
        """When the clock must be looked at again, whatever else happens."""
        next_look = self.guests_end_at if self.permit is Permit.GRANTED else self._due
        return min(next_look, self.node_ends_at)

    def _look_at_deadlines(self, now: int) -> list[Action]:
        if self.over:
            return []
        if now >= self.node_ends_at:
            self.over = True
            fields = {"late_ms": (now - self.node_ends_at) // MILLISECOND, "permit": self.permit.name}
            message = "the node's deadline passed without a pet: reset"
            return [Log(event="node-ends", message=message, fields=fields), Exit(status=STATUS_WATCHDOG)]
        if self.permit is Permit.GRANTED and now >= self.guests_end_at:
            fields = {"late_ms": (now - self.guests_end_at) // MILLISECOND}
            return self._withdraw(now, "the guests' deadline passed", fields)
        return []

    def _look_around(self, now: int) -> list[Action]:
        if self.permit is Permit.GRANTED or now < self._due:
            return []
        if self.permit is Permit.WITHDRAWN:
            self._due = now + SWEEP_INTERVAL
            return [KillGuests()]
        self._due = now + LOOK_INTERVAL
        return [CountVms()]

    def _believe(self, now: int, pet: Pet) -> list[Action]:
        self.guests_end_at, self.node_ends_at = pet.guests_end_at, pet.node_ends_at
        actions = self._look_at_deadlines(now)
        if self.permit is Permit.NONE and not self.over and now < self.guests_end_at:
            self._permitted_once = True
            actions.append(self._become(Permit.GRANTED, "the service holds a lease", {}))
        return actions

    def _withdraw(self, now: int, why: str, fields: Mapping[str, object]) -> list[Action]:
        self._withdrawn_at = now
        self._due = now + SWEEP_INTERVAL
        return [self._become(Permit.WITHDRAWN, why, fields), KillGuests()]

    def _no_guest_left(self, now: int) -> list[Action]:
        took_ms = (now - self._withdrawn_at) / MILLISECOND
        actions: list[Action] = [self._become(Permit.NONE, "no guest is left", {"took_ms": round(took_ms, 1)})]
        self._due = now + LOOK_INTERVAL
        if self._waiting_pet is not None:
            pet, self._waiting_pet = self._waiting_pet, None
            actions += self._believe(now, pet)
        return actions

    def _become(self, permit: Permit, why: str, fields: Mapping[str, object]) -> Log:
        if (self.permit, permit) not in self.TRANSITIONS:
            raise ValueError(f"guests: no transition {self.permit.name} -> {permit.name}")
        message = f"guests: {self.permit.name} -> {permit.name}, {why}"
        self.permit = permit
        return Log(event=f"guests-{permit.name.lower()}", message=message, fields=fields)


def pets_of(data: bytes) -> list[Pet] | None:
    """The pets that the pipe held, in order; None when it is not whole pets."""
    if not data or len(data) % PET.size:
        return None
    return [
        Pet(guests_end_at=guests_end_at, node_ends_at=node_ends_at)
        for guests_end_at, node_ends_at in PET.iter_unpack(data)
    ]
