"""Finding a routing policy by its name."""

import importlib
import sys
from pathlib import Path

from controlplane.jobforge_agent.policy import Policy


class PolicyMissing(ValueError):
    """Expected a routing policy at module:function, but there is none."""


def load_policy(place: str) -> Policy:
    """Return the routing policy at `module:function`; modules in the current folder are found as well.

    Raises:
        PolicyMissing: there is nothing that can be called.
    """
    module, _, name = place.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        policy: Policy = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PolicyMissing(f"Expected a routing policy at {place} (module:function), but: {error}.") from error
    if not callable(policy):
        raise PolicyMissing(f"Expected a routing policy at {place}, but found {type(policy).__name__}.")
    return policy
