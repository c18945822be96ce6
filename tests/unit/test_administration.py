"""Administrators' requests, by the published rules: what is answered, what is written, what the owner then does."""

from dataclasses import replace

import pytest
from manager_harness import ELSEWHERE, HERE, NODES, ManagerBench, resource

from harness.cluster_service.administration.administration import CALLS
from harness.cluster_service.core.messages import AnswerCode, RequestAnswered
from harness.cluster_service.core.pending_requests import OPEN_LIMIT
from harness.database.proposer import Result
from harness.model.host_messages import EntryPoint
from harness.model.records import ResumeFailback, SessionState
from harness.model.session import Session
from harness.model.states import DrainState, ResourceState
from harness.model.topology import RestartAction


def code(answer: RequestAnswered | None) -> AnswerCode:
    assert answer is not None, "not answered yet"
    return answer.code


def pair(**policy: object) -> ManagerBench:
    """A VM that depends on its address, both Online."""
    return ManagerBench(resource("ip"), resource("vm", ("ip",), **policy))


# Names, arguments, quorum.


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("group.dance", {}),
        ("group.online", {"group": "other"}),
        ("resource.online", {"resource": "other"}),
        ("group.move", {"group": "web", "target": "node9"}),
        ("node.pause", {"node": "node9"}),
    ],
)
def test_unknown_names_are_no_such(call: str, arguments: dict[str, str]) -> None:
    assert code(pair().ask(call, **arguments)) is AnswerCode.NO_SUCH


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("group.online", {}),
        ("group.online", {"group": True}),
        ("group.online", {"group": "web", "speed": "high"}),
        ("node.pause", {"node": "node1", "drain": "yes"}),
        ("node.resume", {"node": "node1", "failback": "perhaps"}),
    ],
)
def test_wrong_arguments_are_refused_and_change_nothing(call: str, arguments: dict[str, str | bool]) -> None:
    bench = pair()

    assert code(bench.ask(call, **arguments)) is AnswerCode.REFUSED
    assert bench.changes == []


@pytest.mark.parametrize("call", [call for call in CALLS if call != "quorum.show"])
def test_without_a_lease_nothing_is_changed(call: str) -> None:
    bench = pair()
    bench.around.lease_live_now = False
    known: dict[str, str | bool] = {"group": "web", "resource": "vm", "node": "node1"}
    arguments = {name: known[name] for name in CALLS[call] if name in known}

    assert code(bench.ask(call, **arguments)) is AnswerCode.NO_QUORUM
    assert bench.changes == []


def test_more_requests_than_anybody_waits_for_are_refused() -> None:
    bench = pair()
    bench.holds.add(EntryPoint.ONLINE)
    bench.crash("vm")
    for _ in range(OPEN_LIMIT):
        assert bench.ask("group.offline", group="web") is None

    assert code(bench.ask("group.offline", group="web")) is AnswerCode.REFUSED


def test_another_owner_is_named() -> None:
    bench = ManagerBench(resource("vm"), owner=ELSEWHERE)

    answer = bench.ask("resource.offline", resource="vm")

    assert code(answer) is AnswerCode.NOT_OWNER
    assert answer is not None
    assert answer.result == {"owner": "node2"}


# Online and offline.


def test_online_of_an_online_resource_succeeds() -> None:
    bench = pair()
    mark = len(bench.calls)

    assert code(bench.ask("resource.online", resource="vm")) is AnswerCode.DONE
    assert bench.since(mark) == []


@pytest.mark.parametrize("call", ["resource.online", "resource.offline", "resource.fail"])
def test_requests_about_a_pending_resource_are_refused(call: str) -> None:
    bench = pair()
    bench.holds.add(EntryPoint.ONLINE)
    bench.crash("vm")

    answer = bench.ask(call, resource="vm")

    assert code(answer) is AnswerCode.REFUSED
    assert answer is not None
    assert "OnlinePending" in answer.message


def test_a_request_to_go_online_sets_1_even_if_the_attempt_fails() -> None:
    bench = ManagerBench(resource("vm", restart_action=RestartAction.NONE), wanted=False)
    bench.fails_online.add("vm")

    assert code(bench.ask("resource.online", resource="vm")) is AnswerCode.DONE
    assert bench.record.persistent == {"vm": True}
    assert bench.state("vm") is ResourceState.FAILED


@pytest.mark.parametrize("action", list(RestartAction))
def test_a_resource_that_is_failed_for_good_is_tried_again(action: RestartAction) -> None:
    bench = ManagerBench(resource("vm", restart_action=action, restart_threshold=0), failover_threshold=0)
    bench.crash("vm")
    assert bench.state("vm") is ResourceState.FAILED
    mark = len(bench.calls)

    assert code(bench.ask("resource.online", resource="vm")) is AnswerCode.DONE

    assert bench.since(mark) == ["terminate vm", "online vm"]
    assert bench.state("vm") is ResourceState.ONLINE


def test_going_online_brings_the_providers_along() -> None:
    bench = ManagerBench(resource("ip"), resource("vm", ("ip",)), resource("other"), wanted=False)

    bench.ask("resource.online", resource="vm")

    assert bench.record.persistent == {"ip": True, "vm": True, "other": False}
    assert bench.calls[-2:] == ["online ip", "online vm"]


def test_of_an_or_set_a_wanted_provider_is_enough() -> None:
    bench = ManagerBench(resource("a"), resource("b"), resource("vm", ("a", "b")), wanted=False)
    bench.ask("resource.online", resource="b")

    bench.ask("resource.online", resource="vm")

    assert bench.record.persistent == {"a": False, "b": True, "vm": True}


def test_going_offline_takes_the_dependents_along_and_they_go_first() -> None:
    bench = pair()
    mark = len(bench.calls)

    assert code(bench.ask("resource.offline", resource="ip")) is AnswerCode.DONE

    assert bench.record.persistent == {"ip": False, "vm": False}
    assert bench.since(mark) == ["offline vm", "offline ip"]


def test_a_dependent_with_another_provider_stays() -> None:
    bench = ManagerBench(resource("a"), resource("b"), resource("vm", ("a", "b")))
    mark = len(bench.calls)

    bench.ask("resource.offline", resource="a")

    assert bench.record.persistent == {"a": False, "b": True, "vm": True}
    assert bench.since(mark) == ["offline a"]


def test_offline_of_a_failed_resource_is_an_error_and_still_sets_0() -> None:
    bench = ManagerBench(resource("vm", restart_action=RestartAction.NONE))
    bench.crash("vm")

    answer = bench.ask("resource.offline", resource="vm")

    assert code(answer) is AnswerCode.REFUSED
    assert answer is not None
    assert answer.result == {"persistent_state": 0}
    assert bench.record.persistent == {"vm": False}
    assert bench.calls[-1] == "terminate vm"


def test_a_group_changes_in_one_change() -> None:
    bench = pair()

    bench.ask("group.offline", group="web")

    assert bench.changes == ["RequestState"]
    assert bench.record.persistent == {"ip": False, "vm": False}


def test_a_group_goes_offline_only_after_a_start_under_way_and_nothing_else_is_started() -> None:
    bench = pair()
    bench.holds.add(EntryPoint.ONLINE)
    bench.crash("vm")
    assert bench.ask("group.offline", group="web") is None
    assert bench.record.persistent["vm"]

    bench.fails_online.add("vm")
    mark = len(bench.calls)
    bench.let_go()

    assert code(bench.answer()) is AnswerCode.DONE
    assert [call for call in bench.since(mark) if call.startswith("online")] == []


def test_a_provider_goes_offline_only_after_the_start_of_a_dependent_under_way() -> None:
    bench = pair()
    bench.holds.add(EntryPoint.ONLINE)
    bench.crash("vm")
    assert bench.ask("resource.offline", resource="ip") is None
    assert bench.record.persistent == {"ip": True, "vm": True}

    mark = len(bench.calls)
    bench.let_go()

    assert code(bench.answer()) is AnswerCode.DONE
    assert bench.record.persistent == {"ip": False, "vm": False}
    assert bench.since(mark) == ["offline vm", "offline ip"]


def test_a_start_that_does_not_end_makes_the_request_wait_ten_seconds_at_most() -> None:
    bench = pair()
    bench.holds.add(EntryPoint.ONLINE)
    bench.crash("vm")
    bench.ask("group.offline", group="web")

    bench.wait(9.9)
    assert bench.answer() is None
    bench.wait(0.2)

    answer = bench.answer()
    assert code(answer) is AnswerCode.REFUSED
    assert answer is not None
    assert "going Online" in answer.message
    assert bench.record.persistent == {"ip": True, "vm": True}


def test_requests_of_one_group_are_carried_out_in_their_order() -> None:
    bench = pair()
    bench.holds.add(EntryPoint.ONLINE)
    bench.crash("vm")
    bench.ask("group.offline", group="web")
    bench.ask("group.online", group="web")

    bench.let_go()

    assert [answer.code for answer in bench.answers] == [AnswerCode.DONE, AnswerCode.DONE]
    assert bench.record.persistent == {"ip": True, "vm": True}


# Fail.


def test_fail_is_a_real_failure() -> None:
    bench = ManagerBench(resource("vm", restart_threshold=1, restart_delay_us=0))
    mark = len(bench.calls)

    assert code(bench.ask("resource.fail", resource="vm")) is AnswerCode.DONE
    assert bench.since(mark) == ["terminate vm", "terminate vm", "online vm"]
    assert len(bench.record.restarts) == 1
    bench.ask("resource.fail", resource="vm")

    assert bench.record.owner == Session("node2", "b", "1")


def test_fail_needs_an_online_resource() -> None:
    bench = ManagerBench(resource("vm"), wanted=False)

    assert code(bench.ask("resource.fail", resource="vm")) is AnswerCode.REFUSED


# Move.


def test_a_move_ends_dependents_first_and_releases_to_the_target() -> None:
    bench = pair()
    mark = len(bench.calls)

    answer = bench.ask("group.move", group="web", target="node3")

    assert code(answer) is AnswerCode.DONE
    assert bench.since(mark)[:4] == ["offline vm", "close vm", "offline ip", "close ip"]
    assert bench.record.owner is not None
    assert (bench.record.owner.node, bench.record.epoch) == ("node3", 2)


def test_a_move_without_a_target_goes_to_the_most_preferred_candidate() -> None:
    bench = ManagerBench(resource("vm"), preferred_owners=("node1", "node3"))

    bench.ask("group.move", group="web")

    assert bench.record.owner is not None
    assert bench.record.owner.node == "node3"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("node1", "it owns the group"),
        ("node2", "it is Paused"),
        ("node3", "it is not a possible owner"),
    ],
)
def test_a_target_that_is_no_candidate_is_refused_with_the_reason(target: str, reason: str) -> None:
    bench = ManagerBench(resource("vm"), possible_owners=("node1", "node2"))
    bench.set_node("node2", paused=True)

    answer = bench.ask("group.move", group="web", target=target)

    assert code(answer) is AnswerCode.REFUSED
    assert answer is not None
    assert reason in answer.message


def test_a_target_that_is_down_or_silent_is_refused() -> None:
    bench = pair()
    bench.set_node("node2", state=SessionState.DOWN)
    bench.around.silent.add("node3")

    first = bench.ask("group.move", group="web", target="node2")
    second = bench.ask("group.move", group="web", target="node3")
    third = bench.ask("group.move", group="web")

    assert [code(answer) for answer in (first, second, third)] == [AnswerCode.REFUSED] * 3
    assert third is not None
    assert "node2: it is Down" in third.message


def test_a_second_move_is_refused() -> None:
    bench = pair()
    bench.holds.add(EntryPoint.OFFLINE)
    bench.ask("group.move", group="web", target="node2")

    answer = bench.ask("group.move", group="web", target="node3")

    assert code(answer) is AnswerCode.REFUSED
    assert answer is not None
    assert "is being moved to node2" in answer.message


def test_a_move_waits_for_a_start_under_way() -> None:
    bench = pair()
    bench.holds.add(EntryPoint.ONLINE)
    bench.crash("vm")

    assert code(bench.ask("group.move", group="web", target="node2")) is AnswerCode.DONE
    assert bench.record.owner == HERE
    bench.let_go()

    assert bench.record.owner is not None
    assert bench.record.owner.node == "node2"


# A group without a living owner.


def orphan(*, fenced: bool) -> ManagerBench:
    lost = Session("node2", "old", "1")
    bench = ManagerBench(resource("vm"), owner=lost)
    bench.set_node("node2", session=lost, state=SessionState.DOWN, fenced=fenced)
    return bench


def test_a_wish_for_an_orphaned_group_is_kept_for_its_next_owner() -> None:
    bench = orphan(fenced=True)

    assert code(bench.ask("group.offline", group="web")) is AnswerCode.DONE
    assert bench.record.persistent == {"vm": False}
    assert bench.record.epoch == 1


@pytest.mark.parametrize("call", ["group.move", "resource.fail"])
def test_what_needs_an_owner_is_refused_without_one(call: str) -> None:
    arguments = {"group": "web"} if call == "group.move" else {"resource": "vm"}

    assert code(orphan(fenced=True).ask(call, **arguments)) is AnswerCode.REFUSED


def test_nothing_is_written_while_the_lost_owner_may_still_start_something() -> None:
    bench = orphan(fenced=False)

    assert bench.ask("group.offline", group="web") is None
    assert bench.changes == []
    bench.set_node("node2", fenced=True)

    assert code(bench.answer()) is AnswerCode.DONE


def test_a_wish_that_meets_a_claim_is_looked_at_again() -> None:
    bench = orphan(fenced=True)
    bench.holds_changes = True
    bench.ask("group.offline", group="web")
    bench.see(replace(bench.record, owner=Session("node3", "a", "1"), epoch=2))
    assert bench.answer() is None

    bench.let_changes_go()

    assert bench.record.persistent == {"vm": True}
    assert code(bench.answer()) is AnswerCode.NOT_OWNER


# What becomes of open requests.


@pytest.mark.parametrize(
    ("result", "expected"),
    [(Result.NOT_DONE, AnswerCode.NO_QUORUM), (Result.UNKNOWN, AnswerCode.UNKNOWN)],
)
def test_a_change_without_a_majority_is_told_honestly(result: Result, expected: AnswerCode) -> None:
    bench = pair()
    bench.settles = result

    assert code(bench.ask("group.offline", group="web")) is expected


def test_nothing_is_started_after_an_unknown_change_until_the_register_was_read_again() -> None:
    bench = pair()
    bench.settles = Result.UNKNOWN
    bench.ask("group.offline", group="web")
    mark = len(bench.calls)

    bench.crash("vm")
    bench.wait(2)
    assert bench.since(mark) == []
    bench.see(replace(bench.record, persistent={"ip": False, "vm": False}))

    assert [call for call in bench.since(mark) if call.startswith("online")] == []


def test_a_lapse_answers_what_is_open() -> None:
    bench = pair()
    bench.holds.add(EntryPoint.ONLINE)
    bench.crash("vm")
    bench.ask("group.offline", group="web")
    bench.holds_changes = True
    bench.ask("node.pause", node="node2")

    told = [action for action in bench.requests.lapse() if isinstance(action, RequestAnswered)]

    assert [answer.code for answer in told] == [AnswerCode.NO_QUORUM, AnswerCode.UNKNOWN]
    assert len(bench.requests) == 0


# Pause and resume.


def test_pause_and_resume_are_written_to_the_cluster_register() -> None:
    bench = pair()

    assert code(bench.ask("node.pause", node="node2")) is AnswerCode.DONE
    paused = bench.around.cluster.node("node2")
    assert code(bench.ask("node.resume", node="node2", failback="none")) is AnswerCode.DONE
    resumed = bench.around.cluster.node("node2")

    assert paused is not None
    assert (paused.paused, paused.drain) == (True, DrainState.NOT_INITIATED)
    assert resumed is not None
    assert (resumed.paused, resumed.failback) == (False, ResumeFailback.NONE)


def test_a_node_that_is_not_up_cannot_be_drained_but_paused() -> None:
    bench = pair()
    bench.set_node("node3", state=SessionState.DOWN)

    assert code(bench.ask("node.pause", node="node3", drain=True)) is AnswerCode.REFUSED
    assert code(bench.ask("node.pause", node="node3")) is AnswerCode.DONE


def test_quorum_is_shown_also_without_one() -> None:
    bench = pair()
    bench.around.lease_live_now = False

    answer = bench.ask("quorum.show")

    assert code(answer) is AnswerCode.DONE
    assert answer is not None
    assert answer.result["quorum"] is False
    assert [line for line in bench.logs if line.event == "request-answered"] == []


def test_every_node_is_named_in_a_refusal() -> None:
    bench = pair()

    answer = bench.ask("node.pause", node="node9")

    assert answer is not None
    assert all(name in answer.message for name in NODES)
