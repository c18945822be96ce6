"""The stall watch: ticks that come late say that this machine stood still and that its times mean little.

It measures the runner's own loop, which is what every time bound of a run is measured with. It does not know why: a
frozen or overloaded host, a suspended laptop and a blocked loop look alike and spoil a time bound alike.
"""

from chaos.arena import Arena
from chaos.history import Stall

__all__ = ["STALL_US", "watch_stalls"]

TICK_US = 100_000
STALL_US = 500_000
"""A tick later than this is a stall.

A loaded two-core machine was seen to be 0.1 s late; half a second is a beat of the cluster's leases.
"""


async def watch_stalls(arena: Arena) -> None:
    """Record every stall; ends when it is cancelled."""
    while True:
        due_us = arena.runtime.now() + TICK_US
        await arena.runtime.sleep(TICK_US)
        late_us = arena.runtime.now() - due_us
        if late_us > STALL_US:
            arena.history.append(Stall(at_ns=arena.unix_ns(), length_us=late_us))
