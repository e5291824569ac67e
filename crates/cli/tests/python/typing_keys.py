"""Types keys into an interactive Bash and waits for a text: typing_keys.py FIRST TEXT KEYS.

FIRST is a line to begin with. Fails with everything that the terminal has shown if TEXT does not appear in 30 seconds.
"""

import os
import pty
import select
import signal
import sys
import time

first, text, keys = sys.argv[1:]
shell, terminal = pty.fork()
if shell == 0:
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])

shown = ""
end = time.monotonic() + 30


def wait_for(wanted):
    global shown
    while wanted not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return wanted in shown


os.write(terminal, (first + "echo rea''dy\n").encode())
assert wait_for("ready"), shown
os.write(terminal, keys.encode())
found = wait_for(text)
os.kill(shell, signal.SIGKILL)
sys.exit(None if found else shown)
