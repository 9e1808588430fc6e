"""Write controlplane/api/reads.json from TruthCore's application: `make reference`.

The gateway forwards TruthCore's reads and has to describe them, but services do not import each other: so what TruthCore says of
its own paths is kept as a file that both agree on, and that is compared in `make check`.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from fastapi.routing import APIRoute

from controlplane.truthcore_projector.http import create_app
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.store import Store

FILE: Final = Path(__file__).parents[1] / "controlplane" / "api" / "reads.json"
AMONG_THEMSELVES: Final = ("/v1/standing", "/v1/parts", "/v1/snapshot")
"""What TruthCores ask each other; the gateway does not forward it."""
GROUPS: Final = {
    "jobs": "jobs", "events": "events", "causation": "events", "deadletters": "events", "runners": "runners", "truths": "truths",
    "lineage": "truths", "impact": "truths", "limits": "operations",
}  # fmt: skip


def document() -> dict[str, Any]:
    """Return every read of TruthCore: its route, its operation as in OpenAPI, and the schemas that those name."""
    app = create_app(cast(Store, None), cast(Projector, SimpleNamespace()), {})
    described = app.openapi()
    reads = []
    for route in app.routes:
        if not isinstance(route, APIRoute) or route.path.startswith(AMONG_THEMSELVES):
            continue
        for method in sorted(route.methods or ()):
            operation = described["paths"][route.path_format][method.lower()]
            operation["tags"] = [GROUPS.get(route.path.split("/")[2], "audit")]
            operation["responses"].pop("422", None)
            reads.append({"method": method, "route": route.path, "path": route.path_format, "operation": operation})
    schemas = described["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError", "PartRequest", "PartAnswer", "Standing"):
        schemas.pop(name, None)
    return {"reads": reads, "schemas": schemas}


def page() -> str:
    """Return the whole file."""
    return json.dumps(document(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(page())
