"""One direction of a local socket: what was sent first arrives first, each a little later than it was sent.

What travels are callbacks. `Frames` makes callbacks of messages that are bytes on their way, by the codec of the live
sockets; without it a message stays the record that it is, which is faster and comes to the same.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any

from harness.cluster_service.core.messages import PingProgram, ProgramAnswered, WatchedProgram
from harness.model.host_messages import HostReport, HostRequest
from harness.model.serialization import from_json_value, to_json_value
from harness.simulation.kernel.runtime import Clock
from harness.vmms.remote import call_message
from harness.wire import FrameDecoder, FrameError, encode_frame

__all__ = ["Carry", "FifoChannel", "Frames"]

Carry = Callable[[Callable[[Any], None], Any], Callable[[], None]]
"""Takes who is to have a message, and the message; returns what to call when it arrives. `functools.partial` is one."""

DELAY_US = (80, 300)

WATCH: Mapping[PingProgram | ProgramAnswered, dict[str, Any]] = {
    PingProgram(WatchedProgram.RESOURCE_HOST): {"ask": "alive"},
    ProgramAnswered(WatchedProgram.RESOURCE_HOST): {"alive": True},
    PingProgram(WatchedProgram.VMMS): call_message(1, "alive", {}),
    ProgramAnswered(WatchedProgram.VMMS): {"id": 1, "result": None},
}
"""What the watch over a node's programs says, as the live sockets have it."""


class FifoChannel:
    """Carries callbacks instead of bytes."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._last_us = 0

    def send(self, arrive: Callable[[], None]) -> None:
        """Call `arrive` after a while, and not before what was sent before."""
        self._last_us = max(self._last_us, self._clock.now_us + self._rng.randint(*DELAY_US))
        self._clock.at(self._last_us, arrive)


class Frames:
    """Messages become frames where they are sent and are read where they arrive. A frame that cannot be read ends the
    run: live it would end a connection, and there is no reason for one here.
    """

    def encode(self, message: dict[str, Any]) -> bytes:
        """See `harness.wire`, as for `decode`."""
        return encode_frame(message)

    def decode(self, frame: bytes) -> dict[str, Any]:
        """The one message of a frame. It comes in two pieces, as from a stream, which may cut it anywhere."""
        decoder, half = FrameDecoder(), len(frame) // 2
        messages = [*decoder.feed(frame[:half]), *decoder.feed(frame[half:])]
        if len(messages) != 1:
            raise FrameError(f"{len(messages)} messages in a frame of {len(frame)} bytes")
        return messages[0]

    def carry(self, arrive: Callable[[Any], None], message: Any) -> Callable[[], None]:
        """What `Carry` says, for what service, resource host and watch say to each other."""
        frame = self.encode(_written(message))
        return lambda: arrive(_read(self.decode(frame)))


def _written(message: Any) -> dict[str, Any]:
    match message:
        case HostRequest():
            return {"request": to_json_value(message)}
        case HostReport():
            return {"report": to_json_value(message)}
        case _:
            return WATCH[message]


def _read(message: dict[str, Any]) -> Any:
    if "request" in message:
        return from_json_value(HostRequest, message["request"])
    if "report" in message:
        return from_json_value(HostReport, message["report"])
    for said, written in WATCH.items():
        if message == written:
            return said
    raise FrameError(f"nobody says {message!r}")
