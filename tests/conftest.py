"""Settings for all tests."""

from hypothesis import HealthCheck, settings

# A busy machine is no failure: time limits belong to bench/.
settings.register_profile("tapdeck", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tapdeck")
