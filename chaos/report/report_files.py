"""Which reports are wanted, and where."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ReportFiles"]

@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """Which reports are wanted and where.

    `step_summary` is a file that others write to as well: the Markdown summary is appended to it.
    """

    html: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None
    step_summary: Path | None = None

    @property
    def written(self) -> tuple[Path, ...]:
        """The files that are written anew."""
        return tuple(path for path in (self.html, self.junit, self.markdown) if path is not None)

    @property
    def wanted(self) -> bool:
        """Whether any report is wanted."""
        return bool(self.written) or self.step_summary is not None
