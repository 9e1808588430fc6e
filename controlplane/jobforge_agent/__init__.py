"""JobForge: accepts jobs, queues them by priority, leases each to a capable runner, and alone concludes."""
