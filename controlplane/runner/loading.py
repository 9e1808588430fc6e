"""Find a runner by its name, `package.module:attribute`, and say plainly what is wrong when it is not there."""

import importlib
import sys
from pathlib import Path

from controlplane.runner.definition import Runner


class RunnerMissing(ValueError):
    """Expected a runner under the name that was given, but found none; the message says what there is instead."""


def load_runner(target: str) -> Runner:
    """Return the runner that `package.module:attribute` names; modules in the current folder are found as well.

    Raises:
        RunnerMissing: there is no such module or attribute, it is no runner, or it has no capability.
    """
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise RunnerMissing(f"Expected a runner as package.module:attribute, but found {target!r}.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise  # The module is there; something that it imports is not.
        raise RunnerMissing(
            f"Expected a module {module_name} in {here} or among the installed packages, but there is no {error.name}."
        ) from error
    missing = object()
    runner = getattr(module, attribute, missing)
    if runner is missing:
        runners = sorted(name for name, value in vars(module).items() if isinstance(value, Runner))
        found = f"its runners are: {', '.join(runners)}" if runners else "it defines no Runner"
        raise RunnerMissing(f"Expected {module_name} to define {attribute}, but {found}.")
    if not isinstance(runner, Runner):
        raise RunnerMissing(f"Expected {target} to be a Runner, but found {type(runner).__name__}.")
    if not runner.handlers:
        raise RunnerMissing(f"Expected {target} to offer a capability, but it has none: decorate a function with it.")
    return runner
