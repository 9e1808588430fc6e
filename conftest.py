"""Chance in tests: the same examples on every run, unless a seed asks for others; a failure prints how to repeat it."""

from hypothesis import HealthCheck, settings

# The machine is shared by several workers and their brokers: time says nothing about an example.
settings.register_profile(
    "steady", derandomize=True, print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("exploring", settings.get_profile("steady"), derandomize=False)
