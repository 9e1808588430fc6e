"""TruthCore: projects the log into queryable assertions with provenance, and the history of everything."""
