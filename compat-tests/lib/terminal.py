"""A terminal with a program in it, and a person in front: waits for a prompt, types, reads what is on the screen.

What is typed shows up on the screen only if the terminal echoes it, so a test can tell whether a password was hidden.
"""

import os
import pty
import re
import select
import signal
import struct
import termios
import time
from fcntl import ioctl

from world import Failure

# Colours, cursor movements and what else a terminal would not show as text.
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\x1b[@-Z\\-_=>78]")


class Terminal:
    def __init__(self, command, env=None, cwd="/", columns=200, rows=50):
        self.command, self.screen, self.read_to = command, b"", 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(cwd)
                os.execvpe(command[0], command, env if env is not None else os.environ)
            except OSError as error:
                os.write(2, f"{command[0]}: {error}\n".encode())
            os._exit(127)
        ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def text(self):
        """Everything that was on the screen so far."""
        return CONTROL.sub(b"", self.screen).decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")

    def _read(self, seconds):
        """Reads what comes; False at the end."""
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return True
        try:
            part = os.read(self.fd, 65536)
        except OSError:
            part = b""
        self.screen += part
        return bool(part)

    def expect(self, pattern, seconds=30):
        """Waits for `pattern` (a regular expression) in what came since the last match; gives the text up to its end."""
        deadline = time.monotonic() + seconds
        open_end = True
        while True:
            text = self.text()
            found = re.compile(pattern, re.MULTILINE).search(text, self.read_to)
            if found:
                before, self.read_to = self.read_to, found.end()
                return text[before:found.end()]
            if not open_end:
                raise Failure(f"{' '.join(self.command[-4:])} ended without {pattern!r}; the screen shows:\n{text[-1500:]}")
            if time.monotonic() > deadline:
                raise Failure(f"no {pattern!r} within {seconds} s; the screen shows:\n{text[-1500:]}")
            open_end = self._read(min(0.5, max(0.01, deadline - time.monotonic())))

    def type(self, line):
        """A line, and Enter."""
        os.write(self.fd, line.encode() + b"\r")

    def press(self, keys):
        """Keys as they are: `\\x04` is Ctrl-D."""
        os.write(self.fd, keys.encode())

    def end(self, seconds=30):
        """Waits for the program's end; (exit code, what was on the screen since the last match)."""
        deadline = time.monotonic() + seconds
        while self._read(0.2):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise Failure(f"{' '.join(self.command[-4:])} did not end within {seconds} s; the screen shows:\n{self.text()[-1500:]}")
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status), self.text()[self.read_to:]
