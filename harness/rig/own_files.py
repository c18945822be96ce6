"""Files on this side of a rig: the project's own state folder, and files that the user has named.

In the state folder `.blackstart` only files that this project wrote are replaced or removed, one by one, and
directories only when they are empty. Each step goes down from the descriptor of the directory above and follows no
symbolic link, so that no name and no link leads out of the folder. Objects of the engine are in `ownership`.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.model.name import is_name
from harness.rig.ownership import check_rig_name

__all__ = [
    "STATE",
    "check_named_file",
    "discard_directory",
    "make_directory",
    "open_lock",
    "remove_named_file",
    "remove_rendered",
    "rendered_rigs",
    "write_named_file",
    "write_rendered",
]

STATE = ".blackstart"
RIGS = "rigs"
RENDERED = "compose.yaml"
RENDERED_MARK = b"# A rig of Blackstart, rendered by "
"""The beginning of every file that `compose.render` makes."""

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


@contextlib.contextmanager
def open_lock(root: Path, name: str) -> Iterator[int]:
    """The descriptor of a file of the state folder that is there to be locked; what it holds is left as it is.

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


def check_named_file(path: Path, *, inputs: Sequence[Path] = ()) -> None:
    """Raises UsageError unless `path`, which the user named for output, is free or a plain file that may be replaced:
    no device, no directory, no link, and none of the `inputs` of the same command.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # absent, or in a directory that the write itself will complain of
    if not stat.S_ISREG(mode):
        raise UsageError(f"cannot write {path}: it exists and is no plain file; name another place")
    for given in inputs:
        with contextlib.suppress(OSError):
            if path.samefile(given):
                raise UsageError(f"cannot write {path}: the command reads {given}; name another place")


def write_named_file(path: Path, text: str, *, inputs: Sequence[Path] = ()) -> None:
    """Writes a file that the user named, whole or not at all. Raises UsageError as `check_named_file`, OSError."""
    check_named_file(path, inputs=inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with unfinished.open("x", encoding="utf-8") as file:
            file.write(text)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_named_file(path: Path, *, inputs: Sequence[Path] = ()) -> None:
    """Removes a plain file that the user named for output, so that an old one is not taken for the new one.

    Raises UsageError as `check_named_file`, OSError.
    """
    check_named_file(path, inputs=inputs)
    path.unlink(missing_ok=True)


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
