"""What the commands that change something share: ask, wait for the effect, say how it stands then.

A request is answered as soon as the wish is in the cluster's database. A person wants to know what became of it, so
a command waits for the effect unless it is told not to. Nothing is asked twice.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from chaos.cli.rig_commands import as_json
from chaos.cli.signals import held
from chaos.output.printing import echo

if TYPE_CHECKING:
    from harness.rig.cluster.status import Condition, RigStatus
    from harness.rig.lifecycle.rig import Rig

__all__ = [
    "TIMEOUT_S",
    "ExpectedOutcome",
    "RequestOptions",
    "carry_out",
    "effect_on_group",
    "effect_on_node",
    "effect_on_resource",
    "time_limit",
    "wait_for",
    "waits",
]

TIMEOUT_S = 60.0

_wait = click.option("--wait/--no-wait", "wait", default=True, show_default=True, help="Wait for the effect.")
time_limit = click.option(
    "--timeout",
    "limit_s",
    type=click.FloatRange(min=0.1),
    default=TIMEOUT_S,
    show_default=True,
    help="Seconds to wait for the effect; then exit code 1.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """How long to wait, if at all, and how to tell."""

    wait: bool
    limit_s: float
    json_wanted: bool


def waits(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that has an effect; they come to it as its `wish`."""

    @functools.wraps(command)
    def with_wish(*arguments: Any, wait: bool, limit_s: float, json_wanted: bool, **named: Any) -> Any:
        wish = RequestOptions(wait=wait, limit_s=limit_s, json_wanted=json_wanted)
        return command(*arguments, wish=wish, **named)

    return _wait(time_limit(as_json(with_wish)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedOutcome:
    """What a request is to bring about: `waited_for` in words, the condition, and the record and the sentence that tell
    how it stands then.
    """

    waited_for: str
    missing: "Condition"
    record: Callable[["RigStatus"], Any]
    sentence: Callable[["RigStatus"], str]


def effect_on_group(name: str, waited_for: str, missing: "Condition") -> ExpectedOutcome:
    """What is to become of a group."""
    from chaos.cli.status_tables import group_told
    from harness.rig.cluster.conditions import find_group

    return ExpectedOutcome(
        waited_for=waited_for,
        missing=missing,
        record=lambda standing: find_group(standing, name),
        sentence=lambda standing: group_told(find_group(standing, name)),
    )


def effect_on_resource(name: str, waited_for: str, missing: "Condition") -> ExpectedOutcome:
    """What is to become of a resource."""
    from chaos.cli.status_tables import resource_told
    from harness.rig.cluster.conditions import find_resource

    return ExpectedOutcome(
        waited_for=waited_for,
        missing=missing,
        record=lambda standing: find_resource(standing, name)[1],
        sentence=lambda standing: resource_told(*find_resource(standing, name)),
    )


def effect_on_node(name: str, waited_for: str, missing: "Condition") -> ExpectedOutcome:
    """What is to become of a node."""
    from chaos.cli.status_tables import node_told
    from harness.rig.cluster.conditions import find_node

    return ExpectedOutcome(
        waited_for=waited_for,
        missing=missing,
        record=lambda standing: find_node(standing, name),
        sentence=lambda standing: node_told(find_node(standing, name)),
    )


def carry_out(
    rig: "Rig", path: str, arguments: Mapping[str, str | bool] | None, effect: ExpectedOutcome, wish: RequestOptions
) -> "RigStatus | None":
    """Ask, wait, tell; the answer is what was seen last, if anything was. Raises RequestRefused, ConditionUnmet."""
    from chaos.cli.output import Progress, print_json
    from harness.errors import ApiUnanswered

    say = Progress()
    answer: dict[str, Any] = {"code": "unknown", "message": "", "result": {}}
    try:
        with held("the request is under way; its answer is read first"):
            answer = dict(rig.request(path, arguments).body)
        say(answer["message"])
    except ApiUnanswered as error:
        if not wish.wait:
            raise
        say(f"{error}. Waiting for the effect all the same")
        answer["message"] = str(error)
    if not wish.wait:
        if wish.json_wanted:
            print_json(answer)
        return None
    standing = wait_for(rig, effect, limit_s=wish.limit_s, say=say)
    if wish.json_wanted:
        print_json({**answer, "now": effect.record(standing)})
    else:
        echo(effect.sentence(standing))
    return standing


def wait_for(rig: "Rig", effect: ExpectedOutcome, *, limit_s: float, say: Callable[[str], None]) -> "RigStatus":
    """Waits; what was seen when it held. Raises ConditionUnmet with what was seen last and where to look."""
    from harness.errors import ConditionUnmet, WaitTimeout

    try:
        return rig.wait_until(effect.waited_for, effect.missing, limit_s=limit_s, say=say)
    except WaitTimeout as error:
        raise ConditionUnmet(
            f"{error}. It may still come: `blackstart status --name {rig.name}` shows how it stands, "
            f"`blackstart events --name {rig.name} --since 5m` what happened"
        ) from error
