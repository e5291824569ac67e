"""The client."""

from __future__ import annotations

import ipaddress
import os
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


def target_of(address: str) -> tuple[str, bool]:
    """The target of gRPC for `http://HOST:PORT`, `https://HOST:PORT`, `HOST:PORT` or `unix:PATH`, and whether it has TLS.

    Raises `ValueError` for anything else: a scheme that is not spoken is never left out.
    """
    if address.startswith("unix:"):
        return address, False
    scheme, found, rest = address.partition("://")
    if found and scheme not in ("http", "https"):
        raise ValueError(f"{address}: only http://, https:// and unix: are spoken")
    target = (rest if found else address).rstrip("/")
    if not target or "/" in target:
        raise ValueError(f"{address}: expected http://HOST:PORT, https://HOST:PORT or unix:PATH")
    return target, bool(found) and scheme == "https"


def _is_of_this_machine(target: str) -> bool:
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0]
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return False  # No address of IPv6 stands without brackets.
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(file: str | os.PathLike[str] | None) -> bytes | None:
    if file is None:
        return None
    with open(file, "rb") as opened:
        return opened.read()


class Client:
    """Asks one Capstan. Threads may share it.

    `ca`, `certificate` and `key` are files in PEM for an `https` address: the authorities that are trusted instead of those of the
    system, and what the client proves itself by. `token_file` has a token or a secret that proves the caller, and is read
    for each call, so that it can be renewed in place; `identity` is the one that it proves, which one below a group needs.
    Raises `ValueError` if they do not fit the address, or others could read the token on its way. Where a `channel` of the
    caller's goes, and whether it hides a token, is the caller's matter.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = TIMEOUT,
        channel: grpc.Channel | None = None,
        ca: str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        token_file: str | os.PathLike[str] | None = None,
        identity: str | None = None,
    ):
        self._timeout = timeout
        self._token_file = token_file
        self._identity = identity
        # A channel has an address of its own.
        target, is_tls = target_of(address) if channel is None else ("unix:", False)
        if channel is not None and any(file is not None for file in (ca, certificate, key)):
            raise ValueError("ca, certificate and key are for a channel that is made here")
        if not is_tls and any(file is not None for file in (ca, certificate, key)):
            raise ValueError(f"{address}: ca, certificate and key are for https://HOST:PORT")
        if (certificate is None) != (key is None):
            raise ValueError("certificate and key belong together")
        if token_file is not None and not is_tls and not _is_of_this_machine(target):
            raise ValueError(f"{address} is asked in plain text, and others would see the token: ask https://{target}")
        if identity is not None and token_file is None:
            raise ValueError("identity is what token_file proves")
        # Names of proxies are for other servers.
        options = [("grpc.enable_http_proxy", 0)]
        if channel is None and is_tls:
            credentials = grpc.ssl_channel_credentials(_read(ca), _read(key), _read(certificate))
            channel = grpc.secure_channel(target, credentials, options=options)
        self._channel = channel or grpc.insecure_channel(target, options=options)
        self._stub = decision_pb2_grpc.DecisionServiceStub(self._channel)

    def _metadata(self) -> list[tuple[str, str]]:
        if self._token_file is None:
            return []
        token = (_read(self._token_file) or b"").decode("ascii").strip()
        if not token or not token.isprintable() or " " in token:
            raise ValueError(f"{self._token_file}: expected one token: a line without spaces")
        caller = [] if self._identity is None else [("x-capstan-caller", self._identity)]
        return [("authorization", f"Bearer {token}"), *caller]

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
        may decide. Raises `grpc.RpcError` if there is no decision in time, `OSError` or `ValueError` if the token cannot be read.
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
        response = self._stub.Check(request, timeout=timeout, metadata=self._metadata())
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
