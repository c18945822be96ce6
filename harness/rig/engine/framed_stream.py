"""A two-way stream of the engine, as `exec` and `attach` open it: bytes in, frames of standard output and error out.

The engine frames the output of a container without a terminal: eight bytes say which stream and how long, then the
bytes. Blocking; each read has a limit.
"""

import contextlib
import struct
from typing import Any

__all__ = ["STDERR", "STDOUT", "FramedStream"]

STDOUT = 1
STDERR = 2
_HEADER = struct.Struct(">BxxxL")


class FramedStream:
    """One open stream. Invariant: `close` ends the connection whatever was read before."""

    def __init__(self, stream: Any) -> None:
        """`stream` is the object that the Docker SDK returns for `socket=True`."""
        self._stream = stream
        self._socket = getattr(stream, "_sock", None) or stream
        # The client reads the answer's head through a buffer, and the first output may already be in it.
        self._buffered = getattr(getattr(getattr(stream, "_response", None), "raw", None), "_fp", None)
        self._received = bytearray()

    def write(self, data: bytes) -> None:
        """Sends all of `data` to the program's standard input. Raises OSError."""
        self._socket.sendall(data)

    def write_end(self) -> None:
        """Ends the program's standard input. Raises OSError."""
        self._socket.shutdown(1)

    def read(self, limit_s: float | None) -> list[tuple[int, bytes]] | None:
        """The frames that arrived, each as (stream, bytes): possibly none yet; None at the end of the stream.

        Waits at most `limit_s` seconds, without limit for None. Raises TimeoutError, OSError.
        """
        self._socket.settimeout(limit_s)
        buffered = getattr(self._buffered, "fp", None)
        data = bytes(buffered.read1(65536) if buffered is not None else self._socket.recv(65536))
        if not data:
            return None
        self._received += data
        return self._take_frames()

    def close(self) -> None:
        """Ends the connection: the stream, its socket and the answer that still refers to both are three objects."""
        for part in (getattr(self._stream, "_response", None), self._stream, self._socket):
            if part is not None:
                part.close()

    def shut(self) -> None:
        """Ends the connection under a thread that reads from it: the read returns at once."""
        with contextlib.suppress(OSError):  # the other side has ended it already
            self._socket.shutdown(2)

    def _take_frames(self) -> list[tuple[int, bytes]]:
        frames = []
        while len(self._received) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._received)
            end = _HEADER.size + length
            if len(self._received) < end:
                break
            frames.append((stream, bytes(self._received[_HEADER.size : end])))
            del self._received[:end]
        return frames
