"""The Python package: its client over TCP and a unix socket, and services that it protects, which call one another.

Arguments: both addresses of a server of the demo, the folders of the schemas, and a folder for what is generated.
"""

import sys
import time
from concurrent import futures
from pathlib import Path

import grpc
from grpc_tools import protoc

from capstan import Caller, CarryRevision, Client, Decision, Protect, decided_at

tcp, unix, capstan_protos, shop_protos, generated = sys.argv[1:]
well_known = Path(protoc.__file__).parent / "_proto"
arguments = [f"-I{shop_protos}", f"-I{capstan_protos}", f"-I{well_known}"]
arguments += [f"--python_out={generated}", f"--grpc_python_out={generated}", "shop.proto"]
assert protoc.main(["protoc", *arguments]) == 0
sys.path.insert(0, generated)
import shop_pb2  # noqa: E402
import shop_pb2_grpc  # noqa: E402

NGINX = "acme/platform/images/nginx"
answers = 0


def same(found, expected):
    global answers
    assert found == expected, f"{found!r} is not {expected!r}"
    answers += 1


def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return None


def the_client():
    for address in [tcp, tcp.removeprefix("http://"), unix]:
        with Client(address, timeout=20) as client:
            decision = client.check("bob", "repo.list", NGINX, properties={"context": {"n": 1, "b": True, "t": "x"}})
            same((decision.allowed, decision.reason, decision.revision), (True, "GRANTED", 1))
            same(client.check("nobody", "repo.list", NGINX).reason, "UNKNOWN_IDENTITY")
            same(client.check("bob", "repo.list", NGINX, at_least=1).allowed, True)
            same(code(lambda: client.check("bob", "no.such", NGINX)), grpc.StatusCode.INVALID_ARGUMENT)
    for address in ["ftp://127.0.0.1:1", "http://", "http://a/b", ""]:
        try:
            Client(address)
        except ValueError:
            same(True, True)
    with Client("http://127.0.0.1:1", timeout=0.3) as nobody:
        same(code(lambda: nobody.check("bob", "repo.list", NGINX)) is not None, True)


class Images(shop_pb2_grpc.ImagesServicer):
    def __init__(self, behind=None):
        self.behind = behind
        self.seen = []

    def Get(self, request, context):
        self.seen.append((decided_at(), dict(context.invocation_metadata()).get("capstan-revision")))
        if self.behind:
            return self.behind.Get(request, metadata=[("x-identity", "bob")], timeout=20)
        return shop_pb2.Reply(text=request.repo)

    def Move(self, request, context):
        return shop_pb2.Reply(text=request.to.repo)

    def Upload(self, requests, context):
        return shop_pb2.Reply(text=",".join(request.repo for request in requests))

    def Version(self, request, context):
        return shop_pb2.Reply(text=str(decided_at()))


def serve(protect, service):
    server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[protect])
    shop_pb2_grpc.add_ImagesServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, grpc.insecure_channel(f"127.0.0.1:{port}")


def identify(metadata):
    return Caller(metadata["x-identity"]) if metadata.get("x-identity") else None


def the_interceptor():
    services = shop_pb2.DESCRIPTOR.services_by_name
    protect = Protect(Client(tcp, timeout=20), [services["Images"]], identify)
    far = Images()
    behind, channel = serve(protect, far)
    stub = shop_pb2_grpc.ImagesStub(grpc.intercept_channel(channel, CarryRevision()))
    near = Images(stub)
    front, channel = serve(protect, near)
    stub = shop_pb2_grpc.ImagesStub(channel)

    def get(identity, repo, **metadata):
        metadata = [("x-identity", identity), *((key.replace("_", "-"), value) for key, value in metadata.items())]
        return stub.Get(shop_pb2.GetRequest(repo=repo), metadata=metadata, timeout=20)

    same(get("bob", NGINX).text, NGINX)
    same((near.seen, far.seen), ([(1, None)], [(1, "1")]))
    for identity, repo, expected in [
        ("nobody", NGINX, grpc.StatusCode.PERMISSION_DENIED),
        ("bob", "other", grpc.StatusCode.PERMISSION_DENIED),
        ("", NGINX, grpc.StatusCode.UNAUTHENTICATED),
        ("bob", "", grpc.StatusCode.INVALID_ARGUMENT),
        ("bob", "a b", grpc.StatusCode.INVALID_ARGUMENT),
        ("b b", NGINX, grpc.StatusCode.INTERNAL),
    ]:
        same(code(lambda: get(identity, repo)), expected)
    same(code(lambda: get("bob", NGINX, capstan_revision="x")), grpc.StatusCode.INVALID_ARGUMENT)
    same(code(lambda: get("bob", NGINX, capstan_revision="99")) is not None, True)
    moved = shop_pb2.MoveRequest(to=shop_pb2.GetRequest(repo=NGINX))
    same(stub.Move(moved, metadata=[("x-identity", "alice")], timeout=20).text, NGINX)
    same(code(lambda: stub.Move(moved, metadata=[("x-identity", "bob")], timeout=20)), grpc.StatusCode.PERMISSION_DENIED)
    same(code(lambda: stub.Upload(iter(()), metadata=[("x-identity", "bob")], timeout=20)), grpc.StatusCode.PERMISSION_DENIED)
    many = [shop_pb2.GetRequest(repo=repo) for repo in "ab"]
    same(stub.Upload(iter(many), metadata=[("x-identity", "alice")], timeout=20).text, "a,b")
    same(code(lambda: stub.Upload(iter(many), metadata=[("x-identity", "bob")], timeout=20)), grpc.StatusCode.PERMISSION_DENIED)
    same(stub.Version(shop_pb2.GetRequest(), timeout=20).text, "None")
    same(len(near.seen), 1)
    for name in ["Unannotated", "Streams", "NoField", "NoText", "Listed", "Nowhere", "Nothing", "Both"]:
        try:
            Protect(Client(tcp), [services[name]], identify)
        except ValueError:
            same(True, True)
    # Without a deadline of the caller, the client's own timeout counts.
    class Asked:
        timeouts = []

        def check(self, *_, timeout, **__):
            self.timeouts.append(timeout)
            return Decision(allowed=True, reason="GRANTED", revision=1)

    asked, channel = serve(Protect(Asked(), [services["Images"]], identify), Images())
    ask = shop_pb2_grpc.ImagesStub(channel).Get
    for timeout in [None, 100]:
        ask(shop_pb2.GetRequest(repo=NGINX), metadata=[("x-identity", "bob")], timeout=timeout)
    same(Asked.timeouts, [None, 10])
    # Without Capstan every call is refused within its deadline.
    alone, channel = serve(Protect(Client("http://127.0.0.1:1"), [services["Images"]], identify), Images())
    stub = shop_pb2_grpc.ImagesStub(channel)
    request, begun = shop_pb2.GetRequest(repo=NGINX), time.monotonic()
    refused = code(lambda: stub.Get(request, metadata=[("x-identity", "bob")], timeout=0.5))
    same(refused in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), True)
    same(time.monotonic() - begun < 20, True)
    for server in [behind, front, asked, alone]:
        server.stop(None)


the_client()
the_interceptor()
print(f"{answers} answers")
