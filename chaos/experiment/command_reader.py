"""The reader of one command: its action, whom it is about, and its arguments.

A part of `activity_reader`, as `fault_reader` is.
"""

from chaos.arena.port import Subject
from chaos.experiment.records import CommandCall
from chaos.experiment.schema import COMMANDS, CommandArgument
from chaos.experiment.target_reader import TargetReader
from chaos.experiment.targets import Target
from chaos.faults.kinds import TargetKind
from harness.document.mapping_reader import MappingReader
from harness.document.refusals import nearest, shown
from harness.model.records import ResumeFailback
from harness.model.topology import Topology

__all__ = ["CommandReader"]


class CommandReader:
    """Reads the commands of one document."""

    def __init__(self, targets: TargetReader, *, topology: Topology | None) -> None:
        """`topology` is None when it was refused: then names are taken as they are."""
        self._targets = targets
        groups = topology.groups if topology else ()
        self._names = {
            Subject.GROUP: {group.name for group in groups},
            Subject.RESOURCE: {resource.name for group in groups for resource in group.resources},
        }

    def read(self, provider: MappingReader) -> CommandCall | None:
        """The command, or None when it cannot be made sense of; everything wrong with it has been refused."""
        action = provider.raw("action")
        provider.demand("action", f"one of {', '.join(sorted(COMMANDS))}", "action" in provider)
        form = COMMANDS.get(action) if isinstance(action, str) else None
        if form is None:
            if "action" in provider:
                provider.refuse("action", f"there is no action {shown(action)}", nearest(action, COMMANDS))
            return None
        provider.demand(form.subject.value, f"the {form.subject} that it is about", form.subject.value in provider)
        name = self._read_subject(provider, form.subject) if form.subject.value in provider else None
        arguments: dict[str, str | bool | Target] = {}
        for key, (api_name, kind) in form.arguments.items():
            provider.known(key)
            value = self._read_argument(provider, key, kind) if key in provider else None
            if value is not None:
                arguments[api_name] = value
        provider.finish()
        if name is None:
            return None
        return CommandCall(subject=form.subject, name=name, verb=form.verb, arguments=arguments)

    def _read_subject(self, provider: MappingReader, subject: Subject) -> str | Target | None:
        if subject is Subject.NODE:
            return self._read_node(provider, subject.value)
        return self._targets.name_in(provider, subject.value, self._names[subject], what=subject.value)

    def _read_node(self, provider: MappingReader, key: str) -> Target | None:
        return self._targets.read(provider, key, TargetKind.NODE, what="the command", several=False)

    def _read_argument(self, provider: MappingReader, key: str, kind: CommandArgument) -> str | bool | Target | None:
        match kind:
            case CommandArgument.NODE:
                return self._read_node(provider, key)
            case CommandArgument.YES_OR_NO:
                return provider.boolean(key, False)
            case CommandArgument.FAILBACK:
                value = provider.raw(key)
                if value not in [word.value for word in ResumeFailback]:
                    provider.refuse(key, f"{key} is {shown(value)}", kind.value)
                    return None
                return str(value)
