"""The Python client with TLS, a certificate and a token.

Arguments: the https address of a server that names its callers, and a folder with ca.pem, ci.pem, ci.key, and token, which proves
the identity acme/all; then whether the server wants certificates of its clients, and so takes no tokens.
"""

import sys
from pathlib import Path

import grpc

from capstan import Client

address, folder, certificates = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "true"
NGINX = "acme/images/nginx"
ca, certificate, key, token = (folder / name for name in ["ca.pem", "ci.pem", "ci.key", "token"])
answers = 0


def same(found, expected):
    global answers
    assert found == expected, f"{found!r} is not {expected!r}"
    answers += 1


def asked(resource=NGINX, address=address, **options):
    """Whether it is allowed, or why there is no decision."""
    try:
        with Client(address, timeout=20, **options) as client:
            return client.check("acme/reader", "repo.list", resource).allowed
    except grpc.RpcError as error:
        return error.code()
    except (OSError, ValueError) as error:
        return type(error)


of_certificate = {"ca": ca, "certificate": certificate, "key": key}


def with_certificates():
    same(asked(**of_certificate), True)
    same(asked("acme/other", **of_certificate), grpc.StatusCode.PERMISSION_DENIED)
    same(asked(ca=ca, certificate=folder / "other.pem", key=folder / "other.key"), grpc.StatusCode.UNAUTHENTICATED)
    same(asked(token_file=token, **of_certificate), grpc.StatusCode.UNAUTHENTICATED)
    same(asked(ca=ca, token_file=token), grpc.StatusCode.UNAVAILABLE)


def with_tokens():
    same(asked(ca=ca, token_file=token), True)
    same(asked(ca=ca, token_file=token, identity="acme/all"), True)
    same(asked(ca=ca, token_file=token, identity="acme/reader"), grpc.StatusCode.UNAUTHENTICATED)
    same(asked(ca=ca), grpc.StatusCode.UNAUTHENTICATED)
    same(asked(token_file=token), grpc.StatusCode.UNAVAILABLE)
    same(asked(ca=ca, token_file=folder / "absent"), FileNotFoundError)
    same(asked(ca=ca, token_file=ca), ValueError)
    same(asked(ca=ca, certificate=certificate), ValueError)
    same(asked(ca=ca, identity="acme/all"), ValueError)
    same(asked(address="http://127.0.0.1:1", ca=ca), ValueError)
    same(asked(address="http://capstan.example:1", token_file=token), ValueError)
    # It is renewed in place.
    with Client(address, timeout=20, ca=ca, token_file=token) as client:
        secret = token.read_text()
        same(client.check("acme/reader", "repo.list", NGINX).allowed, True)
        token.write_text("another")
        try:
            client.check("acme/reader", "repo.list", NGINX)
        except grpc.RpcError as error:
            same(error.code(), grpc.StatusCode.UNAUTHENTICATED)
        token.write_text(secret)
        same(client.check("acme/reader", "repo.list", NGINX).allowed, True)


with_certificates() if certificates else with_tokens()
print(f"{answers} answers")
