"""Connections that break when a process, or its machine, is gone without a word.

A process that is killed leaves no error, a machine without power or network less than that, and NCCL's collectives
wait half an hour for either. So every process has a TCP connection to the first one, on which hardly a byte is ever
sent. The kernel closes the connections of a process that is killed. That of a machine which cannot be reached fails
after `SILENCE` seconds. Both are the kernels' business: a process that is stopped, busy or stuck loses nothing, and so
does a network that is back in time.

The first process leaves its port and a password in the store of the process group. A connection that does not begin
with the password is closed. One byte says that a connection was accepted, and another one, at the end, that its
process leaves as it should.
"""

import contextlib
import hmac
import os
import secrets
import selectors
import socket
import threading
import time


SILENCE = 60  # seconds without an answer of its kernel, after which a machine is gone
WELCOME, GOODBYE = b"+", b"."
HELLO = 512  # bytes that a process introduces itself with, at most: the password, its number and its machine
PATIENCE = 5.0  # seconds to connect, or to say hello
STRANGERS = 128  # connections that may be about to say hello at the same time


class Lifelines:
    """
    The connections of this process: to the first one, or of the first one to all others.

    Args:
        store (`torch.distributed.Store`): the same for all processes, and new.
        process_index (`int`): this process.
    """

    def __init__(self, store, process_index: int):
        self._store, self._index = store, process_index
        self._selector = selectors.DefaultSelector()
        self._accepted: list[socket.socket] = []
        self._strangers: dict[socket.socket, float] = {}  # who has not said hello yet, and until when it may
        self._door: socket.socket | None = None
        self._password = secrets.token_hex(16)
        if process_index == 0:
            if socket.has_dualstack_ipv6():
                self._door = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
            else:
                self._door = socket.create_server(("", 0))
            host = os.environ.get("MASTER_ADDR") or socket.gethostname()
            store.set("door", f"{host} {self._door.getsockname()[1]} {self._password}")

    def connect(self) -> bool:
        """
        Connects this process to the first one. Returns whether that one has opened its door yet.

        Raises:
            `OSError`: It cannot be reached, though the store can.
        """
        if not self._store.check(["door"]):
            return False
        host, port, password = self._store.get("door").decode().split()
        host = os.environ.get("MASTER_ADDR") or host  # as this machine knows it
        line = socket.create_connection((host, int(port)), timeout=PATIENCE)
        line.sendall(f"{password} {self._index} {socket.gethostname()}\n".encode())
        self._watch(line, f"process 0 ({host})")
        return True

    def lost(self) -> str | None:
        """The process that has gone since the last call, and how; or None."""
        if self._door is not None:
            self._let_in(self._door)
        for key, _ in self._selector.select(0):
            line, who = key.data
            unreachable = False
            try:
                said, how = line.recv(1), "ended without saying why: it was killed, or its machine was restarted"
            except OSError as error:
                said, how = b"", f"is gone, killed or its machine unreachable for {SILENCE} seconds: {error}"
                unreachable = not isinstance(error, ConnectionError)
            if said == WELCOME:
                self._accepted.append(line)
                continue
            self._selector.unregister(line)
            line.close()
            # one that was closed before it was accepted belongs to a process that has left meanwhile
            if unreachable or (line in self._accepted and said != GOODBYE):
                return f"{who} {how}"
        return None

    def close(self) -> None:
        """Leaves in peace."""
        for key in list(self._selector.get_map().values()):
            line, _ = key.data
            with contextlib.suppress(OSError):
                line.settimeout(0)
                line.send(GOODBYE)
                line.recv(1)  # a connection closed with something unread is reset, and looks like one that broke
            line.close()
        self._selector.close()
        for line in self._strangers:
            line.close()
        if self._door is not None:
            self._door.close()

    def _let_in(self, door: socket.socket) -> None:
        """Accepts those who have come to the door, and hears them. Waits for none: anyone in the network may come."""
        door.settimeout(0)
        with contextlib.suppress(OSError):  # nobody is left, or one has gone again, or all file descriptors are taken
            while len(self._strangers) < STRANGERS:
                line, _ = door.accept()
                line.settimeout(0)
                self._strangers[line] = time.monotonic() + PATIENCE
        for line, deadline in list(self._strangers.items()):
            try:
                who = self._hear(line)
            except (OSError, ValueError):
                who, deadline = None, 0.0
            if who is not None:
                self._accepted.append(line)
                self._watch(line, who)
            elif time.monotonic() < deadline:
                continue
            else:
                line.close()
            del self._strangers[line]

    def _hear(self, line: socket.socket) -> str | None:
        """
        Which process has said hello, and is welcomed; None if it has not said all of it yet.

        Raises:
            `OSError` or `ValueError`: The connection is that of another program, or of a process that has left.
        """
        try:
            hello, end, more = line.recv(HELLO, socket.MSG_PEEK).partition(b"\n")
        except BlockingIOError:
            return None
        if hello and not end and len(hello) < HELLO:
            return None
        password, index, host = hello.split(b" ")
        if not hmac.compare_digest(password, self._password.encode()) or not end or more == GOODBYE:
            raise ValueError("another program, or a process that has left meanwhile")
        who = f"process {index.decode()} ({host.decode()})"
        line.recv(len(hello + end))
        line.send(WELCOME)
        return who

    def _watch(self, line: socket.socket, who: str) -> None:
        line.settimeout(None)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        every = max(SILENCE // 4, 1)
        options = {"KEEPIDLE": every, "KEEPINTVL": every, "KEEPCNT": 3, "USER_TIMEOUT": 1000 * SILENCE}
        for name, value in options.items():
            option = getattr(socket, f"TCP_{name}", None)  # macOS has others, and then its own patience
            if option is not None:
                line.setsockopt(socket.IPPROTO_TCP, option, value)
        self._selector.register(line, selectors.EVENT_READ, (line, who))


def wait_for_loss(store, process_index: int, ended: threading.Event, poll: float) -> str | None:
    """
    Waits until a process is gone without a word, or `ended` is set. Returns which, and how; in the latter case None.

    Args:
        store (`torch.distributed.Store`): the same for all processes, and new.
        process_index (`int`): this process.
        ended (`threading.Event`): set when this process ends.
        poll (`float`): seconds between two looks.

    Raises:
        `OSError`: The first process cannot be reached, though the store can.
    """
    lines = Lifelines(store, process_index)
    try:
        connected = process_index == 0
        while not ended.wait(poll):
            try:
                connected = connected or lines.connect()
            except OSError:
                if ended.wait(PATIENCE):
                    return None  # the first process has left, and so does this one
                raise
            lost = lines.lost()
            if lost is not None:
                return lost
        return None
    finally:
        lines.close()
