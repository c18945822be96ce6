"""The messages between the processes of a node take part in the simulator as bytes: what happens is the same as without
them, to the byte, and a codec that is broken breaks the world.
"""

import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from chaos.history.verdict import ExitCode
from chaos.run.batch import run_files
from chaos.run.options import RunOptions
from harness.errors import EngineError, EngineTooLate, EngineUnanswered, NoSuchContainer
from harness.model.topology import SECOND_US, Fencing
from harness.model.vm import Order, Proof, VmView
from harness.ports import Engine, Log, OrderRefused, Runtime
from harness.simulation.faults.schedule import Outcome, run_schedule, small_topology
from harness.simulation.kernel.fifo_channel import Frames
from harness.simulation.world.composition import Composition
from harness.simulation.world.fault_kinds import FaultKind, Planned
from harness.vmms.vmms import Vmms

POWER_CUT = Path(__file__).parents[2] / "chaos" / "experiments" / "node-power-cut.yaml"
SEEDS = range(900, 916)
EVERYTHING = {"request", "report", "call", "result", "error", "notice", "ask", "alive"}
ERRORS = (EngineError, EngineUnanswered, EngineTooLate, NoSuchContainer, OrderRefused)


class Counting(Frames):
    """Counts what travels: messages by their word, errors by the kind that they have on the way."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def encode(self, message: dict[str, Any]) -> bytes:
        self.sent.update(message.keys() & EVERYTHING)
        if "error" in message:
            self.errors[message["error"]["kind"]] += 1
        return super().encode(message)


class TroubledVmms(Vmms):
    """Starts and ends fail with the next of the errors, starts also after they were done."""

    trouble: Iterator[Exception | None]

    async def start(self, vm: str, *, order: Order) -> VmView:
        self._fail()
        started = await super().start(vm, order=order)
        self._fail()
        return started

    async def terminate(self, vm: str) -> Proof:
        self._fail()
        return await super().terminate(vm)

    def _fail(self) -> None:
        error = next(self.trouble)
        if error is not None:
            raise error


class Troubled(Composition):
    """Nodes whose VMMS fails with every error that there is, again and again, for a while."""

    def __init__(self, *, frames: Frames | None = None) -> None:
        super().__init__(frames=frames)
        kinds = itertools.islice(itertools.cycle(ERRORS), 40)
        errors = (error for kind in kinds for error in (kind("trouble"), None, None))
        self._trouble = itertools.chain(errors, itertools.repeat(None))

    def vmms(self, *, runtime: Runtime, engine: Engine, rig: str, node: str, log: Log, container: str) -> Vmms:
        vmms = TroubledVmms(runtime=runtime, engine=engine, rig=rig, node=node, log=log, container=container)
        vmms.trouble = self._trouble
        return vmms


def both(seed: int, parts: Callable[..., Composition] = Composition, **options: Any) -> tuple[list[str], list[str]]:
    """What happened without frames and with them."""
    plain, framed = (run_schedule(seed, composition=parts(frames=frames), **options) for frames in (None, Frames()))
    return trace(plain), trace(framed)


def trace(outcome: Outcome) -> list[str]:
    return [str(line) for line in outcome.world.trace]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_is_the_same_with_frames(seed: int) -> None:
    plain, framed = both(seed)

    assert framed == plain


@pytest.mark.parametrize("seed", range(4))
def test_a_run_under_self_fencing_and_a_witness_is_the_same_with_frames(seed: int) -> None:
    plain, framed = both(seed, topology=small_topology(fencing=Fencing.SELF, witness=True))

    assert framed == plain


TROUBLES = {
    "an engine that answers late or never": (FaultKind.ENGINE_STALL, FaultKind.LOST_ANSWER, FaultKind.LATE_START),
    "VMs that cannot start or end": (FaultKind.VM_FAILING_START, FaultKind.VM_FAILING_STOP, FaultKind.VM_CRASH),
    "programs that die and hang": (FaultKind.VMMS_KILL, FaultKind.VMMS_HANG, FaultKind.HOST_KILL, FaultKind.HOST_HANG),
    "drivers that break, commands, hands": (FaultKind.DRIVER_BREAK, FaultKind.COMMAND, FaultKind.VM_STOP_BY_HAND),
    "fences that fail": (FaultKind.SWITCH_UNREACHABLE, FaultKind.SWITCH_LATE, FaultKind.FREEZE, FaultKind.ISOLATE),
}


@pytest.mark.parametrize("among", TROUBLES.values(), ids=TROUBLES)
def test_a_run_with_that_trouble_is_the_same_with_frames(among: tuple[FaultKind, ...]) -> None:
    for seed in range(5):
        plain, framed = both(seed, among=among)

        assert framed == plain, seed


@pytest.mark.parametrize("seed", range(6))
def test_every_error_of_vmms_leads_to_the_same_with_frames(seed: int) -> None:
    plain, framed = both(seed, Troubled)

    assert framed == plain


def test_every_kind_of_message_and_of_error_travels() -> None:
    frames = Counting()
    crash = Planned(at_us=20 * SECOND_US, kind=FaultKind.VM_CRASH, target="vm1", duration_us=SECOND_US)

    run_schedule(1, composition=Troubled(frames=frames), planned=(crash,))

    assert set(frames.sent) == EVERYTHING
    # What was too late has no name of its own on the wire; live it is a plain EngineError too.
    assert set(frames.errors) == {kind.__name__ for kind in ERRORS} - {EngineTooLate.__name__}


class Cut(Frames):
    """The last byte of every frame is lost."""

    def encode(self, message: dict[str, Any]) -> bytes:
        return super().encode(message)[:-1]


class Forgets(Frames):
    """One field of one kind of message is lost."""

    def __init__(self, word: str, field: str) -> None:
        self._word, self._field = word, field

    def encode(self, message: dict[str, Any]) -> bytes:
        record = message.get(self._word)
        if isinstance(record, dict):
            record.pop(self._field, None)
        return super().encode(message)


BROKEN = {
    "every frame is cut": (Cut(), "0 messages in a frame"),
    "requests without an epoch": (Forgets("request", "epoch"), "'epoch'"),
    "openings without what is to be opened": (Forgets("request", "spec"), "cannot be opened here"),
    "reports without a state": (Forgets("report", "state"), "'state'"),
    "reports that settle nothing": (Forgets("report", "number"), "it is being opened"),
    "calls without their VM": (Forgets("arguments", "vm"), "arguments of start: expected vm, order"),
    "answers without a state": (Forgets("result", "state"), "VMMS answered something else than was asked for"),
    "notices without a view": (Forgets("notice", "view"), "VmNotice.__init__() missing"),
}
"""A codec, and what is said of a world with it."""


@pytest.mark.parametrize(("frames", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_codec_breaks_the_world(frames: Frames, said: str) -> None:
    assert said in fate(Composition(frames=frames))


def test_a_world_whose_codec_is_whole_is_at_rest() -> None:
    assert fate(Composition(frames=Frames())) == ""


def fate(composition: Composition) -> str:
    """What becomes of a world that nothing befalls: an error, or what is not at rest in the end."""
    try:
        outcome = run_schedule(1, composition=composition, planned=())
    except Exception as error:  # noqa: BLE001 - whatever ends a world is what became of it
        return repr(error)
    return "; ".join((*outcome.violations, *outcome.unconverged))


# Experiments: here the arena makes the composition.


@pytest.mark.parametrize(
    "frames", [Forgets("request", "spec"), Forgets("report", "number"), Forgets("arguments", "vm")]
)
def test_an_experiment_with_a_broken_codec_fails(
    frames: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.arena.simulation.arena.Frames", lambda: frames)

    assert power_cut(tmp_path) is ExitCode.NO_STEADY_STATE, "the nodes are Up, and no group gets Online"


def test_an_experiment_has_the_same_journal_without_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert power_cut(tmp_path / "framed") is ExitCode.PASSED
    monkeypatch.setattr("chaos.arena.simulation.arena.Frames", lambda: None)

    assert power_cut(tmp_path / "plain") is ExitCode.PASSED

    framed, plain = ((tmp_path / name / "journal.json").read_bytes() for name in ("framed", "plain"))
    assert framed == plain


def power_cut(out: Path) -> ExitCode:
    """How a run of that experiment ends."""
    options = RunOptions(arena="sim", seed=3, out=out)
    return ExitCode(run_files([POWER_CUT], options=options, console=Console(file=io.StringIO())))
