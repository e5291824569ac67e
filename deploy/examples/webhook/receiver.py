"""Receives Capstan's events: verifies each, prints it as one line of JSON, and drops repetitions. See README.md."""

import argparse
import collections
import hashlib
import hmac
import http.server
import json
import ssl
import sys
import threading
from urllib.parse import urlsplit

import jwt
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event

BODY_BYTES_MAX = 8 * 1024 * 1024
IDS_MAX = 100_000


class Refused(Exception):
    """What to answer instead of 204."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


class Receiver:
    """Decides about one delivery. Knows nothing of sockets."""

    def __init__(self, issuer, audience, group, jwks):
        self.issuer, self.audience, self.subject = issuer, audience, f"webhook:{group}"
        self.origin = urlsplit(issuer).hostname
        self.keys = jwt.PyJWKClient(jwks, timeout=5)  # caches the keys, and fetches unknown ones at most twice a minute
        # Keep the ids in your database, in one transaction with what you do with the events.
        self.seen = collections.OrderedDict()
        self.lock = threading.Lock()

    def receive(self, headers, body):
        """Verifies a delivery. Returns the event, or None if it was here before."""
        claims = self.verify(headers.get("authorization", ""), body)
        try:
            event = from_binary_event(HTTPMessage(headers=headers, body=body))
        except Exception as error:
            raise Refused(400, f"no CloudEvent: {error}") from error
        # The token is for one event: without this, the token of one proves another with an equal body.
        if event.get_id() != claims["jti"] or event.get_source() != self.issuer:
            raise Refused(401, "the token is for another event")
        with self.lock:
            if event.get_id() in self.seen:
                return None
            self.seen[event.get_id()] = True
            if len(self.seen) > IDS_MAX:
                self.seen.popitem(last=False)
        return event

    def verify(self, authorization, body):
        """Verifies the token: signature, type, issuer, audience, subject, times, and the digest of the body."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Refused(401, "no bearer token")
        try:
            key = self.keys.get_signing_key_from_jwt(token)
            decoded = jwt.decode_complete(
                token,
                key,
                algorithms=["EdDSA", "ES256"],
                issuer=self.issuer,
                audience=self.audience,
                subject=self.subject,
                leeway=60,
                options={"require": ["iss", "aud", "sub", "iat", "exp", "jti"], "strict_aud": True},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise Refused(503, f"the keys cannot be fetched: {error}") from error
        except jwt.PyJWTError as error:
            raise Refused(401, f"token: {error}") from error
        if decoded["header"].get("typ") != "capstan-webhook+jwt":
            raise Refused(401, "the token is of another type")
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        webhook = decoded["payload"].get("webhook")
        claimed = webhook.get("digest") if isinstance(webhook, dict) else None
        if not isinstance(claimed, str) or not hmac.compare_digest(claimed.encode(), digest.encode()):
            raise Refused(401, "the token is for another body")
        return decoded["payload"]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds that a socket may be silent
    receiver = None

    def do_OPTIONS(self):
        """Consents to deliveries from Capstan, and from nobody else."""
        self.send_response(204)
        self.send_header("Allow", "OPTIONS, POST")
        if self.headers.get("WebHook-Request-Origin", "").lower() == self.receiver.origin:
            self.send_header("WebHook-Allowed-Origin", self.receiver.origin)
            self.send_header("WebHook-Allowed-Rate", "*")
        self.end_headers()

    def do_POST(self):
        try:
            event = self.receiver.receive({name.lower(): value for name, value in self.headers.items()}, self.body())
        except Refused as refused:
            print(f"refused: {refused}", file=sys.stderr, flush=True)
            self.answer(refused.status)
            return
        if event is not None:
            line = {
                "id": event.get_id(),
                "type": event.get_type(),
                "subject": event.get_subject(),
                "group": event.get_extension("group"),
                "data": event.get_data(),
            }
            # One write, so that the lines of two threads do not mix.
            sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
            sys.stdout.flush()
        self.answer(204)

    def body(self):
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise Refused(411, "no length")
        if int(length) > BODY_BYTES_MAX:
            raise Refused(413, "too long")
        return self.rfile.read(int(length))

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")  # the body may be unread
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--issuer", required=True, help="Capstan's --public-url: https://iam.example.com")
    parser.add_argument("--audience", required=True, help="origin of the sink: https://hooks.example.com")
    parser.add_argument("--group", required=True, help="group of the subscription: acme")
    parser.add_argument("--cert", required=True, help="certificate of this server, PEM")
    parser.add_argument("--key", required=True, help="its private key, PEM")
    parser.add_argument("--port", type=int, default=8443)
    options = parser.parse_args()

    jwks = options.issuer + "/.well-known/jwks.json"
    Handler.receiver = Receiver(options.issuer, options.audience, options.group, jwks)
    server = http.server.ThreadingHTTPServer(("", options.port), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(options.cert, options.key)
    # Handshakes happen in the threads of the connections: one that hangs keeps nobody else waiting.
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(f"listening on port {server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
