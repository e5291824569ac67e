"""Generated spellings of paths, over both settings of Envoy that let an encoded slash through.

acme/team may read below `team` only. A request that reaches an upstream has one reading: the path
after one round of decoding. acme/team may read that path, and, sent as it is, it reaches
the upstream too.
"""

import random
import re
from urllib.parse import unquote

from stack import PATIENCE
from tricks import answers, http
from world import World

COUNT = 500
SETTINGS = ("KEEP_UNCHANGED", "UNESCAPE_AND_FORWARD")
PATHS = (
    "/v2/team/hello/manifests/1",
    "/v2/secret/app/manifests/1",
    "/javascript/team/hello",
    "/javascript/team/@a/b/c/d",
    "/javascript/team/a/~b/c=d/e-f_g",
    "/javascript/secret/app",
    "/javascript/team/@a/b/-/b-1.0.0+1!2.tgz",
    "/python/files/team/hello-1.0+local.1.whl",
    "/python/files/secret/hello-1!1.0.whl",
)
CLIMBS = ("..", "%2e%2e", ".%2E", "%2e.", "%252e%252e", ".", "%2e", "..;", "..%00", "%c0%ae%c0%ae")
SLASHES = (*("%2f", "%2F") * 4, "%5c", "\\", "%252f", "//", "/%2f", "%2f/", "%c0%af", ";/")
OTHERS = ("%00", "%0d%0a", "%20", "%3b", ";x", "%23", "%3f", "%25", "%zz", "%", "%7f", "%ff")


def spelling(draw):
    """A path, changed in one to three ways."""
    parts = [part for part in re.split("(/)", draw.choice(PATHS)) if part]
    for _ in range(draw.choice((1, 1, 2, 3))):
        at = draw.randrange(1, len(parts))
        way = draw.randrange(10)
        if way < 4:
            # Percent-encoding of some characters, sometimes twice.
            escape = "%25" if draw.random() < 0.1 else "%"
            form = draw.choice(("02x", "02X"))

            def encoded(c):
                chosen = (c.isalnum() or c in "+!@:=-_~") and draw.random() < 0.4
                return escape + format(ord(c), form) if chosen else c

            parts[at] = "".join(map(encoded, parts[at]))
        elif way < 7:
            slashes = [number for number, part in enumerate(parts) if part == "/" and number > 0]
            if slashes:
                parts[draw.choice(slashes)] = draw.choice(SLASHES)
        elif way < 9:
            slash = draw.choice(("/", "%2f", "%2F", "\\"))
            climb = [slash, draw.choice(CLIMBS)] * draw.randint(1, 2)
            parts[at:at] = [*climb, slash, draw.choice(("secret/app", "team/hello", ""))]
        else:
            parts.insert(at, draw.choice(OTHERS))
    return "".join(parts)


# The resource is the path below the prefix, so that each spelling matters.
ROUTES = """
  - name: javascript
    methods: [GET]
    path: /javascript/{file...}
    where: {file: encoded_slash}
    require: [{capability: repo.list, resource: "acme/images/{file}"}]
  - name: python
    methods: [GET]
    path: /python/files/{first}/{file}
    require: [{capability: repo.list, resource: "acme/images/{first}"}]
"""


def may(path):
    """Whether acme/team may read this path, which has no percent-encoding."""
    assert re.fullmatch(r"/[A-Za-z0-9._~@:+=!/-]*", path), path
    assert not re.search(r"//|/\.\.?(/|$)", path), path
    return bool(
        re.fullmatch(
            "/v2/(team(/.+)?/manifests/[^/]+)?"
            "|/javascript/team(/[^!]+)?"
            "|/python/files/team/[^/]+",
            path,
        )
    )


def spellings(folder, capstan):
    with World(folder, capstan) as world:
        routes = world.routes.read_text()
        head, since = routes[: routes.index("  - name: python\n")], len(world.capstan.said)
        world.routes.with_suffix(".new").write_text(head + ROUTES)
        world.routes.with_suffix(".new").replace(world.routes)
        world.capstan.wait_for("routes loaded", since)
        for number, setting in enumerate(SETTINGS):
            draw = random.Random(number)
            _, port = world.envoy_with(
                0,
                setting.lower(),
                ("timeout: 1s", f"timeout: {PATIENCE}s"),
                (f"action: {SETTINGS[0]}", f"action: {setting}"),
            )
            passed, joined, statuses = 0, 0, set()
            for _ in range(COUNT):
                target = spelling(draw)
                statuses.update(answers(port, http("GET", target)))
                for method, sent, headers in world.reached():
                    asked = f"{setting}: {target} reached the upstream as {sent}"
                    assert method == "GET" and ("x-capstan-identity", "acme/team") in headers, asked
                    # Envoy may have decoded a part. No more than one round is left.
                    path = unquote(sent, errors="strict")
                    assert "%" not in path and may(path), asked
                    # Every spelling of a slash is one inside a parameter that accepts it.
                    slash = "%2f" in sent.lower()
                    assert not slash or sent.startswith("/javascript/"), asked
                    passed, joined = passed + 1, joined + slash
                    answers(port, http("GET", path))
                    assert [there[1] for there in world.reached()] == [path], asked
            assert {400, 403} <= statuses, statuses
            assert passed >= COUNT // 20, (setting, passed)
            # Envoy itself decodes slashes with the second setting.
            assert joined >= 10 if setting == SETTINGS[0] else joined == 0, (setting, joined)
            print(f"{setting}: {COUNT} spellings, {passed} passed, {joined} with an encoded slash")
