"""Repairing a rig after the death of its runner: heal the open faults, remove the rig, release the lock.

A reaper does this at the deadlines, `blackstart repair` at once. Both read everything from the engine: the ledger of
the run, which the reaper's container has, and the rig, by its labels. Doing it twice does no harm.

A rig without a lock has no ledger either. There a repair looks for the traces that nothing but a fault leaves: frozen
containers, stopped programs, cuts, full disks of voters. An administrator may have held a node off or stopped a VM, so
both are left alone.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import docker

from chaos.arena.docker.arena import DockerArena
from chaos.arena.docker.event_loop import drive
from chaos.arena.interrupt import Interrupt
from chaos.faults import FAULTS, FaultRefused
from chaos.faults.kinds import TargetKind
from chaos.history.records import ContainerRole
from chaos.reaper.guard import ledger_of
from chaos.reaper.ledger import Ledger, OpenFault, read_open, runner_is_gone
from chaos.reaper.orders import Orders
from chaos.run.injection import Injector
from harness.errors import CleanupError, EngineError, HarnessError, NoSuchContainer, UsageError
from harness.live.runtime import AsyncioRuntime
from harness.model import labels
from harness.rig.engine.connection import connect
from harness.rig.engine.ownership import owner_of, stop_container
from harness.rig.lifecycle.rig_lock import holder_of, look_at_lock, release_rig
from harness.rig.lifecycle.teardown import remove_rig, rig_names

__all__ = ["RigRepair", "repair_rig"]

Say = Callable[[str], None]

LEAVES_NO_TRACE = frozenset({"node.power-on", "vm.start"})
"""Cures of faults that look like the act of an administrator."""
TRACE_ROUNDS = 3
"""In a node that was frozen other faults show only once it goes on."""


class RigRepair:
    """The repair of one rig. Each call opens a connection of its own, because hours may lie between two."""

    def __init__(self, rig: str, *, say: Say) -> None:
        self._rig = rig
        self._say = say

    def cure(self, faults: Sequence[OpenFault], keep: Callable[[str], None]) -> list[str]:
        """Heal these faults, newest first; `keep` records each that is healed. The answer says which could not be.

        A fault cannot outlive its rig, so without a rig all of them are healed. Raises BlackstartError.
        """

        async def main(runtime: AsyncioRuntime, _: Interrupt) -> list[str]:
            async def keep_line(line: str) -> None:
                keep(line)

            arena = DockerArena(runtime, on_rig=self._rig)
            ledger = Ledger(rig=self._rig, keep=keep_line, opened=faults)
            try:
                await arena.attach()
                problems = await Injector(arena, ledger).undo_all()
            except UsageError:
                if await arena.left_behind():
                    raise
                for entry in faults:
                    await ledger.heal(entry, at_ns=arena.unix_ns(), how="the rig is gone")
                problems = []
            finally:
                await arena.detach()
            still_open = {entry.number for entry in ledger.open_faults()}
            for entry in faults:
                if entry.number not in still_open:
                    self._say(f"healed: {entry}")
            return problems

        return drive(main)

    def find_traces(self) -> tuple[list[OpenFault], list[str]]:
        """Look for the traces of faults. Returns them as entries that no ledger has, and sentences about targets that
        could not be looked at. Raises BlackstartError.
        """

        async def main(runtime: AsyncioRuntime, _: Interrupt) -> tuple[list[OpenFault], list[str]]:
            arena = DockerArena(runtime, on_rig=self._rig)
            try:
                await arena.attach()
                return await _traces(arena, self._rig)
            finally:
                await arena.detach()

        return drive(main)

    def remove_rig(self) -> None:
        """Remove everything of the rig but its lock. Raises CleanupError, EngineError."""
        with contextlib.closing(connect()) as client:
            remove_rig(client, self._rig, say=self._say, spare_lock=True)

    def remove_lock(self) -> None:
        """Release the rig's lock, for any holder. Raises EngineError."""
        with contextlib.closing(connect()) as client:
            lock = look_at_lock(client, self._rig)
            if lock is not None:
                release_rig(client, self._rig, str(lock["Id"]))


def repair_rig(client: docker.DockerClient, rig: str, *, say: Say, keep_rig: bool, force: bool) -> bool:
    """Repair one rig at once. Answers whether there was anything to repair.

    With `keep_rig` the rig stays although its run was to remove it; `force` disregards that its run may still be alive.
    Raises UsageError when it is, CleanupError with the names of the remaining objects, EngineError.
    """
    lock = look_at_lock(client, rig)
    if lock is None:
        return _repair_by_traces(client, rig, say=say)
    ledger = ledger_of(client, lock)
    _refuse_living(rig, lock, ledger, force=force)
    orders = _orders(lock)
    repair = RigRepair(rig, say=say)
    if orders is not None:
        _stop_reaper(client, lock)
        # Read again: the reaper may have healed some until it was stopped.
        faults = read_open(ledger_of(client, lock))
        say(f"rig {rig}: open faults: {', '.join(map(str, faults)) or 'none'}")
        _cure_or_fail(repair, rig, faults)
        if not orders.keep_rig and not keep_rig:
            repair.remove_rig()
    repair.remove_lock()
    say(f"rig {rig}: the lock of {holder_of(lock) or 'a process that it does not name'} is removed")
    return True


def _repair_by_traces(client: docker.DockerClient, rig: str, *, say: Say) -> bool:
    if rig not in rig_names(client):
        return False
    repair = RigRepair(rig, say=say)
    healed = False
    for _ in range(TRACE_ROUNDS):
        try:
            faults, unreachable = repair.find_traces()
        except UsageError as error:
            say(str(error))  # a rig that is half made has no cluster that a fault could strike
            return False
        if not faults:
            break
        say(f"rig {rig} has no ledger; it shows the traces of {', '.join(map(str, faults))}")
        _cure_or_fail(repair, rig, faults)
        healed = True
    for sentence in unreachable:
        say(f"rig {rig}: not known: {sentence}")
    return healed


def _cure_or_fail(repair: RigRepair, rig: str, faults: Sequence[OpenFault]) -> None:
    if not faults:
        return
    try:
        problems = repair.cure(faults, lambda _: None)
    except (EngineError, HarnessError) as error:
        problems = [str(error)]
    if problems:
        raise CleanupError(f"rig {rig}: {'; '.join(problems)}. `blackstart repair --name {rig}` tries again")


def _refuse_living(rig: str, lock: dict[str, Any], ledger: str, *, force: bool) -> None:
    """Raises UsageError when the holder of the lock lives or may live, unless its lease has lapsed."""
    holder = holder_of(lock)
    alive = holder.is_alive() if holder is not None else None
    if force or alive is False or runner_is_gone(ledger):
        return
    state = "is in use by" if alive else "may be in use by"
    raise UsageError(
        f"rig {rig} {state} {holder or 'a process that its lock does not name'}: end that first. "
        f"If it is certain that it has ended, `blackstart repair --name {rig} --force`"
    )


def _orders(lock: dict[str, Any]) -> Orders | None:
    """The orders of the reaper that is this lock; None for an idle lock."""
    if lock["Config"]["Labels"].get(labels.ROLE) != labels.Role.REAPER:
        return None
    try:
        return Orders.read(lock["Config"]["Cmd"][0])
    except (TypeError, ValueError, LookupError) as error:
        raise HarnessError(f"the reaper {lock['Name'].lstrip('/')} is of another version: {error}") from error


def _stop_reaper(client: docker.DockerClient, lock: dict[str, Any]) -> None:
    """Two that heal one fault at once would refute each other's receipts.

    The engine does not restart a container that was stopped by a call.
    """
    if not lock["State"]["Running"]:
        return
    rig = owner_of(lock["Config"]["Labels"])
    with contextlib.suppress(NoSuchContainer):
        stop_container(client, str(lock["Id"]), rig=rig, grace_s=1, roles=(labels.Role.REAPER,))


async def _traces(arena: DockerArena, rig: str) -> tuple[list[OpenFault], list[str]]:
    containers = await arena.containers()
    names = {
        TargetKind.NODE: sorted({seen.node for seen in containers if seen.role is ContainerRole.NODE}),
        TargetKind.VM: sorted({seen.vm for seen in containers if seen.role is ContainerRole.VM}),
    }
    found: list[OpenFault] = []
    unreachable: list[str] = []
    for cure in FAULTS.values():
        if not cure.heals or cure.name in LEAVES_NO_TRACE:
            continue
        for target in names[cure.target]:
            try:
                await cure.plan(arena, target)
            except (FaultRefused, UsageError):
                continue  # well, or a rig that cannot have this fault
            except (HarnessError, EngineError) as error:
                unreachable.append(str(error))
                continue
            number = len(found) + 1
            fault = sorted(cure.heals)[0]
            found.append(
                OpenFault(number=number, rig=rig, fault=fault, target=target, undo=cure.name, deadline_ns=0)
            )
    return found, unreachable
