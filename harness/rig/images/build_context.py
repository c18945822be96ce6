"""Build contexts: what is sent to the engine to build an image, and the digest by which a built image is recognised.

It asks no engine and no network. A context is assembled in memory, the same bytes for the same sources. The Python
packages of a node come in as wheels; in the digest their exact versions in requirements.txt stand for their bytes, so
that an image is known to be current without them.
"""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError

__all__ = ["EXAMPLES", "GUEST", "HYPERVISOR", "Recipe", "context_digest", "find_project_root", "pack_context"]

NOT_ON_A_NODE = ("document", "rig", "simulation")
"""Parts of the harness that no process of a node imports: to change them must not rebuild the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One image: its tag, its directory below images/, and whether it holds the harness and its packages."""

    tag: str
    directory: str
    with_harness: bool

    def sources(self, project_root: Path) -> Path:
        """The image's directory in a checkout."""
        return project_root / "images" / self.directory


HYPERVISOR = Recipe(tag="blackstart/hypervisor:latest", directory="hypervisor", with_harness=True)
GUEST = Recipe(tag="blackstart/guest:latest", directory="guest", with_harness=False)
DATABASE = Recipe(tag="blackstart/example-database:latest", directory="example-database", with_harness=False)
EXAMPLES = {"database": DATABASE}
"""Hosts of one's own to start from, built only when somebody asks for them."""


def find_project_root() -> Path:
    """The checkout that this package was installed from with `pip install -e`. Raises HarnessError elsewhere."""
    root = Path(__file__).resolve().parents[3]
    if not (root / "images" / HYPERVISOR.directory / "Dockerfile").is_file():
        raise HarnessError(
            f"no images/{HYPERVISOR.directory}/Dockerfile below {root}: the images are built from a checkout of "
            "Blackstart. Install it from there with `pip install -e .`"
        )
    return root


def context_digest(recipe: Recipe, *, project_root: Path, architecture: str, base_id: str) -> str:
    """SHA-256, in hex, over all that determines the image: sources, pinned packages, the architecture, the base."""
    digest = hashlib.sha256()
    for part in (recipe.tag, architecture, base_id):
        digest.update(f"{part}\0".encode())
    for name, path in _sources(recipe, project_root):
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def pack_context(recipe: Recipe, *, project_root: Path, wheels: Sequence[Path]) -> bytes:
    """The context as an uncompressed tar: the sources, and the wheels unpacked below packages/."""
    entries = [(name, path.read_bytes()) for name, path in _sources(recipe, project_root)]
    for wheel in wheels:
        entries += _unpacked(wheel)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in sorted(entries):
            entry = tarfile.TarInfo(name)  # time 0, owner root: only name and content may make a difference
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _sources(recipe: Recipe, project_root: Path) -> list[tuple[str, Path]]:
    """Name in the context and path of each file that comes from the project, sorted by name."""
    directory = recipe.sources(project_root)
    sources = [(path.relative_to(directory).as_posix(), path) for path in _files(directory)]
    if recipe.with_harness:
        package = project_root / "harness"
        for path in _files(package):
            relative = path.relative_to(package)
            if relative.parts[0] not in NOT_ON_A_NODE:
                sources.append((f"harness/{relative.as_posix()}", path))
    return sorted(sources)


def _files(directory: Path) -> list[Path]:
    """Every file below, but what an interpreter or an editor leaves there."""
    found = []
    for path in directory.rglob("*"):
        parts = path.relative_to(directory).parts
        left_behind = any(part.startswith(".") or part == "__pycache__" for part in parts) or path.name.endswith("~")
        if path.is_file() and not left_behind:
            found.append(path)
    return found


def _unpacked(wheel: Path) -> list[tuple[str, bytes]]:
    """A wheel's files as packages/...: unpacking is all that installing a wheel into one fixed place needs."""
    entries = []
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            parts = info.filename.split("/")
            if parts[0].endswith(".data"):
                if parts[1] not in ("purelib", "platlib"):
                    continue  # scripts and headers: nobody calls them on a node
                parts = parts[2:]
            entries.append(("packages/" + "/".join(parts), archive.read(info)))
    return entries
