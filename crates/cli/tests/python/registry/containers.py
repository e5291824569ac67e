"""Real container tools log in, pull, push, and push what was pulled from another repository.

Each action is tried by who may, by who may not, and by nobody. The table says what came of it:
done, or the status and whether the user reads Capstan's sentence.

containerd and dockerd run with folders and sockets of their own, as root, and without networks.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from clients import PYTHON, reading, run
from judge import Policy
from stack import Program
from world import World, user

HERE = Path(__file__).resolve().parent
# Debian's. A machine may have another one in its PATH.
DOCKER = "/usr/bin/docker"
# Who tries each action. Every valid credential logs in.
WHO = {
    "login": {"may": "apk.pull", "nobody": "nobody"},
    "pull": {"may": "viewer", "may not": "apk.pull", "nobody": None},
    # Last who may: containerd pushes nothing that is there.
    "push": {"may not": "viewer", "nobody": None, "may": "team"},
    # May push, but may not read where the layers come from.
    "copy": {"may": "team"},
}
NEEDS = {
    "pull": "manifest.list is required at acme/images/{}: CAPABILITY_NOT_IN_ROLE",
    "push": "manifest.create is required at acme/images/{}: CAPABILITY_NOT_IN_ROLE",
}
SECRET = "secret/app"


class Tool:
    """A client with a folder of its own. A command that fails ends the attempt."""

    def __init__(self, world, place, sockets):
        self.world, self.place, self.sockets = world, place, sockets
        self.host = f"127.0.0.1:{world.port}"
        self.environment, self.printed = {"HOME": str(place)}, ""
        self.source, self.target = "team/hello", f"team/{place.name}"
        place.mkdir()

    def attempt(self, action, who):
        """Whether the action succeeded, and what the client printed."""
        self.printed = ""
        try:
            getattr(self, action)(who)
        except Failed:
            return False, self.printed
        return True, self.printed

    def do(self, *command):
        could, text = run(command, self.place, self.environment)
        self.printed += text
        if not could:
            raise Failed

    def credential(self, who):
        return user(who).split(":") if who else []


class Failed(Exception):
    pass


class Skopeo(Tool):
    name = "skopeo"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.environment["REGISTRY_AUTH_FILE"] = str(self.place / "auth.json")

    def login(self, who):
        name, secret = self.credential(who)
        self.do("skopeo", "login", "--tls-verify=false", "-u", name, "-p", secret, self.host)

    def between(self, source, target, **sides):
        (self.place / "auth.json").write_text("{}")
        command = ["skopeo", "copy", "--insecure-policy"]
        for side, who in sides.items():
            command += [f"--{side}-tls-verify=false"]
            command += [f"--{side}-creds", user(who)] if who else []
        self.do(*command, source, target)

    def pull(self, who):
        self.between(self.world.image(self.source, "1"), f"dir:{who}", src=who)

    def push(self, who):
        self.between("dir:viewer", self.world.image(self.target, "1"), dest=who)

    def copy(self, who):
        images = [self.world.image(name, "1") for name in (SECRET, f"{self.target}-copy")]
        self.between(*images, src="owner", dest=who)


class Podman(Tool):
    name, program = "podman", ("podman",)

    def __init__(self, *arguments):
        super().__init__(*arguments)
        (self.place / "registries.conf").write_text(
            f'[[registry]]\nlocation = "{self.host}"\ninsecure = true\n'
        )
        (self.place / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{self.place}/images"\n'
            f'runroot = "{self.sockets}/podman"\n'
        )
        (self.place / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self.environment |= {
            "CONTAINERS_REGISTRIES_CONF": str(self.place / "registries.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.place / "storage.conf"),
            "REGISTRY_AUTH_FILE": str(self.place / "auth.json"),
        }

    def sign_in(self, who):
        # podman reads nothing from a registry if this file is missing.
        (self.place / "auth.json").write_text("{}")
        if who:
            self.login(who)

    def login(self, who):
        name, secret = self.credential(who)
        self.do(*self.program, "login", "-u", name, "-p", secret, self.host)

    def pull(self, who):
        self.sign_in(who)
        self.do(*self.program, "pull", f"{self.host}/{self.source}:1")

    def push(self, who):
        self.pushed(who, self.source, self.target)

    def copy(self, who):
        self.sign_in("owner")
        self.do(*self.program, "pull", f"{self.host}/{SECRET}:1")
        self.pushed(who, SECRET, f"{self.target}-copy")

    def pushed(self, who, source, target):
        self.sign_in(who)
        self.do(*self.program, "tag", f"{self.host}/{source}:1", f"{self.host}/{target}:1")
        self.do(*self.program, "push", f"{self.host}/{target}:1")


class Docker(Podman):
    name, program = "docker", (DOCKER,)

    def __init__(self, world, place, sockets):
        Tool.__init__(self, world, place, sockets)
        self.environment |= {
            "DOCKER_HOST": f"unix://{sockets}/docker.sock",
            "DOCKER_CONFIG": str(place / "config"),
        }

    def sign_in(self, who):
        shutil.rmtree(self.place / "config", ignore_errors=True)
        if who:
            self.login(who)


class Containerd(Tool):
    name = "containerd"

    def images(self, verb, who, *references):
        command = ["ctr", "--address", self.sockets / "containerd.sock", "images", verb]
        command += ["--snapshotter", "native"] if verb == "pull" else []
        command += ["--plain-http", *(["--user", user(who)] if who else [])]
        self.do(*command, *(f"{self.host}/{reference}:1" for reference in references))

    def pull(self, who):
        self.images("pull", who, self.source)

    def push(self, who):
        self.images("push", who, self.target, self.source)

    def copy(self, who):
        self.images("pull", "owner", SECRET)
        self.images("push", who, f"{self.target}-copy", SECRET)


class Mirrored(Containerd):
    """containerd that asks for the images of another host here: it adds `?ns=HOST`."""

    name = "containerd, as mirror"

    def __init__(self, world, place, sockets):
        super().__init__(world, place, sockets)
        # containerd asks for no image that it has.
        self.source, self.target = "team/mirrored", "team/containerd-mirror"
        world.put(self.source, "1", "mirrored")

    def images(self, verb, who, *references):
        hosts = self.place / "hosts/registry.example"
        hosts.mkdir(parents=True, exist_ok=True)
        (hosts / "hosts.toml").write_text(
            f'server = "http://{self.host}"\n[host."http://{self.host}"]\n'
            'capabilities = ["pull", "resolve", "push"]\n'
        )
        command = ["ctr", "--address", self.sockets / "containerd.sock", "images", verb]
        command += ["--snapshotter", "native"] if verb == "pull" else []
        command += ["--hosts-dir", hosts.parent, *(["--user", user(who)] if who else [])]
        self.do(*command, *(f"registry.example/{reference}:1" for reference in references))


class Oras(Tool):
    name, program = "oras", HERE / "program_oras.py"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.source = self.target
        (self.place / "note.txt").write_text("hello\n")

    def ask(self, verb, who, repository):
        shutil.rmtree(self.place / ".docker", ignore_errors=True)
        (self.place / "helm.json").unlink(missing_ok=True)
        self.do(PYTHON / "python", self.program, verb, self.host, repository, *self.credential(who))

    def credential(self, who):
        # Without a credential this version of oras tries again for two minutes.
        return super().credential(who or "nobody")

    def pull(self, who):
        self.ask("pull", who, self.target)

    def push(self, who):
        self.ask("push", who, self.target)


class Helm(Oras):
    name, program = "helm", HERE / "program_helm.py"
    credential = Tool.credential

    def login(self, who):
        self.ask("login", who, self.target)


# The actions of each tool, in the order in which they are tried.
TOOLS = [
    (Skopeo, ["login", "pull", "push", "copy"]),
    (Podman, ["login", "pull", "push", "copy"]),
    (Docker, ["login", "pull", "push", "copy"]),
    (Containerd, ["pull", "push", "copy"]),
    (Mirrored, ["pull", "push"]),
    (Oras, ["push", "pull"]),
    (Helm, ["login", "push", "pull"]),
]


@contextlib.contextmanager
def daemons(folder):
    """containerd and dockerd. Their sockets are in a folder with a short path."""
    running = []
    folder.mkdir()
    with tempfile.TemporaryDirectory(prefix="registry-", ignore_cleanup_errors=True) as sockets:
        sockets = Path(sockets)
        (folder / "containerd.toml").write_text(
            f'version = 2\nroot = "{folder}/containerd"\nstate = "{sockets}/containerd"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{sockets}/containerd.sock"\n'
        )
        try:
            running.append(
                Program("containerd", ["containerd", "-c", folder / "containerd.toml"], folder)
            )
            running[-1].wait_for("successfully booted")
            command = "dockerd --iptables=false --ip6tables=false --bridge=none"
            command += " --storage-driver vfs"
            command += f" --data-root {folder}/docker --exec-root {sockets}/docker"
            command += f" --pidfile {sockets}/docker.pid --host unix://{sockets}/docker.sock"
            command += f" --containerd {sockets}/containerd.sock --config-file {folder}/docker.json"
            (folder / "docker.json").write_text("{}")
            running.append(Program("dockerd", command.split(), folder))
            running[-1].wait_for("API listen on")
            yield sockets
        finally:
            while running:
                running.pop().stop()


def outcome(world, tool, action, case, who):
    """Tries one action. Returns the words of the table."""
    could, text = tool.attempt(action, who)
    assert could == (case == "may"), (tool.target, action, case, text)
    requests = world.reached()
    world.rules.judge(requests)
    methods = {method for method, _, _ in requests}
    targets = [target for _, target, _ in requests]
    if not could:
        assert methods <= {"GET", "HEAD"}, (tool.target, action, requests)
        needs = {"may not": NEEDS.get(action, ""), "nobody": "authentication is required"}[case]
        return reading(text, needs.format(tool.source if action == "pull" else tool.target))
    if action == "pull":
        assert any("/blobs/" in target for target in targets), targets
    if action in ("push", "copy"):
        assert any(method == "PUT" and "/manifests/" in target for method, target, _ in requests)
    # Which other repositories hold the layers of a copy depends on what ran before.
    mounts = action == "push" and any("mount=" in target for target in targets)
    return "done, by a mount" if mounts else "done"


def containers(folder, capstan):
    assert os.geteuid() == 0, "containerd and dockerd need root"
    folder = Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with World(folder / "world", capstan) as world, daemons(folder / "daemons") as sockets:
        world.rules = Policy(capstan)
        world.put("team/hello", "1", "hello")
        world.put(SECRET, "1", "secret")
        for kind, actions in TOOLS:
            tool = kind(world, folder / kind.__name__.lower(), sockets)
            for action in actions:
                for case, who in WHO[action].items():
                    shown = outcome(world, tool, action, case, who)
                    print(tool.name, action, case, shown, sep="\t", flush=True)
