"""An administrator's request to a simulated cluster: one node after the other is asked, as by the node API's client."""

from collections.abc import Collection, Mapping

from chaos.arena.port import Command
from harness.cluster_service.core.messages import RequestAnswered
from harness.ports import DeadlinePassed, Pending, Runtime
from harness.rig.cluster.request_routing import REQUEST_LIMIT_S, Question, RequestRouter, who_to_ask
from harness.rig.cluster.status import RigStatus
from harness.simulation.world.world import World
from harness.synchronization import result_of

__all__ = ["ask_cluster"]

CALL_US = 5_000
"""What a connection and a request take on containers."""
REQUEST_LIMIT_US = int(REQUEST_LIMIT_S * 1e6)


async def ask_cluster(
    world: World, command: Command, *, runtime: Runtime, standing: RigStatus, answering: Collection[str]
) -> str:
    """The sentence of the node that has done it. `answering` are the nodes that answered a look just now. Raises as
    `Arena.request` does.
    """
    question = Question(path=command.path, arguments=command.arguments)
    arguments: Mapping[str, str | bool] = {command.subject.value: command.name, **command.arguments}
    absent = {name: "gives no answer" for name in world.nodes if name not in answering}
    asking = RequestRouter(question, order=who_to_ask(standing, command.path, answering), absent=absent)
    while True:
        node = asking.next()
        answered: Pending[RequestAnswered] = runtime.pending()
        await runtime.sleep(CALL_US)
        taken = world.administrator.ask(
            node, f"{command.subject}.{command.verb}", arguments, told=answered.set_result, redirections=0
        )
        if not taken:
            asking.unreachable(node, "takes no request")
            continue
        try:
            told = await runtime.within(REQUEST_LIMIT_US, result_of(answered))
        except DeadlinePassed as error:
            raise asking.unanswered(f"{node}: {error}") from error
        if asking.is_done(node, told.code.value, told.message, owner=str(told.result.get("owner", ""))):
            return told.message
