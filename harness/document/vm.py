"""What a person writes about one VM of a rig, as the properties that its driver reads.

    image         any that the engine has; by default the guest's
    command       words for the image's entry point, a list or one line split as a shell splits it: a JSON list
    environment   a JSON object; everybody who may ask the engine can read it
    memory        128MiB, without swap: bytes
    disk          64MiB, the size of /disk and of each of its volumes, which live in memory beside `memory`: bytes
    writable-root false: its image's files cannot be changed; true: they can, without limit on the engine's disk
    processors    1, as a number with at most two decimals: thousandths of a processor
    processes     64, threads counted
    user          a number from 10001 up; never root, see docs/security.md
    volumes       further disks of the VM, [NAME:/PATH]: a JSON object. They begin empty, and move with the VM
    readiness     {tcp: PORT}, {http: /PATH, port: PORT} or {command: WORDS}; interval, timeout, liveness: a `Readiness`
    answers-on    {tcp: PORT} or {http: /PATH, port: PORT}, for a client outside: an `Endpoint`

What is left out is left to the driver, which has the same defaults. A port may stand for {tcp: PORT}.
"""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from harness.document.image_reference import IMAGE_FORM, is_image_reference
from harness.document.mapping_reader import NAME_FORM, MappingReader, is_name
from harness.document.refusals import shown
from harness.model.disk import OWN_DISK
from harness.model.serialization import to_json_value
from harness.model.topology import SECOND_US
from harness.model.workload import GUEST_IMAGE, Endpoint, Readiness

__all__ = ["FIRST_USER", "LAST_USER", "read_vm"]

FIRST_USER, LAST_USER = 10_001, 60_000
"""Guests have uids from 10000 up, one each; 10000 is the image's own user, and 65534 is nobody's."""

_MIN_MEMORY, _MAX_MEMORY = 16 << 20, 1024 << 30
_MIN_DISK, _MAX_DISK = 1 << 20, 1024 << 30
_MAX_PROCESSORS = 64
_MAX_VOLUMES = 16
_MAX_VOLUME_PATH = 200
_MAX_COMMAND = 4096
_MAX_WORDS = 256
_VOLUME_FORM = "NAME:/PATH, a disk of the VM's own and where it sees it"
_TAKEN_PATHS = ("/disk", "/proc", "/sys", "/dev", "/tmp")
_PORT_FIRST, _PORT_LAST = 1024, 65_535
_PATH = re.compile(r"/[!-~]{0,200}")
_ENDPOINT_FORM = "{tcp: PORT} or {http: /PATH, port: PORT}"
_READINESS_FORM = f"{_ENDPOINT_FORM} or {{command: WORDS}}"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_vm(section: MappingReader) -> dict[str, str]:
    """The properties. Refusals go to the section: what is returned counts only if there are none."""
    properties = {"image": _image(section)}
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
    if "disk" in section:
        properties["disk"] = str(section.size_bytes("disk", 0, low=_MIN_DISK, high=_MAX_DISK))
    if section.boolean("writable-root", False):
        properties["writable-root"] = "true"
    if "processors" in section:
        properties["processors"] = str(_processors_milli(section))
    if "processes" in section:
        properties["processes"] = str(section.integer("processes", 64, low=1, high=10_000))
    if "user" in section:
        properties["user"] = str(_user(section))
    volumes = _volumes(section)
    if volumes:
        properties["volumes"] = json.dumps(volumes, sort_keys=True)
    if "readiness" in section:
        properties["readiness"] = json.dumps(to_json_value(_readiness(section)), sort_keys=True)
    if "answers-on" in section:
        endpoint = _answers_on(section)
        if endpoint is not None:
            properties["answers-on"] = str(endpoint)
    return properties


def _image(section: MappingReader) -> str:
    image = section.text("image", GUEST_IMAGE)
    if not is_image_reference(image):
        section.refuse("image", f"image is {shown(image)}", IMAGE_FORM)
    return image


def _user(section: MappingReader) -> int:
    value = section.raw("user")
    if isinstance(value, int) and not isinstance(value, bool) and FIRST_USER <= value <= LAST_USER:
        return value
    expected = f"a number from {FIRST_USER} to {LAST_USER}: a VM is never root, nor a user of its node"
    section.refuse("user", f"user is {shown(value)}", expected)
    return FIRST_USER


def _volumes(section: MappingReader) -> dict[str, str]:
    found: dict[str, str] = {}
    texts = section.texts("volumes", what=_VOLUME_FORM)
    if len(texts) > _MAX_VOLUMES:
        section.refuse("volumes", f"{len(texts):,} volumes", f"at most {_MAX_VOLUMES}")
    for index, text in enumerate(texts[:_MAX_VOLUMES]):
        name, _, path = text.partition(":")
        problem, expected = _problem_of_volume(name, path, found)
        if problem:
            section.refuse_item("volumes", index, f"the volume {shown(text)}: {problem}", expected)
        else:
            found[name] = path
    return found


def _problem_of_volume(name: str, path: str, found: dict[str, str]) -> tuple[str, str]:
    """What is wrong and what is expected, or two empty texts."""
    if name == "host" or not name or "/" in name:
        return "directories of the host are never given to a VM", _VOLUME_FORM
    if not is_name(name):
        return f"the name is {shown(name)}", NAME_FORM
    if name == OWN_DISK:
        return f"every VM has a {OWN_DISK} already, at /{OWN_DISK}", "another name"
    if name in found:
        return "the name stands twice", "names that differ"
    if len(path) > _MAX_VOLUME_PATH:
        return f"a path of {len(path):,} characters", f"a path of at most {_MAX_VOLUME_PATH}"
    plain = PurePosixPath(path)
    if not plain.is_absolute() or str(plain) != path or ".." in plain.parts or path in ("/", "//") or ":" in path:
        return f"the path is {shown(path)}", "a plain absolute path, such as /var/lib/data"
    taken = [other for other in (*_TAKEN_PATHS, *found.values()) if _overlap(plain, PurePosixPath(other))]
    if taken:
        return f"the path {path} is in the way of {taken[0]}", "paths beside each other"
    return "", ""


def _overlap(path: PurePosixPath, other: PurePosixPath) -> bool:
    return path == other or path in other.parents or other in path.parents


def _readiness(section: MappingReader) -> Readiness:
    default = Readiness()
    if isinstance(section.raw("readiness"), int):
        return Readiness(endpoint=str(_tcp(section, "readiness")))
    inner = section.section("readiness", what="a readiness check")
    endpoint = _endpoint(inner)
    command = _words(inner, "command")
    if (endpoint is None) == (not command):
        section.refuse("readiness", "readiness asks nothing, or two things", _READINESS_FORM)
    readiness = Readiness(
        endpoint=str(endpoint or ""),
        command=tuple(command),
        interval_us=inner.duration_us("interval", default.interval_us, low=50_000, high=60 * SECOND_US),
        # A poll has five seconds at least, and must hear of a check that takes too long.
        timeout_us=inner.duration_us("timeout", default.timeout_us, low=100_000, high=4 * SECOND_US),
        liveness=inner.boolean("liveness", default.liveness),
    )
    inner.finish()
    return readiness


def _answers_on(section: MappingReader) -> Endpoint | None:
    if isinstance(section.raw("answers-on"), int):
        return _tcp(section, "answers-on")
    inner = section.section("answers-on", what="what a VM answers on")
    endpoint = _endpoint(inner)
    inner.finish()
    if endpoint is None:
        section.refuse("answers-on", "answers-on says nothing", _ENDPOINT_FORM)
    return endpoint


def _endpoint(section: MappingReader) -> Endpoint | None:
    """None when it names neither."""
    path = section.raw("http")
    if "tcp" in section and "http" in section:
        section.refuse("http", "both tcp and http", _ENDPOINT_FORM)
    if "tcp" in section:
        return _tcp(section, "tcp")
    if "http" not in section:
        return None
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        section.refuse("http", f"http is {shown(path)}", "a path, such as /health")
        path = "/"
    section.demand("port", "the port that answers HTTP", "port" in section)
    return Endpoint(port=section.integer("port", 8080, low=_PORT_FIRST, high=_PORT_LAST), path=path)


def _tcp(section: MappingReader, key: str) -> Endpoint:
    """Ports below 1024 are the node's: no VM can listen there."""
    return Endpoint(port=section.integer(key, 8080, low=_PORT_FIRST, high=_PORT_LAST))


def _words(section: MappingReader, key: str) -> list[str]:
    """A list of words, or one line split as a shell splits it."""
    value = section.raw(key, [])
    words: Sequence[str] = ()
    if isinstance(value, str) and len(value) > _MAX_COMMAND:
        section.refuse(key, f"{key} has {len(value):,} characters", f"one line of at most {_MAX_COMMAND}, or a list")
    elif isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError as error:
            section.refuse(key, f"{key}: {error}", "words with their quotes closed")
    else:
        words = section.texts(key, what="words (numbers in quotes)")
    if len(words) > _MAX_WORDS:
        section.refuse(key, f"{key} has {len(words):,} words", f"at most {_MAX_WORDS}")
    return list(words)


def _environment(section: MappingReader) -> dict[str, str]:
    variables: dict[str, str] = {}
    environment = section.section("environment", what="an environment")
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name) or name.startswith("BLACKSTART_"):
            expected = "a name of letters, digits and _, not from BLACKSTART_"
            environment.refuse(name, f"the variable {shown(name)}", expected)
        elif isinstance(value, bool) or not isinstance(value, str | int | float):
            environment.refuse(name, f"{name} is {shown(value)}", "text (in quotes) or a number")
        else:
            variables[name] = str(value)
    return variables


def _memory_bytes(section: MappingReader) -> int:
    return section.size_bytes("memory", 0, low=_MIN_MEMORY, high=_MAX_MEMORY)


def _processors_milli(section: MappingReader) -> int:
    """The engine takes hundredths."""
    value = section.raw("processors")
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
    if 0.01 <= number <= _MAX_PROCESSORS and number == round(number, 2):
        return round(number * 1000)
    section.refuse(
        "processors", f"processors is {shown(value)}", f"a number from 0.01 to {_MAX_PROCESSORS}, such as 0.5 or 2"
    )
    return 1000
