"""Overload: which witnesses count, which late loops are no overload, and which rulings it softens."""

from pathlib import Path
from typing import Any

import pytest
from scripted_arena import MS, SECOND, Script, ScriptedArena
from scripted_run import Ran

from chaos.checkers import recovered, wanted_online
from chaos.history.overload import nodes_late, overload_since
from chaos.history.records import (
    ClusterSeen,
    ContainerRole,
    EngineEventSeen,
    EngineSlow,
    FaultMoment,
    FaultRecord,
    GroupSeen,
    History,
    LogLine,
    Moment,
    PartBegan,
    Record,
    ResourceSeen,
    Stall,
)
from chaos.history.verdict import ExitCode, FindingKind, Ruling

S = 10**9


def loop_late(
    at_s: float, node: str = "node1", *, late_s: float, waited_s: float | None, load: float | None = None
) -> LogLine:
    fields = {
        "late_us": int(late_s * SECOND),
        "waited_us": None if waited_s is None else int(waited_s * SECOND),
        "window_us": int(max(1.0, late_s) * SECOND),
        "load": load,
    }
    return LogLine(
        at_ns=int(at_s * S), node=node, component="cluster-service", event="loop-late", message="late", fields=fields
    )


def fault(at_s: float, moment: FaultMoment, name: str = "node.hang", target: str = "node1") -> FaultRecord:
    return FaultRecord(
        at_ns=int(at_s * S), number=1, fault=name, target=target, moment=moment, affected=("web-vm",)
    )


class TestWitnesses:
    def test_quiet_history_has_no_overload(self) -> None:
        assert overload_since(History([PartBegan(at_ns=1, part="up")]), 0) == ""

    def test_each_witness_is_named_with_its_number(self) -> None:
        told = overload_since(
            History(
                [
                    Stall(at_ns=2 * S, length_us=1_200_000, load=23.0),
                    Stall(at_ns=3 * S, length_us=700_000, load=24.1),
                    loop_late(3, "node3", late_s=0.2, waited_s=2.1),
                    EngineSlow(at_ns=4 * S, took_us=3_400_000, answered=True),
                ]
            ),
            S,
        )

        assert told == (
            "the host was overloaded: the runner stood still for 1.2 s (the longest of 2), "
            "the loop of node3 ran 2.1 s late, the engine answered after 3.4 s, load average 24.1"
        )

    def test_what_ended_before_does_not_count(self) -> None:
        found = History([Stall(at_ns=S, length_us=SECOND), loop_late(1, late_s=2, waited_s=2)])

        assert overload_since(found, S + 1) == ""

    def test_engine_that_never_answered_says_so(self) -> None:
        found = History([EngineSlow(at_ns=S, took_us=600_000, answered=False)])

        assert overload_since(found, 0) == "the host was overloaded: the engine had not answered after 0.6 s"

    def test_many_nodes_are_counted(self) -> None:
        found = History([loop_late(1, f"node{number}", late_s=1, waited_s=1 + number / 10) for number in range(1, 8)])

        told = overload_since(found, 0)

        assert "the loop of node7 ran 1.7 s late" in told
        assert told.endswith("those of 3 further nodes less")

    @pytest.mark.parametrize(("waited_s", "counts"), [(0.0, False), (0.4, False), (0.5, True), (5.9, True)])
    def test_only_a_thread_that_was_ready_counts(self, waited_s: float, counts: bool) -> None:
        """A node that was frozen for six seconds is late as well, and did not wait for a processor."""
        assert bool(nodes_late(History([loop_late(10, late_s=6, waited_s=waited_s)]))) is counts

    def test_unknown_wait_counts_unless_a_freeze_explains_it(self) -> None:
        late = loop_late(10, late_s=6, waited_s=None)
        frozen = [fault(3, FaultMoment.INTENDED), fault(9.9, FaultMoment.HEALED)]
        elsewhere = [fault(3, FaultMoment.INTENDED, target="node2"), fault(9.9, FaultMoment.HEALED, target="node2")]
        earlier = [fault(1, FaultMoment.INTENDED), fault(2, FaultMoment.HEALED)]
        other = [fault(3, FaultMoment.INTENDED, "vm.crash"), fault(9.9, FaultMoment.HEALED, "vm.crash")]

        assert [bool(nodes_late(History([late, *faults]))) for faults in ([], frozen, elsewhere, earlier, other)] == [
            True,
            False,
            True,
            True,
            True,
        ]

    @pytest.mark.parametrize("fields", [{}, {"late_us": "much", "window_us": 1}, {"late_us": True, "window_us": 1}])
    def test_line_of_another_form_is_no_witness(self, fields: dict[str, Any]) -> None:
        line = LogLine(at_ns=1, node="node1", component="guest", event="loop-late", message="", fields=fields)

        assert nodes_late(History([line])) == []


def late_lines(arena: ScriptedArena) -> None:
    now_s = arena.unix_ns() / S
    arena.history.append(loop_late(now_s, "node2", late_s=0.3, waited_s=0.9, load=24.2))


class TestBounds:
    def test_bound_of_time_under_overload_is_inconclusive(self, tmp_path: Path) -> None:
        script = Script(never_recovers=True, at={3 * SECOND: late_lines})

        ran = Ran(ScriptedArena(script), tmp_path)

        late = next(finding for finding in ran.result.findings if "crash recovered" in finding.reason)
        assert late.kind is FindingKind.INCONCLUSIVE
        assert "the loop of node2 ran 0.9 s late, load average 24.2" in late.reason

    def test_line_that_comes_after_the_bound_counts(self, tmp_path: Path) -> None:
        """The bound ends 5 s after the crash; a loaded node's report is still on its way then."""
        script = Script(never_recovers=True, at={6 * SECOND + 200 * MS: late_lines})

        ran = Ran(ScriptedArena(script), tmp_path)

        late = next(finding for finding in ran.result.findings if "crash recovered" in finding.reason)
        assert late.kind is FindingKind.INCONCLUSIVE

    def test_bound_of_time_without_overload_stays_broken(self, tmp_path: Path) -> None:
        ran = Ran(ScriptedArena(Script(never_recovers=True)), tmp_path)

        assert ran.code is ExitCode.BROKEN
        assert "overloaded" not in ran.reasons

    def test_slow_engine_makes_a_bound_inconclusive(self, tmp_path: Path) -> None:
        ran = Ran(ScriptedArena(Script(never_recovers=True, engine_takes_us=3 * SECOND, load=31.0)), tmp_path)

        late = next(finding for finding in ran.result.findings if "crash recovered" in finding.reason)
        assert late.kind is FindingKind.INCONCLUSIVE
        assert "the engine answered after 3.0 s, load average 31.0" in late.reason

    def test_safety_is_broken_under_any_load(self, tmp_path: Path) -> None:
        script = Script(starts_before_fence=True, stalls_after_fault=True, at={3 * SECOND: late_lines})

        ran = Ran(ScriptedArena(script), tmp_path)

        assert ran.code is ExitCode.BROKEN
        assert "web-vm ran twice" in ran.reasons

    def test_engine_that_hangs_is_recorded_before_it_answers(self, tmp_path: Path) -> None:
        ran = Ran(ScriptedArena(Script(engine_takes_us=2 * SECOND)), tmp_path)

        slow = ran.arena.history.of(EngineSlow)
        assert [record.answered for record in slow[:2]] == [False, True]
        assert slow[0].took_us < SECOND < slow[1].took_us
        assert ran.code is ExitCode.PASSED, "an overload alone is nothing against a pass"

    def test_engine_that_answers_in_time_leaves_no_record(self, tmp_path: Path) -> None:
        assert Ran(ScriptedArena(), tmp_path).arena.history.of(EngineSlow) == []


def at_end(state: str, *, quorum: bool = True) -> ClusterSeen:
    resource = ResourceSeen(name="web-vm", type="virtual-machine", state=state, wanted=True)
    group = GroupSeen(name="web", owner="node1", state=state, resources=(resource,))
    return ClusterSeen(at_ns=80 * S, quorum=quorum, nodes=(), groups=(group,), moment=Moment.END)


class TestCheckers:
    @pytest.mark.parametrize(
        ("overload", "ruling"),
        [
            ([], Ruling.BROKEN),
            ([loop_late(19, late_s=1, waited_s=1)], Ruling.BROKEN),
            ([loop_late(40, late_s=1, waited_s=1)], Ruling.INCONCLUSIVE),
            ([Stall(at_ns=30 * S, length_us=2_000_000)], Ruling.INCONCLUSIVE),
        ],
    )
    def test_wait_for_the_end_is_a_bound_of_time(self, overload: list[Record], ruling: Ruling) -> None:
        found = History([PartBegan(at_ns=20 * S, part="last look"), *overload, at_end("Failed")])

        verdict = wanted_online.check(found)

        assert verdict.ruling is ruling
        assert "web-vm of group web (owner: node1) is Failed, wanted Online" in verdict.reasons
        assert any("overloaded" in reason for reason in verdict.reasons) is (ruling is Ruling.INCONCLUSIVE)

    def test_belief_in_an_absent_vm_is_broken(self) -> None:
        found = History([PartBegan(at_ns=20 * S, part="last look"), Stall(at_ns=30 * S, length_us=SECOND)])
        found.append(at_end("Online"))

        assert wanted_online.check(found).ruling is Ruling.BROKEN

    @pytest.mark.parametrize(
        ("overload", "ruling"),
        [
            ([], Ruling.BROKEN),
            ([Stall(at_ns=4 * S, length_us=SECOND)], Ruling.BROKEN),
            ([Stall(at_ns=30 * S, length_us=SECOND)], Ruling.INCONCLUSIVE),
        ],
    )
    def test_vm_that_was_not_started_again(self, overload: list[Record], ruling: Ruling) -> None:
        start = EngineEventSeen(
            at_ns=S, action="start", container="a", role=ContainerRole.VM, node="node1", vm="web-vm", group="web"
        )
        die = EngineEventSeen(
            at_ns=6 * S, action="die", container="a", role=ContainerRole.VM, node="node1", vm="web-vm", group="web"
        )
        moments = ((5, FaultMoment.INJECTED), (6, FaultMoment.CONFIRMED))
        hit = [fault(at_s, moment, "vm.crash", "web-vm") for at_s, moment in moments]

        verdict = recovered.check(History([start, *hit, die, *overload]))

        assert verdict.ruling is ruling
        assert verdict.reasons[0] == "web-vm was not started again after vm.crash on web-vm"
