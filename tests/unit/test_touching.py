"""Each call that removes, kills, stops or writes is in a module that proves ownership, or in a list with reasons.

A new one fails here. It goes through `harness.rig.engine.ownership` (objects of the engine),
`harness.rig.engine.own_files` (the state folder), `chaos.output.named_file` (files that the user names) or a run's
folder, or it gets a reason.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TREES = ("harness", "chaos", "tools", "bench")

ALWAYS = {
    *("rmtree", "unlink", "rmdir", "removedirs", "remove_container", "remove_network", "remove_volume", "remove_image"),
    *("prune", "prune_containers", "prune_images", "prune_networks", "prune_volumes", "prune_builds"),
    *("kill", "killpg", "pidfd_send_signal", "send_signal", "terminate", "restart", "remove", "stop", "pause"),
    *("write_text", "write_bytes", "mkdir", "makedirs", "touch", "symlink", "symlink_to", "hardlink_to", "link"),
    *("rename", "renames", "copyfile", "copy2", "copytree", "move", "truncate", "ftruncate", "chmod", "chown"),
    *("mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory", "put_archive"),
}
"""Names of calls that change what exists, on whatever they are called."""

PURE = (
    *("harness/simulation/", "harness/cluster_service/", "harness/model/", "harness/database/", "harness/vmms/"),
    *("harness/resource_host/", "harness/drivers/"),
)
"""No I/O at all, or nothing but ports: their calls have these names and touch a world in memory, or go through the live
adapters, which are looked at here.
"""

PROOF = {
    "harness/rig/engine/ownership.py": "objects of the engine, proven by their labels at that moment",
    "harness/rig/engine/own_files.py": "files of the state folder that the project wrote",
    "chaos/output/named_file.py": "files that the user names for output: plain ones only",
    "chaos/run/output_folder.py": "the folders of runs below --out",
}

INSIDE = {
    "harness/live/": "runs in a node's container, or talks to its engine by IDs that were listed by label",
    "chaos/arena/docker/in_node/processes.py": "runs in a node's container, as the fault that it carries out",
    "chaos/arena/docker/in_node/kill_vm.py": "runs in a node's container, as the fault that it carries out",
    "chaos/reaper/ledger_file.py": "runs in the reaper's container, on its ledger",
}

REMOVALS = [
    "rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache",
    "find . -name __pycache__ -type d -prune -exec rm -rf {} +",
]
"""What `make clean` removes without proof: names that this project and its tools alone give."""

_OUT = "the run's own folder below --out"
_PAGE = "a page of this repository's documentation, for its developers"
_MEMORY = "in memory"
ALLOWED = {
    "bench/overload.py::_hogs: killpg": "the sessions of busy loops that this tool began, by their process",
    "bench/overload.py::_keep_logs: mkdir": "the directory of --logs",
    "bench/overload.py::_keep_logs: write_bytes": "the directory of --logs",
    "bench/overload.py::_let_leases_lapse: kill": "stops services of this tool's own rig, found by its containers",
    "bench/run.py::_write: write_text": _PAGE,
    "chaos/arena/docker/arena.py::down: stop": "the client outside, whose removal goes through `ownership`",
    "chaos/arena/simulation/arena.py::_apply_to_process: pause": _MEMORY,
    "chaos/arena/simulation/arena.py::collect: mkdir": _OUT,
    "chaos/arena/simulation/arena.py::collect: write_text": _OUT,
    "chaos/arena/simulation/arena.py::down: stop": _MEMORY,
    "chaos/arena/docker/artifacts.py::_write_container: write_text": _OUT,
    "chaos/arena/docker/artifacts.py::collect_evidence: mkdir": _OUT,
    "chaos/arena/docker/artifacts.py::collect_evidence: open": _OUT,
    "chaos/arena/docker/artifacts.py::collect_evidence: write_text": _OUT,
    "chaos/history/records.py::end: remove": _MEMORY,
    "chaos/arena/interrupt.py::sleep: remove": _MEMORY,
    "chaos/history/journal.py::__init__: mkdir": _OUT,
    "chaos/history/journal.py::__init__: open": _OUT,
    "chaos/history/journal.py::__init__: unlink": _OUT,
    "chaos/history/journal.py::assemble: open": _OUT,
    "chaos/history/journal.py::assemble: replace": _OUT,
    "chaos/output/printing.py::_discard: open": "the null device, in the place of an output that has gone",
    "chaos/output/printing.py::_open_closed_descriptors: open": "the null device, in the place of a closed descriptor",
    "chaos/reaper/guard.py::start: put_archive": "into the reaper that was created just before, by its ID",
    "chaos/repair/reaper_program.py::main: pause": "waits for a signal",
    "chaos/reaper/sources.py::packed_sources: open": _MEMORY,
    "chaos/report/writer.py::_append: open": "appends to the summary that $GITHUB_STEP_SUMMARY names",
    "chaos/run/terminal.py::rest: stop": "the line of progress on the terminal",
    "harness/synchronization.py::__aenter__: remove": _MEMORY,
    "harness/document/address_plan.py::move_group: move": _MEMORY,
    "harness/document/address_plan.py::moved: move": _MEMORY,
    "harness/rig/images/base_image.py::_make: TemporaryDirectory": "a directory of the library's own, removed by it",
    "harness/rig/images/build_context.py::pack_context: open": _MEMORY,
    "harness/rig/lifecycle/compose_tool.py::_end_session: killpg": "the session of the tool, by its process",
    "harness/rig/cluster/secret_files.py::_archive: open": _MEMORY,
    "harness/rig/cluster/secret_files.py::fill_secrets: put_archive": "into the container that was created just before",
    "harness/rig/lifecycle/teardown.py::attempt: remove": "one of the calls below it, which go through `ownership`",
    "harness/rig/lifecycle/teardown.py::remove_rig: remove": "the rounds of removals, which go through `ownership`",
    "harness/rig/images/wheels.py::ensure_wheels: mkdtemp": "in the state folder, with a name of its own",
    "harness/rig/images/wheels.py::ensure_wheels: rename": "from that directory to a new one, in the state folder",
    "tools/broken_clusters.py::write: mkdir": _PAGE,
    "tools/broken_clusters.py::write: unlink": "schedules that this tool has written, beside this repository's tests",
    "tools/broken_clusters.py::write: write_text": _PAGE,
    "tools/faults_table.py::<module>: write_text": _PAGE,
    "tools/scale_page.py::main: write_text": _PAGE,
    "tools/search_page.py::<module>: write_text": _PAGE,
    "tools/whats_here.py::main: write_text": _PAGE,
}
"""`file::function: call`, each with the reason."""


def calls_that_touch(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Line, function and name of each such call."""
    proven = _proven(tree)
    for function, call in _calls(tree, "<module>"):
        name = _name(call.func)
        if isinstance(call.func, ast.Name) and name in proven:
            continue
        if name in ALWAYS or (name in ("open", "fdopen") and _writes(call)) or (name == "replace" and _moves(call)):
            yield call.lineno, function, name


def _proven(tree: ast.AST) -> set[str]:
    """The names that a file imports from the modules that prove."""
    modules = {file.removesuffix(".py").replace("/", ".") for file in PROOF}
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in modules
        for alias in node.names
    }


def _calls(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        if isinstance(child, ast.Call):
            yield function, child
        elif isinstance(child, ast.Attribute) and child.attr in ALWAYS and not _is_called(child, node):
            # Handed on instead of called, such as a method in a table.
            yield function, ast.Call(func=child, args=[], keywords=[], lineno=child.lineno)
        yield from _calls(child, inner)


def _is_called(child: ast.AST, node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and node.func is child


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _writes(call: ast.Call) -> bool:
    """Whether a call of `open` has a mode or a flag that is not for reading alone."""
    texts = [word.value for word in ast.walk(call) if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    flags = {word.attr for word in ast.walk(call) if isinstance(word, ast.Attribute)}
    return any(set(text) <= set("rwaxbt+") and set(text) & set("wax+") for text in texts) or bool(
        flags & {"O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC"}
    )


def _moves(call: ast.Call) -> bool:
    """`Path.replace` and `os.replace`; the `replace` of a text has two arguments, that of a record has keywords."""
    of_os = isinstance(call.func, ast.Attribute) and _name(call.func.value) == "os"
    return of_os or (isinstance(call.func, ast.Attribute) and len(call.args) == 1 and not call.keywords)


def found() -> dict[str, int]:
    places: dict[str, int] = {}
    for path in sorted(path for tree in TREES for path in (ROOT / tree).rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        if file.startswith(PURE) or file in PROOF or file.startswith(tuple(INSIDE)):
            continue
        for line, function, name in calls_that_touch(ast.parse(path.read_text(encoding="utf-8"))):
            places.setdefault(f"{file}::{function}: {name}", line)
    return places


def test_every_call_that_touches_something_proves_that_it_may() -> None:
    places = found()

    assert {f"{place} (line {line})" for place, line in places.items() if place not in ALLOWED} == set()
    assert set(ALLOWED) - set(places) == set(), "a reason that is no longer needed"


@pytest.mark.parametrize(
    "text",
    [
        "import shutil\nshutil.rmtree(place)",
        "from shutil import rmtree\nrmtree(place)",
        "client.api.remove_container('name', force=True)",
        "call(client.api.pause)",
        "in_parallel(client.api.kill, boxes)",
        "path.unlink(missing_ok=True)",
        "path.replace(other)",
        "os.replace(one, other)",
        "open(path, 'w')",
        "path.open(mode='ab')",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "os.kill(1, 9)",
        "from elsewhere import remove_container\nremove_container(1)",
    ],
)
def test_rule_catches_every_way_to_touch_something(text: str) -> None:
    assert list(calls_that_touch(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "from harness.rig.engine.ownership import remove_container\nremove_container(client, box, rig=rig)",
        "text.replace('a', 'b')",
        "replace(record, name='a')",
        "path.open('rb')",
        "open(path)",
        "os.open(path, os.O_RDONLY)",
    ],
)
def test_rule_lets_the_rest_pass(text: str) -> None:
    assert not list(calls_that_touch(ast.parse(text)))


def test_no_script_or_makefile_removes_by_a_name_it_has_read() -> None:
    """`make clean` handed names of directories to `down`, and removed the state folder as a whole."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()

    removals = [line.strip() for line in lines if line.startswith("\t") and ("rm " in line or " down" in line)]

    assert removals == REMOVALS
