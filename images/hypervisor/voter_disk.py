"""The voter's disk as PID 1 looks after it: what the voter said of it when it ended, and what is done before the next
start.

A file that does not load keeps the server from starting for ever. Such a voter counts as empty: the file is put aside
under a name, never deleted unseen and never repaired, and the server starts with nothing. An empty voter votes on
nothing until the cluster has admitted it anew, so this is safe however wrong it may be. A full disk is another thing:
the file is sound, and the server is started again and again until there is room.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from node_log import Log

__all__ = ["ASIDE", "VoterDisk", "free_bytes"]

FILES = "appendonlydir"
ASIDE = "unloadable"
"""Where the last file that did not load is kept, beside the living one."""
FULL_BELOW_BYTES = 64 << 10
LINES_KEPT = 3

_NOT_LOADED = (
    "reading the append only file",
    "AOF manifest",
    "Unable to obtain the AOF file",
    "Error opening the append only file",
    "Internal error in RDB reading",
)
"""What redis-server 7.0 says of a file that it refuses to load, tried with torn, overwritten and missing files."""


@dataclass(slots=True)
class VoterDisk:
    """`directory` is the voter's own; `free` gives the bytes that are left in it, None when nobody can tell."""

    directory: str
    free: Callable[[str], int | None]
    _unloadable: str = ""
    _said: tuple[str, ...] = ()

    def heard(self, line: str) -> None:
        """A line of the voter's own."""
        if any(sign in line for sign in _NOT_LOADED):
            self._unloadable = line
        self._said = (*self._said, line)[-LINES_KEPT:]

    def ended(self) -> Log:
        """The voter has ended: why, as far as its disk and its last words tell."""
        free = self.free(self.directory)
        fields: dict[str, object] = {"free_bytes": free, "said": list(self._said)}
        if free is not None and free < FULL_BELOW_BYTES:
            message = f"the voter's disk is full ({free} bytes are left): it cannot write, and is tried again"
            return Log(event="voter-disk-full", message=message, fields=fields)
        last = self._said[-1] if self._said else "it said nothing"
        return Log(event="voter-down", message=f"the voter has ended; its last words: {last}", fields=fields)

    def before_start(self, argv: Sequence[str]) -> tuple[tuple[str, ...], Log | None]:
        """The command line for the next start, and what there is to tell: a file that did not load is put aside first.

        By the voter's own user, to whom the directory belongs; `argv` follows only if that worked.
        """
        if not self._unloadable:
            return tuple(argv), None
        message = f"the voter's file does not load and is put aside as {self.directory}/{ASIDE}: {self._unloadable}"
        fields: dict[str, object] = {"said": self._unloadable}
        self._unloadable = ""
        steps = f"cd {self.directory} && rm -rf {ASIDE} && if [ -e {FILES} ]; then mv {FILES} {ASIDE}; fi"
        command = ("sh", "-c", f'{steps} && exec "$@"', "sh", *argv)
        return command, Log(event="voter-file-unloadable", message=message, fields=fields)


def free_bytes(directory: str) -> int | None:
    """What an ordinary user may still write there."""
    try:
        room = os.statvfs(directory)
    except OSError:
        return None
    return room.f_bavail * room.f_frsize
