"""The client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import struct_pb2

from capstan.v1 import decision_pb2, decision_pb2_grpc

#: Seconds that a call has, unless it says otherwise.
TIMEOUT = 1.0


@dataclass(frozen=True)
class Decision:
    """A decision. It must be enforced."""

    #: Whether the identity has the capability.
    allowed: bool
    #: Why, such as `GRANTED` or `NO_BINDING`.
    reason: str
    #: The revision of the policy that decided.
    revision: int


def target_of(address: str) -> str:
    """The target of gRPC for `http://HOST:PORT`, `HOST:PORT` or `unix:PATH`.

    Raises `ValueError` for anything else: a scheme that is not spoken is never left out.
    """
    if address.startswith("unix:"):
        return address
    scheme, found, rest = address.partition("://")
    if found and scheme != "http":
        raise ValueError(f"{address}: only http:// and unix: are spoken")
    target = (rest if found else address).rstrip("/")
    if not target or "/" in target:
        raise ValueError(f"{address}: expected http://HOST:PORT or unix:PATH")
    return target


class Client:
    """Asks one Capstan. Threads may share it."""

    def __init__(self, address: str, *, timeout: float = TIMEOUT, channel: grpc.Channel | None = None):
        self._timeout = timeout
        # Names of proxies are for other servers.
        options = [("grpc.enable_http_proxy", 0)]
        self._channel = channel or grpc.insecure_channel(target_of(address), options=options)
        self._stub = decision_pb2_grpc.DecisionServiceStub(self._channel)

    def check(
        self,
        identity: str,
        capability: str,
        resource: str,
        *,
        properties: Mapping[str, Mapping[str, Any]] | None = None,
        at_least: int | None = None,
        timeout: float | None = None,
    ) -> Decision:
        """Whether an identity has a capability at a resource.

        `properties` has the categories `subject`, `resource`, `action` and `context`. `at_least` is the lowest revision that
        may decide. Raises `grpc.RpcError` if there is no decision in time.
        """
        request = decision_pb2.CheckRequest(
            identity=identity, capability=capability, resource=resource
        )
        for category, values in (properties or {}).items():
            all = getattr(request.properties, category)
            for name, value in values.items():
                all[name].CopyFrom(_value(value))
        if at_least is not None:
            request.consistency.at_least = at_least
        timeout = self._timeout if timeout is None else timeout
        response = self._stub.Check(request, timeout=timeout)
        reason = decision_pb2.Reason.Name(response.reason).removeprefix("REASON_")
        # Allowed and granted are one: an answer of which only one is so is none.
        allowed = response.allowed and response.reason == decision_pb2.REASON_GRANTED
        return Decision(allowed=allowed, reason=reason, revision=response.revision)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _value(value: Any) -> struct_pb2.Value:
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, (int, float)):
        return struct_pb2.Value(number_value=value)
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    raise TypeError(f"a property is a text, a number or a boolean, not {type(value).__name__}")
