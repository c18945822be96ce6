"""Documents keep their line numbers, and what two readers could understand differently is refused."""

import pytest

from harness.document import yaml_source
from harness.document.topology import read_topology
from harness.document.yaml_source import MAX_CHARACTERS, load, nearest, shown
from harness.errors import UsageError


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(text, name="rig.yaml")
    return str(caught.value)


def test_line_of_finds_keys_items_and_values_inside_flow_lists() -> None:
    source = load("nodes: 3\ngroups:\n  - name: web\n    resources:\n      - {name: ip,\n         type: x}\n", name="f")

    assert source.line_of(("nodes",)) == 1
    assert source.line_of(("groups", 0)) == 3
    assert source.line_of(("groups", 0, "resources")) == 4
    assert source.line_of(("groups", 0, "resources", 0, "type")) == 6


def test_line_of_a_path_that_leaves_the_document_is_that_of_its_last_real_part() -> None:
    source = load("a:\n  b: 1\n", name="f")

    assert source.line_of(("a", "missing", 3)) == 1
    assert source.line_of(("a", "b", "deeper")) == 2


def test_merged_keys_are_found_where_they_were_written() -> None:
    source = load("x: &x\n  beat: 1s\ny:\n  <<: *x\n  lease: 2s\n", name="f")

    assert source.data["y"] == {"beat": "1s", "lease": "2s"}
    assert source.line_of(("y", "beat")) == 2


def test_empty_document_has_no_data() -> None:
    source = load("# nothing\n", name="f")

    assert source.data is None
    assert source.line_of(("a",)) == 1


def test_every_duplicate_key_is_refused_with_both_lines() -> None:
    text = refusal("a: 1\nb: {c: 1, c: 2}\na: 2\n")

    assert text.splitlines() == [
        "rig.yaml:2: the key 'c' stands here again, first on line 2, expected each key once",
        "rig.yaml:3: the key 'a' stands here again, first on line 1, expected each key once",
    ]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: !!python/object:os.system {}\n", 1, "tag"),
        ("a: 1\non: 2\n", 2, "the key 'on' is not text"),
        ("a: [1\nb: 2\n", 2, "not well-formed"),
        ("ok: 1\n\tb: 2\n", 2, "not well-formed"),
        ("---\na: 1\n---\nb: 2\n", 3, "not well-formed"),
        ("a: 1\nb: \x00\n", 2, "does not allow"),
        ("a: &a [*a]\n", 1, "contains itself"),
        ("[" * 5000, 1, "more than 40 lists and mappings inside one another"),
        ("a: !!int word\n", 1, "'word' is no plain value of the kind int"),
    ],
)
def test_what_is_no_plain_document_is_refused_with_its_line(text: str, line: int, what: str) -> None:
    found = refusal(text)

    assert found.startswith(f"rig.yaml:{line}: ")
    assert what in found


def test_alias_bomb_is_refused_before_anybody_expands_it() -> None:
    lines = ["a0: &a0 [1]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]

    assert "more than 250,000 values when its aliases are expanded" in refusal("\n".join(lines))


def test_too_many_values_are_refused_before_what_follows_them_is_looked_at() -> None:
    text = "groups:\n" + "- {}\n" * 300_000 + "]\n"

    assert refusal(text) == (
        "rig.yaml:250000: more than 250,000 values down to this line, expected at most 250,000 in a document"
    )


def test_a_large_document_that_is_not_well_formed_is_refused_as_a_small_one() -> None:
    broken = "a: [1\nb: 2\n"

    assert refusal(broken + "# and more\n" * 50_000) == refusal(broken)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a: 1\nb: [2, {c: 3, d: [4]}]\ne: {f: {}, g: []}\n", 11),
        ("- [{a: b}, {c: [d, {e: f}]}]\n- {g: &x {h: i}}\n", 12),
    ],
)
def test_a_document_with_as_many_values_as_there_may_be_is_read(
    text: str, values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_source, "MAX_VALUES", values)
    assert load(text, name="rig.yaml").data is not None

    monkeypatch.setattr(yaml_source, "MAX_VALUES", values - 1)
    assert f"more than {values - 1} values down to this line" in refusal(text)


def test_a_document_of_too_many_characters_is_refused_unread() -> None:
    text = "a: [" + "#" * MAX_CHARACTERS

    assert refusal(text) == (
        "rig.yaml:1: more than 8,388,608 characters down to this line, expected at most 8,388,608 in a document"
    )


@pytest.mark.long
def test_a_rig_of_64_nodes_and_8000_vms_is_read() -> None:
    group = """
  - name: customer-{0:05}
    preferred-owners: [node{1}, node{2}]
    resources:
      - {{name: customer-{0:05}-vm, type: virtual-machine, is-alive-interval: 1s, restart-threshold: 3, memory: 64MiB}}
"""
    groups = (group.format(number, number % 64 + 1, (number + 7) % 64 + 1) for number in range(8000))

    topology = read_topology(load("nodes: 64\ngroups:" + "".join(groups), name="rig.yaml"))

    assert len(topology.groups) == 8000


def test_times_dates_and_exponents_mean_what_json_would_mean() -> None:
    source = load("a: 12:30\nb: 2026-01-31\nc: 1e3\nd: yes\ne: '1'\nf: 0x1f\ng: -0.5\n", name="f")

    assert source.data == {"a": "12:30", "b": "2026-01-31", "c": 1000.0, "d": True, "e": "1", "f": 31, "g": -0.5}


def test_json_indented_by_tabs_is_read() -> None:
    source = load('{\n\t"a": [\n\t\t"x\\ty"\n\t]\n}\n', name="f")

    assert source.data == {"a": ["x\ty"]}


def test_nearest_names_the_likely_word_or_all_of_them() -> None:
    assert str(nearest("nodez", ["nodes", "groups"])) == "nodes (did you mean that?)"
    assert str(nearest("x", ["nodes", "groups", ""])) == "one of groups, nodes"


def test_shown_speaks_yaml_and_is_short() -> None:
    assert (shown(True), shown(None), shown("a")) == ("true", "null", "'a'")
    assert len(shown("x" * 500)) == 60
