"""The three sample tenants deployed once a session, on a stack of these tests' own."""

from __future__ import annotations

import pytest

from mozart.services.stack import Stack
from tests.fleet.deployed_fleet import DeployedFleet, deploy_fleet


@pytest.fixture(scope="session")
def deployed_fleet(stack: Stack) -> DeployedFleet:
    """All three deployed by the commands; harbor has run once."""
    return deploy_fleet(stack)
