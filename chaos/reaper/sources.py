"""The code of the reaper as an archive: the packages of this very process, so that its version is the runner's.

The image that nodes run has the Python packages that this code needs, and not the parts of the project that only a
runner uses. They are put into the reaper's container before it starts.
"""

import io
import tarfile
from pathlib import Path

import chaos
import harness

__all__ = ["CODE", "LEDGER_DIRECTORY", "UNPACKED_IN", "packed_sources"]

UNPACKED_IN = "/var/lib"
"""A directory of every image, in which the archive is unpacked."""
DIRECTORY = "blackstart-reaper"
CODE = f"{UNPACKED_IN}/{DIRECTORY}/code"
LEDGER_DIRECTORY = f"{UNPACKED_IN}/{DIRECTORY}/ledger"

_LEFT_OUT = {
    "chaos": ("cli", "experiments", "report", "search"),
    "harness": ("cluster_service", "database", "drivers", "resource_host", "simulation", "vmms"),
}
"""Parts that no cure imports: they would double the archive."""


def packed_sources() -> bytes:
    """A tar of the reaper's directory: the Python files of its code, and an empty directory for its ledger."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        _add_directory(archive, DIRECTORY)
        _add_directory(archive, f"{DIRECTORY}/ledger")
        for package in (chaos, harness):
            assert package.__file__ is not None
            root = Path(package.__file__).parent
            for path in sorted(root.rglob("*.py")):
                relative = path.relative_to(root)
                if relative.parts[0] not in _LEFT_OUT[root.name]:
                    _add_file(archive, f"{DIRECTORY}/code/{root.name}/{relative.as_posix()}", path.read_bytes())
    return packed.getvalue()


def _add_directory(archive: tarfile.TarFile, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE
    entry.mode = 0o700
    archive.addfile(entry)


def _add_file(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = 0o444
    archive.addfile(entry, io.BytesIO(data))
