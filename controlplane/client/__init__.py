"""Clients: over HTTP for everything, straight to the log for volume."""

from controlplane.client.asynchronous import AsyncClient, AsyncJobHandle
from controlplane.client.errors import ControlPlaneError, LibraryMissing
from controlplane.client.http import Client, JobHandle
from controlplane.client.log import Conclusion, LogClient
from controlplane.client.tables import Rows, Truths

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "Client",
    "Conclusion",
    "ControlPlaneError",
    "JobHandle",
    "LibraryMissing",
    "LogClient",
    "Rows",
    "Truths",
]
