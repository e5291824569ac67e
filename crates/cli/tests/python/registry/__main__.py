"""deploy/examples/registry, asked by real clients: skopeo, curl, and bytes of our own.

registry roles FOLDER CAPSTAN     what every role can do; prints the table
registry tricks FOLDER CAPSTAN    requests that pretend to be others; prints what became of them
registry faults FOLDER CAPSTAN    what ends, is taken away, or has nobody to decide about it
"""

import os
import sys

from faults import faults
from roles import roles
from tricks import tricks

part, *paths = sys.argv[1:]
{"roles": roles, "tricks": tricks, "faults": faults}[part](*map(os.path.abspath, paths))
