"""The checkers: for each a history that it passes and the broken ones that it catches."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chaos.checkers import (
    AFTER_CLEAN_UP,
    CHECKERS,
    invariants,
    nothing_left,
    one_instance_by_events,
    one_instance_by_journals,
    recovered,
    run_check,
    wanted_online,
)
from chaos.history.guest_journal import read_guest_journal
from chaos.history.records import (
    CleanUp,
    ClientAnswer,
    ClusterSeen,
    ContainerRole,
    ContainerSeen,
    EngineEventSeen,
    FaultMoment,
    FaultRecord,
    GroupSeen,
    GuestJournal,
    History,
    InvariantWatched,
    LogLine,
    Moment,
    NodeSeen,
    Reconciled,
    Record,
    ResourceSeen,
    StreamGap,
    to_plain,
)
from chaos.history.recovery import Phase, read_recoveries
from chaos.history.verdict import Ruling, Verdict

S = 10**9


def vm(action: str, at_s: float, node: str, container: str, **more: Any) -> EngineEventSeen:
    fields = {"vm": "vm", "group": "web", "session": f"{node}@1/1", **more}
    return EngineEventSeen(
        at_ns=int(at_s * S), action=action, container=container, role=ContainerRole.VM, node=node, **fields
    )


def node(action: str, at_s: float, name: str) -> EngineEventSeen:
    return EngineEventSeen(
        at_ns=int(at_s * S), action=action, container=f"c-{name}", role=ContainerRole.NODE, node=name
    )


def history(*records: Record, compared: bool = True) -> History:
    return History([*records, Reconciled(at_ns=100 * S)] if compared else list(records))


class TestOneInstanceByEvents:
    check = staticmethod(one_instance_by_events.check)

    def test_one_after_the_other_holds(self) -> None:
        verdict = self.check(
            history(
                vm("start", 1, "node1", "a"),
                vm("die", 2, "node1", "a"),
                vm("start", 2.1, "node2", "b"),
            )
        )

        assert verdict.ruling is Ruling.HOLDS
        assert verdict.notes == ("2 instances of 1 VMs",)

    def test_two_at_once_are_caught_with_the_length_of_the_overlap(self) -> None:
        verdict = self.check(
            history(
                vm("start", 1, "node1", "a"),
                vm("start", 2, "node2", "b"),
                vm("die", 3.5, "node1", "a"),
            )
        )

        assert verdict.ruling is Ruling.BROKEN
        assert "vm ran twice, on node1 (a) and node2 (b), for 1.500 s" in verdict.reasons[0]

    def test_two_that_both_still_run_are_caught(self) -> None:
        verdict = self.check(history(vm("start", 1, "node1", "a"), vm("start", 2, "node1", "b")))

        assert verdict.ruling is Ruling.BROKEN
        assert "both still do" in verdict.reasons[0]

    def test_an_instance_ends_with_its_node_even_if_its_own_death_is_told_later(self) -> None:
        verdict = self.check(
            history(
                vm("start", 1, "node1", "a"),
                node("die", 5, "node1"),
                vm("start", 5.1, "node2", "b"),
                vm("die", 5.2, "node1", "a"),
            )
        )

        assert verdict.ruling is Ruling.HOLDS

    def test_the_death_of_another_node_ends_nothing(self) -> None:
        verdict = self.check(
            history(
                vm("start", 1, "node1", "a"),
                node("die", 5, "node3"),
                vm("start", 5.1, "node2", "b"),
            )
        )

        assert verdict.ruling is Ruling.BROKEN

    def test_events_that_came_in_another_order_than_they_happened_are_read_by_their_time(self) -> None:
        verdict = self.check(
            history(
                vm("start", 2.1, "node2", "b"),
                vm("start", 1, "node1", "a"),
                vm("die", 2, "node1", "a"),
            )
        )

        assert verdict.ruling is Ruling.HOLDS

    def test_a_container_that_ran_before_the_run_counts(self) -> None:
        listed = ContainerSeen(
            at_ns=10 * S,
            container="a",
            role=ContainerRole.VM,
            node="node1",
            running=True,
            started_ns=1 * S,
            vm="vm",
            session="node1@1/1",
        )

        assert self.check(history(listed, vm("start", 12, "node2", "b"))).ruling is Ruling.BROKEN
        ended = vm("die", 11, "node1", "a")
        assert self.check(history(listed, ended, vm("start", 12, "node2", "b"))).ruling is Ruling.HOLDS

    def test_a_foreign_start_is_reported_with_its_length_and_breaks_nothing(self) -> None:
        verdict = self.check(
            history(
                vm("start", 1, "node1", "a"),
                vm("start", 2, "node2", "x", session=""),
                vm("die", 2.25, "node2", "x", session=""),
            )
        )

        assert verdict.ruling is Ruling.HOLDS
        assert any("foreign start: vm ran on node2 (x) for 0.250 s" in note for note in verdict.notes)

    def test_events_that_may_be_lost_make_it_inconclusive(self) -> None:
        gap = StreamGap(at_ns=3 * S, since_ns=2 * S, complete=False, reason="the engine restarted")

        assert self.check(history(vm("start", 1, "node1", "a"), gap)).ruling is Ruling.INCONCLUSIVE
        assert self.check(history(replace(gap, complete=True))).ruling is Ruling.HOLDS

    def test_what_is_broken_stays_broken_in_spite_of_a_gap(self) -> None:
        gap = StreamGap(at_ns=3 * S, since_ns=2 * S, complete=False, reason="the engine restarted")
        twice = (vm("start", 1, "node1", "a"), vm("start", 2, "node2", "b"))

        assert self.check(history(*twice, gap)).ruling is Ruling.BROKEN

    def test_a_list_that_contradicts_the_events_makes_it_inconclusive(self) -> None:
        differs = Reconciled(at_ns=9 * S, differences=("vm (a on node1) runs, and its start was no event",))

        assert self.check(history(differs)).ruling is Ruling.INCONCLUSIVE

    def test_without_any_comparison_it_is_inconclusive(self) -> None:
        assert self.check(history(compared=False)).ruling is Ruling.INCONCLUSIVE

    def test_a_start_of_what_runs_already_means_that_an_event_is_missing(self) -> None:
        verdict = self.check(history(vm("start", 1, "node1", "a"), vm("start", 3, "node1", "a")))

        assert verdict.ruling is Ruling.INCONCLUSIVE


def journal(*lines: tuple[str, str, float]) -> GuestJournal:
    """From (boot, node, boot time in seconds)."""
    text = "".join(
        f'{{"vm": "vm", "boot": "{boot}", "node": "{on}", "at": 1, "boottime": {int(at_s * S)}, "count": 1}}\n'
        for boot, on, at_s in lines
    )
    return read_guest_journal(text, vm="vm", at_ns=90 * S)


class TestOneInstanceByJournals:
    check = staticmethod(one_instance_by_journals.check)

    def test_one_boot_after_the_other_holds(self) -> None:
        good = journal(("a", "node1", 1), ("a", "node1", 1.1), ("b", "node2", 2), ("b", "node2", 2.1))

        verdict = self.check(history(vm("start", 1, "node1", "c"), good))

        assert verdict.ruling is Ruling.HOLDS
        assert verdict.notes == ("4 lines of 1 VMs",)

    def test_two_boots_that_interleave_are_caught(self) -> None:
        verdict = self.check(history(journal(("a", "node1", 1), ("b", "node2", 2), ("a", "node1", 2.1))))

        assert verdict.ruling is Ruling.BROKEN
        assert "boot a on node1 wrote line 3 after boot b on node2 had written line 2" in verdict.reasons[0]

    def test_interleaving_is_caught_without_any_clock(self) -> None:
        text = "".join(f'{{"boot": "{boot}"}}\n' for boot in "aabba")

        assert self.check(history(read_guest_journal(text, vm="vm", at_ns=1))).ruling is Ruling.BROKEN

    def test_two_boots_whose_times_overlap_are_caught_although_their_lines_do_not_interleave(self) -> None:
        verdict = self.check(
            history(journal(("a", "node1", 1), ("a", "node1", 5), ("b", "node2", 4), ("b", "node2", 6)))
        )

        assert verdict.ruling is Ruling.BROKEN
        assert "wrote during the same 1.000 s" in verdict.reasons[0]

    def test_it_does_not_believe_the_engine(self) -> None:
        quiet = (vm("start", 1, "node1", "a"), vm("die", 2, "node1", "a"), vm("start", 3, "node2", "b"))

        assert one_instance_by_events.check(history(*quiet)).ruling is Ruling.HOLDS
        interleaved = journal(("a", "node1", 1), ("b", "node2", 2), ("a", "node1", 2.1))
        assert self.check(history(*quiet, interleaved)).ruling is Ruling.BROKEN

    @pytest.mark.parametrize(
        "record",
        [
            None,
            GuestJournal(at_ns=1, vm="vm", error="the volume is gone"),
            GuestJournal(at_ns=1, vm="vm", unreadable_lines=3),
            GuestJournal(at_ns=1, vm="another", lines=1),
        ],
    )
    def test_a_vm_that_ran_and_whose_journal_says_nothing_makes_it_inconclusive(
        self, record: GuestJournal | None
    ) -> None:
        records = [vm("start", 1, "node1", "a"), *([record] if record else [])]

        assert self.check(history(*records)).ruling is Ruling.INCONCLUSIVE

    def test_where_no_vm_ran_it_does_not_apply(self) -> None:
        assert self.check(history()).ruling is Ruling.NOT_APPLICABLE

    def test_a_vm_that_keeps_no_journal_is_named(self) -> None:
        other = vm("start", 1, "node1", "c", vm="own-vm")
        good = journal(("a", "node1", 1), ("a", "node1", 2))

        verdict = self.check(
            history(vm("start", 1, "node1", "a"), other, good, GuestJournal(at_ns=9, vm="own-vm", kept=False))
        )

        assert verdict.ruling is Ruling.HOLDS
        assert verdict.notes[0] == "2 lines of 1 VMs"
        assert "no journal is kept by own-vm" in verdict.notes[1]

    def test_where_no_vm_keeps_one_it_does_not_apply_and_says_so(self) -> None:
        verdict = self.check(
            history(vm("start", 1, "node1", "a"), GuestJournal(at_ns=9, vm="vm", kept=False))
        )

        assert verdict.ruling is Ruling.NOT_APPLICABLE
        assert "no journal is kept by vm" in verdict.notes[0]

    def test_torn_lines_are_counted_and_what_is_glued_to_them_is_read(self) -> None:
        text = '{"boot": "a", "boottime": 1}\n{"boot": "a", "boot{"boot": "b", "boottime": 2}\n\0\0\0\nnonsense\n'

        read = read_guest_journal(text, vm="vm", at_ns=1)

        assert [run.boot for run in read.runs] == ["a", "b"]
        assert (read.lines, read.unreadable_lines) == (2, 1)


def cluster(
    state: str = "Online", *, wanted: bool = True, quorum: bool = True, moment: Moment = Moment.END
) -> ClusterSeen:
    resource = ResourceSeen(name="vm", type="virtual-machine", state=state, wanted=wanted)
    group = GroupSeen(name="web", owner="node1", state=state, resources=(resource,))
    return ClusterSeen(
        at_ns=50 * S, quorum=quorum, nodes=(NodeSeen(name="node1", state="Up"),), groups=(group,), moment=moment
    )


class TestWantedOnline:
    check = staticmethod(wanted_online.check)

    def test_what_is_wanted_and_online_and_runs_holds(self) -> None:
        assert self.check(history(vm("start", 1, "node1", "a"), cluster())).ruling is Ruling.HOLDS

    def test_what_is_wanted_and_not_online_is_caught(self) -> None:
        verdict = self.check(history(vm("start", 1, "node1", "a"), cluster("Failed")))

        assert verdict.ruling is Ruling.BROKEN
        assert verdict.reasons == ("vm of group web (owner: node1) is Failed, wanted Online",)

    def test_what_is_online_to_the_cluster_and_does_not_run_is_caught(self) -> None:
        ended = (vm("start", 1, "node1", "a"), vm("die", 2, "node1", "a"))

        assert self.check(history(*ended, cluster())).ruling is Ruling.BROKEN

    def test_the_engines_list_after_the_snapshot_counts_more_than_its_events(self) -> None:
        stopped = ContainerSeen(
            at_ns=60 * S, container="a", role=ContainerRole.VM, node="node1", running=False, vm="vm"
        )

        assert self.check(history(vm("start", 1, "node1", "a"), cluster(), stopped)).ruling is Ruling.BROKEN

    def test_what_is_not_wanted_may_be_offline(self) -> None:
        assert self.check(history(cluster("Offline", wanted=False))).ruling is Ruling.HOLDS

    def test_a_cluster_without_quorum_is_caught(self) -> None:
        assert self.check(history(vm("start", 1, "node1", "a"), cluster(quorum=False))).ruling is Ruling.BROKEN

    def test_without_a_last_snapshot_it_is_inconclusive(self) -> None:
        assert self.check(history(cluster(moment=Moment.DURING))).ruling is Ruling.INCONCLUSIVE


def fault(moment: FaultMoment, at_s: float, name: str = "node.power-off", target: str = "node1") -> FaultRecord:
    return FaultRecord(at_ns=int(at_s * S), number=1, fault=name, target=target, moment=moment, affected=("vm",))


def power_cut() -> list[Record]:
    """A VM that comes back on node2, 2.5 seconds after its node's power was cut."""
    return [
        vm("start", 1, "node1", "a"),
        ClientAnswer(at_ns=2 * S, vm="vm", ok=True, boot="1", node="node1"),
        fault(FaultMoment.INTENDED, 9.9),
        fault(FaultMoment.INJECTED, 10),
        node("die", 10.1, "node1"),
        fault(FaultMoment.CONFIRMED, 10.2),
        ClientAnswer(at_ns=int(10.3 * S), vm="vm", ok=False),
        LogLine(
            at_ns=12 * S, node="node2", component="nm", event="node-lease-expired", message="", fields={"node": "node1"}
        ),
        LogLine(
            at_ns=int(12.3 * S),
            node="node2",
            component="fm",
            event="group-claimed",
            message="",
            fields={"group": "web"},
        ),
        vm("start", 12.4, "node2", "b"),
        ClientAnswer(at_ns=int(12.5 * S), vm="vm", ok=True, boot="2", node="node2"),
    ]


def without(records: list[Record], drop: Callable[[Record], bool]) -> History:
    return history(*(record for record in records if not drop(record)))


class TestRecovery:
    check = staticmethod(recovered.check)

    def test_each_phase_is_measured_from_the_fault(self) -> None:
        (row,) = read_recoveries(history(*power_cut()))

        assert (row.vm, row.group, row.from_node, row.to_node) == ("vm", "web", "node1", "node2")
        phases = (Phase.DETECTED, Phase.CLAIMED, Phase.STARTED, Phase.ANSWERING)
        assert [row.after_s(phase) for phase in phases] == [2.0, 2.3, 2.4, 2.5]
        assert self.check(history(*power_cut())).ruling is Ruling.HOLDS

    def test_a_session_names_its_node(self) -> None:
        records = [
            replace(record, event="node-declared-down", fields={"session": "node1@ab/2024"})
            if isinstance(record, LogLine) and record.event == "node-lease-expired"
            else record
            for record in power_cut()
        ]

        assert read_recoveries(history(*records))[0].after_s(Phase.DETECTED) == 2.0

    def test_a_wanted_vm_that_was_not_started_again_is_caught(self) -> None:
        lost = without(power_cut(), lambda record: isinstance(record, EngineEventSeen) and record.container == "b")

        verdict = self.check(lost)

        assert verdict.ruling is Ruling.BROKEN
        assert verdict.reasons == ("vm was not started again after node.power-off on node1",)

    def test_a_vm_that_nobody_wants_any_more_need_not_come_back(self) -> None:
        lost = without(power_cut(), lambda record: isinstance(record, EngineEventSeen) and record.container == "b")
        lost.append(cluster("Offline", wanted=False))

        assert self.check(lost).ruling is Ruling.HOLDS

    def test_a_recovery_that_nobody_noticed_the_need_for_is_inconclusive(self) -> None:
        silent = without(power_cut(), lambda record: isinstance(record, LogLine))

        assert self.check(silent).ruling is Ruling.INCONCLUSIVE

    def test_an_old_boot_that_still_answers_is_not_the_new_one(self) -> None:
        late = ClientAnswer(at_ns=int(10.05 * S), vm="vm", ok=True, boot="1", node="node1")

        (row,) = read_recoveries(history(*power_cut(), late))
        assert row.after_s(Phase.ANSWERING) == 2.5

    def test_a_vm_that_does_not_say_which_boot_answers_is_answering_after_its_start(self) -> None:
        records = [
            replace(record, boot="", node="") if isinstance(record, ClientAnswer) else record for record in power_cut()
        ]
        late = ClientAnswer(at_ns=int(10.05 * S), vm="vm", ok=True)

        (row,) = read_recoveries(history(*records, late))

        assert row.after_s(Phase.ANSWERING) == 2.5

    def test_a_restart_in_place_is_detected_by_the_failure_of_the_resource_and_claims_nothing(self) -> None:
        records: list[Record] = [
            vm("start", 1, "node1", "a"),
            fault(FaultMoment.INJECTED, 10, "vm.crash", "vm"),
            vm("die", 10.02, "node1", "a", exit_code=137),
            fault(FaultMoment.CONFIRMED, 10.03, "vm.crash", "vm"),
            LogLine(
                at_ns=int(10.04 * S),
                node="node1",
                component="rcm",
                event="resource-failed",
                message="",
                fields={"resource": "vm"},
            ),
            vm("start", 10.1, "node1", "a"),
        ]

        (row,) = read_recoveries(history(*records))

        assert (row.from_node, row.to_node) == ("node1", "node1")
        assert row.after_s(Phase.DETECTED) == pytest.approx(0.04)
        assert row.after_s(Phase.CLAIMED) is None
        assert row.after_s(Phase.STARTED) == pytest.approx(0.1)

    def test_a_vm_that_ran_before_the_run_came_from_where_it_was_listed(self) -> None:
        listed = ContainerSeen(
            at_ns=5 * S,
            container="a",
            role=ContainerRole.VM,
            node="node3",
            running=True,
            started_ns=1 * S,
            vm="vm",
            group="web",
            session="node3@1/1",
        )
        records = without(power_cut(), lambda record: isinstance(record, EngineEventSeen) and record.container == "a")
        records.append(listed)

        assert read_recoveries(records)[0].from_node == "node3"

    def test_a_fault_that_was_not_confirmed_has_no_recovery(self) -> None:
        unconfirmed = without(
            power_cut(), lambda record: isinstance(record, FaultRecord) and record.moment is FaultMoment.CONFIRMED
        )

        assert read_recoveries(unconfirmed) == []
        assert self.check(unconfirmed).ruling is Ruling.NOT_APPLICABLE


class TestNothingLeft:
    check = staticmethod(nothing_left.check)

    def test_nothing_left_holds(self) -> None:
        assert self.check(history(fault(FaultMoment.INTENDED, 1), CleanUp(at_ns=2))).ruling is Ruling.HOLDS

    def test_an_object_that_is_left_is_caught(self) -> None:
        assert self.check(history(CleanUp(at_ns=2, left=("volume x_csv",)))).reasons == ("left behind: volume x_csv",)

    def test_a_kept_rig_may_stand_but_no_fault_in_it(self) -> None:
        kept = CleanUp(at_ns=5 * S, kept=True)

        assert self.check(history(kept)).ruling is Ruling.HOLDS
        assert self.check(history(fault(FaultMoment.INTENDED, 1), kept)).ruling is Ruling.BROKEN
        healed = fault(FaultMoment.HEALED, 2)
        assert self.check(history(fault(FaultMoment.INTENDED, 1), healed, kept)).ruling is Ruling.HOLDS

    def test_when_nobody_looked_it_is_inconclusive(self) -> None:
        assert self.check(history()).ruling is Ruling.INCONCLUSIVE


def test_a_checker_that_crashes_has_no_opinion() -> None:
    def crash(_: History) -> Verdict:
        raise ZeroDivisionError("no")

    verdict = run_check(replace(CHECKERS[0], check=crash), history())

    assert verdict.ruling is Ruling.INCONCLUSIVE
    assert "ZeroDivisionError: no" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("told", "ruling"),
    [
        ([], Ruling.NOT_APPLICABLE),
        ([""], Ruling.HOLDS),
        (["", "vm runs twice", "vm runs twice", "ip2 is ended"], Ruling.BROKEN),
    ],
)
def test_what_the_watchers_of_a_world_tell_is_told_once_each(told: list[str], ruling: Ruling) -> None:
    history = History(InvariantWatched(at_ns=at_ns, broken=text) for at_ns, text in enumerate(told))

    verdict = invariants.check(history)

    assert verdict.ruling is ruling
    assert list(verdict.reasons) == list(dict.fromkeys(text for text in told if text))


def test_every_checker_has_a_name_of_its_own() -> None:
    names = [checker.name for checker in (*CHECKERS, *AFTER_CLEAN_UP)]

    assert len(set(names)) == len(names) == 6


def test_every_record_can_be_written_down() -> None:
    for record in (*power_cut(), cluster(), journal(("a", "node1", 1)), CleanUp(at_ns=1)):
        assert to_plain(record)["record"] == type(record).__name__
