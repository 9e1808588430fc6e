"""`python -m tests.golden` keeps records of versions that have none, and writes what today's projection makes of all of them.

Records that are kept are never written again: they are what an old log holds.
"""

import json

from tests.golden.projection import projected
from tests.golden.records import EXPECTED, FILLINGS, file_of, on_the_wire, plain, released


def main() -> None:
    for event, version, schema in released():
        for filling in FILLINGS:
            file = file_of(event, version, filling)
            if not file.exists():
                wire, written = on_the_wire(event, schema, filling)
                file.parent.mkdir(exist_ok=True)
                file.write_text(json.dumps({"wire": wire.hex(), "written": plain(written)}, ensure_ascii=False) + "\n")
    EXPECTED.write_text(json.dumps(projected(), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
