"""The pages that are written from the code say what the code says."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_list_of_modules_is_what_its_tool_writes() -> None:
    spec = importlib.util.spec_from_file_location("whats_here", ROOT / "tools" / "whats_here.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    assert (ROOT / "docs" / "whats-here.md").read_text() == tool.render(), "run tools/whats_here.py"


def test_every_package_is_in_the_reading_order() -> None:
    page = (ROOT / "docs" / "whats-here.md").read_text()

    missing = [
        str(module.relative_to(ROOT))
        for package in ("harness", "chaos", "images")
        for module in (ROOT / package).rglob("*.py")
        if f"`{module.relative_to(ROOT)}`" not in page
    ]

    assert missing == []
