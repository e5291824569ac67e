#!/usr/bin/env bash
# grpcio 1.85.3, gRPC for Python: a synchronous server says of a call without a deadline that 9.2e18 seconds remain, and a
# client that is given them as its timeout ends its call at once, as DEADLINE_EXCEEDED.
#
# Guess: `ServicerContext.time_remaining()` is None without a deadline, as its documentation says, and can be passed on
# as the `timeout` of the next call.
#
# Seen: None from the server of `grpc.aio` only. The synchronous one gives the largest time that there is. A timeout of ten
# thousand million seconds or more ends a call before it is sent; one of a thousand million works.
#
# It matters for interceptors and services that hand the rest of their time to the calls that they make: whoever sets no
# deadline is refused. Take what is longer than any real deadline for none.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check grpcio==1.85.3
cat >try.py <<'PYTHON'
import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc

METHOD = "/shop.Orders/Place"


def handlers(method):
    place = grpc.unary_unary_rpc_method_handler(method)
    return (grpc.method_handlers_generic_handler("shop.Orders", {"Place": place}),)


remaining = []


def place(_, context):
    remaining.append(context.time_remaining())
    return b""


server = grpc.server(ThreadPoolExecutor(1))
server.add_generic_rpc_handlers(handlers(place))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
call = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(METHOD)
call(b"")
assert remaining[0] > 9e18, remaining


def outcome(timeout):
    try:
        call(b"", timeout=timeout)
        return "answered"
    except grpc.RpcError as error:
        return error.code().name


outcomes = [outcome(timeout) for timeout in (None, 1e9, 1e10, remaining[0])]
# Those that ended at once never reached the method.
assert len(remaining) == 3, remaining
server.stop(None)


async def place_later(_, context):
    remaining.append(context.time_remaining())
    return b""


async def asynchronous():
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers(place_later))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.unary_unary(METHOD)(b"")
    await server.stop(None)


asyncio.run(asynchronous())
print(f"without a deadline: {remaining[0]:.1e} seconds remain; with grpc.aio: {remaining[-1]}")
print(f"timeouts of None, 1e9, 1e10 and that: {', '.join(outcomes)}")
PYTHON
python/bin/python try.py | tee seen
diff seen - <<'EXPECTED'
without a deadline: 9.2e+18 seconds remain; with grpc.aio: None
timeouts of None, 1e9, 1e10 and that: answered, answered, DEADLINE_EXCEEDED, DEADLINE_EXCEEDED
EXPECTED
