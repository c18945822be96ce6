"""Documents made to break their reader are refused in linear time, with file, line and expected form, printable."""

import contextlib
import itertools
import os
import string
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.cli.main import run_command
from chaos.experiment.loader import load_experiment, read_experiment
from chaos.experiment.tolerance import Matches
from chaos.search.schedule_file import read_schedule
from harness.document.refusals import MAX_SHOWN, Refusals, nearest, visible
from harness.document.text_file import read_text_file
from harness.document.topology import read_topology
from harness.document.yaml_source import Source, load
from harness.errors import UsageError

HEAD = "title: t\nrig: {nodes: 3, groups: 1}\nmethod: []\n"
PROBE = (
    "title: t\nrig: {nodes: 1, groups: 1}\nmethod:\n"
    "  - {type: probe, name: p, provider: {type: cluster, probe: %s}, tolerance: %s}\n"
)
OWNER = PROBE % ("owner-of, group: web1", "{type: regex, pattern: '%s'}")
GROUP = "title: t\nmethod: []\nrig: {nodes: 1, groups: [{name: a, %s}]}\n"
VM = GROUP % "resources: [{name: b, type: virtual-machine, %s}]"


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        read_experiment(text, name="file.yaml")
    return str(caught.value)


def only_refusal(text: str) -> str:
    (line,) = refusal(text).split("\n")
    assert line.isprintable()
    return line


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (HEAD + "version: !!bool x\n", 4, "no plain value of the kind bool, expected true or false"),
        (HEAD + "version: !!null x\n", 4, "no plain value of the kind null, expected null"),
        (HEAD + "version: !!int 1:30\n", 4, "no plain value of the kind int, expected a finite number"),
        (HEAD + "version: !!float 0x1f\n", 4, "no plain value of the kind float, expected a finite number"),
        (HEAD + "version: !!str [a]\n", 4, "not well-formed YAML"),
        (HEAD + "description: 0x" + "f" * 3600, 4, "no plain value of the kind int, expected a finite number"),
        ("title: t\nrig: {nodes: 0x" + "f" * 3600 + "}\nmethod: []\n", 2, "expected a finite number"),
        (PROBE % ("nodes-up", "{type: range, range: [0, 1" + "0" * 309 + "]}"), 4, "expected a finite number"),
        (HEAD + "description: 1e400\n", 4, "no plain value of the kind float, expected a finite number"),
        (HEAD + "contributions: {a: .nan}\n", 4, "no plain value of the kind float, expected a finite number"),
        (HEAD + "contributions: {a: -.inf}\n", 4, "no plain value of the kind float, expected a finite number"),
        (HEAD + "\n\nversion: 0x_\n", 6, "no plain value of the kind int, expected a finite number"),
        (HEAD + '\n\nversion: "\\U0FFFFFFF"\n', 6, "expected characters and numbers that exist"),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1\n", 1, "not well-formed YAML"),
        (HEAD + 'version: "\\ud800"\n', 4, "half of a surrogate pair in '\\ud800', expected whole characters"),
        (HEAD + '"\\ud800": 1\n', 4, "half of a surrogate pair"),
        (HEAD + 'version: "\\0"\n', 4, "the character \\0"),
        (HEAD.replace("title: t", 'title: "\\e[2J\\e]0;owned\\a"'), 1, "title is '\\x1b[2J"),
        (HEAD.replace("title: t", 'title: "t\\nblackstart: forged"'), 1, "text of one line"),
        (HEAD.replace("title: t", 'title: "\\u202etxt"'), 1, "text of one line"),
        (HEAD + "description: [a]\n", 4, "description is ['a'], expected text"),
        (HEAD + "a" * 300 + ": 1\n", 4, "a key of 300 characters, expected a key of at most 256"),
        (HEAD + "version: " + "a" * 70_000 + "\n", 4, "a text of 70,000 characters"),
        (HEAD + "<<: {}\n<<: {}\n", 5, "the key '<<' stands here again"),
        (HEAD + "version: " + "[" * 100 + "]" * 100, 4, "more than 40 lists and mappings inside one another"),
        (VM % ("depends-on: '[" + " " * 60_000 + "x'"), 3, "60,002 characters, at most 4,096 are read"),
        (VM % ("command: '" + "a" * 5000 + "'"), 3, "expected one line of at most 4096, or a list"),
        (VM % ("volumes: ['v:/" + "a/" * 150 + "a']"), 3, "a path of at most 200"),
        (VM % "image: ../containers/other", 3, "expected an image reference"),
        (GROUP % f'resources: [{{name: b, type: ip-address, address: "{"9" * 4301}"}}]', 3, "is no address"),
        (GROUP % "resources: [{name: b, type: ip-address, address: [a]}]", 3, "address is ['a'], expected an address"),
        (OWNER % ("(" * 1200), 4, "it has 1,200 characters, at most 1,000 are taken"),
        (OWNER % ("(" * 900), 4, "is no regular expression of RE2: missing )"),
        (OWNER % "a(?=b)", 4, "is no regular expression of RE2: invalid perl operator"),
        (OWNER % "a{9999999999}", 4, "is no regular expression of RE2: a repetition of more than 1,000 times"),
        (OWNER % "a{1,9999999999}", 4, "is no regular expression of RE2: a repetition of more than 1,000 times"),
        (OWNER % "(a{1000}){1000}", 4, "is no regular expression of RE2: invalid repetition size"),
        (PROBE % ("owner-of, group: [a]", "a"), 4, "group is ['a']"),
        (PROBE % ("nodes-up", '{type: range, range: [0, 1], "k\\nfile.yaml:1: forged": 1}'), 4, "'k\\nfile"),
    ],
)
def test_hostile_document_is_refused_with_its_line(text: str, line: int, what: str) -> None:
    found = only_refusal(text)

    assert found.startswith(f"file.yaml:{line}: ")
    assert what in found


def test_aliases_that_nest_are_counted_expanded() -> None:
    """Each alias is two levels deep in the text, and all of them together too deep for a reader of the data."""
    chain = "a0: &a0 []\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60))

    assert "more than 40 lists and mappings inside one another when its aliases" in only_refusal(chain)


def test_aliases_of_long_texts_are_counted_expanded() -> None:
    text = f"a: &a {'x' * 60_000}\nb: [{', '.join(['*a'] * 200)}]\n"

    assert "more than 8,388,608 characters when its aliases are expanded" in only_refusal(text)


def test_surrogate_pairs_of_json_become_characters() -> None:
    source = load('{"a": "\\ud83d\\ude00", "\\ud83d\\ude00": 1}', name="f")

    assert source.data == {"a": "\U0001f600", "\U0001f600": 1}
    assert source.line_of(("\U0001f600",)) == 1


def test_equals_sign_is_text() -> None:
    assert load("a: =\n", name="f").data == {"a": "="}


def test_chain_of_a_thousand_dependencies_is_read() -> None:
    chain = ", ".join(f"{{name: v{i}, type: virtual-machine, depends-on: [v{i + 1}]}}" for i in range(1000))
    text = GROUP % f"resources: [{chain}, {{name: v1000, type: virtual-machine}}]"

    assert len(read_experiment(text, name="file.yaml").topology.groups[0].resources) == 1001


def test_circle_of_a_thousand_dependencies_is_refused_in_short() -> None:
    chain = ", ".join(f"{{name: v{i}, type: virtual-machine, depends-on: [v{(i + 1) % 1000}]}}" for i in range(1000))

    found = only_refusal(GROUP % f"resources: [{chain}]")

    assert "depends-on runs in a circle: v0 -> v1 -> v2" in found
    assert len(found) < 800


@pytest.mark.long
def test_more_vms_than_users_are_refused() -> None:
    names = ("".join(letters) for n in (2, 3, 4) for letters in itertools.product(string.ascii_lowercase, repeat=n))
    vms = ",".join(f"{{<<: *m,name: {name}}}" for name in itertools.islice(names, 50_003))
    text = f"m: &m {{type: virtual-machine}}\n{GROUP % f'resources: [{vms}]'}"

    assert "the rig has no user left for this VM, expected at most 50,000 VMs" in refusal(text)


def test_a_thousand_refusals_are_summed_up() -> None:
    lines = refusal(HEAD + "".join(f"k{number}:\n" for number in range(1000))).split("\n")

    assert len(lines) == MAX_SHOWN + 1
    assert lines[0] == "file.yaml:4: an experiment has no key 'k0', expected one of " + lines[0].partition("one of ")[2]
    assert lines[-1] == "file.yaml:24: 980 further refusals from this line on, expected a file without those above"


def test_refusals_stand_in_the_order_of_the_file_once_each() -> None:
    refusals = Refusals("f")
    for line, what in ((3, "c"), (1, "a"), (3, "c"), (2, "b")):
        refusals.add(line, what, "d")

    assert refusals.lines() == ["f:1: a, expected d", "f:2: b, expected d", "f:3: c, expected d"]


def test_refusal_is_one_printable_line_whatever_it_quotes() -> None:
    refusals = Refusals("a\nb")
    refusals.add(1, "\x1b[2J\n\ud800\u202e", "x" * 5000)

    (line,) = refusals.lines()

    assert line.isprintable()
    assert line.startswith("a\\nb:1: \\x1b[2J\\n\\ud800\\u202e, expected xxx")
    assert line.endswith("... (4,400 more characters)")


def test_visible_text_is_left_alone() -> None:
    assert visible("Grüße, 你好 \U0001f600") == "Grüße, 你好 \U0001f600"


def test_nearest_lists_twenty_of_many_names() -> None:
    text = str(nearest("\U0001f600", [f"vm-{number:04}" for number in range(8000)]))

    assert text.endswith("vm-0019 (7,980 more)")


def owners(count: int) -> str:
    names = ", ".join(["node1"] * count)
    return GROUP % f"preferred-owners: [{names}], resources: [{{name: b, type: virtual-machine}}]"


def unknown_keys(count: int) -> str:
    return HEAD + "".join(f"k{number}:\n" for number in range(count))


def volumes(count: int) -> str:
    return VM % ("volumes: [" + ",".join(f"'v{number}:/v{number}'" for number in range(count)) + "]")


def node_names(count: int) -> str:
    return f"title: t\nmethod: []\nrig: {{groups: 1, nodes: [{', '.join(f'n{number}' for number in range(count))}]}}\n"


def wrong_dependencies(count: int) -> str:
    vms = ", ".join(f"{{name: v{i}, type: virtual-machine, depends-on: [w{i}]}}" for i in range(count))
    return GROUP % f"resources: [{vms}]"


def chained(count: int) -> str:
    vms = ", ".join(f"{{name: v{i}, type: virtual-machine, depends-on: [v{i + 1}]}}" for i in range(count))
    return GROUP % f"resources: [{vms}, {{name: v{count}, type: virtual-machine}}]"


def cpu_s(read: Callable[[], object]) -> float:
    began = time.process_time()
    with contextlib.suppress(UsageError):
        read()
    return time.process_time() - began


@pytest.mark.parametrize("document", [owners, unknown_keys, volumes, node_names, wrong_dependencies, chained])
def test_readers_take_time_linear_in_the_document(
    document: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight times the document: eight times the work of the readers if they are linear, 64 times if they are not. The
    least of three measures; the YAML parser itself is not measured.
    """

    def measured(source: Source) -> float:
        monkeypatch.setattr("chaos.experiment.document_reader.load", lambda _text, **_: source)
        return min(cpu_s(lambda: read_experiment("", name="file.yaml")) for _ in range(3))

    counts = (2000, 16_000) if document is owners else (400, 3200)
    small, large = (measured(load(document(count), name="file.yaml")) for count in counts)

    assert large < 30 * max(small, 0.000_5)


def test_targets_of_a_schedule_are_computed_once_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    from chaos.search import schedule_file

    asked = []
    original = schedule_file.targets_of
    monkeypatch.setattr(schedule_file, "targets_of", lambda kind, rig: asked.append(kind) or original(kind, rig))
    faults = ", ".join("{at: 9s, fault: node.reset, target: node1, duration: 1s}" for _ in range(50))

    read_schedule(f"schedule: 1\nseed: 3\nrig: {{nodes: 3}}\nfaults: [{faults}]\n", name="f")

    assert len(asked) == 1


def test_pattern_of_exponential_time_is_answered_at_once() -> None:
    began = time.process_time()

    assert not Matches(pattern="(a|a)*b").holds("a" * 100_000)
    assert Matches(pattern="(a|a)*b").holds("a" * 100_000 + "b")
    assert time.process_time() - began < 5


def test_pattern_meets_text_that_does_not_exist() -> None:
    assert not Matches(pattern="^a$").holds("\ud800")


def test_pattern_with_a_warning_of_python_is_taken_without_one(recwarn: pytest.WarningsRecorder) -> None:
    assert read_experiment(OWNER % "[[a]--b]", name="f").method
    assert not recwarn.list


@pytest.mark.parametrize("command", ["validate", "run", "replay", "shrink", "report"])
@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
def test_only_regular_files_are_read(
    command: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of these would keep a reader for ever."""
    place = {"pipe": tmp_path / "pipe.yaml", "device": Path("/dev/zero"), "directory": tmp_path}[kind]
    if kind == "pipe":
        os.mkfifo(place)

    assert run_command([command, str(place)]) == 2
    assert f"{place}: a {kind}, expected a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["compose", "--topology"], ["search", "--runs", "1", "--topology"]])
def test_topology_is_read_from_regular_files_only(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")

    assert run_command([*arguments, str(tmp_path / "pipe.yaml")]) == 2
    assert "a pipe, expected a regular file with a rig" in capsys.readouterr().err


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(b"title: t\nrig: \xff\n")

    with pytest.raises(UsageError, match=r"file\.yaml:2: the byte 0xff is not UTF-8, expected an experiment"):
        load_experiment(file)


def test_newline_in_a_file_name_begins_no_other_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["validate", str(tmp_path / "a\nforged: b")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a\\nforged: b" in line


def test_file_that_is_too_large_is_refused_with_a_line(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("a\n" * 50)

    with pytest.raises(UsageError, match=r"file\.yaml:6: more than 10 bytes down to this line, expected a rig"):
        read_text_file(file, max_bytes=10, expected="a rig")
    assert read_text_file(file, max_bytes=100, expected="a rig") == "a\n" * 50


def test_refusals_of_a_topology_are_printable_lines() -> None:
    source = load("nodes: 3\ngroups: [{name: a, possible-owners: ['x\\n'], resources: []}]\n", name="rig.yaml")

    with pytest.raises(UsageError) as caught:
        read_topology(source)
    assert all(line.isprintable() and line.startswith("rig.yaml:2: ") for line in str(caught.value).split("\n"))
