"""The rules for every request that passes Envoy: a naive model of the routes and the policy.

Written from the prose of the distribution API and of the roles, not from the route table.
"""

import json
import re
import subprocess
from urllib.parse import parse_qsl

from world import EXAMPLE


def required(method, target):
    """The required capabilities and resources of a request. None if no identity may make it."""
    path, _, query = target.partition("?")
    query = parse_qsl(query, keep_blank_values=True)
    static = re.fullmatch(r"/(apk|java|python|javascript)/.+", path)
    if static and method in ("GET", "HEAD"):
        library = static[1]
        if library == "apk":
            return [("apk.list", "acme/apk")]
        return [(f"libraries.{library}.list", "acme/libraries")]
    if path == "/v2/" and method in ("GET", "HEAD"):
        return []
    if path == "/v2/_catalog" and method == "GET":
        return [("repo.list", "acme/images")]
    kinds = "manifests/[^/]+|blobs/[^/]+:[^/]+|blobs/uploads/[^/:]*|tags/list|referrers/[^/]+"
    found = re.fullmatch(f"/v2/(.+)/({kinds})", path)
    if not found:
        return None
    repository, what = f"acme/images/{found[1]}", found[2]
    read = [("manifest.list", repository), ("repo.list", repository)]
    write = [("manifest.create", repository), ("repo.update", repository)]
    kind, reference = what.split("/", 1)
    tag = kind == "manifests" and ":" not in reference
    if what == "tags/list":
        return [("tag.list", repository)] if method == "GET" else None
    if what.startswith("blobs/uploads/"):
        sources = [value for name, value in query if name == "from"]
        mounts = [value for name, value in query if name == "mount"]
        if max(len(sources), len(mounts)) > 1 or (sources + mounts and method != "POST"):
            return None
        if len(sources) > len(mounts):
            return None
        # Without a source, the registry may search all its repositories.
        read_at = [f"acme/images/{source}" for source in sources] or ["acme/images"] * len(mounts)
        return write + [
            (capability, at) for at in read_at for capability in ("manifest.list", "repo.list")
        ]
    if method in ("GET", "HEAD"):
        return read + ([("tag.list", repository)] if tag else [])
    if method == "PUT" and kind == "manifests":
        return write + ([("tag.create", repository)] if tag else [])
    if method == "DELETE" and kind in ("manifests", "blobs"):
        return [("manifest.delete", repository)]
    return None


# The credential, and headers that some programs use instead of the request line.
REMOVED = {"authorization", "forwarded", "x-forwarded-host", "x-http-method", "x-original-uri"} | {
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
}


class Policy:
    """A naive model of the example's policy."""

    def __init__(self, capstan):
        command = [capstan, *"roles list --output json --policy".split(), EXAMPLE / "policy.yaml"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        self.roles = {
            role["name"]: set(role["capabilities"]) for role in json.loads(listed.stdout)["roles"]
        }
        self.bindings = re.findall(
            r"\{identity: acme/(\S+), role: (\S+), scope: (\S+)\}",
            (EXAMPLE / "policy.yaml").read_text(),
        )

    def allows(self, who, capability, resource):
        return any(
            bound == who
            and capability in self.roles[role]
            and f"{resource}/".startswith(f"{scope}/")
            for bound, role, scope in self.bindings
        )

    def judge(self, requests, who=None):
        """Asserts that every passed request is allowed and has the identity header."""
        for method, target, headers in requests:
            asked = f"{method} {target} {headers}"
            names = [name for name, _ in headers]
            assert names.count("x-capstan-identity") == 1, asked
            assert names.count("x-capstan-revision") == 1, asked
            assert not REMOVED & set(names), asked
            identity = dict(headers)["x-capstan-identity"].removeprefix("acme/")
            assert who in (None, identity), asked
            assert re.fullmatch(r"/[A-Za-z0-9._~@:+=/-]*(\?[!-~]*)?", target), asked
            assert not re.search(r"//|/\.\.?(/|$)", target.split("?")[0]), asked
            needs = required(method, target)
            assert needs is not None, asked
            for capability, resource in needs:
                assert self.allows(identity, capability, resource), (
                    f"{asked} without {capability} at {resource}"
                )
