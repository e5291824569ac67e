"""Tests of deploy/examples/registry with real clients: skopeo, curl, and raw bytes.

registry roles FOLDER CAPSTAN     prints the permissions of every role
registry tricks FOLDER CAPSTAN    prints the outcomes of requests that try to evade the routes
registry clients FOLDER CAPSTAN    prints what real package managers install, and say
registry containers FOLDER CAPSTAN  prints what real container tools pull and push, and say
registry spellings FOLDER CAPSTAN tries generated spellings of paths, with both settings of Envoy
registry tokens FOLDER CAPSTAN    a pull token of a store logs in, pulls, and is revoked
registry faults FOLDER CAPSTAN    expired and revoked permissions, and requests without a decision
"""

import os
import sys

from clients import clients
from containers import containers
from faults import faults
from roles import roles
from spellings import spellings
from tokens import tokens
from tricks import tricks

parts = {
    "clients": clients,
    "containers": containers,
    "roles": roles,
    "spellings": spellings,
    "tokens": tokens,
    "tricks": tricks,
    "faults": faults,
}
part, *paths = sys.argv[1:]
parts[part](*map(os.path.abspath, paths))
