"""One run a folder: a lock in `output_dir` that names the process which trains there.

    .rlvr_trl.lock      host, process, its start, since when it trains; the time of the file is renewed while it does

On one machine it is known whether the process of a lock still runs, and a lock that it left behind is taken over. Of a
process on another machine, or in another container, only the lock is seen: if it is not renewed within `SILENT`
seconds, the run is taken for ended, with a warning. A run that was only suspended meanwhile finds the lock taken, and
ends before its next checkpoint.

The first process of a run holds the lock for all. Taking it needs `flock` on that file system to be safe against two
runs that start in the same instant.
"""

import contextlib
import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import psutil


try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

LOCK = ".rlvr_trl.lock"
BEAT = 10.0  # seconds between two renewals
SILENT = 60.0  # seconds without one, after which a run on another machine is taken for ended
SAME_START = 60.0  # seconds by which two readings of the start of one process may differ, as clocks are set
POLL_LOCK = 1.0
_HELD: set[tuple[int, float]] = set()  # process and start of the locks that this process has taken


class RunLock:
    """
    The lock of an output directory.

    Args:
        folder (`str` or `os.PathLike`): the directory.
    """

    def __init__(self, folder: str | os.PathLike):
        self._folder, self._path = Path(folder), Path(folder, LOCK)
        self._owner: dict[str, Any] = {}
        self._released = threading.Event()

    def take(self) -> None:
        """
        Takes the lock for this process.

        Raises:
            `ValueError`: Another run holds it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        own = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": machine_id(),
        }
        first_seen, begin = None, time.monotonic()
        while True:
            with self._opened() as file:
                other = read_owner(file)
                runs = None if other is None else still_runs(other)
                renewed = os.fstat(file.fileno()).st_mtime_ns
                is_silent = first_seen == (other, renewed) and time.monotonic() - begin > SILENT
                if other is None or runs is False or (runs is None and is_silent):
                    if other is not None:
                        warnings.warn(_taken_over(self._folder, other, runs), stacklevel=5)
                    file.seek(0)
                    file.truncate()
                    json.dump(own, file)
                    break
            if runs or (first_seen is not None and first_seen != (other, renewed)):
                raise ValueError(in_use(self._folder, other))
            if first_seen is None:
                first_seen = (other, renewed)
                print(
                    f"{self._path} is of {_who(other)}, on another machine. Waiting {SILENT:.0f} seconds to see "
                    f"whether it still runs."
                )
            time.sleep(POLL_LOCK)
        self._owner = own
        _HELD.add((own["pid"], own["started"]))
        threading.Thread(target=self._renew, daemon=True).start()

    def check(self) -> None:
        """
        Makes sure that the lock is still that of this process.

        Raises:
            `RuntimeError`: Another run has taken it, because this process was silent for too long.
        """
        with contextlib.suppress(FileNotFoundError), self._path.open(encoding="utf-8") as file:
            other = read_owner(file)
            if other != self._owner:
                raise RuntimeError(
                    f"{_who(other) if other else 'another run'} has taken over {self._folder}, because this process "
                    f"gave no sign for {SILENT:.0f} seconds. Nothing more is written there."
                )

    def release(self) -> None:
        """Gives the lock back, if it is still that of this process."""
        self._released.set()
        with contextlib.suppress(OSError):
            if self._path.exists():
                with self._opened() as file:
                    if read_owner(file) == self._owner:
                        self._path.unlink()

    def _renew(self) -> None:
        while not self._released.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._path)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[IO[str]]:
        """The file of the lock, open, and for this process alone where the file system knows `flock`."""
        while True:
            with open(self._path, "r+", encoding="utf-8", opener=_open_or_create) as file:
                if fcntl is not None:
                    with contextlib.suppress(OSError):
                        fcntl.flock(file, fcntl.LOCK_EX)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file.fileno()), os.stat(self._path)):  # not one deleted meanwhile
                        yield file
                        return


def _open_or_create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o644)


def read_owner(file: IO[str]) -> dict[str, Any] | None:
    """
    Who a lock says that it belongs to; None if it is empty.

    Raises:
        `ValueError`: It says anything else.
    """
    text = file.read(10_000)
    if not text:
        return None
    try:
        owner = json.loads(text)
        types = {"host": str, "pid": int, "started": (int, float), "since": str, "machine": str}
        if all(isinstance(owner[name], kind) for name, kind in types.items()):
            return owner
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ValueError(f"{file.name} is no lock of a run, or a broken one. If no training runs there, delete it.")


def machine_id() -> str:
    """The same for processes that see each other: one start of one system, and one space of process numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def still_runs(owner: dict[str, Any]) -> bool | None:
    """Whether the process of a lock runs; None if that cannot be seen from here."""
    if owner["machine"] != machine_id():
        return None
    if owner["pid"] == os.getpid():  # or of one that had this number before, as in a container that was started again
        return (owner["pid"], owner["started"]) in _HELD
    try:
        process = psutil.Process(owner["pid"])
        is_same = abs(process.create_time() - owner["started"]) < SAME_START
        return is_same and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return False
    except psutil.AccessDenied:
        return True


def check_not_in_use(folder: str | os.PathLike) -> None:
    """
    Refuses a folder in which a process of this machine trains. Takes nothing, and waits for nothing.

    Raises:
        `ValueError`: Names that process.
    """
    with contextlib.suppress(OSError), Path(folder, LOCK).open(encoding="utf-8") as file:
        other = read_owner(file)
        if other is not None and still_runs(other):
            raise ValueError(in_use(Path(folder), other))


def in_use(folder: Path, owner: dict[str, Any]) -> str:
    is_this = owner["pid"] == os.getpid() and owner["machine"] == machine_id()
    which = "Another trainer of this process" if is_this else _who(owner)
    return (
        f"`output_dir`={str(folder)!r} is in use. {which} has been training there since {owner['since']}, and two "
        f"runs would mix their checkpoints. Take another folder, or end that run."
    )


def _who(owner: dict[str, Any]) -> str:
    return f"Process {owner['pid']} on {owner['host']}"


def _taken_over(folder: Path, owner: dict[str, Any], runs: bool | None) -> str:
    if runs is False:
        return f"{folder} has a lock of a run that has ended without giving it back: {_who(owner)}. It is taken over."
    return (
        f"{folder} has a lock of {_who(owner)}, which is on another machine and has not renewed it for "
        f"{SILENT:.0f} seconds. It is taken over; whether that process has really ended cannot be seen from here."
    )
