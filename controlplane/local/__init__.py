"""The embedded stack: a real Kafka broker and Valkey as supervised child processes, from Python packages alone."""
