"""Files on this side of a rig: the project's own state folder.

In the state folder `.blackstart` only files that this project wrote are replaced or removed, one by one, and
directories only when they are empty. Each step goes down from the descriptor of the directory above and follows no
symbolic link, so that no name and no link leads out of the folder. Objects of the engine are in `ownership`, files
that the user names in `chaos.output.named_file`.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HarnessError
from harness.model.name import check_rig_name, is_name

__all__ = [
    "LOCK",
    "STATE",
    "WHEELS",
    "discard_directory",
    "make_directory",
    "open_lock",
    "remove_rendered",
    "remove_state",
    "rendered_rigs",
    "write_rendered",
]

STATE = ".blackstart"
RIGS = "rigs"
WHEELS = "wheels"
LOCK = "images.lock"
RENDERED = "compose.yaml"
RENDERED_MARK = b"# A rig of Blackstart, rendered by "
"""The beginning of every file that `compose.render` makes."""

_WHEELS_OF = re.compile(r"[0-9a-f]{16}|partial-\w+")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_rendered(root: Path, rig: str, text: str) -> Path:
    """Writes the Compose file of a rig into the state folder of the checkout `root`; the answer is where it is.

    Raises UsageError for an invalid rig name, HarnessError when another program's file is in the way.
    """
    check_rig_name(rig)
    place = root / STATE / RIGS / rig / RENDERED
    try:
        with _opened(root, STATE, RIGS, rig, make=True) as directory:
            if not _is_own(directory, RENDERED, missing=True):
                raise HarnessError(f"cannot write {place}: Blackstart did not write that file; move it away")
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(RENDERED, flags, 0o644, dir_fd=directory), "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise _unusable(place, error) from error
    return place


def remove_rendered(root: Path, rig: str) -> bool:
    """Removes the Compose file of a rig, and its directory if that is empty then; whether there was such a file.

    Anything else is left. Raises UsageError for an invalid rig name.
    """
    check_rig_name(rig)
    removed = False
    with contextlib.suppress(OSError), _opened(root, STATE, RIGS, make=False) as rigs:
        with _opened(rigs, rig, make=False) as directory:
            if _is_own(directory, RENDERED, missing=False):
                os.unlink(RENDERED, dir_fd=directory)
                removed = True
        os.rmdir(rig, dir_fd=rigs)
    return removed


def rendered_rigs(root: Path) -> list[str]:
    """The rigs whose Compose file is in the state folder, in order."""
    found = []
    with contextlib.suppress(OSError), _opened(root, STATE, RIGS, make=False) as rigs:
        for entry in sorted(os.listdir(rigs)):
            if not is_name(entry):
                continue
            with contextlib.suppress(OSError), _opened(rigs, entry, make=False) as directory:
                if _is_own(directory, RENDERED, missing=False):
                    found.append(entry)
    return found


def make_directory(root: Path, *names: str) -> Path:
    """The directory `names` of the state folder, made when it is missing. Raises HarnessError."""
    place = root.joinpath(STATE, *names)
    try:
        with _opened(root, STATE, *names, make=True):
            return place
    except OSError as error:
        raise _unusable(place, error) from error


def remove_state(root: Path) -> list[str]:
    """Removes what this project keeps in the state folder, and the folder if it is empty then; returns the paths that
    remain, which this project did not write.
    """
    for rig in rendered_rigs(root):
        remove_rendered(root, rig)
    with contextlib.suppress(OSError), _opened(root, STATE, make=False) as state:
        with contextlib.suppress(OSError), _opened(state, WHEELS, make=False) as wheels:
            for entry in os.listdir(wheels):
                if _WHEELS_OF.fullmatch(entry):
                    _remove_wheels(wheels, entry)
        for directory in (WHEELS, RIGS):
            with contextlib.suppress(OSError):
                os.rmdir(directory, dir_fd=state)
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.stat(LOCK, dir_fd=state, follow_symlinks=False).st_mode):
                os.unlink(LOCK, dir_fd=state)
    with contextlib.suppress(OSError):
        os.rmdir(root / STATE)
    place = root / STATE
    return sorted(path.relative_to(root).as_posix() for path in place.rglob("*")) if place.is_dir() else []


def _remove_wheels(wheels: int, name: str) -> None:
    with contextlib.suppress(OSError), _opened(wheels, name, make=False) as directory:
        for entry in os.listdir(directory):
            if entry.endswith(".whl"):
                os.unlink(entry, dir_fd=directory)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=wheels)


@contextlib.contextmanager
def open_lock(root: Path, name: str) -> Iterator[int]:
    """The descriptor of a file of the state folder that is there to be locked; its content is left unchanged.

    Raises HarnessError.
    """
    place = root / STATE / name
    try:
        with _opened(root, STATE, make=True) as state:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o644, dir_fd=state)
    except OSError as error:
        raise _unusable(place, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def discard_directory(directory: Path) -> None:
    """Removes the files of a directory that this process has made, and the directory. What cannot be removed stays."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, _DIRECTORY)
        try:
            for name in os.listdir(descriptor):
                os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        os.rmdir(directory)


@contextlib.contextmanager
def _opened(start: Path | int, *names: str, make: bool) -> Iterator[int]:
    """The descriptor of the directory that is reached from `start` by `names`, none of which may be a link."""
    with contextlib.ExitStack() as opened:
        current = start if isinstance(start, int) else os.open(start, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if not isinstance(start, int):
            opened.callback(os.close, current)
        for name in names:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=current)
            current = os.open(name, _DIRECTORY, dir_fd=current)
            opened.callback(os.close, current)
        yield current


def _unusable(place: Path, error: OSError) -> HarnessError:
    return HarnessError(f"cannot use {place}: {error.strerror}; try again once {STATE} is a directory of this user")


def _is_own(directory: int, name: str, *, missing: bool) -> bool:
    """Whether the file was rendered by this project; `missing` is the answer when there is none."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return missing
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        return os.read(descriptor, len(RENDERED_MARK)) in (RENDERED_MARK, b"")
    finally:
        os.close(descriptor)
