"""The option that writes the expected logs anew."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-logs", action="store_true", help="write tests/scenarios/*/expected.log anew")
