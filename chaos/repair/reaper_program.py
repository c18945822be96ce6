"""The program of a reaper's container: serve the runner until it is gone, then undo, remove, and end.

Standard input has the runner's lines, standard output the answers, standard error a log for people. Until the lease
lapses it imports nothing heavy and costs a few megabytes. Its standing orders come as one argument, so that it goes on
after a restart of the engine: it finds its ledger, hears no runner, and its lease lapses again.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from chaos.reaper.lease import Lease
from chaos.reaper.ledger import OpenFault
from chaos.reaper.ledger_file import LEDGER, LedgerFile
from chaos.reaper.orders import Orders
from harness.errors import BlackstartError, HarnessError

__all__ = ["Reaping", "main", "serve"]

FIRST_RETRY_S = 1.0
MAX_RETRY_S = 60.0
GIVE_UP_S = 3600.0
"""An engine that answers nothing for an hour needs a person; the ledger stays for `blackstart repair`."""
_MAX_LINES = 1 << 20
"""Input without an end of a line: an entry of the ledger has some 200 bytes."""


def main() -> None:
    """The entry point in the container. It ends by removing its own container, or stops for good."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    orders = Orders.read(sys.argv[1])
    book = LedgerFile(Path(LEDGER))
    serve(orders, book)
    with contextlib.suppress(HarnessError):  # a full disk keeps no fault from being healed
        book.mark_runner_gone(at_ns=time.time_ns())
    _say(f"the runner of rig {orders.rig} is gone; open faults: {_listed(book.open_faults())}")
    # Imported now, because until now nothing of it was needed.
    from chaos.repair.rig_repair import RigRepair

    repair = RigRepair(orders.rig, say=_say)
    try:
        Reaping(orders, book, cure=repair.cure, remove=repair.remove_rig).run()
        repair.remove_lock()
    except BlackstartError as error:
        _say(str(error))  # this container stays with its ledger, for `blackstart repair`
    while True:
        signal.pause()  # once its container is removed, the engine kills this process


def serve(orders: Orders, book: LedgerFile, *, source: int = 0, sink: int = 1) -> None:
    """Answer the runner until its lease has lapsed or it hands over."""
    lease = Lease(length_s=orders.lease_s, now=time.monotonic())
    buffer = b""
    sources = [source]
    while not lease.lapsed(time.monotonic()):
        ready, _, _ = select.select(sources, [], [], lease.left_s(time.monotonic()))
        if not ready:
            continue
        data = os.read(source, 65536)
        if not data:
            sources = []  # the connection is gone; the runner may be in the middle of a call of the engine
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            _answer(sink, _handled(lease, book, line))
        buffer = buffer[-_MAX_LINES:]
    # A runner that was only frozen reads this first when it goes on.
    _answer(sink, {"lapsed": True})


def _handled(lease: Lease, book: LedgerFile, line: bytes) -> dict[str, object] | None:
    reply = lease.take(line, now=time.monotonic())
    if reply.keep:
        try:
            book.keep(reply.keep)
        except HarnessError as error:
            return {**(reply.answer or {}), "error": str(error)}
    return reply.answer


def _answer(sink: int, answer: dict[str, object] | None) -> None:
    if answer is None:
        return
    try:
        os.write(sink, json.dumps(answer).encode() + b"\n")
    except OSError:
        return  # a runner that does not listen any more will not renew its lease either


class Reaping:
    """The work after the lease. Cures each open fault from its deadline on, then removes the rig, unless it is kept."""

    def __init__(
        self,
        orders: Orders,
        book: LedgerFile,
        *,
        cure: Callable[[Sequence[OpenFault], Callable[[str], None]], list[str]],
        remove: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
        unix_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`cure` gets faults and what keeps a line of the ledger, and answers what could not be cured, as sentences;
        `remove` raises BlackstartError.
        """
        self._orders = orders
        self._book = book
        self._cure = cure
        self._remove = remove
        self._now = now
        self._unix_ns = unix_ns
        self._sleep = sleep

    def run(self) -> None:
        """Returns when nothing is left to do. Raises HarnessError when that was not reached within GIVE_UP_S."""
        began, retry_s = self._now(), FIRST_RETRY_S
        while self._now() - began < GIVE_UP_S:
            problems = self._cure_due()
            removal_in_s = None if self._orders.keep_rig else began + self._orders.grace_s - self._now()
            if removal_in_s is not None and removal_in_s <= 0:
                try:
                    self._remove()
                    return
                except BlackstartError as error:
                    problems = [*problems, str(error)]
                    removal_in_s = None
            left = self._book.open_faults()
            if self._orders.keep_rig and not left:
                return
            for problem in problems:
                _say(problem)
            waits_s = [retry_s] if problems else []
            waits_s += [removal_in_s] if removal_in_s is not None else []
            waits_s += [self._due_in_s(entry) for entry in left if self._due_in_s(entry) > 0]
            retry_s = min(MAX_RETRY_S, 2 * retry_s) if problems else FIRST_RETRY_S
            self._sleep(max(0.0, min(waits_s, default=retry_s)))
        raise HarnessError(
            f"the reaper of rig {self._orders.rig} gives up after {GIVE_UP_S:g} s; "
            f"open faults: {_listed(self._book.open_faults())}. Try `blackstart repair --name {self._orders.rig}`"
        )

    def _cure_due(self) -> list[str]:
        due = [entry for entry in self._book.open_faults() if self._due_in_s(entry) <= 0]
        if not due:
            return []
        try:
            return self._cure(due, self._book.keep)
        except BlackstartError as error:
            return [str(error)]

    def _due_in_s(self, entry: OpenFault) -> float:
        return (entry.deadline_ns - self._unix_ns()) / 1e9


def _listed(faults: Sequence[OpenFault]) -> str:
    return ", ".join(str(entry) for entry in faults) or "none"


def _say(text: str) -> None:
    try:
        os.write(2, f"{text}\n".encode(errors="replace"))
    except OSError:
        return  # nothing depends on a log
