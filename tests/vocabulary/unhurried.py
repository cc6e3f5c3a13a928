"""Hypothesis without its clock: others may use the machine too, and slowness is not what these tests look for."""

from hypothesis import HealthCheck, settings

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
