"""Large payloads and results: kept beside the log, named on it by digest (the claim-check pattern)."""

from controlplane.contents.store import ContentCorrupt, ContentMissing, ContentStore, ContentTooLarge

__all__ = ["ContentCorrupt", "ContentMissing", "ContentStore", "ContentTooLarge"]
