"""How the gateway tells TruthCore whose rows an answer may hold."""

from typing import Final

TENANTS_HEADER: Final = "x-controlplane-tenants"
"""The tenants of the caller, comma-separated; missing: all of them. Only the gateway is believed, so nobody else may reach TruthCore."""
