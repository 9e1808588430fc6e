"""The contract: event types, catalog, codec, identities and the ErrorEnvelope."""
