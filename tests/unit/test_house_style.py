"""The house rules that a linter does not know: docstrings, sizes, no clock or chance but at the edge of the world."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TREES = ("harness", "chaos", "images", "bench", "tests", "tools")

MAX_FUNCTION_LINES = 70
MAX_FILE_LINES = 550

LONG_FILES: dict[str, str] = {}
"""Files that may be longer, each with the reason."""

LONG_FUNCTIONS: dict[str, str] = {}
"""`file::function` that may be longer, each with the reason."""

WORLDLY = (
    *("harness/live/", "harness/rig/", "chaos/cli/", "chaos/arena/docker/", "chaos/reaper/", "chaos/repair/"),
    *("images/", "bench/", "tests/", "tools/"),
)
"""Where clocks and chance belong: at the edge of the world, and in tests, which may also be outside of it."""

WORLDLY_FILES: dict[str, str] = {}

BANNED = {
    "time": {
        *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"),
        *("clock_gettime", "clock_gettime_ns"),
    },
    "asyncio": {"sleep", "wait_for", "timeout"},
    "datetime.datetime": {"now", "utcnow", "today"},
    "datetime.date": {"today"},
    "uuid": {"uuid1", "uuid4"},
    "os": {"urandom", "getrandom"},
    "secrets": {"token_bytes", "token_hex", "token_urlsafe", "choice", "randbelow", "randbits"},
    "random": {
        *("random", "randint", "randrange", "randbytes", "choice", "choices", "shuffle", "sample", "uniform", "gauss"),
        *("expovariate", "getrandbits", "seed", "SystemRandom"),
    },
}
"""Calls of a module's own clock or generator. `random.Random(seed)` is allowed anywhere: a seed is an input."""


def sources() -> list[Path]:
    return sorted(path for tree in TREES for path in (ROOT / tree).rglob("*.py") if "__pycache__" not in path.parts)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=name_of(path))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def worldly_calls(tree: ast.Module) -> list[tuple[int, str]]:
    """Lines and names of banned calls, however the module or the function was imported."""
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            dotted = dotted_name(node)
            first, _, rest = dotted.partition(".")
            whole = f"{imported[first]}.{rest}" if rest and first in imported else imported.get(first, "")
            module, _, function = whole.rpartition(".")
            if function in BANNED.get(module, ()):
                found.append((node.lineno, whole))
    return found


def dotted_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        inner = dotted_name(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def test_every_module_says_what_it_is() -> None:
    silent = [name_of(path) for path in sources() if not ast.get_docstring(parse(path))]

    assert silent == []


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{name_of(path)}::{function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path in sources()
        for function in functions(parse(path))
        if (function.end_lineno or 0) - function.lineno + 1 > MAX_FUNCTION_LINES
    }

    assert {name: lines for name, lines in long.items() if name not in LONG_FUNCTIONS} == {}
    assert set(LONG_FUNCTIONS) - set(long) == set(), "an exception that is no longer needed"


def test_no_file_holds_more_than_one_concept_can_need() -> None:
    long = {
        name_of(path): lines
        for path in sources()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    }

    assert {name: lines for name, lines in long.items() if name not in LONG_FILES} == {}
    assert set(LONG_FILES) - set(long) == set(), "an exception that is no longer needed"


def test_clocks_and_chance_come_in_through_ports() -> None:
    found = [
        f"{name_of(path)}:{line}: {call}"
        for path in sources()
        if not name_of(path).startswith(WORLDLY) and name_of(path) not in WORLDLY_FILES
        for line, call in worldly_calls(parse(path))
    ]

    assert found == []


def test_every_exception_to_that_is_still_needed() -> None:
    needed = {name for name in WORLDLY_FILES if (ROOT / name).is_file() and worldly_calls(parse(ROOT / name))}

    assert set(WORLDLY_FILES) - needed == set()


@pytest.mark.parametrize(
    "text",
    [
        "import time\ntime.monotonic()",
        "import time as clock\nclock.sleep(1)",
        "from time import monotonic as now\nnow()",
        "from time import time\nstamp = time",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.now()",
        "import random\nrandom.shuffle([])",
        "import os\nos.urandom(8)",
        "from uuid import uuid4\nuuid4()",
    ],
)
def test_rule_about_clocks_catches_every_way_to_call_them(text: str) -> None:
    assert worldly_calls(ast.parse(text))


@pytest.mark.parametrize(
    "text",
    ["import random\nrandom.Random(7).random()", "runtime.now()", "time = 3\ntime", "import time\ntime.strftime('%Y')"],
)
def test_rule_about_clocks_lets_the_rest_pass(text: str) -> None:
    assert not worldly_calls(ast.parse(text))
