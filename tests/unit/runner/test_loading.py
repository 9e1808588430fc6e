"""A runner is found by its name; when it is not, the message says what there is instead."""

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from controlplane.runner.loading import RunnerMissing, load_runner

MODULES = {
    "right": """
        from controlplane.runner import Runner
        runner = Runner("right")
        @runner.capability("job")
        def job(payload: int) -> int: return payload
        number = 5
        empty = Runner("empty")
    """,
    "bare": "x = 1",
    "breaks": "import a_library_that_is_not_there",
    "package/__init__": "",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, content in MODULES.items():
        path = tmp_path / f"loading_{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("loading_")]:
        del sys.modules[name]


def test_a_runner_in_the_current_folder_is_found() -> None:
    assert load_runner("loading_right:runner").name == "right"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("loading_right", "Expected a runner as package.module:attribute, but found 'loading_right'"),
        (":runner", "Expected a runner as package.module:attribute"),
        ("loading_right:", "Expected a runner as package.module:attribute"),
        ("loading_nowhere:runner", "Expected a module loading_nowhere in .* but there is no loading_nowhere"),
        ("loading_package.inside:runner", "Expected a module loading_package.inside in .* but there is no loading_package.inside"),
        ("loading_right:runer", "Expected loading_right to define runer, but its runners are: empty, runner"),
        ("loading_bare:runner", "Expected loading_bare to define runner, but it defines no Runner"),
        ("loading_right:number", "Expected loading_right:number to be a Runner, but found int"),
        ("loading_right:empty", "Expected loading_right:empty to offer a capability, but it has none"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(target: str, message: str) -> None:
    with pytest.raises(RunnerMissing, match=message):
        load_runner(target)


def test_a_fault_of_the_module_itself_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        load_runner("loading_breaks:runner")
