"""Real pseudo-terminals: what is written to one is read at its other end."""

import fcntl
import os
import pty
import struct
import termios
import threading


class Terminal:
    """A terminal so many columns wide. Write to `stream`; `text()` closes it and says what it has shown."""

    def __init__(self, columns: int) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")
        self._read = b""
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        self._read = read_all(self._ours)

    def text(self) -> str:
        self.stream.close()
        self._reader.join(timeout=30)
        return self._read.decode().replace("\r\n", "\n")


def read_all(descriptor: int) -> bytes:
    """Everything up to the end of whoever writes; closes the descriptor."""
    found = b""
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # the terminal closes with the last writer
            break
        if not chunk:
            break
        found += chunk
    os.close(descriptor)
    return found
