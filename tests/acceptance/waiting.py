"""Wait for conditions, never for time."""

import time
from typing import Any, Final

WAIT_SECONDS: Final = 60.0


def until(look: Any) -> Any:
    """Return what `look` finds, once it finds something."""
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not (found := look()):
        assert time.monotonic() < give_up_at, "Expected it within the bound, but it did not come."
        time.sleep(0.1)
    return found
