"""A handler that does nothing, for benchmarks: `controlplane runner controlplane.demo.noop:runner`."""

from typing import Any

from controlplane.runner import Runner

runner = Runner("noop", slots=256)


@runner.capability("noop", version="1.0.0")
async def noop(payload: dict[str, Any]) -> dict[str, Any]:
    """Return at once."""
    return {"ok": True, "id": payload["id"]}
