"""The permissions of every role: attempts of real clients, compared with the catalog."""

import artifacts
from judge import Policy
from world import World

READ = {"manifest.list", "repo.list"}
WRITE = {"manifest.create", "repo.update"}
IMAGE, LIBRARY = "acme/images/team/hello", "acme/libraries"
# The requirements of each action: capabilities and their resource. `@` is by digest, without it by
# tag. skopeo checks for a blob before it pushes it, and deletes a tag by its digest.
NEEDS = {
    "login": (set(), "acme"),
    "repositories": ({"repo.list"}, "acme/images"),
    "tags": ({"tag.list"}, IMAGE),
    "pull": (READ | {"tag.list"}, IMAGE),
    "pull@": (READ, IMAGE),
    "push": (READ | WRITE | {"tag.create"}, IMAGE),
    "push@": (READ | WRITE, IMAGE),
    "mount": (READ | WRITE, IMAGE),
    "delete": (READ | {"tag.list", "manifest.delete"}, IMAGE),
    "delete@": ({"manifest.delete"}, IMAGE),
    "apk": ({"apk.list"}, "acme/apk"),
    "java": ({"libraries.java.list"}, LIBRARY),
    "python": ({"libraries.python.list"}, LIBRARY),
    "javascript": ({"libraries.javascript.list"}, LIBRARY),
}


def attempts(world, who, pulled, blob):
    """The actions of NEEDS that this identity can do. Asserts that only these had an effect."""

    def allowed(status, good):
        assert status in (good, 403), status
        return status == good

    def happened(could, did):
        assert could == did, (who, could, did)
        return could

    def fetch(target):
        return allowed(world.curl(who, "GET", target), 200)

    mine = f"team/{who}"
    by_tag, _ = world.put(mine, "tag", f"{who} by tag")
    by_digest, _ = world.put(mine, "digest", f"{who} by digest")
    new, _ = artifacts.image(world.folder / "images" / who, f"pushed by {who}")
    local, new = f"oci:{world.folder}/images/{who}:latest", artifacts.digest(new)
    target = world.folder / "pulled" / who
    target.mkdir(parents=True)

    def pull(reference):
        copy = target / reference.replace(":", "-")
        could = world.skopeo(
            who, "copy", world.image("team/hello", reference), f"dir:{copy}", side="src-"
        )
        manifest = copy / "manifest.json"
        whole = manifest.exists() and artifacts.digest(manifest.read_bytes()) == pulled
        return happened(could, whole)

    def push(repository, reference):
        could = world.skopeo(who, "copy", local, world.image(repository, reference), side="dest-")
        return happened(could, world.has(repository, reference))

    return {
        "login": fetch("/v2/"),
        "repositories": fetch("/v2/_catalog"),
        "tags": world.skopeo(who, "list-tags", f"docker://127.0.0.1:{world.port}/team/hello"),
        "pull": pull("1"),
        "pull@": pull(pulled),
        "push": push(f"{mine}-push", "new"),
        "push@": push(f"{mine}-digest", new),
        "mount": happened(
            allowed(
                world.curl(
                    who, "POST", f"/v2/{mine}-mount/blobs/uploads/?mount={blob}&from=team/hello"
                ),
                201,
            ),
            world.behind("HEAD", f"/v2/{mine}-mount/blobs/{blob}")[0] == 200,
        ),
        "delete": happened(
            world.skopeo(who, "delete", world.image(mine, "tag")), not world.has(mine, by_tag)
        ),
        "delete@": happened(
            allowed(world.curl(who, "DELETE", f"/v2/{mine}/manifests/{by_digest}"), 202),
            not world.has(mine, by_digest),
        ),
        "apk": fetch("/apk/x86_64/hello-1.0-r0.apk"),
        "java": fetch("/java/com/acme/hello/1.0/hello-1.0.jar"),
        "python": fetch("/python/files/hello-1.0-py3-none-any.whl"),
        "javascript": fetch("/javascript/hello/-/hello-1.0.0.tgz"),
    }


def roles(folder, capstan):
    policy = Policy(capstan)
    with World(folder, capstan) as world:
        pulled, blob = world.put("team/hello", "1", "hello")
        print(f"{'identity':44}  {'role':41}", *NEEDS)
        for who, role, _ in policy.bindings:
            could = attempts(world, who, pulled, blob)
            requests = world.reached()
            assert requests
            policy.judge(requests, who)
            marks = [
                "x".ljust(len(what)) if could[what] else ".".ljust(len(what)) for what in NEEDS
            ]
            print(" ".join([f"{'acme/' + who:44}  {role:41}", *marks]).rstrip())
            should = {
                what: all(policy.allows(who, capability, at) for capability in needs)
                for what, (needs, at) in NEEDS.items()
            }
            assert could == should, (who, could, should)
        assert sum(1 for _, role, _ in policy.bindings if "/" not in role) == 12
