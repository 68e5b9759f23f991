"""Envoy keeps what every router keeps."""

from __future__ import annotations

from segue.testing.contracts.router import RouterContract


class TestEnvoy(RouterContract):
    """With the `router` of this folder's fixtures: a real Envoy."""
