"""A client of Capstan, and interceptors for services that it protects.

An error is never an allow: what has no decision raises `grpc.RpcError`, and a call without one is refused.
"""

from ._client import Client, Decision
from ._protect import Caller, CarryRevision, Protect, decided_at

__all__ = ["Caller", "CarryRevision", "Client", "Decision", "Protect", "decided_at"]
