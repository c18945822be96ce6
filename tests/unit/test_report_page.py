"""The HTML page: it says what the journal says, lets nothing in, and runs nothing that came from a journal."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import Recorded, at, fault, large_run, line, power_cut, step, vm_event

from chaos.history.records import FaultMoment, Stall
from chaos.report.event_list import read_happenings
from chaos.report.page import render_page
from chaos.report.run_record import RunRecord, read_journal

HOSTILE = (
    "</title></script><script>alert(1)</script><img src=x onerror=\"alert(2)\">'\"--></style>&lt;"
    "\u202e\x00\ud800{{ 7*7 }}"
)


class Page(HTMLParser):
    """A page taken apart: its tags with their attributes, and the text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"style": [], "script": []}
        self.words: list[str] = []
        self._in = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag if tag in self.raw else self._in

    def handle_endtag(self, tag: str) -> None:
        self._in = "" if tag == self._in else self._in

    def handle_data(self, data: str) -> None:
        (self.raw[self._in] if self._in else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


def record(recorded: Recorded, directory: Path) -> RunRecord:
    return read_journal(recorded.write(directory))


def page(recorded: Recorded, directory: Path) -> Page:
    return Page(render_page([record(recorded, directory)]))


def test_the_page_has_every_part_of_the_run_in_words(tmp_path: Path) -> None:
    checkers = [{"checker": "recovery", "ruling": "holds", "reasons": [], "notes": ["web-vm after 2.9 s"]}]

    arena = {"engine": "20.10", "images": {"a:b": "sha256:1"}}
    text = page(Recorded(power_cut(), checkers=checkers, arena=arena), tmp_path)

    for said in (
        "A test passed exit code 0",
        "node1 off 2.200 4.200",
        "node1 fenced 4.200 6.000",
        "node1 up 7.000 to the end",
        "web-vm node1 1.000 2.100 die",
        "web-vm node2 4.600 to the end",
        "web node1 1 0.800 4.300",
        "web node2 2 4.300 to the end",
        "1 node.power-off node1 2.000 confirmed node1 died after 200 ms (on it: web-vm) 6.100 by node.power-on",
        "web-vm 1 node.power-off node1 node1 node2 2.000 2.300 2.600 2.900",
        "recovery holds web-vm after 2.9 s",
        "1 all online cluster groups-online succeeded true true - 1.500 0.100",
        "cluster-service: group-claimed",
        "engine 20.10",
        "image a:b sha256:1",
        "some/test.yaml",
    ):
        assert said in text.text


def test_what_nobody_wants_and_every_state_of_a_node_is_told_in_words(tmp_path: Path) -> None:
    stopped = line(5, "node2", "persistent-state", group="web", resource="web-vm", wanted=False)

    text = page(Recorded([*power_cut(), stopped]), tmp_path).text

    assert "What nobody wanted to run (PersistentState 0) resource from until web-vm 5.000 to the end" in text


def test_verdict_and_exit_code_come_right_after_the_title(tmp_path: Path) -> None:
    findings = [
        {"kind": "inconclusive", "reason": "nobody can tell"},
        {"kind": "broken", "reason": "web-vm ran twice"},
    ]
    text = page(Recorded(power_cut(), exit_code=1, findings=findings), tmp_path).text

    body = text[text.index("A test", text.index("A test") + 1) :]
    assert body.startswith(
        "A test an expectation or an invariant broke exit code 1 broken web-vm ran twice inconclusive nobody can tell"
    )


def hostile(directory: Path) -> str:
    recorded = Recorded(
        [
            *power_cut(),
            line(3, HOSTILE, HOSTILE, HOSTILE, resource=HOSTILE),
            vm_event(3, "start", HOSTILE, HOSTILE, group=HOSTILE),
            fault(3, FaultMoment.INJECTED, number=7, target=HOSTILE, affected=(HOSTILE,)),
            step(3, 4, HOSTILE, "failed", output=HOSTILE, reason=HOSTILE, what=HOSTILE, expected=HOSTILE),
        ],
        title=HOSTILE,
        exit_code=1,
        nodes=("node1", HOSTILE),
        vms={HOSTILE: (HOSTILE,)},
        findings=[{"kind": "broken", "reason": HOSTILE}],
        checkers=[{"checker": HOSTILE, "ruling": "broken", "reasons": [HOSTILE], "notes": [HOSTILE]}],
        experiment={"description": HOSTILE, "method": [{"name": HOSTILE}, HOSTILE], HOSTILE: HOSTILE},
        arena={HOSTILE: HOSTILE, "images": {HOSTILE: [HOSTILE]}},
    )
    return render_page([record(recorded, directory)], not_started=[HOSTILE], problem=HOSTILE)


def test_nothing_that_comes_from_a_journal_is_ever_markup(tmp_path: Path) -> None:
    text = hostile(tmp_path)

    found = Page(text)
    assert (found.count("script"), found.count("img"), found.count("style")) == (1, 0, 1)
    assert "alert" not in "".join(found.raw["script"])
    assert [name for _, attributes in found.tags for name in attributes if name.startswith("on")] == []
    assert "alert(1)" in found.text, "it is shown as what it is"
    assert "{{ 7*7 }}" in found.text
    assert "\u202e" not in text
    assert "\x00" not in text
    assert len(text.encode("utf-8")) > 0


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else(tmp_path: Path) -> None:
    found = Page(hostile(tmp_path))

    policies = [
        attributes["content"] or ""
        for tag, attributes in found.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    digests = {
        tag: base64.b64encode(hashlib.sha256("".join(found.raw[tag]).encode()).digest()).decode()
        for tag in ("style", "script")
    }
    assert policies == [
        f"default-src 'none'; style-src 'sha256-{digests['style']}'; script-src 'sha256-{digests['script']}'; "
        "base-uri 'none'; form-action 'none'"
    ]
    assert found.attributes("style") == [], "the policy would drop it"


def test_the_page_asks_for_no_other_file(tmp_path: Path) -> None:
    found = page(Recorded(power_cut()), tmp_path)

    assert found.attributes("src") == []
    assert [target for target in found.attributes("href") if not target.startswith("#")] == []
    assert found.count("link") == 0
    assert re.findall(r"url\((?!#)|@import|https?:", "".join(found.raw["style"] + found.raw["script"])) == []


def test_ids_are_unique_and_every_reference_has_its_target(tmp_path: Path) -> None:
    run = record(Recorded(power_cut()), tmp_path)

    found = Page(render_page([run, run]))

    ids = found.attributes("id")
    assert len(ids) == len(set(ids))
    named = [name for value in found.attributes("aria-labelledby") for name in value.split()]
    assert set(named) | set(found.attributes("for")) <= set(ids)
    assert {target[1:] for target in found.attributes("href")} <= set(ids)


def test_tables_have_headers_and_pictures_have_words(tmp_path: Path) -> None:
    found = page(Recorded(power_cut()), tmp_path)

    assert found.count("table") > 5
    assert all("scope" in attributes for tag, attributes in found.tags if tag == "th")
    pictures = [attributes for tag, attributes in found.tags if tag == "svg" and attributes.get("role") == "img"]
    assert pictures
    assert all("aria-label" in attributes or "aria-labelledby" in attributes for attributes in pictures)


def test_several_experiments_share_a_page_and_those_that_never_began_are_named(tmp_path: Path) -> None:
    run = record(Recorded(power_cut()), tmp_path)

    text = Page(render_page([run, run], not_started=["third.yaml"])).text

    assert "3 experiments" in text
    assert "(not started) the run ended before it - third.yaml" in text


def test_what_an_experiment_gives_its_vms_as_environment_is_not_shown(tmp_path: Path) -> None:
    experiment = {"rig": {"groups": [{"resources": [{"name": "db", "environment": {"PASSWORD": "geheim"}}]}]}}

    text = page(Recorded(power_cut(), experiment=experiment), tmp_path).text

    assert "geheim" not in text
    assert '"environment": "(not shown)"' in text


def test_stalls_of_the_host_are_told_at_the_top(tmp_path: Path) -> None:
    text = page(Recorded([*power_cut(), Stall(at_ns=at(5), length_us=1_500_000)]), tmp_path).text

    assert "In this run the host was overloaded: the runner stood still for 1.5 s." in text


def test_a_huge_run_is_cut_by_what_says_least_and_the_number_is_told(tmp_path: Path) -> None:
    run = record(large_run(), tmp_path)
    whole = read_happenings(run)

    some = read_happenings(run, limit=300)

    assert whole.left_out > 0 or whole.total == len(whole.shown)
    assert len(some.shown) == 300
    assert some.left_out == whole.total - 300
    assert not [entry for entry in some.shown if entry.name == "output"], "output of programs goes first"
    assert [entry for entry in some.shown if entry.source == "experiment"]
    assert [entry.at_ns for entry in some.shown] == sorted(entry.at_ns for entry in some.shown)


def test_a_page_of_nine_nodes_and_sixty_four_vms_stays_small_enough_to_open(tmp_path: Path) -> None:
    text = render_page([record(large_run(), tmp_path)])

    assert len(text) < 2_000_000
    assert Page(text).text.count("customer-64-vm") > 3


@pytest.mark.parametrize("records", [[], [step(1, 2, "alone")]])
def test_a_run_that_hardly_began_has_a_page_too(tmp_path: Path, records: list[Any]) -> None:
    findings = [{"kind": "harness failed", "reason": "up: no engine"}]
    recorded = Recorded(records, exit_code=4, findings=findings, length_s=0)

    text = page(recorded, tmp_path).text

    assert "the harness failed exit code 4 harness failed up: no engine" in text
    assert "No fault was injected" in text
