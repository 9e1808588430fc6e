"""ControlPlane: orchestrated truth on a message log."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("controlplane")
except PackageNotFoundError:  # Run from a checkout that was not installed.
    __version__ = "0.0.0"
