"""Functions that tests call in the workers of a pool."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import time


def wait(seconds, value=None):
    """Without using processor time."""
    time.sleep(seconds)
    return value


def work(seconds):
    """Use processor time."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return seconds


def eat(megabytes):
    return len(bytes(megabytes * 2**20))


def end(how):
    os.abort() if how == "abort" else os._exit(how)


def fail_to_warm_up():
    raise OSError("no such luck")


def process_id():
    return os.getpid()


def surroundings():
    """What a worker sees of where it runs: variables, directory and kinds of open files."""
    kinds = {}
    for fd in range(256):
        with contextlib.suppress(OSError):
            mode = os.fstat(fd).st_mode
            kinds[str(fd)] = "null" if stat.S_ISCHR(mode) else "socket" if stat.S_ISSOCK(mode) else "other"
    return {"variables": dict(os.environ), "directory": os.getcwd(), "files": kinds}


def say(text):
    """Write to the parent what is no answer, and wait for it to be read."""
    for fd in range(3, 256):
        with contextlib.suppress(OSError):
            os.write(fd, text)
            time.sleep(10)


def swallow():
    """Go on when something is refused, as libraries do."""
    with contextlib.suppress(BaseException):
        os.listdir("/")
    return True


def attempt(what, path):
    """Do one of the things that a worker must not do. `path` is a file of the test, which holds "here"."""
    return ATTEMPTS[what](path)


def _read(path):
    with open(path) as file:
        return file.read()


def _write(path):
    with open(path, "w") as file:
        file.write("changed")


def _connect(path):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.connect(("127.0.0.1", 9))


def _fork(path):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


ATTEMPTS = {
    "read": _read,
    "read variables": lambda path: _read("/proc/self/environ"),
    "write": _write,
    "append": lambda path: open(path, "a").close(),
    "create": lambda path: open(f"{path}.new", "x").close(),
    "create without Python's open": lambda path: os.close(os.open(f"{path}.new", os.O_CREAT | os.O_WRONLY)),
    "remove": os.remove,
    "rename": lambda path: os.rename(path, f"{path}.new"),
    "make a directory": lambda path: os.mkdir(f"{path}.new"),
    "link": lambda path: os.symlink(path, f"{path}.new"),
    "change the mode": lambda path: os.chmod(path, 0),
    "list": lambda path: os.listdir(os.path.dirname(path)),
    "system": lambda path: os.system(f"echo changed > {path}"),
    "subprocess": lambda path: subprocess.run([sys.executable, "-c", f"open({path!r}, 'w')"], check=False),
    "execute": lambda path: os.execv("/bin/sh", ["/bin/sh", "-c", f"echo changed > {path}"]),
    "fork": _fork,
    "kill": lambda path: os.kill(os.getppid(), 0),
    "connect": _connect,
    "exec": lambda path: exec(f"open({path!r}, 'w')"),
    "eval": lambda path: eval("1 + 1"),
    "compile": lambda path: compile("1 + 1", "<string>", "eval"),
    "import": lambda path: __import__("this"),
    "code": lambda path: _fork.__code__.replace(co_name="x"),
    "replace code": lambda path: setattr(_write, "__code__", _read.__code__),
    "frames": lambda path: sys._getframe(1),
    "trace": lambda path: sys.settrace(None),
    "load native code": lambda path: __import__("ctypes").CDLL(None),
}
