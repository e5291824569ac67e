"""The example with relays, and its clients."""

import base64
import re
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

from relay import Relay

EXAMPLE = Path(__file__).resolve().parents[5] / "deploy/examples/registry"
sys.path.insert(0, str(EXAMPLE))

import artifacts  # noqa: E402
from stack import PATIENCE, Local, Stack  # noqa: E402

ACCEPT = f"Accept: {artifacts.MANIFEST_TYPE}"
# The sockets behind the relays.
BEHIND = ("registry-behind.sock", "files-behind.sock")


class World(Stack):
    """The example with relays, and with a policy and routes that tests can change."""

    def __init__(self, folder, capstan, data=None):
        super().__init__(folder, capstan, behind=BEHIND, data=data)
        for name in ("policy", "routes"):
            copy = self.folder / f"{name}.yaml"
            copy.write_text(getattr(self, name).read_text())
            setattr(self, name, copy)
        self.relays = [
            Relay(self.folder / front, self.folder / behind)
            for front, behind in zip(("registry.sock", "files.sock"), BEHIND, strict=True)
        ]

    def start_envoy(self):
        # On a busy machine, an answer can take longer than the timeout of the example.
        self.envoy, self.port = self.envoy_with(
            0, "envoy", ("timeout: 1s", f"timeout: {PATIENCE}s")
        )

    def reached(self):
        """The requests that reached the registry and the files since the last call."""
        found = [request for relay in self.relays for request in relay.requests]
        for relay in self.relays:
            relay.requests.clear()
        return found

    def behind(self, method, target, body=None, **headers):
        """Sends a request directly to the registry. Returns status, headers, body."""
        local = Local(self.folder / BEHIND[0])
        local.request(
            method, target, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = local.getresponse()
        body = answer.read()
        local.close()
        return answer.status, answer.headers, body

    def put(self, repository, tag, text):
        """Puts an image directly into the registry. Returns the digests of manifest and blob."""
        manifest, blobs = artifacts.image(self.folder / "images" / text, text)
        for digest, data in blobs.items():
            status, headers, _ = self.behind("POST", f"/v2/{repository}/blobs/uploads/")
            assert status == 202, status
            target = f"{headers['Location']}&digest={digest}"
            status, _, said = self.behind(
                "PUT", target, data, Content_Type="application/octet-stream"
            )
            assert status == 201, said
        target = f"/v2/{repository}/manifests/{tag}"
        status, _, said = self.behind("PUT", target, manifest, Content_Type=artifacts.MANIFEST_TYPE)
        assert status == 201, said
        return artifacts.digest(manifest), digest

    def has(self, repository, reference):
        target = f"/v2/{repository}/manifests/{reference}"
        return self.behind("HEAD", target, Accept=artifacts.MANIFEST_TYPE)[0] == 200

    def curl(self, who, method, target):
        """The status that curl gets."""
        curl = "curl --silent --show-error --path-as-is --output /dev/null"
        curl = f"{curl} --write-out %{{http_code}} --max-time {PATIENCE} --request {method}"
        command = [*curl.split(), "--user", user(who), f"http://127.0.0.1:{self.port}{target}"]
        run = subprocess.run(command, capture_output=True, text=True)
        return int(run.stdout)

    def skopeo(self, who, verb, *arguments, side=""):
        """Whether skopeo succeeded. Asserts that a failure is a denial."""
        command = ["skopeo", verb, f"--{side}tls-verify=false", f"--{side}creds", user(who)]
        command += ["--insecure-policy"] if verb == "copy" else []
        run = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=PATIENCE
        )
        if run.returncode != 0:
            assert re.search(r"denied|403|Forbidden|unauthorized", run.stderr), run.stderr
        return run.returncode == 0

    def image(self, repository, reference):
        mark = "@" if ":" in reference else ":"
        return f"docker://127.0.0.1:{self.port}/{repository}{mark}{reference}"

    def status(self, who, target, secret=None, method="GET"):
        """The status and the headers of one request on a new connection."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {"Accept": artifacts.MANIFEST_TYPE} | (
            {"Authorization": basic(who, secret)} if who else {}
        )
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, answer.headers


def user(who, secret=None):
    return f"acme/{who}:{secret or 'demo-' + who}"


def basic(who, secret=None):
    return "Basic " + base64.b64encode(user(who, secret).encode()).decode()
