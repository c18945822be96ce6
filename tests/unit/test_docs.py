"""The pages that are written from the code say what the code says."""

import importlib.util
from pathlib import Path

import pytest

from chaos.faults.fault_table import fault_rows
from harness.simulation.plants import PLANTS
from harness.simulation.plants_of_rules import PLANTS_OF_RULES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("name", "page"), [("whats_here", "whats-here.md"), ("faults_table", "faults.md")])
def test_a_page_is_what_its_tool_writes(name: str, page: str) -> None:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    assert (ROOT / "docs" / page).read_text() == tool.render(), f"run tools/{name}.py"


def test_every_fault_says_what_it_does_and_when_it_is_confirmed() -> None:
    for row in fault_rows():
        assert row.does, row.name
        assert row.receipt, row.name
        assert "|" not in row.does + row.receipt, f"{row.name}: it would break the table"


def test_every_broken_cluster_stands_in_its_page() -> None:
    page = (ROOT / "docs" / "broken-clusters.md").read_text()

    assert [plant.__name__ for plant in (*PLANTS, *PLANTS_OF_RULES) if f"| `{plant.__name__}` |" not in page] == []
    assert "| not found |" not in page


def test_every_package_is_in_the_reading_order() -> None:
    page = (ROOT / "docs" / "whats-here.md").read_text()

    missing = [
        str(module.relative_to(ROOT))
        for package in ("harness", "chaos", "images")
        for module in (ROOT / package).rglob("*.py")
        if f"`{module.relative_to(ROOT)}`" not in page
    ]

    assert missing == []
