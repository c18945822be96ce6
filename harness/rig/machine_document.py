"""What a person writes about one machine of a rig, as the properties that its driver reads.

    image         any that the engine has; by default the guest's
    command       words for the image's entry point, a list or one line split as a shell splits it: a JSON list
    environment   a JSON object; everybody who may ask the engine can read it
    memory        128MiB, without swap: bytes
    processors    1, as a number with at most two decimals: thousandths of a processor
    processes     64, threads counted

What is left out is left to the driver, which has the same defaults.
"""

import json
import re
import shlex
from collections.abc import Sequence

from harness.rig.section import Section
from harness.rig.yaml_source import shown

__all__ = ["GUEST_IMAGE", "read_machine"]

GUEST_IMAGE = "blackstart/guest"

_MEMORY = re.compile(r"(?P<number>[0-9]{1,6})\s?(?P<unit>Ki|Mi|Gi)B?")
_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_MEMORY_LEAST = 16 << 20
_PROCESSORS_MOST = 64
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_machine(section: Section) -> dict[str, str]:
    """The properties. Refusals go to the section: what is returned counts only if there are none."""
    properties = {"image": section.text("image", GUEST_IMAGE)}
    if "address" in section:
        section.raw("address")
        section.refuse("address", "a virtual-machine has no address of its own", "an ip-address that it depends on")
    command = _words(section, "command")
    if command:
        properties["command"] = json.dumps(command)
    environment = _environment(section)
    if environment:
        properties["environment"] = json.dumps(environment, sort_keys=True)
    if "memory" in section:
        properties["memory"] = str(_memory_bytes(section))
    if "processors" in section:
        properties["processors"] = str(_processors_milli(section))
    if "processes" in section:
        properties["processes"] = str(section.integer("processes", 64, low=1, high=10_000))
    return properties


def _words(section: Section, key: str) -> list[str]:
    """A list of words, or one line split as a shell splits it."""
    value = section.raw(key, [])
    words: Sequence[str] = ()
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError as error:
            section.refuse(key, f"{key}: {error}", "words with their quotes closed")
    else:
        words = section.texts(key, what="words (numbers in quotes)")
    return list(words)


def _environment(section: Section) -> dict[str, str]:
    variables: dict[str, str] = {}
    environment = section.section("environment", what="an environment")
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name) or name.startswith("BLACKSTART_"):
            environment.refuse(name, f"the variable {name!r}", "a name of letters, digits and _, not from BLACKSTART_")
        elif isinstance(value, bool) or not isinstance(value, str | int | float):
            environment.refuse(name, f"{name} is {shown(value)}", "text (in quotes) or a number")
        else:
            variables[name] = str(value)
    return variables


def _memory_bytes(section: Section) -> int:
    value = section.raw("memory")
    match = _MEMORY.fullmatch(value.strip()) if isinstance(value, str) else None
    size = int(match["number"]) * _UNITS[match["unit"]] if match else 0
    if size < _MEMORY_LEAST:
        section.refuse("memory", f"memory is {shown(value)}", "a size of at least 16MiB, such as 128MiB or 1GiB")
    return size


def _processors_milli(section: Section) -> int:
    """The engine takes hundredths."""
    value = section.raw("processors")
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
    if 0.01 <= number <= _PROCESSORS_MOST and number == round(number, 2):
        return round(number * 1000)
    section.refuse(
        "processors", f"processors is {shown(value)}", f"a number from 0.01 to {_PROCESSORS_MOST}, such as 0.5 or 2"
    )
    return 1000
