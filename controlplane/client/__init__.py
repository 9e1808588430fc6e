"""Clients: over HTTP for everything, straight to the log for volume."""

from controlplane.client.errors import ControlPlaneError
from controlplane.client.http import Client, JobHandle
from controlplane.client.log import Conclusion, LogClient

__all__ = ["Client", "Conclusion", "ControlPlaneError", "JobHandle", "LogClient"]
