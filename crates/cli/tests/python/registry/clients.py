"""Real package managers install a scoped npm package, a local version and an epoch of Python's, and
a library of Java.

Each one is tried by who may, by who may not, and by nobody. The table says what came of it:
installed, or the status and whether the user reads Capstan's sentence. Some are also tried by who
may not with a second repository that anybody may read.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from world import PATIENCE, World, artifacts

# dev/test installs them here.
TOOLS = Path(__file__).resolve().parents[5] / "target/tools"
DEBIAN = Path("/usr/share/maven-repo")
PYTHON, NODE = TOOLS / "python/bin", TOOLS / "node_modules/.bin"
SENTENCES = {
    "may": None,
    "may not": "libraries.{0}.list is required at acme/libraries: CAPABILITY_NOT_IN_ROLE",
    "nobody": "authentication is required",
}
NEXT = "may not, and knows a second repository"
# Settings of this machine could name other repositories.
OURS = "pip|uv|npm|yarn|pnpm|maven|gradle|docker|container|containers|registry|helm|oras"


def who(case, kind):
    """The identity of a case: a name and its secret."""
    other = {"python": "javascript", "javascript": "python", "java": "python"}[kind]
    names = {"may": f"libraries.{kind}.pull", "may not": f"libraries.{other}.pull"}
    return (names | {NEXT: names["may not"]}).get(case)


def netrc(place, name):
    """Writes the credential of an identity where pip and uv look for it."""
    (place / "netrc").write_text(
        f"machine 127.0.0.1 login acme/{name} password demo-{name}\n" if name else ""
    )
    return {"NETRC": str(place / "netrc"), "HOME": str(place), "PIP_CONFIG_FILE": os.devnull}


def pip(world, place, name, wanted):
    second = place / "second"
    command = [PYTHON / "pip", "install", "--no-deps", "--no-cache-dir", "--no-input"]
    command += ["--disable-pip-version-check", "--target", place / "installed", wanted]
    command += ["--index-url", f"http://127.0.0.1:{world.port}/python/simple/"]
    if second.exists():
        command += ["--extra-index-url", (second / "python/simple").as_uri()]
    return command, "installed/editions.py", netrc(place, name)


def uv(world, place, name, wanted):
    command = [PYTHON / "uv", "pip", "install", "--no-deps", "--no-cache", "--no-config"]
    command += ["--python", PYTHON / "python", "--target", place / "installed", wanted]
    ours, second = f"http://127.0.0.1:{world.port}/python/simple/", place / "second"
    if second.exists():
        # uv's own strategy, the first index, ends at a denial.
        command += ["--index", ours, "--index-strategy", "unsafe-best-match"]
        ours = (second / "python/simple").as_uri()
    command += ["--default-index", ours]
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


def maven(world, place, name, wanted):
    group, artifact, version = wanted.split(":")
    second = place / "second/java"
    repository = "<repository><id>{0}</id><url>{1}</url></repository>".format
    repositories = repository("acme", f"http://127.0.0.1:{world.port}/java/")
    if second.exists():
        repositories += repository("second", second.as_uri())
    plugins = repository("debian", DEBIAN.as_uri()).replace("repository>", "pluginRepository>")
    server = f"<id>acme</id><username>acme/{name}</username><password>demo-{name}</password>"
    (place / "settings.xml").write_text(
        "<settings>"
        + (f"<servers><server>{server}</server></servers>" if name else "")
        + "<mirrors><mirror><id>acme</id><mirrorOf>*,!second,!debian</mirrorOf>"
        f"<url>http://127.0.0.1:{world.port}/java/</url></mirror></mirrors>"
        f"<profiles><profile><id>all</id><repositories>{repositories}</repositories>"
        f"<pluginRepositories>{plugins}</pluginRepositories></profile></profiles>"
        "<activeProfiles><activeProfile>all</activeProfile></activeProfiles></settings>"
    )
    (place / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><packaging>pom</packaging>"
        "<groupId>x</groupId><artifactId>x</artifactId><version>1</version>"
        f"<dependencies><dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version></dependency></dependencies></project>"
    )
    # The plugin comes from Debian's package, so no other repository is needed.
    plugin = DEBIAN / "org/apache/maven/plugins/maven-dependency-plugin"
    newest = max(
        (found.name for found in plugin.iterdir() if found.name[0].isdigit()),
        key=lambda found: [int(number) for number in found.split(".")],
    )
    command = ["mvn", "-q", "-B", "-s", "settings.xml", f"-Dmaven.repo.local={place}/repo"]
    command += [f"org.apache.maven.plugins:maven-dependency-plugin:{newest}:resolve"]
    return command, "repo/com/acme/hello/1.0/hello-1.0.jar", {"HOME": str(place)}


def gradle(world, place, name, wanted):
    second = place / "second/java"
    credentials = f"credentials {{ username 'acme/{name}'; password 'demo-{name}' }}"
    (place / "build.gradle").write_text(
        "repositories {\n"
        f"  maven {{ url 'http://127.0.0.1:{world.port}/java/'; {credentials if name else ''} }}\n"
        + (f"  maven {{ url '{second.as_uri()}' }}\n" if second.exists() else "")
        + f"}}\nconfigurations {{ acme }}\ndependencies {{ acme '{wanted}' }}\n"
        "task fetch(type: Copy) { from configurations.acme; into 'libraries' }\n"
    )
    command = ["gradle", "-q", "--no-daemon", "--console", "plain", "-g", place / "home", "fetch"]
    return command, "libraries/hello-1.0.jar", {"HOME": str(place)}


CLIENTS = [
    (pip, "python", "editions==1.0+local.1"),
    (pip, "python", "editions==1!2.0"),
    (uv, "python", "editions==1.0+local.1"),
    (uv, "python", "editions==1!2.0"),
    (npm, "javascript", "@acme/scoped"),
    (pnpm, "javascript", "@acme/scoped"),
    (yarn, "javascript", "@acme/scoped"),
    (maven, "java", "com.acme:hello:1.0"),
    (gradle, "java", "com.acme:hello:1.0"),
]
# These go on to the next repository after a denial.
GO_ON = [
    (pip, "python", "editions==1.0+local.1"),
    (uv, "python", "editions==1.0+local.1"),
    (maven, "java", "com.acme:hello:1.0"),
    (gradle, "java", "com.acme:hello:1.0"),
]


def run(command, place, environment):
    """Runs a client in its folder. Returns whether it succeeded, and what it printed."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not re.match(f"({OURS})_", name.lower())
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=place,
        env=inherited | {"NO_COLOR": "1", "CI": "1"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE * 2,
    )
    return done.returncode == 0, done.stdout


def reading(text, sentence):
    """What the user reads of a denial: the status, and whether Capstan's sentence."""
    # Words of the terminal may be wrapped. Neither a digest nor a time is a status.
    text = " ".join(text.split())
    status = re.findall(r"(?<![\da-z.])(40[0-9])\b", text)
    reads = "reads why" if sentence in text else "does not read why"
    return f"{status[0] if status else 'no status'}, {reads}"


def clients(folder, capstan):
    for tool in (PYTHON / "uv", NODE / "pnpm", NODE / "yarn"):
        assert tool.exists(), f"{tool} is missing: dev/test installs it"
    with World(folder, capstan) as world:
        attempts = [(*client, case) for client in CLIENTS for case in SENTENCES]
        attempts += [(*client, NEXT) for client in GO_ON]
        for number, (client, kind, wanted, case) in enumerate(attempts):
            place = Path(folder) / f"client-{number}"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            if case == NEXT:
                artifacts.files(place / "second")
            command, made, environment = client(world, place, who(case, kind), wanted)
            could, text = run(command, place, environment)
            installed = could and (place / made).is_file()
            assert installed == (case in ("may", NEXT)), (client, case, could, text)
            reached = [target for _, target, _ in world.reached()]
            assert bool(reached) == (case == "may"), (case, reached)
            if installed:
                shown = "installed from the second" if case == NEXT else "installed"
            else:
                shown = reading(text, SENTENCES[case].format(kind))
            spelled = sorted({target for target in reached if "%" in target})
            print("\t".join([client.__name__, wanted, case, shown, *spelled]), flush=True)
