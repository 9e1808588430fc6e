"""The command `controlplane`; the only place that knows every service."""
