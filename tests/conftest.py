"""Settings for all tests."""

import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure: time limits belong to bench/.
settings.register_profile("tapdeck", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tapdeck")


@pytest.fixture(autouse=True)
def _nothing_given_up_for_good() -> Iterator[None]:
    """Who becomes another user gives up core dumps for good: commands that do are run in a process of theirs."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    yield
    assert resource.getrlimit(resource.RLIMIT_CORE) == before


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach: pytest's own are for one user, and it sees to that at each start."""
    with tempfile.TemporaryDirectory(prefix="tapdeck-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)
