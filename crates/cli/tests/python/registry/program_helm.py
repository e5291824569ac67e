"""Logs in, pushes or pulls a chart with Helm's own code: VERB HOST REPOSITORY [USER PASSWORD]

The Python package `helm-python-sdk` has Helm 4 in a library. The last part of the repository is the
chart's name.
"""

import sys

from helm_python.chart import Chart, package
from helm_python.registry import RegistryClient

verb, host, repository, *credential = sys.argv[1:]
above, name = repository.rsplit("/", 1)
with RegistryClient(plain_http=True, credentials_file="helm.json") as client:
    if credential:
        client.login(host, *credential, plain_http=True)
    if verb == "push":
        Chart.create(name, ".")
        package(name)
        client.push(f"{name}-0.1.0.tgz", f"oci://{host}/{above}", plain_http=True)
    elif verb == "pull":
        client.pull(f"oci://{host}/{repository}", version="0.1.0", plain_http=True)
