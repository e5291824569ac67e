"""Expired and revoked permissions, requests while Capstan cannot decide, and the terminal's words."""

import re
import shutil
import signal
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from judge import Policy
from stack import PATIENCE, Program
from tricks import OWN, SECRET
from world import EXAMPLE, World

RELOADED, KEPT = "loaded and", "not reloaded"


def change(world, name, text, says=RELOADED):
    """Changes the policy or the routes, and waits until Capstan logs the outcome."""
    path, since = getattr(world, name), len(world.capstan.said)
    assert path.read_text() != text
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
    world.capstan.wait_for(says, since)


def without(text, part):
    """The text without the only line that contains this part."""
    lines = text.splitlines(keepends=True)
    rest = [line for line in lines if part not in line]
    assert len(lines) == len(rest) + 1, part
    return "".join(rest)


def credentials(world):
    for who, secret in [
        (None, None),  # no credential
        ("viewer", "demo-expired"),  # expired on the first of January
        ("viewer", "wrong"),
        ("viewer", "demo-owner"),  # the secret of another identity
        ("nobody", "demo-viewer"),
        ("viewer", "demo-viewer "),
        ("Viewer", "demo-viewer"),
    ]:
        status, headers = world.status(who, OWN, secret)
        assert status == 401, (who, secret, status)
        assert headers["WWW-Authenticate"] == 'Basic realm="registry"', headers
        assert world.reached() == []
    assert world.status("viewer", OWN)[0] == 200
    world.reached()
    print("7 credentials refused")


def revoked(world):
    """After Capstan logs a reload, the first request is refused."""
    whole = world.policy.read_text()

    def refused(who, part, status, target=OWN):
        assert world.status(who, target)[0] == 200
        change(world, "policy", without(whole, part))
        world.reached()
        assert world.status(who, target)[0] == status
        assert not world.skopeo(who, "inspect", world.image("team/hello", "1"))
        assert world.reached() == []
        change(world, "policy", whole)
        assert world.status(who, target)[0] == 200

    refused(
        "viewer",
        "acme/viewer, sha256: " + re.search(r"acme/viewer, sha256: (\w+)\}", whole)[1],
        401,
    )
    refused("registry.pull", "identity: acme/registry.pull, role", 403)

    # A credential that expires while it is in use is refused from then on, without a reload.
    ends = int(time.time()) + 2
    until = f", expires_at: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(ends))}}}"
    change(world, "policy", re.sub(r"(acme/viewer, sha256: \w+)\}", r"\1" + until, whole))
    statuses = []
    while (asked := time.time()) < ends:
        statuses.append(world.status("viewer", OWN)[0])
        # A request at the time of the expiry may be decided before or after it.
        assert statuses[-1] == 200 or time.time() >= ends, (asked, ends)
    assert 200 in statuses
    assert world.status("viewer", OWN)[0] == 401
    change(world, "policy", whole)

    # An invalid policy changes nothing.
    change(world, "policy", whole.replace("role: viewer,", "role: veiwer,"), KEPT)
    assert world.status("viewer", OWN)[0] == 200
    change(world, "policy", whole)

    # An invalid route table changes nothing. A table without a route denies its requests.
    routes = world.routes.read_text()
    change(world, "routes", routes.replace("[GET, HEAD]", "[GET, HEAD, GOT]", 1), KEPT)
    assert world.status("viewer", OWN)[0] == 200
    change(
        world,
        "routes",
        routes.replace("/v2/{repository...}/tags/list", "/v2/{repository...}/tags/none"),
    )
    assert world.status("owner", "/v2/team/hello/tags/list")[0] == 403
    change(world, "routes", routes)
    assert world.status("owner", "/v2/team/hello/tags/list")[0] == 200
    world.reached()
    print("2 revocations, 1 expiry, 2 invalid documents, 1 removed route")


def undecided(world):
    """Without Capstan, every request of every identity gets 503, at once or after the timeout."""
    everybody = [
        ("owner", OWN),
        ("team", OWN),
        ("team", SECRET),
        (None, OWN),
        ("apk.pull", "/apk/x86_64/hello-1.0-r0.apk"),
        ("owner", "/v2/"),
        ("owner", "/v2/_catalog"),
        ("viewer", "/apk/nowhere"),
    ]

    def nothing_passes():
        with ThreadPoolExecutor(len(everybody)) as clients:
            statuses = list(clients.map(lambda ask: world.status(*ask)[0], everybody))
        assert set(statuses) == {503}, statuses
        assert world.reached() == []

    def decides_again():
        until = time.monotonic() + PATIENCE
        for who, target, wanted in (("owner", OWN, 200), ("team", SECRET, 403)):
            while (status := world.status(who, target)[0]) != wanted:
                assert status == 503 and time.monotonic() < until, status
        world.reached()

    world.capstan.process.send_signal(signal.SIGSTOP)
    nothing_passes()
    world.capstan.process.send_signal(signal.SIGCONT)
    decides_again()

    # Capstan is killed under load: answers before that are correct, and later requests get 503.
    told, dead, done = threading.Semaphore(0), threading.Event(), threading.Event()
    after = []

    def ask_on():
        while not done.is_set():
            was_dead = dead.is_set()
            status, _ = world.status("team", OWN)
            assert status == 503 if was_dead else status in (200, 503), status
            assert world.status("team", SECRET)[0] in ([503] if was_dead else [403, 503])
            if was_dead:
                after.append(status)
                if len(after) >= 40:
                    done.set()
            told.release()

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask_on) for _ in range(4)]
        try:
            for _ in range(40):
                assert told.acquire(timeout=PATIENCE)
            world.capstan.stop(signal.SIGKILL)
            dead.set()
            for client in asking:
                client.result(PATIENCE)
        finally:
            done.set()
    Policy(world.capstan_program).judge(world.reached(), "team")
    nothing_passes()
    world.start_capstan()
    decides_again()

    world.capstan.stop(signal.SIGTERM)
    nothing_passes()
    world.start_capstan()
    decides_again()
    print("stopped, killed and terminated: no request passed")


def terminal(folder, capstan):
    """The example prints Capstan's log, mistakes of the policy included, and serves metrics."""
    copy = Path(folder) / "copy"
    shutil.copytree(EXAMPLE, copy, dirs_exist_ok=True)
    policy = copy / "policy.yaml"
    right = policy.read_text()
    wrong = right.replace("role: viewer,", "role: veiwer,")
    assert wrong != right
    mistake = "found `veiwer`"
    command = [sys.executable, copy / "stack.py", Path(folder) / "terminal", capstan, 0, 0]

    policy.write_text(wrong)
    refused = Program("the example", command, folder)
    assert refused.process.wait(PATIENCE) == 1
    refused.stop()
    assert mistake in refused.text() and "Traceback" not in refused.text(), refused.text()

    policy.write_text(right)
    example = Program("the example", command, folder)
    try:
        example.wait_for("Ctrl-C stops")
        address = re.search(r"curl (http://\S+/metrics)", example.text())[1]
        assert "capstan_requests_total" in urllib.request.urlopen(address).read().decode()
        policy.write_text(wrong)
        example.wait_for(mistake)
    finally:
        example.stop(signal.SIGINT)
    assert example.process.returncode == 0, example.text()
    print("a refused start, a refused reload, and metrics are seen on the terminal")


def faults(folder, capstan):
    terminal(folder, capstan)
    with World(folder, capstan) as world:
        world.put("team/hello", "1", "hello")
        world.put("secret/app", "1", "secret")
        credentials(world)
        revoked(world)
        # With the unchanged configuration of the example.
        world.envoy, world.port = world.envoy_with(0, "impatient")
        undecided(world)
