"""What follows a failure, by the published rules: restarts, failovers, and when nothing is left."""

from dataclasses import replace

import pytest
from manager_harness import ELSEWHERE, NODES, SECOND, ManagerBench, resource

from harness.database.proposer import Result
from harness.model.host_messages import EntryPoint
from harness.model.records import MoveCause
from harness.model.session import Session
from harness.model.states import DrainState, ResourceState
from harness.model.topology import Failback, RestartAction, ShutdownAction
from harness.model.vm import Ending


def target_of(bench: ManagerBench) -> str | None:
    """Where the group went, or goes."""
    if bench.record.move is not None:
        return bench.record.move.target
    assert bench.record.owner is not None
    return bench.record.owner.node if bench.record.owner.node != "node1" else None


def test_providers_go_online_before_what_depends_on_them() -> None:
    bench = ManagerBench(resource("vm", ("ip",)), resource("ip"))

    assert [call for call in bench.calls if call.startswith("online")] == ["online ip", "online vm"]


def test_one_provider_of_an_or_set_is_enough() -> None:
    bench = ManagerBench(resource("a"), resource("b"), resource("vm", ("a", "b")), wanted=False)

    bench.see(replace(bench.record, persistent={"a": False, "b": True, "vm": True}))

    assert bench.calls[-2:] == ["online b", "online vm"]


def test_the_dependent_goes_offline_with_its_last_provider() -> None:
    bench = ManagerBench(resource("a", restart_action=RestartAction.NONE), resource("vm", ("a",)))

    bench.crash("a")

    assert bench.calls[-1] == "offline vm"
    assert bench.why("vm") == "waits for provider a"


def test_the_first_restart_is_at_once_and_the_next_after_the_restart_delay() -> None:
    bench = ManagerBench(resource("vm", restart_delay_us=2 * SECOND))

    bench.crash("vm")
    assert bench.calls[-2:] == ["terminate vm", "online vm"]

    mark = len(bench.calls)
    bench.crash("vm")
    assert bench.since(mark) == []
    bench.wait(1.9)
    assert bench.since(mark) == []
    bench.wait(0.2)
    assert bench.since(mark) == ["terminate vm", "online vm"]


def test_each_restart_is_written_down_before_it_is_made() -> None:
    bench = ManagerBench(resource("vm"))
    mark = len(bench.calls)
    bench.settles = Result.NOT_DONE
    bench.crash("vm")

    assert bench.since(mark) == []


def test_used_up_restarts_move_the_group_to_the_next_candidate() -> None:
    bench = ManagerBench(resource("vm", restart_threshold=1, restart_delay_us=0))

    bench.crash("vm")
    assert target_of(bench) is None
    bench.crash("vm")

    assert target_of(bench) == "node2"
    decision = next(log for log in bench.logs if log.event == "failover-decided")
    assert decision.fields["counters"] == {
        "restarts": 1,
        "restart_threshold": 1,
        "failovers": 0,
        "failover_threshold": 2,
    }
    assert decision.fields["candidates"] == {"node1": "it owns the group", "node2": "candidate", "node3": "candidate"}


def test_failures_outside_of_the_restart_period_do_not_count() -> None:
    bench = ManagerBench(resource("vm", restart_threshold=1, restart_period_us=10 * SECOND, restart_delay_us=0))

    bench.crash("vm")
    bench.wait(11)
    bench.crash("vm")

    assert target_of(bench) is None
    assert bench.state("vm") is ResourceState.ONLINE


def test_a_threshold_of_zero_moves_at_the_first_failure() -> None:
    bench = ManagerBench(resource("vm", restart_threshold=0))

    bench.crash("vm")

    assert target_of(bench) == "node2"


def test_restart_action_none_leaves_it_failed() -> None:
    bench = ManagerBench(resource("vm", restart_action=RestartAction.NONE))
    mark = len(bench.calls)

    bench.crash("vm")
    bench.wait(7200)

    assert bench.since(mark) == []
    assert bench.why("vm") == "it stays Failed: its restart-action is none"


def test_restart_action_restart_never_moves() -> None:
    bench = ManagerBench(resource("vm", restart_action=RestartAction.RESTART, restart_threshold=0))

    bench.crash("vm")

    assert target_of(bench) is None
    assert bench.state("vm") is ResourceState.FAILED


def test_beyond_the_failover_threshold_the_group_stays_failed_with_event_1254() -> None:
    bench = ManagerBench(resource("vm", restart_threshold=0), failover_threshold=0)

    bench.crash("vm")
    bench.wait(60)

    assert target_of(bench) is None
    assert [log.id for log in bench.logs if log.event == "resource-stays-failed"] == [1254]


@pytest.mark.parametrize(("period", "tried"), [(3600 * SECOND, ["terminate vm", "online vm"]), (None, [])])
def test_after_the_retry_period_it_is_tried_once_more(period: int | None, tried: list[str]) -> None:
    bench = ManagerBench(resource("vm", restart_threshold=0, retry_period_us=period), failover_threshold=0)
    bench.fails_online.add("vm")
    bench.crash("vm")
    mark = len(bench.calls)

    bench.wait(3599)
    assert bench.since(mark) == []
    bench.wait(2)

    assert bench.since(mark) == tried


def test_the_attempt_after_the_retry_period_has_the_full_policy_behind_it() -> None:
    bench = ManagerBench(
        resource("vm", restart_action=RestartAction.RESTART, restart_threshold=2, restart_delay_us=0)
    )
    bench.fails_online.add("vm")
    bench.crash("vm")
    bench.wait(2)
    mark = len(bench.calls)

    bench.wait(3600)
    bench.wait(2)

    assert bench.since(mark).count("online vm") == 3


def test_a_clean_stop_by_hand_is_a_wish() -> None:
    bench = ManagerBench(resource("vm"))
    mark = len(bench.calls)

    bench.report("vm", ResourceState.OFFLINE, ending=Ending.STOPPED)

    assert bench.record.persistent == {"vm": False}
    assert bench.since(mark) == []


def test_with_shutdown_action_fail_a_clean_stop_is_a_failure() -> None:
    bench = ManagerBench(resource("vm", shutdown_action=ShutdownAction.FAIL))

    bench.report("vm", ResourceState.OFFLINE, ending=Ending.SHUT_DOWN)

    assert bench.record.persistent == {"vm": True}
    assert [entry.resource for entry in bench.record.restarts] == ["vm"]
    assert bench.state("vm") is ResourceState.ONLINE


def test_a_start_by_hand_on_the_owner_is_a_wish() -> None:
    bench = ManagerBench(resource("vm"), wanted=False)

    bench.report("vm", ResourceState.ONLINE)

    assert bench.record.persistent == {"vm": True}
    assert bench.calls[-1] == "open vm"


def test_a_start_by_hand_anywhere_else_is_ended() -> None:
    bench = ManagerBench(resource("vm"), owner=ELSEWHERE)

    bench.report("vm", ResourceState.ONLINE)

    assert bench.calls[-1] == "terminate vm"


# Paused nodes.


def test_nothing_goes_online_on_a_paused_node_and_what_runs_there_stays() -> None:
    bench = ManagerBench(resource("vm"))
    mark = len(bench.calls)

    bench.set_node("node1", paused=True)
    bench.wait(5)

    assert bench.since(mark) == []
    assert bench.state("vm") is ResourceState.ONLINE


def test_what_fails_on_a_paused_node_leaves_it_and_that_is_no_failover() -> None:
    bench = ManagerBench(resource("vm"))
    bench.set_node("node1", paused=True)

    bench.crash("vm")

    assert target_of(bench) == "node2"
    assert bench.record.failovers == ()


def test_with_only_paused_nodes_left_a_group_stays_offline_and_says_why() -> None:
    bench = ManagerBench(resource("vm"), wanted=False)
    for name in NODES:
        bench.set_node(name, paused=True)

    bench.ask("group.online", group="web")

    assert bench.state("vm") is ResourceState.OFFLINE
    assert bench.why("vm") == (
        "its node is Paused; no candidate: node1: it owns the group; node2: it is Paused; node3: it is Paused"
    )
    bench.set_node("node3", paused=False)
    assert target_of(bench) == "node3"


def test_a_drain_moves_the_group_away_and_remembers_where_from() -> None:
    bench = ManagerBench(resource("vm"))
    mark = len(bench.calls)

    bench.set_node("node1", paused=True, drain=DrainState.IN_PROGRESS, drains=1)

    assert bench.since(mark)[:2] == ["offline vm", "close vm"]
    assert target_of(bench) == "node2"
    assert bench.record.drained is not None
    assert (bench.record.drained.node, bench.record.drained.drain) == ("node1", 1)


# Failback.


def test_a_group_goes_back_to_its_most_preferred_owner_only_if_its_policy_allows_it() -> None:
    for policy, expected in ((Failback.PREVENT, None), (Failback.ALLOW, "node3")):
        bench = ManagerBench(resource("vm"), preferred_owners=("node3",), failback=policy)

        assert target_of(bench) == expected


@pytest.mark.parametrize(("window", "hour", "goes"), [((22, 6), 23, True), ((22, 6), 5, True), ((22, 6), 12, False)])
def test_failback_keeps_to_its_window_also_around_midnight(window: tuple[int, int], hour: int, goes: bool) -> None:
    bench = ManagerBench(
        resource("vm"), wanted=False, preferred_owners=("node1",), failback=Failback.ALLOW, failback_window=window
    )
    bench.hour = hour
    spec = replace(bench.record.spec, preferred_owners=("node3",))

    bench.see(replace(bench.record, spec=spec))

    assert (target_of(bench) == "node3") is goes


def test_a_group_does_not_fail_back_to_a_session_that_it_left_because_it_failed_there() -> None:
    bench = ManagerBench(resource("vm"), wanted=False)
    left = bench.around.cluster.node("node3")
    assert left is not None
    assert left.session is not None
    spec = replace(bench.record.spec, preferred_owners=("node3",), failback=Failback.ALLOW)

    bench.see(replace(bench.record, spec=spec, left=(left.session,)))
    assert target_of(bench) is None

    bench.set_node("node3", session=Session("node3", "c", "2"))
    assert target_of(bench) == "node3"


def test_a_move_that_lost_its_target_goes_to_another_candidate() -> None:
    bench = ManagerBench(resource("vm"))
    bench.holds.add(EntryPoint.OFFLINE)
    bench.ask("group.move", group="web", target="node2")
    assert bench.record.move is not None
    assert bench.record.move.cause is MoveCause.REQUEST

    bench.set_node("node2", paused=True)
    bench.let_go()

    assert target_of(bench) == "node3"
