"""Injecting faults and healing them: resolve, check, write down, do, measure, and undo newest first.

The order is the point. Nothing is done before the ledger has it on disk, and nothing that was done leaves the ledger
before its healing was seen. An injection is never cut in two: a request to stop waits until it is through.

A fault with a duration is healed in the background when its time has come, whatever step the run is at. What cannot be
healed then stays open, and is undone at the end like any other.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.arena.port import Arena
from chaos.experiment.records import FaultCall
from chaos.experiment.targets import Surroundings, Target, Unresolved, needs_cluster, resolve, several
from chaos.faults import FAULTS, Adjustable, Fault, FaultRefused, Plan, Receipt
from chaos.faults.kinds import TargetKind
from chaos.history.records import ClusterSeen, FaultMoment, FaultRecord
from chaos.reaper.ledger import Ledger, OpenFault
from chaos.run.probes import look_at_cluster
from harness.errors import BlackstartError, HarnessError
from harness.ports import DeadlinePassed, Task
from harness.synchronization import Mutex, all_of

__all__ = ["Injected", "Injector", "NotInjected"]

APPLY_LIMIT_US = 60_000_000
"""How long an effect may take: an engine takes 12 s to refuse the kill of a frozen container."""

UNDO_ROUNDS = 3
UNDO_INTERVAL_US = 2_000_000
"""A node boots within two seconds; each cure has limits of its own."""


class NotInjected(Exception):
    """The fault was not injected: nothing fits its target, or it would do nothing. The world is as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """A fault that was carried out on one target or several, with a receipt for each, in their order."""

    targets: tuple[str, ...]
    receipts: tuple[Receipt, ...]
    several: bool

    @property
    def target(self) -> str | tuple[str, ...]:
        """What a register keeps: the name, or the names if the activity was aimed at several."""
        return self.targets if self.several else self.targets[0]

    @property
    def receipt(self) -> Receipt:
        """The one receipt, or of several the worst outcome with what was seen of each."""
        worst = max((receipt.outcome for receipt in self.receipts), key=_WORSE.index)
        return Receipt(outcome=worst, seen="; ".join(receipt.seen for receipt in self.receipts))


_WORSE = (FaultMoment.CONFIRMED, FaultMoment.INCONCLUSIVE, FaultMoment.MISMATCH)


class Injector:
    """The faults of one run. Invariant: whatever may be in the world is open in the ledger."""

    def __init__(self, arena: Arena, ledger: Ledger, *, voters: Sequence[str] = (), seed: int = 0) -> None:
        """`voters` are the nodes with a vote; `seed` decides where a target leaves a choice."""
        self._arena = arena
        self._ledger = ledger
        self._voters = voters
        self._rng = random.Random(seed)
        self._touched: set[str] = set()
        self._batches: dict[int, int] = {}
        self._timers: list[Task] = []
        self._one_cure = Mutex(arena.runtime)

    async def inject(self, call: FaultCall, registers: Mapping[str, Any]) -> Injected:
        """Carry out one fault, on all of its targets at once.

        Raises NotInjected before anything was done; another error, once all have ended, leaves the ledger's entries
        open.
        """
        fault = FAULTS[call.fault]
        if isinstance(fault, Adjustable):
            fault = fault.adjusted(call.arguments)
        try:
            targets = await self.resolve(call.target, fault.target, registers)
            plans = await self._plan(fault, targets)
        except (Unresolved, FaultRefused, HarnessError) as refusal:
            # Nothing was done yet: what was to be hit is gone, or cannot be looked at.
            raise NotInjected(f"{call.fault} on {call.target}: {refusal}") from refusal
        receipts: dict[str, Receipt] = {}
        batch: list[int] = []

        async def carry_out(plan: Plan) -> None:
            receipts[plan.target] = await self._carry_out(fault, plan, batch, duration_us=call.duration_us)

        errors = await all_of(self._arena.runtime, map(carry_out, plans), name=f"inject {fault.name}")
        if errors:
            raise errors[0]
        many = several(call.target) or len(targets) > 1
        done = tuple(plan.target for plan in plans)
        return Injected(targets=done, receipts=tuple(receipts[name] for name in done), several=many)

    async def _plan(self, fault: Fault, targets: Sequence[str]) -> list[Plan]:
        """A fault must be possible on all of its targets; a cure may find some of them well."""
        plans, refusals = [], []
        for target in targets:
            try:
                plans.append(await fault.plan(self._arena, target))
            except FaultRefused as refusal:
                refusals.append(str(refusal))
        if refusals and (not plans or not fault.heals):
            raise FaultRefused("; ".join(refusals))
        return plans

    async def _carry_out(self, fault: Fault, plan: Plan, batch: list[int], *, duration_us: int) -> Receipt:
        """One fault on one target. `batch` are the numbers of those that belong to it."""
        target = plan.target
        if fault.target is TargetKind.NODE:
            self._touched.add(target)
        entry = await self._intend(fault, plan, batch, duration_us=duration_us)
        try:
            at_ns = await self._arena.runtime.within(APPLY_LIMIT_US, self._arena.apply(plan.effect))
        except (BlackstartError, DeadlinePassed) as error:
            self._record(entry, FaultMoment.FAILED, seen=str(error), plan=plan)
            raise
        self._record(entry, FaultMoment.INJECTED, at_ns=at_ns, plan=plan)
        receipt = await fault.receipt(self._arena, plan, at_ns=at_ns)
        self._record(entry, receipt.outcome, seen=receipt.seen, plan=plan)
        if not fault.undo:
            await self._heal(entry, "nothing to undo")
        elif duration_us:
            # Not before the receipt: what is healed already cannot be measured.
            heal = self._heal_in_time(entry, at_ns + duration_us * 1000)
            self._timers.append(self._arena.runtime.spawn(heal, name=f"heal {fault.name} on {target}"))
        if receipt.outcome is FaultMoment.CONFIRMED:
            await self._heal_others(fault, target)
        return receipt

    async def undo_all(self) -> list[str]:
        """Undo every open fault, newest first, each on its own. Answers which could not be undone, as sentences.

        A cure may need what an earlier one restores: a node that has just got its power back takes a moment to boot.
        """
        problems = await self._undo_once()
        for _ in range(UNDO_ROUNDS - 1):
            if not problems:
                break
            await self._arena.runtime.sleep(UNDO_INTERVAL_US)
            problems = await self._undo_once()
        # None of them is in the middle of a cure: each waits for its turn, and the last turn was ours.
        for timer in self._timers:
            timer.cancel()
        return problems

    async def _undo_once(self) -> list[str]:
        problems = []
        for entry in self._ledger.open_faults():
            problem = await self._undo_alone(entry)
            if problem:
                problems.append(f"{entry.fault} on {entry.target} could not be undone by {entry.undo}: {problem}")
        return problems

    def open_faults(self) -> list[OpenFault]:
        """What is not healed, newest first."""
        return self._ledger.open_faults()

    async def resolve(self, target: Target, kind: TargetKind, registers: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the nodes or VMs that are meant now. Raises Unresolved."""
        if needs_cluster(target):
            cluster = await look_at_cluster(self._arena)
        else:
            cluster = ClusterSeen(at_ns=self._arena.unix_ns(), quorum=False, nodes=(), groups=())
        around = Surroundings(
            cluster=cluster,
            containers=await self._arena.containers(),
            registers=registers,
            touched=self._touched,
            voters=self._voters,
            rng=self._rng,
        )
        return resolve(target, kind, around)

    async def _heal_in_time(self, entry: OpenFault, due_ns: int) -> None:
        """The root of a fault's timer."""
        await self._arena.runtime.sleep(max(0, due_ns - self._arena.unix_ns()) // 1000)
        problem = await self._undo_alone(entry)
        if problem:
            self._record(entry, FaultMoment.FAILED, seen=f"not healed when its duration was over: {problem}")

    async def _undo_alone(self, entry: OpenFault) -> str:
        """One cure at a time, and none for what is healed. Empty when the fault is healed, else a sentence."""
        async with self._one_cure:
            if entry not in self._ledger.open_faults():
                return ""
            try:
                return await self._undo(entry)
            except (BlackstartError, DeadlinePassed) as error:
                return str(error)
            except Exception as error:  # noqa: BLE001 - the root of one cure: its defect must not skip the others
                return f"{type(error).__name__}: {error} (a defect)"

    async def _undo(self, entry: OpenFault) -> str:
        """Empty when the fault is healed, else a sentence."""
        cure = FAULTS.get(entry.undo)
        if cure is None:
            await self._heal(entry, "nothing to undo")
            return ""
        try:
            plan = await cure.plan(self._arena, entry.target)
        except FaultRefused as refusal:
            await self._heal(entry, str(refusal))
            return ""
        at_ns = await self._arena.runtime.within(APPLY_LIMIT_US, self._arena.apply(plan.effect))
        receipt = await cure.receipt(self._arena, plan, at_ns=at_ns)
        if receipt.outcome is not FaultMoment.CONFIRMED:
            return receipt.seen
        await self._heal(entry, receipt.seen)
        return ""

    async def _intend(self, fault: Fault, plan: Plan, batch: list[int], *, duration_us: int) -> OpenFault:
        at_ns = self._arena.unix_ns()
        # A fault without a duration is due as soon as its runner is gone: nothing else would ever end it.
        deadline_ns = at_ns + duration_us * 1000
        entry = await self._ledger.intend(
            fault=fault.name, target=plan.target, undo=fault.undo, at_ns=at_ns, deadline_ns=deadline_ns
        )
        batch.append(entry.number)
        self._batches[entry.number] = batch[0]
        self._record(entry, FaultMoment.INTENDED, at_ns=at_ns, plan=plan)
        return entry

    async def _heal_others(self, cure: Fault, target: str) -> None:
        for entry in self._ledger.open_faults():
            if entry.fault in cure.heals and entry.target == target:
                await self._heal(entry, f"by {cure.name}")

    async def _heal(self, entry: OpenFault, how: str) -> None:
        if entry not in self._ledger.open_faults():
            return
        self._record(entry, FaultMoment.HEALED, seen=how)
        await self._ledger.heal(entry, at_ns=self._arena.unix_ns(), how=how)

    def _record(
        self,
        entry: OpenFault,
        moment: FaultMoment,
        *,
        seen: str = "",
        at_ns: int | None = None,
        plan: Plan | None = None,
    ) -> None:
        at_ns = self._arena.unix_ns() if at_ns is None else at_ns
        self._arena.history.append(
            FaultRecord(
                at_ns=at_ns,
                number=entry.number,
                fault=entry.fault,
                target=entry.target,
                moment=moment,
                seen=seen,
                affected=plan.affected if plan else (),
                batch=self._batches.get(entry.number, entry.number),
            )
        )
