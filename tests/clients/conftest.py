"""The gateway of tests/gateway, shared."""

from tests.gateway.conftest import fresh_behaviour, gateway

__all__ = ["fresh_behaviour", "gateway"]
