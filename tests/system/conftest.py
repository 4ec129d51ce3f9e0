"""What the tests of whole runs share as fixtures."""

import pytest


@pytest.fixture
def cluster(ray_session):  # noqa: ARG001 - it runs while this is used
    """The address of a Ray that is already there, which saves a start in each test."""
    import ray

    return ("--address", ray.get_runtime_context().gcs_address)
