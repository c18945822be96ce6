"""Frames between the processes of a node: four bytes of length, then one JSON object.

Only the framing: what the objects mean is said where they are used. The length is big-endian and at most 1 MiB, so
that a confused or hostile peer cannot make a process allocate what it likes.
"""

import json
import struct
from typing import Any

__all__ = ["MAX_FRAME_BYTES", "FrameDecoder", "FrameError", "encode_frame"]

MAX_FRAME_BYTES = 1 << 20
_LENGTH = struct.Struct(">I")


class FrameError(Exception):
    """The peer sent something that is not a frame: the connection is of no further use."""


def encode_frame(message: dict[str, Any]) -> bytes:
    """One message as bytes. Raises FrameError when it is larger than a frame may be."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"message of {len(body)} bytes, a frame holds at most {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


class FrameDecoder:
    """Turns bytes, however they were cut, into messages. After a FrameError it must be thrown away."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """All messages that `data` completed, in order. Raises FrameError on a bad length or a body that is no JSON
        object.
        """
        self._buffer += data
        messages: list[dict[str, Any]] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"frame of {length} bytes announced, at most {MAX_FRAME_BYTES} are allowed")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(self._parse(bytes(self._buffer[_LENGTH.size : end])))
            del self._buffer[:end]
        return messages

    @staticmethod
    def _parse(body: bytes) -> dict[str, Any]:
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise FrameError(f"frame is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise FrameError(f"frame holds {type(message).__name__}, an object is expected")
        return message
