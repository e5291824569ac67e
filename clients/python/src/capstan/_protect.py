"""Interceptors of services: one asks before a call reaches its method, one carries the revision that decided on."""

from __future__ import annotations

import collections
import contextvars
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor

from capstan.v1 import options_pb2

from ._client import Client

REVISION_KEY = "capstan-revision"
#: Seconds to decide a call whose caller has a later deadline. Without one, the client's own timeout counts.
TIME_MAX = 10.0
#: What is longer is no deadline: grpcio says 9.2e18 seconds of a call without one (`findings/grpcio-no-deadline.sh`).
_DEADLINE_MAX = 1e10

_decided_at: contextvars.ContextVar[int | None] = contextvars.ContextVar("decided_at", default=None)


def decided_at() -> int | None:
    """The revision that decided the call that is answered here; `None` outside of one, and for an open method."""
    return _decided_at.get()


@dataclass(frozen=True)
class Caller:
    """Who calls: the path of an identity, and whether the revision that its calls ask for counts."""

    identity: str
    may_ask_revision: bool = True


@dataclass(frozen=True)
class _Rule:
    capability: str
    #: The fields from the request to the text with the resource, or the resource itself.
    fields: tuple[str, ...]
    at: str


def _rule(method: MethodDescriptor) -> _Rule | None:
    name = method.full_name
    options = method.GetOptions()
    if not options.HasExtension(options_pb2.authorization):
        raise ValueError(f"{name}: no option (capstan.v1.authorization)")
    option = options.Extensions[options_pb2.authorization]
    where = option.WhichOneof("where")
    if where == "open":
        if not option.open or option.capability:
            raise ValueError(f"{name}: open is true, and stands alone")
        return None
    if not option.capability or where is None:
        raise ValueError(f"{name}: a capability, and `resource` or `at`, or open")
    if where == "at":
        return _Rule(option.capability, (), option.at)
    if method.client_streaming:
        raise ValueError(f"{name}: takes a stream of requests, which may name other resources: use `at`")
    message, fields = method.input_type, tuple(option.resource.split("."))
    for at, field in enumerate(fields):
        found = message.fields_by_name.get(field) if message else None
        if found is None or found.is_repeated:
            raise ValueError(f"{name}: {method.input_type.full_name} has no single field `{option.resource}`")
        is_last = at + 1 == len(fields)
        if is_last and found.type != FieldDescriptor.TYPE_STRING:
            raise ValueError(f"{name}: `{option.resource}` is no text")
        message = found.message_type
    return _Rule(option.capability, fields, "")


class Protect(grpc.ServerInterceptor):
    """Asks Capstan before a call reaches its method.

    `services` are the descriptors of the protected services; `open_services` names services that need nothing. `identify`
    says who calls, from the metadata: what it reads must be proved by then. `None` is nobody that is known.

    Raises `ValueError` if a method does not say what it needs: a service should not start then.
    """

    def __init__(
        self,
        client: Client,
        services: Iterable[ServiceDescriptor],
        identify: Callable[[Mapping[str, str]], Caller | None],
        *,
        open_services: Iterable[str] = (),
    ):
        self._client = client
        self._identify = identify
        self._open = frozenset(open_services)
        self._rules = {
            f"/{service.full_name}/{method.name}": _rule(method)
            for service in services
            for method in service.methods
        }

    def intercept_service(self, continuation, details):
        path = details.method
        if path.split("/")[1:2] and path.split("/")[1] in self._open:
            return continuation(details)
        if path not in self._rules:
            return _refuse(grpc.StatusCode.UNIMPLEMENTED, "no rule lets this method be called")
        rule, handler = self._rules[path], continuation(details)
        if rule is None or handler is None:
            return handler
        return self._guarded(rule, dict(details.invocation_metadata), handler)

    def _guarded(self, rule, metadata, handler):
        def one(behavior):
            def call(request, context):
                revision = self._ask(rule, metadata, request, context)
                with _deciding(revision):
                    return behavior(request, context)

            return call

        def many(behavior):
            def call(request, context):
                revision = self._ask(rule, metadata, request, context)
                responses = None
                while True:
                    # A generator runs in the context of whoever takes from it.
                    with _deciding(revision):
                        responses = iter(behavior(request, context)) if responses is None else responses
                        try:
                            response = next(responses)
                        except StopIteration:
                            return
                    yield response

            return call

        behavior, wrap, make = {
            (False, False): (handler.unary_unary, one, grpc.unary_unary_rpc_method_handler),
            (False, True): (handler.unary_stream, many, grpc.unary_stream_rpc_method_handler),
            (True, False): (handler.stream_unary, one, grpc.stream_unary_rpc_method_handler),
            (True, True): (handler.stream_stream, many, grpc.stream_stream_rpc_method_handler),
        }[handler.request_streaming, handler.response_streaming]
        return make(
            wrap(behavior),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _ask(self, rule, metadata, request, context) -> int:
        """Returns the revision that decided. Ends the call if it is not allowed."""
        caller = self._identify(metadata)
        if caller is None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "nobody that is known calls")
        resource = rule.at
        if rule.fields:
            resource = request
            for field in rule.fields:
                resource = getattr(resource, field)
            if not resource:
                name = ".".join(rule.fields)
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{name}: missing")
        at_least = None
        if caller.may_ask_revision and REVISION_KEY in metadata:
            text = metadata[REVISION_KEY]
            if not (text.isascii() and text.isdecimal()) or int(text) >= 1 << 64:
                problem = f"{REVISION_KEY}: expected the number of a revision"
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
            at_least = int(text)
        left = context.time_remaining()
        timeout = None if left is None or left > _DEADLINE_MAX else min(left, TIME_MAX)
        try:
            decision = self._client.check(
                caller.identity, rule.capability, resource, at_least=at_least, timeout=timeout
            )
        except grpc.RpcError as error:
            context.abort(*_without_decision(error))
        except (OSError, ValueError):
            # Of the token of this service: nothing that its callers need to know.
            context.abort(grpc.StatusCode.UNAVAILABLE, "not decided: this service cannot say who asks")
        if not decision.allowed:
            problem = f"{rule.capability} is required at {resource}: {decision.reason}"
            context.abort(grpc.StatusCode.PERMISSION_DENIED, problem)
        return decision.revision


def _without_decision(error):
    code, text = error.code(), f"not decided: {error.details()}"
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        # The resource is the caller's. An identity or a capability that cannot be asked about is the service's own.
        is_callers = (error.details() or "").startswith("resource")
        return (code if is_callers else grpc.StatusCode.INTERNAL), text
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return code, text
    return grpc.StatusCode.UNAVAILABLE, text


class _deciding:
    def __init__(self, revision):
        self._revision = revision

    def __enter__(self):
        self._token = _decided_at.set(self._revision)

    def __exit__(self, *_):
        _decided_at.reset(self._token)


def _refuse(code, text):
    def abort(_, context):
        context.abort(code, text)

    return grpc.unary_unary_rpc_method_handler(abort)


class _Details(
    collections.namedtuple(
        "_Details", ["method", "timeout", "metadata", "credentials", "wait_for_ready", "compression"]
    ),
    grpc.ClientCallDetails,
):
    pass


class CarryRevision(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends the revision that decided the call of a service with the calls that it makes: `grpc.intercept_channel(channel,
    CarryRevision())`."""

    def _carry(self, continuation, details, request):
        revision = decided_at()
        if revision is not None:
            metadata = [*(details.metadata or ()), (REVISION_KEY, str(revision))]
            details = _Details(
                details.method,
                details.timeout,
                metadata,
                details.credentials,
                details.wait_for_ready,
                details.compression,
            )
        return continuation(details, request)

    intercept_unary_unary = _carry
    intercept_unary_stream = _carry
    intercept_stream_unary = _carry
    intercept_stream_stream = _carry
