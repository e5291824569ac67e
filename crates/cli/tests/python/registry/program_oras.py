"""Pushes or pulls a file with the Python package `oras`: VERB HOST REPOSITORY [USER PASSWORD]"""

import sys

from oras.client import OrasClient

verb, host, repository, *credential = sys.argv[1:]
client = OrasClient(hostname=host, insecure=True, auth_backend="basic")
if credential:
    client.login(username=credential[0], password=credential[1], hostname=host)
if verb == "push":
    client.push(target=f"{host}/{repository}:1", files=["note.txt"])
else:
    client.pull(target=f"{host}/{repository}:1", outdir="pulled")
