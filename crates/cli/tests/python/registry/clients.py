"""Real package managers install a scoped npm package, and a local version and an epoch of Python's.

Each one is tried by who may, by who may not, and by nobody. The table says what came of it:
installed, or the status and whether the user reads Capstan's sentence.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from world import PATIENCE, World

# dev/test installs them here.
TOOLS = Path(__file__).resolve().parents[5] / "target/tools"
PYTHON, NODE = TOOLS / "python/bin", TOOLS / "node_modules/.bin"
SENTENCES = {
    "may": None,
    "may not": "libraries.{0}.list is required at acme/libraries: CAPABILITY_NOT_IN_ROLE",
    "nobody": "authentication is required",
}


def who(case, kind):
    """The identity of a case: a name and its secret."""
    other = {"python": "javascript", "javascript": "python"}[kind]
    return {"may": f"libraries.{kind}.pull", "may not": f"libraries.{other}.pull"}.get(case)


def netrc(place, name):
    """Writes the credential of an identity where pip and uv look for it."""
    (place / "netrc").write_text(
        f"machine 127.0.0.1 login acme/{name} password demo-{name}\n" if name else ""
    )
    return {"NETRC": str(place / "netrc"), "HOME": str(place), "PIP_CONFIG_FILE": os.devnull}


def pip(world, place, name, wanted):
    command = [PYTHON / "pip", "install", "--no-deps", "--no-cache-dir", "--no-input"]
    command += ["--disable-pip-version-check", "--target", place / "installed", wanted]
    command += ["--index-url", f"http://127.0.0.1:{world.port}/python/simple/"]
    return command, "installed/editions.py", netrc(place, name)


def uv(world, place, name, wanted):
    command = [PYTHON / "uv", "pip", "install", "--no-deps", "--no-cache", "--no-config"]
    command += ["--python", PYTHON / "python", "--target", place / "installed", wanted]
    command += ["--default-index", f"http://127.0.0.1:{world.port}/python/simple/"]
    return command, "installed/editions.py", netrc(place, name)


def configured(world, place, name):
    """Writes the configuration of npm and pnpm."""
    registry = f"//127.0.0.1:{world.port}/javascript/"
    token = f"{registry}:_authToken=demo-{name}\n" if name else ""
    (place / ".npmrc").write_text(f"registry=http:{registry}\n{token}")
    (place / "package.json").write_text('{"name": "x", "version": "1.0.0"}')
    home = {"HOME": str(place), "XDG_CACHE_HOME": str(place), "XDG_DATA_HOME": str(place)}
    return "node_modules/@acme/scoped/package.json", home | {"npm_config_cache": str(place)}


def npm(world, place, name, wanted):
    made, environment = configured(world, place, name)
    return ["npm", "install", "--no-audit", "--no-fund", wanted], made, environment


def pnpm(world, place, name, wanted):
    made, environment = configured(world, place, name)
    return [NODE / "pnpm", "add", "--store-dir", place / "store", wanted], made, environment



def yarn(world, place, name, wanted):
    made, environment = configured(world, place, name)
    (place / "yarn.lock").touch()
    (place / ".yarnrc.yml").write_text(
        f"npmRegistryServer: http://127.0.0.1:{world.port}/javascript\n"
        "unsafeHttpWhitelist: [127.0.0.1]\n"
        "nodeLinker: node-modules\n"
        "enableGlobalCache: false\n"
        "enableTelemetry: false\n"
        "npmMinimalAgeGate: 0\n"
        + (f"npmAuthToken: demo-{name}\nnpmAlwaysAuth: true\n" if name else "")
    )
    return [NODE / "yarn", "add", f"{wanted}@1.0.0"], made, environment


CLIENTS = [
    (pip, "python", "editions==1.0+local.1"),
    (pip, "python", "editions==1!2.0"),
    (uv, "python", "editions==1.0+local.1"),
    (uv, "python", "editions==1!2.0"),
    (npm, "javascript", "@acme/scoped"),
    (pnpm, "javascript", "@acme/scoped"),
    (yarn, "javascript", "@acme/scoped"),
]


def clients(folder, capstan):
    for tool in (PYTHON / "uv", NODE / "pnpm", NODE / "yarn"):
        assert tool.exists(), f"{tool} is missing: dev/test installs it"
    with World(folder, capstan) as world:
        for number, (client, kind, wanted) in enumerate(CLIENTS):
            for case, sentence in SENTENCES.items():
                place = Path(folder) / f"client-{number}-{case.replace(' ', '-')}"
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                command, made, environment = client(world, place, who(case, kind), wanted)
                # Settings of this machine could name other repositories.
                inherited = {
                    name: value
                    for name, value in os.environ.items()
                    if not re.match("(pip|uv|npm|yarn|pnpm)_", name.lower())
                }
                run = subprocess.run(
                    [str(part) for part in command],
                    cwd=place,
                    env=inherited | {"NO_COLOR": "1", "CI": "1"} | environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=PATIENCE * 2,
                )
                installed = run.returncode == 0 and (place / made).is_file()
                assert installed == (case == "may"), (client, case, run.returncode, run.stdout)
                reached = [target for _, target, _ in world.reached()]
                assert bool(reached) == (case == "may"), (case, reached)
                shown = "installed"
                if not installed:
                    # Words of the terminal may be wrapped.
                    text = " ".join(run.stdout.split())
                    status = re.findall(r"(?<!\d)(40[0-9])\b", text)
                    reads = sentence.format(kind) in text
                    shown = f"{status[0] if status else 'no status'}, "
                    shown += "reads why" if reads else "does not read why"
                spelled = sorted({target for target in reached if "%" in target})
                print("\t".join([client.__name__, wanted, case, shown, *spelled]))
