"""A pull token of a store: made with the command line, it logs the real skopeo in, pulls, and is refused by the first
request after it is revoked. So is one that has ended, and it is known after Capstan starts again.
"""

import json
import subprocess
import time

from stack import PATIENCE
from world import World

IMAGE = "team/hello"


def make(world, role, *more):
    """A token, as what `create` prints."""
    create = ["auth", "pull-token", "create", "--group", "acme", "--role", role]
    return json.loads(world.manage(*create, *more, "--output", "json"))


def skopeo(world, *arguments, stdin=None):
    """What skopeo comes to with the credentials of its own file: code and text."""
    auth = ["--authfile", str(world.folder / "auth.json")]
    run = subprocess.run(
        ["skopeo", arguments[0], *auth, "--tls-verify=false", *arguments[1:]],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return run.returncode, run.stdout + run.stderr


def login(world, token):
    host = f"127.0.0.1:{world.port}"
    arguments = ["login", "--username", token["username"], "--password-stdin", host]
    return skopeo(world, *arguments, stdin=token["secret"])


def tokens(folder, capstan):
    with World(folder, capstan, data=f"{folder}/data") as world:
        world.put(IMAGE, "1", "hello")
        image = world.image(IMAGE, "1")
        assert login(world, {"username": "acme", "secret": "wrong"})[0] != 0

        token = make(world, "registry.pull")
        code, said = login(world, token)
        assert code == 0, said
        code, said = skopeo(world, "inspect", image)
        assert code == 0 and json.loads(said)["Name"].endswith(IMAGE), said
        print("a new token logs in and pulls")

        code, said = skopeo(world, "delete", image)
        assert code != 0 and "manifest.delete is required" in said, said
        assert world.has(IMAGE, "1")
        print("it does not delete")

        id = token["pull_token"]["id"]
        listed = json.loads(world.manage("auth", "pull-token", "list", "--output", "json"))
        seen = [one for one in listed["pull_tokens"] if one["id"] == id]
        assert seen[0].get("last_seen"), listed
        print("when it was last used is listed")

        # After the store is loaded again the token is the same.
        world.running.remove(world.capstan)
        world.capstan.stop()
        world.start_capstan()
        code, said = skopeo(world, "inspect", image)
        assert code == 0, said
        print("it is known after a restart")

        world.manage("auth", "pull-token", "revoke", id, "--yes")
        code, said = skopeo(world, "inspect", image)
        assert code != 0 and "unauthorized" in said.lower(), said
        print("revoked, it is refused by the next request")

        short = make(world, "registry.pull", "--ttl", "2s")
        code, said = login(world, short)
        assert code == 0, said
        time.sleep(2.5)
        code, said = skopeo(world, "inspect", image)
        assert code != 0 and "unauthorized" in said.lower(), said
        print("ended, it is refused")

        # A role of packages gives nothing of images, and a token that is good names no other user.
        packages = make(world, "apk.pull")
        code, said = login(world, packages)
        assert code == 0, said
        code, said = skopeo(world, "inspect", image)
        assert code != 0 and "is required" in said, said
        other = packages | {"username": "acme/other"}
        assert login(world, other)[0] != 0
        print("a token of packages pulls no image, and has one user name")
