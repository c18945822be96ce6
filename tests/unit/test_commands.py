"""Commands of an administrator in an experiment: how they are written, what is asked of the cluster, and what a refusal
means for the run.
"""

from pathlib import Path

import pytest
from scripted_arena import Script, ScriptedArena
from scripted_run import DOCUMENT, Ran

from chaos.arena.port import Command, Subject
from chaos.experiment.loader import read_experiment
from chaos.experiment.records import CommandCall, Experiment
from chaos.experiment.targets import ByName, FromRegister, OwnerOf
from chaos.history.records import StepEnded
from chaos.history.verdict import ExitCode
from harness.errors import ApiUnanswered, HarnessError, RequestRefused, UsageError

HEAD = DOCUMENT.partition("method:")[0]


def command(provider: str, more: str = "") -> str:
    return f"  - {{type: action, name: ask, provider: {{type: cluster, {provider}}}{more}}}\n"


def read(method: str, rollbacks: str = "") -> Experiment:
    document = HEAD + "method:\n" + method + (f"rollbacks:\n{rollbacks}" if rollbacks else "")
    return read_experiment(document, name="test.yaml")


def run(directory: Path, method: str, *, script: Script | None = None, rollbacks: str = "") -> Ran:
    document = HEAD + "method:\n" + method + (f"rollbacks:\n{rollbacks}" if rollbacks else "")
    return Ran(ScriptedArena(script), directory, document)


@pytest.mark.parametrize(
    ("written", "call"),
    [
        ("action: group.online, group: web", CommandCall(subject=Subject.GROUP, name="web", verb="online")),
        ("action: group.offline, group: data", CommandCall(subject=Subject.GROUP, name="data", verb="offline")),
        ("action: group.move, group: web", CommandCall(subject=Subject.GROUP, name="web", verb="move")),
        (
            "action: group.move, group: web, to: node2",
            CommandCall(
                subject=Subject.GROUP, name="web", verb="move", arguments={"target": ByName(name="node2")}
            ),
        ),
        ("action: resource.fail, resource: web-ip", CommandCall(subject=Subject.RESOURCE, name="web-ip", verb="fail")),
        (
            "action: node.pause, node: {owner-of: web}, drain: true",
            CommandCall(
                subject=Subject.NODE, name=OwnerOf(group="web"), verb="pause", arguments={"drain": True}
            ),
        ),
        (
            "action: node.resume, node: node1, failback: none",
            CommandCall(
                subject=Subject.NODE, name=ByName(name="node1"), verb="resume", arguments={"failback": "none"}
            ),
        ),
    ],
)
def test_what_is_written_is_what_is_asked(written: str, call: CommandCall) -> None:
    assert read(command(written)).method[0].call == call


def test_a_node_may_be_one_that_an_earlier_step_registered() -> None:
    owner = "  - {type: probe, name: o, provider: {type: cluster, probe: owner-of, group: web}, register: first}\n"

    call = read(owner + command('action: node.pause, node: "${first}"')).method[1].call

    assert isinstance(call, CommandCall)
    assert call.name == FromRegister(register="first")


@pytest.mark.parametrize(
    ("written", "refusal"),
    [
        ("action: group.stop, group: web", "there is no action 'group.stop', expected group.move"),
        ("probe: nodes-up", "no action, expected one of group.move"),
        ("action: group.move", "no group, expected the group that it is about"),
        ("action: group.move, group: wep", "the rig has no group 'wep', expected web"),
        ("action: group.move, group: web, to: node9", "the rig has no node 'node9'"),
        ("action: group.move, group: web, to: minority", "to is minority, which may be several nodes"),
        ("action: group.online, group: web, to: node1", "has no key 'to'"),
        ("action: resource.online, resource: web", "the rig has no resource 'web'"),
        ("action: node.pause, node: web-vm", "the rig has no node 'web-vm'"),
        ('action: node.pause, node: "node*"', "node is the pattern 'node*', expected the name of one node"),
        ("action: node.pause, node: node1, drain: yes please", "drain is 'yes please', expected true or false"),
        ("action: node.resume, node: node1, failback: soon", "failback is 'soon', expected none, immediate or policy"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_is_expected(written: str, refusal: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(command(written))

    assert refusal in str(refused.value)


def test_a_sentence_is_nothing_to_register() -> None:
    with pytest.raises(UsageError, match="register on a command"):
        read(command("action: group.move, group: web", ", register: moved"))


def test_the_cluster_is_asked_and_its_sentence_is_told(tmp_path: Path) -> None:
    ran = run(tmp_path, command("action: node.pause, node: {owner-of: web}, drain: true"))

    asked = Command(subject=Subject.NODE, name="node1", verb="pause", arguments={"drain": True})
    assert ran.code is ExitCode.PASSED, ran.reasons
    assert ran.arena.commands == [asked]
    assert asked.path == "nodes/node1/pause"
    (step,) = [step for step in ran.arena.history.of(StepEnded) if step.phase == "method"]
    assert (step.outcome, step.reason) == ("succeeded", "node.pause node1, drain True is wanted")


@pytest.mark.parametrize(
    "failure",
    [
        RequestRefused("node1 refused groups/web/move: node2 is Paused", code="refused"),
        ApiUnanswered("groups/web/move: no answer within 12 s; it may or may not be done"),
        HarnessError("no node's API answers, so groups/web/move was asked of nobody"),
    ],
)
def test_a_run_whose_command_was_not_carried_out_proves_nothing(tmp_path: Path, failure: Exception) -> None:
    ran = run(tmp_path, command("action: group.move, group: web"), script=Script(request_raises=failure))

    assert ran.code is ExitCode.INCONCLUSIVE
    assert ran.reasons == f"not carried out: {failure}"


def test_a_command_that_may_be_missing_or_comes_in_the_rollbacks_is_skipped(tmp_path: Path) -> None:
    failure = RequestRefused("node1 refused nodes/node1/resume: it is not Paused", code="refused")

    ran = run(
        tmp_path,
        command("action: group.move, group: web", ", if-possible: true"),
        rollbacks=command("action: node.resume, node: node1"),
        script=Script(request_raises=failure),
    )

    assert ran.code is ExitCode.PASSED, ran.reasons
    assert ran.steps("method") == ["ask: skipped"]
    assert ran.steps("rollbacks") == ["ask: skipped"]


def test_a_register_that_was_never_written_names_nobody(tmp_path: Path) -> None:
    owner = "  - {type: probe, name: o, provider: {type: cluster, probe: owner-of, group: web}, register: first}\n"
    method = owner.replace("name: o,", "name: o, tolerance: nobody,") + command('action: node.pause, node: "${first}"')

    ran = run(tmp_path, method, rollbacks=command('action: node.resume, node: "${first}"'))

    assert ran.arena.commands == []
    assert ran.steps("rollbacks") == ["ask: skipped"]
