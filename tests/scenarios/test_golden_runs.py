"""Golden runs, one for each named rule and failure: a folder has what befalls the rig, what must hold, and the log.

After a change that is meant to tell another story: `pytest tests/scenarios --write-logs`, and read the diff.
"""

import difflib
from pathlib import Path

import pytest
from scenario import play, read_scenario
from switched_off import SWITCHED_OFF

from harness.errors import UsageError

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/scenario.yaml"))

@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_scenario(folder: Path, request: pytest.FixtureRequest) -> None:
    told = play(read_scenario(folder / "scenario.yaml"))

    assert told.broken == ()
    expected = folder / "expected.log"
    if request.config.getoption("--write-logs", default=False):
        expected.write_text(told.log, encoding="utf-8")
    before, now = expected.read_text(encoding="utf-8").splitlines(), told.log.splitlines()
    diff = "\n".join(difflib.unified_diff(before, now, "expected.log", "now", lineterm=""))
    assert not diff, f"another story is told:\n{diff}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_scenario_fails_when_its_rule_is_switched_off(folder: Path) -> None:
    scenario = read_scenario(folder / "scenario.yaml")

    assert play(scenario, SWITCHED_OFF[folder.name]()).broken != ()


def test_every_scenario_says_what_it_is_about() -> None:
    for folder in FOLDERS:
        title = read_scenario(folder / "scenario.yaml").title
        assert (folder / "README.md").read_text(encoding="utf-8").startswith(f"# {title}\n"), folder.name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("node.isolate -> node.insulate", "scenario.yaml:19: nobody can do 'node.insulate', expected node.isolate"),
        ("node: node1} -> nod: node1}", "scenario.yaml:19: a step has no node"),
        ("at: 6s -> at: 6h", "scenario.yaml:19: at is 6h, expected a duration from 0s to 24s"),
        ("vm: web1-vm -> machin: web1-vm", "scenario.yaml:24: an expectation about nothing"),
    ],
)
def test_a_wrong_scenario_is_refused_with_its_line(change: str, told: str, tmp_path: Path) -> None:
    text = (Path(__file__).parent / "single-node-network-loss" / "scenario.yaml").read_text(encoding="utf-8")
    before, _, after = change.partition(" -> ")
    assert before in text
    file = tmp_path / "scenario.yaml"
    file.write_text(text.replace(before, after, 1))

    with pytest.raises(UsageError) as refused:
        read_scenario(file)
    assert told in str(refused.value)
