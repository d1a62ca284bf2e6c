"""Plays one conversation with a program at a real terminal.

usage: terminal.py STEPS PROGRAM [ARGUMENT...]

STEPS is JSON: a list of ["see", TEXT] and ["type", TEXT]. What the program printed goes to stdout,
without control sequences; the exit code is the program's, or 99 where a step failed.
"""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

DEADLINE_S = 60
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|\r")


class Terminal:
    def __init__(self, arguments):
        self.process, self.file = pty.fork()
        if self.process == 0:
            os.execv(arguments[0], arguments)
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.deadline = time.monotonic() + DEADLINE_S
        self.raw = b""
        self.seen = 0

    def text(self):
        return CONTROL.sub("", self.raw.decode("utf-8", "replace"))

    def read(self):
        """Reads more; false where the program is gone."""
        left = self.deadline - time.monotonic()
        ready, _, _ = select.select([self.file], [], [], max(left, 0))
        if not ready:
            raise TimeoutError("no more output")
        try:
            more = os.read(self.file, 65536)
        except OSError:  # Linux says so where the other side is closed.
            return False
        self.raw += more
        return bool(more)

    def see(self, wanted):
        """Waits for the text, after what was seen before."""
        while (at := self.text().find(wanted, self.seen)) < 0:
            if not self.read():
                raise EOFError(f"the program ended before {wanted!r}")
        self.seen = at + len(wanted)

    def type(self, text):
        os.write(self.file, text.encode())

    def end(self):
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def main():
    terminal = Terminal(sys.argv[2:])
    step = None
    try:
        for step in json.loads(sys.argv[1]):
            getattr(terminal, step[0])(step[1])
        step = "the end"
        code = terminal.end()
    except (TimeoutError, EOFError) as error:
        print(f"{step}: {error}", file=sys.stderr)
        os.kill(terminal.process, signal.SIGKILL)
        os.waitpid(terminal.process, 0)
        code = 99
    print(terminal.text())
    return code


sys.exit(main())
