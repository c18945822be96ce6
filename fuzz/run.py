"""`make fuzz`: so many random documents over all surfaces, within a time, and every finding shrunk into a file.

One document depends on seed, surface and number alone, so that any of them is made again without those before it:

    python -m fuzz.run --seed 0 --documents 20000 --seconds 1200 --out out/fuzz
    python -m fuzz.run --seed 0 --surface schedule --number 117        # one document, on standard output
"""

import argparse
import contextlib
import faulthandler
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from fuzz.finding import Finding, TooSlow, finding_of
from fuzz.shrinking import shrunk
from fuzz.surfaces import Surface, surfaces

__all__ = ["Fuzzing", "judged", "main"]

PROGRESS_S = 30.0
MAX_CPU_S = 10
"""Of one document. A large one takes a second; the kernel counts, so that a loaded host finds nothing more."""

HANG_S = 120
"""Of one document: where even the signal is not handled, the stack is written and the process ends."""


@dataclass(slots=True, kw_only=True)
class Fuzzing:
    """A run: how many documents each surface judged, in which time, and the first document for each kind of finding."""

    seed: int
    out: Path
    judged: Counter[str] = field(default_factory=Counter)
    took_s: Counter[str] = field(default_factory=Counter)
    findings: dict[tuple[str, str], Path] = field(default_factory=dict)
    repeated: int = 0

    def run(self, every: Sequence[Surface], *, documents: int, seconds: float) -> None:
        """Judge `documents` documents, the surfaces in turn, or as many as the time allows."""
        began = shown = time.monotonic()
        for count in range(documents):
            now = time.monotonic()
            if now - began > seconds:
                return
            if now - shown > PROGRESS_S:
                shown = now
                print(f"  ... {count:,} documents, {len(self.findings)} kinds of findings", file=sys.stderr, flush=True)
            self._one(every[count % len(every)], count // len(every))

    def _one(self, surface: Surface, number: int) -> None:
        document = drawn(surface, self.seed, number)
        began = time.process_time()
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        finding = judged(surface, document)
        faulthandler.cancel_dump_traceback_later()
        self.judged[surface.name] += 1
        self.took_s[surface.name] += time.process_time() - began  # type: ignore[assignment]
        if finding is not None:
            self._keep(surface, number, document, finding)

    def _keep(self, surface: Surface, number: int, document: bytes, finding: Finding) -> None:
        key = (surface.name, finding.kind)
        if key in self.findings:
            self.repeated += 1
            return

        def shows(trial: bytes) -> bool:
            found = judged(surface, trial)
            return found is not None and found.kind == finding.kind

        smallest = document if finding.kind == TooSlow.__name__ else shrunk(document, shows)
        self.out.mkdir(parents=True, exist_ok=True)
        place = self.out / f"{surface.name.replace(' ', '-')}-{self.seed}-{number}"
        place.write_bytes(smallest)
        shown = judged(surface, smallest) or finding
        place.with_suffix(".txt").write_text(f"{finding.kind}\n\n{shown.text}\n", encoding="utf-8", errors="replace")
        self.findings[key] = place


def drawn(surface: Surface, seed: int, number: int) -> bytes:
    """The document of that number."""
    return surface.draw(random.Random(f"{seed} {surface.name} {number}"))


def judged(surface: Surface, document: bytes) -> Finding | None:
    """The finding that `document` shows, if any: its judge's, an exception that escapes, or too much time."""
    try:
        with _limited():
            return surface.judge(document)
    except (Exception, TooSlow) as error:  # noqa: BLE001 - the root of a document
        return finding_of(error)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raises TooSlow after MAX_CPU_S of this process's time."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"more than {MAX_CPU_S} s of CPU")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 without a finding, 1 with one."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Random documents for every reader.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"))
    parser.add_argument("--surface", help="only this one")
    parser.add_argument("--number", type=int, help="write the document of that number, judge nothing")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        every = [it for it in surfaces(Path(scratch)) if options.surface in (None, it.name)]
        if options.number is not None:
            for surface in every:
                sys.stdout.buffer.write(drawn(surface, options.seed, options.number))
            return 0
        fuzzing = Fuzzing(seed=options.seed, out=options.out)
        began = time.monotonic()
        fuzzing.run(every, documents=options.documents, seconds=options.seconds)
        _tell(fuzzing, time.monotonic() - began)
    return 1 if fuzzing.findings else 0


def _tell(fuzzing: Fuzzing, took_s: float) -> None:
    for name, count in fuzzing.judged.items():
        print(f"{name}: {count:,} documents, {count / max(fuzzing.took_s[name], 1e-3):,.0f} a second of CPU")
    total = sum(fuzzing.judged.values())
    print(f"seed {fuzzing.seed}: {total:,} documents in {took_s:.0f} s, {len(fuzzing.findings)} kinds of findings")
    for (name, kind), place in fuzzing.findings.items():
        print(f"  {name}: {kind}: {place}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
