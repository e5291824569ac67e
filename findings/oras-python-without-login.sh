#!/usr/bin/env bash
# oras 0.2.43, the client for Python of OCI registries: with `auth_backend="basic"` and before a login, a registry's 401
# is answered with six requests in 131 seconds, and then with an error about the program, not about the credential.
#
# Guess: without a credential, the client reports the 401 at once, as skopeo, podman and docker do, or sends the request a
# second time without one.
#
# Seen: the answer to the challenge reads an attribute that only a login sets. That AttributeError counts as a failure of
# the network, so the request is repeated after 3, 5, 11, 29 and 83 seconds, each time without a credential. What
# the user reads in the end is `'BasicAuth' object has no attribute '_basic_auth'`. With a wrong credential there are two
# requests, no wait, and the error says Unauthorized.
#
# It matters for whoever tests a registry's denials with this client, or runs it in a pipeline with a missing secret: log
# in first. The waits are recorded here, and not waited for.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME="$folder" # No credential of the user's.
unset ORAS_USER ORAS_PASS
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check oras==0.2.43
cat >try.py <<'PYTHON'
import http.server
import threading
import time

import oras.client


class Registry(http.server.BaseHTTPRequestHandler):
    """Answers every request with 401 and a challenge."""

    seen = []

    def do_GET(self):
        self.seen.append(self.headers.get("Authorization") is not None)
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
threading.Thread(target=server.serve_forever, daemon=True).start()
host = f"127.0.0.1:{server.server_port}"
waits = []
time.sleep = waits.append


def pull(credential):
    """Whether each request had a credential, the waits, and the error."""
    Registry.seen.clear()
    waits.clear()
    client = oras.client.OrasClient(hostname=host, insecure=True, auth_backend="basic")
    if credential:
        client.auth.set_basic_auth(*credential)
    try:
        client.get_manifest(f"{host}/team/note:1")
    except Exception as error:
        return list(Registry.seen), list(waits), f"{type(error).__name__}: {error}"
    raise AssertionError("the pull succeeds")


without = pull(None)
print("no credential:   ", *without)
wrong = pull(("user", "wrong"))
print("wrong credential:", *wrong)
assert without[:2] == ([False] * 6, [3, 5, 11, 29, 83]), without
assert without[2] == "AttributeError: 'BasicAuth' object has no attribute '_basic_auth'", without
assert wrong[:2] == ([False, True], []), wrong
assert "Unauthorized" in wrong[2], wrong
PYTHON
python/bin/python try.py
