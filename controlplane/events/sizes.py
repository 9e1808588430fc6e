"""How much a submission may carry, so that every record that follows from it fits onto the log as well."""

from typing import Final

LARGEST_INLINE_BYTES: Final = 900 * 1024
"""Payload and labels of a submission. What gives the job to a runner, or submits it again, carries them too, and more beside them."""

RESERVED_BYTES: Final = 64 * 1024
"""Of a record, for what is beside them: who was not chosen and why, and up to ten texts of the longest kind."""

LONGEST_TEXT_CHARACTERS: Final = 1000
"""Identifiers and reasons; the gateway takes identifiers of 128."""

MOST_LABELS: Final = 50
LONGEST_LABEL_CHARACTERS: Final = 200
