"""Requests that try to evade the routes. acme/team may only push and pull below team."""

import base64
import re
import socket
import subprocess
from urllib.parse import parse_qsl

from judge import Policy
from stack import PATIENCE
from world import ACCEPT, World, basic, user


def http(
    method, target, *headers, who="team", version="HTTP/1.1", host="registry.example", body=b""
):
    """The bytes of a request. Headers are text or bytes, and are not changed."""

    def raw(text):
        return text if isinstance(text, bytes) else text.encode()

    lines = [b" ".join([raw(method), raw(target), raw(version)])]
    if host is not None:
        lines.append(b"Host: " + raw(host))
    if who:
        lines.append(b"Authorization: " + raw(basic(who)))
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    lines += [raw(header) for header in (ACCEPT, *headers)]
    return b"\r\n".join([*lines, b"Connection: close", b"", body])


def answers(port, data):
    """Sends these bytes. Returns the statuses of the responses."""
    got, last = b"", rb"(?i)\r\nconnection: close\r\n(.*\r\n)*\r\n"
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        try:
            connection.sendall(data)
            while not re.search(last, got) and (more := connection.recv(65536)):
                got += more
        except (ConnectionResetError, BrokenPipeError):
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", got)]


OWN, SECRET = "/v2/team/hello/manifests/1", "/v2/secret/app/manifests/1"
SPOOFED = ["X-Capstan-Identity: acme/owner", "X-Capstan-Revision: 9"]
OWNER = "Authorization: " + basic("owner")


def paths():
    """Forms of a path. acme/team may read everything below team, and nothing below secret."""
    yield "its own", OWN
    yield "another's", SECRET
    yield "two slashes first", "/" + SECRET
    yield "two slashes first, its own", "/" + OWN
    yield "two slashes within", SECRET.replace("secret", "/secret")
    yield "two slashes within, its own", OWN.replace("hello", "/hello")
    yield "three slashes after its own", "/v2/team/..///secret/app/manifests/1"
    yield "a dot", "/v2/./secret/app/manifests/1"
    yield "a dot, its own", "/v2/./team/./hello/manifests/1"
    yield "two dots", "/v2/team/../secret/app/manifests/1"
    yield "two dots, to its own", "/v2/secret/../team/hello/manifests/1"
    yield "two dots, out of the API", "/v2/team/../../apk/x86_64/hello-1.0-r0.apk"
    yield "more dots than segments", "/v2/../../../../v2/secret/app/manifests/1"
    yield "escaped dots", "/v2/team/%2e%2e/secret/app/manifests/1"
    yield "escaped dots, upper case", "/v2/team/%2E%2E/secret/app/manifests/1"
    yield "half escaped dots", "/v2/team/.%2e/secret/app/manifests/1"
    yield "an escaped dot", "/v2/%2e/secret/app/manifests/1"
    yield "dots escaped twice", "/v2/team/%252e%252e/secret/app/manifests/1"
    yield "an escaped slash", "/v2/team%2f..%2fsecret/app/manifests/1"
    yield "an escaped slash, upper case", "/v2/team/hello%2F..%2F..%2Fsecret%2Fapp/manifests/1"
    yield "an escaped slash, its own", "/v2/team%2fhello/manifests/1"
    yield "a slash escaped twice", "/v2/team%252f..%252fsecret/app/manifests/1"
    yield "a backslash", "/v2/team\\..\\secret/app/manifests/1"
    yield "a backslash for a slash, its own", "/v2/team\\hello/manifests/1"
    yield "an escaped backslash", "/v2/team%5c..%5csecret/app/manifests/1"
    yield "a parameter", "/v2/secret;x/app/manifests/1"
    yield "a parameter, its own", "/v2/team/hello;x/manifests/1"
    yield "dots with a parameter", "/v2/team/..;/secret/app/manifests/1"
    yield "an escaped semicolon", "/v2/team/..%3b/secret/app/manifests/1"
    yield "a fragment", "/v2/team/hello/manifests/1#/../../../secret/app/manifests/1"
    yield "an escaped fragment", "/v2/team/hello/manifests/1%23"
    yield "an escaped question mark", "/v2/secret/app/manifests/1%3f/team/hello/manifests/1"
    yield "an escaped letter", "/v2/%73ecret/app/manifests/1"
    yield "an escaped letter, its own", "/v2/%74eam/hello/manifests/1"
    yield "an escaped keyword", "/v2/secret/app/%6danifests/1"
    yield "an escaped NUL", "/v2/team/hello/manifests/1%00/../../../secret"
    yield "escaped line ends", "/v2/team/hello/manifests/1%0d%0aX-Capstan-Identity:%20acme/owner"
    yield "an escaped space", "/v2/team%20/hello/manifests/1"
    yield "an escape that is none", "/v2/team/%zz/manifests/1"
    yield "an escape cut short", "/v2/team/hello/manifests/%2"
    yield "not UTF-8", b"/v2/team/\xff\xfe/manifests/1"
    yield "not UTF-8, escaped", "/v2/team/%ff%fe/manifests/1"
    yield "dots, overlong", "/v2/team/%c0%ae%c0%ae/secret/app/manifests/1"
    yield "dots, full width", "/v2/team/\uff0e\uff0e/secret/app/manifests/1"
    yield "another case", "/V2/secret/app/manifests/1"
    yield "a slash last", SECRET + "/"
    yield "a slash last, its own", OWN + "/"
    yield "nothing in a segment's place", "/v2/team/hello/manifests/"
    yield "a keyword as a name", "/v2/team/hello/manifests/x/../../../../secret/app/manifests/1"
    yield "a keyword as a repository", "/v2/secret/app/manifests/team/hello/manifests/1"
    yield "its own in a query", SECRET + "?" + OWN
    yield "another's in a query", OWN + "?path=" + SECRET
    yield "17 segments", "/v2/team" + "/a" * 17 + "/manifests/1"
    yield "2,000 segments", "/v2/team" + "/a" * 2000 + "/manifests/1"
    yield "16 KiB", "/v2/team/" + "a" * 16384 + "/manifests/1"
    yield "64 KiB", "/v2/team/" + "a" * 65536 + "/../../secret/app/manifests/1"
    yield "64 KiB of dots", "/v2/team" + "/." * 32768 + "/hello/manifests/1"
    yield "64 KiB of query", OWN + "?" + "a" * 65536
    yield "absolute", "http://registry.example" + SECRET
    yield "absolute, its own", "http://registry.example" + OWN
    yield "absolute, of another host", "http://evil.example" + SECRET
    yield "absolute, with a user", "http://acme%2Fowner:demo-owner@registry.example" + SECRET
    yield "absolute, another scheme", "file:///" + SECRET
    yield "absolute, two slashes", "http://registry.example/" + SECRET
    yield "no slash first", SECRET[1:]
    yield "an asterisk", "*"
    yield "no path of ours", "/admin"
    yield "nothing", "/"
    yield "the API without its slash", "/v2"
    yield "a space", "/v2/team/hello /manifests/1"
    yield "a tab", "/v2/team/hello\t/manifests/1"


def requests(blob, owners_hash):
    """Names and bytes of requests of acme/team."""
    for name, path in paths():
        yield f"path: {name}", http("GET", path)

    yield "method: override to another", http("GET", OWN, "X-HTTP-Method-Override: DELETE")
    yield (
        "method: override to one that is allowed",
        http("DELETE", OWN, "X-HTTP-Method-Override: GET"),
    )
    yield "method: override by X-HTTP-Method", http("GET", OWN, "X-HTTP-Method: DELETE")
    yield "method: override by X-Method-Override", http("GET", OWN, "X-Method-Override: DELETE")
    yield "method: override in a query", http("GET", OWN + "?_method=DELETE")
    yield (
        "method: override in a query of a writing one",
        http("PUT", OWN + "?_method=DELETE", body=b"{}"),
    )
    yield "method: small letters", http("get", OWN)
    yield "method: delete in small letters", http("delete", SECRET)
    yield "method: unknown", http("FETCH", OWN)
    yield "method: TRACE", http("TRACE", OWN)
    yield "method: OPTIONS", http("OPTIONS", OWN)
    yield "method: OPTIONS *", http("OPTIONS", "*")
    yield "method: CONNECT a host", http("CONNECT", "registry.example:80")
    yield "method: CONNECT a path", http("CONNECT", SECRET)
    yield "method: HEAD of another's", http("HEAD", SECRET)

    yield "version: 1.0 without host", http("GET", OWN, version="HTTP/1.0", host=None)
    yield "version: 1.0 with host", http("GET", OWN, version="HTTP/1.0")
    yield "version: 0.9", b"GET " + SECRET.encode() + b"\r\n\r\n"
    yield "version: 1.1 without host", http("GET", OWN, host=None)
    yield "version: 2.0 in words", http("GET", OWN, version="HTTP/2.0")
    yield (
        "version: the preface of HTTP/2, then HTTP/1.1",
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http("GET", SECRET)),
    )

    yield "host: twice", http("GET", OWN, "Host: evil.example")
    yield "host: empty", http("GET", OWN, host="")
    yield "host: with a path", http("GET", OWN, host="registry.example/v2/secret")
    yield "host: with a user", http("GET", OWN, host="acme@registry.example")

    yield "identity: nobody", http("GET", OWN, who=None)
    yield "identity: nobody who says who", http("GET", SECRET, *SPOOFED, who=None)
    yield "identity: who says another", http("GET", SECRET, *SPOOFED)
    yield "identity: who says another, its own", http("GET", OWN, *SPOOFED)
    yield "identity: said twice", http("GET", OWN, *SPOOFED, *SPOOFED)
    yield "identity: said in capitals", http("GET", OWN, "X-CAPSTAN-IDENTITY: acme/owner")
    yield "identity: with underscores", http("GET", SECRET, "X_Capstan_Identity: acme/owner")
    yield "identity: dropped by Connection", http("GET", OWN, "Connection: x-capstan-identity")
    yield (
        "identity: said and dropped by Connection",
        http("GET", OWN, *SPOOFED, "Connection: x-capstan-identity, authorization"),
    )
    yield (
        "identity: in a client certificate's header",
        http(
            "GET", SECRET, "X-Forwarded-Client-Cert: URI=spiffe://example.org/acme/owner", who=None
        ),
    )
    yield (
        "identity: in a trailer",
        http(
            "POST",
            "/v2/team/hello/blobs/uploads/",
            "Transfer-Encoding: chunked",
            "Trailer: x-capstan-identity",
        )
        + b"0\r\nX-Capstan-Identity: acme/owner\r\n\r\n",
    )
    yield (
        "identity: named by a cookie",
        http("GET", SECRET, "Cookie: identity=acme/owner", who=None),
    )

    yield "credential: two", http("GET", SECRET, OWNER)
    yield "credential: two, its own", http("GET", OWN, "Authorization: " + basic("team"))
    yield (
        "credential: the owner's first",
        http("GET", SECRET, OWNER, "Authorization: " + basic("team"), who=None),
    )
    yield (
        "credential: two in one line",
        http("GET", OWN, f"Authorization: {basic('team')}, {basic('owner')}", who=None),
    )
    yield (
        "credential: another's secret",
        http("GET", SECRET, "Authorization: " + basic("owner", "demo-team"), who=None),
    )
    yield (
        "credential: no colon",
        http(
            "GET", OWN, "Authorization: Basic " + base64.b64encode(b"demo-team").decode(), who=None
        ),
    )
    yield (
        "credential: no user",
        http(
            "GET", OWN, "Authorization: Basic " + base64.b64encode(b":demo-team").decode(), who=None
        ),
    )
    yield "credential: not base64", http("GET", OWN, "Authorization: Basic ???", who=None)
    yield "credential: empty", http("GET", OWN, "Authorization:", who=None)
    yield (
        "credential: a hash for a secret",
        http("GET", SECRET, f"Authorization: Bearer {owners_hash}", who=None),
    )
    yield (
        "credential: in another header",
        http("GET", SECRET, "Proxy-Authorization: " + basic("owner"), who=None),
    )
    yield "credential: in the query", http("GET", OWN + "?access_token=demo-owner", who=None)
    yield "credential: 64 KiB", http("GET", OWN, "Authorization: Bearer " + "a" * 65536, who=None)

    for header in (
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Envoy-Original-Path",
        "X-Forwarded-Uri",
        "X-Original-URI",
        "X-Accel-Redirect",
        "X-Forwarded-Prefix",
    ):
        yield f"header: {header}", http("GET", OWN, f"{header}: {SECRET}")
    yield (
        "header: Forwarded",
        http("GET", OWN, "Forwarded: for=127.0.0.1;host=evil.example;proto=https"),
    )
    yield "header: X-Forwarded-Host", http("GET", OWN, "X-Forwarded-Host: evil.example")
    yield (
        "header: Envoy's own",
        http(
            "GET",
            OWN,
            "X-Envoy-Internal: true",
            "X-Envoy-Upstream-Alt-Stat-Name: x",
            "X-Envoy-Original-Method: DELETE",
            "X-Envoy-Retry-On: 5xx",
            "X-Envoy-Decorator-Operation: x",
        ),
    )
    yield "header: of HTTP/2", http("GET", OWN, ":path: " + SECRET)
    yield "header: not UTF-8", http("GET", OWN, b"X-Name: \xff\xfe")
    yield "header: with a NUL", http("GET", OWN, b"X-Name: a\x00b")
    yield "header: folded", http("GET", OWN, "X-Name: a\r\n X-Capstan-Identity: acme/owner")
    yield "header: 300 of them", http("GET", OWN, *[f"X-{number}: a" for number in range(300)])
    yield "header: Expect", http("PUT", SECRET, "Expect: 100-continue", body=b"{}")

    yield (
        "upgrade: websocket",
        http(
            "GET",
            OWN,
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
    )
    yield (
        "upgrade: h2c",
        http(
            "GET",
            OWN,
            "Upgrade: h2c",
            "Connection: Upgrade, HTTP2-Settings",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
        ),
    )
    yield "upgrade: TLS", http("GET", OWN, "Upgrade: TLS/1.2", "Connection: Upgrade")

    inner = http("GET", SECRET)
    yield (
        "smuggled: after a request",
        http("GET", OWN).replace(b"Connection: close\r\n", b"") + inner,
    )
    yield "smuggled: in a body", http("GET", OWN, body=inner)
    yield (
        "smuggled: length and chunks",
        http(
            "POST",
            "/v2/team/hello/blobs/uploads/",
            "Transfer-Encoding: chunked",
            body=b"0\r\n\r\n" + inner,
        ),
    )
    yield (
        "smuggled: two lengths",
        http("POST", "/v2/team/hello/blobs/uploads/", "Content-Length: 0", body=inner),
    )
    yield (
        "smuggled: chunks, misspelt",
        http("POST", "/v2/team/hello/blobs/uploads/", "Transfer-Encoding: xchunked") + inner,
    )
    yield (
        "smuggled: a space before the colon",
        http("POST", "/v2/team/hello/blobs/uploads/", "Transfer-Encoding : chunked")
        + b"0\r\n\r\n"
        + inner,
    )
    yield "smuggled: a bare line end", http("GET", OWN, "X-Name: a\nX-Capstan-Identity: acme/owner")

    uploads = "/v2/team/mount/blobs/uploads/"
    form = "Content-Type: application/x-www-form-urlencoded"
    fields = f"mount={blob}&from=secret/app".encode()
    for name, query in [
        ("its own", f"mount={blob}&from=team/hello"),
        ("its own, escaped", f"mount={blob.replace(':', '%3A')}&from=team%2Fhello"),
        ("another's", f"mount={blob}&from=secret/app"),
        ("another's, escaped", f"mount={blob}&from=secret%2Fapp"),
        ("another's, name escaped", f"mount={blob}&%66rom=secret/app"),
        ("another's, name in capitals", f"mount={blob}&From=secret/app"),
        ("first its own", f"mount={blob}&from=team/hello&from=secret/app"),
        ("first another's", f"mount={blob}&from=secret/app&from=team/hello"),
        ("its own, then another's escaped", f"mount={blob}&from=team/hello&%66rom=secret/app"),
        ("after a semicolon", f"mount={blob};from=secret/app"),
        ("its own, another's after a semicolon", f"mount={blob}&from=team/hello;from=secret/app"),
        ("dots", f"mount={blob}&from=team/../secret/app"),
        ("a slash first", f"mount={blob}&from=/secret/app"),
        ("escaped twice", f"mount={blob}&from=team%252f..%252f..%252fsecret/app"),
        ("a space", f"mount={blob}&from=team/hello+"),
        ("empty", f"mount={blob}&from="),
        ("without from", f"mount={blob}"),
        ("without mount", "from=secret/app"),
        ("a second question mark", f"mount={blob}&?from=secret/app"),
        ("another's, with ns and origin", f"origin=o&from=secret/app&ns=n&mount={blob}"),
        ("its own, with ns and origin", f"mount={blob}&from=team/hello&origin=o&ns=n"),
        ("something else", f"mount={blob}&from=team/hello&x=1"),
    ]:
        yield f"mount: {name}", http("POST", f"{uploads}?{query}", "Content-Length: 0")
    yield "mount: another's, in a form", http("POST", uploads, form, body=fields)
    yield (
        "mount: another's, in a form, its own in the query",
        http("POST", f"{uploads}?mount={blob}&from=team/hello", form, body=fields),
    )
    yield (
        "mount: another's, in a form with a charset",
        http("POST", uploads, form.upper() + "; charset=utf-8", body=fields),
    )
    yield (
        "mount: another's, in a form after another type",
        http("POST", uploads, "Content-Type: text/plain", form, body=fields),
    )
    yield (
        "mount: another's, in a form of parts",
        http(
            "POST",
            uploads,
            "Content-Type: multipart/form-data; boundary=b",
            body=b"\r\n".join(
                part
                for name, value in parse_qsl(fields.decode())
                for part in (
                    b"--b",
                    f'Content-Disposition: form-data; name="{name}"'.encode(),
                    b"",
                    value.encode(),
                )
            )
            + b"\r\n--b--\r\n",
        ),
    )
    yield (
        "mount: another's, in a form to PUT",
        http("PUT", f"{uploads}?digest={blob}", form, body=fields),
    )


def over_http2(world):
    """Requests over HTTP/2, which has header fields instead of lines: names and statuses."""
    url = f"http://127.0.0.1:{world.port}"
    for name, target, *options in [
        ("its own", OWN),
        ("another's", SECRET),
        ("two slashes", SECRET.replace("secret", "/secret")),
        ("two dots", "/v2/team/../secret/app/manifests/1"),
        ("escaped dots", "/v2/team/%2e%2e/secret/app/manifests/1"),
        ("an escaped slash", "/v2/team%2f..%2fsecret/app/manifests/1"),
        ("a backslash", "/v2/team\\..\\secret/app/manifests/1"),
        ("a parameter", "/v2/team/..;/secret/app/manifests/1"),
        ("who says another", OWN, "--header", SPOOFED[0]),
        ("two credentials", OWN, "--header", OWNER, "--header", "Authorization: " + basic("team")),
        ("another host", OWN, "--header", "Host: evil.example"),
        ("no slash", "/", "--request-target", SECRET[1:]),
        ("CONNECT", SECRET, "--request", "CONNECT"),
    ]:
        curl = "curl --silent --http2-prior-knowledge --path-as-is --output /dev/null"
        curl = f"{curl} --write-out %{{http_code}} --max-time {PATIENCE} --user {user('team')}"
        command = [*curl.split(), "--header", ACCEPT, *options, url + target]
        run = subprocess.run(command, capture_output=True, text=True)
        yield f"HTTP/2: {name}", [int(run.stdout)]


def tricks(folder, capstan):
    policy = Policy(capstan)
    with World(folder, capstan) as world:
        world.put("team/hello", "1", "hello")
        _, blob = world.put("secret/app", "1", "secret")
        assert world.has("secret/app", "1")
        owner = re.search(r"acme/owner, sha256: (\w+)", world.policy.read_text())[1]
        asked = 0

        def report(name, statuses):
            nonlocal asked
            asked += 1
            reached = world.reached()
            policy.judge(reached, "team")
            shown = [
                f"{method} {target}".replace("%3A", ":").replace(blob, "BLOB")
                for method, target, _ in reached
            ]
            print("\t".join([name, ",".join(map(str, statuses)) or "closed", *shown]))

        for name, data in requests(blob, owner):
            report(name, answers(world.port, data))
        for name, statuses in over_http2(world):
            report(name, statuses)
        # A response to HEAD has no body, so a header has the reason.
        status, headers = world.status("team", SECRET, method="HEAD")
        reason = "manifest.list is required at acme/images/secret/app: NO_BINDING"
        assert (status, headers["X-Capstan-Reason"]) == (403, reason), headers
        # No blob of the other repository was mounted.
        assert world.behind("HEAD", f"/v2/team/mount/blobs/{blob}")[0] == 404
        assert world.has("secret/app", "1") and world.has("team/hello", "1")
        assert asked >= 40
