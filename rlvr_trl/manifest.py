"""What a checkpoint was written with, so that it is known whether all of it is still there. Written last of its files.

    manifest.json
      format    1
      step      optimizer steps done
      files     name -> size in bytes, and digest (SHA-256 of the SHA-256s of its parts of 64 MiB)
      run       what decides the run, see `trainer/fingerprint.py`
      digest    SHA-256 of all this, as JSON with sorted keys

Parts are digested on several threads, so a save takes longer by one reading of its files, most of which are still in
memory then: about 1 GB a second and thread.
"""

import hashlib
import itertools
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from .trl_compat import PREFIX_CHECKPOINT_DIR


MANIFEST = "manifest.json"
TRAINER_STATE = "trainer_state.json"
FORMAT = 1
PART = 64 * 2**20  # bytes of a file that are digested by one thread
BLOCK = 2**20  # bytes that a thread reads at once
THREADS = 8  # at most
_CHECKPOINT = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-([0-9]{{1,18}})")  # `\d` would be any digit of Unicode


def checkpoints_in(output_dir: str | os.PathLike) -> list[Path]:
    """The checkpoints of a run, whole or not, the newest first."""
    found = {
        int(match[1]): path
        for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (match := _CHECKPOINT.fullmatch(path.name)) and path.is_dir()
    }
    return [found[step] for step in sorted(found, reverse=True)]


def files_of(checkpoint: str | os.PathLike) -> list[str]:
    """Names of the files of a checkpoint, with their folders in it and without its manifest."""
    root = Path(checkpoint)
    names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    # `.nfs…` is what NFS leaves of a deleted file that is still open somewhere
    return sorted(name for name in names if name != MANIFEST and not PurePosixPath(name).name.startswith(".nfs"))


def file_digests(root: str | os.PathLike, sizes: dict[str, int]) -> dict[str, str]:
    """
    Digests of files.

    Args:
        root (`str` or `os.PathLike`): their folder.
        sizes (`dict[str, int]`): size of each file, by name.

    Returns:
        `dict[str, str]`: digests as hexadecimal numbers, by name.

    Raises:
        `OSError`: A file cannot be read.
    """
    parts = [(name, start) for name, size in sizes.items() for start in range(0, max(size, 1), PART)]
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:
        digests = list(threads.map(lambda part: _digest_of_part(Path(root, part[0]), part[1]), parts))
    grouped = itertools.groupby(zip(parts, digests, strict=True), key=lambda each: each[0][0])
    return {name: hashlib.sha256(b"".join(digest for _, digest in group)).hexdigest() for name, group in grouped}


def _digest_of_part(path: Path, start: int) -> bytes:
    digest, block = hashlib.sha256(), memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        for _ in range(PART // BLOCK):
            length = file.readinto(block)
            digest.update(block[:length])
            if not length:
                break
    return digest.digest()


def entry_of(content: bytes) -> dict[str, Any]:
    """The size and digest of a file that has this content."""
    parts = [content[start : start + PART] for start in range(0, max(len(content), 1), PART)]
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts))
    return {"size": len(content), "digest": digest.hexdigest()}


def write_manifest(checkpoint: str | os.PathLike, step: int, run: dict[str, Any]) -> None:
    """
    Writes the manifest of a checkpoint whose other files are complete.

    Args:
        checkpoint (`str` or `os.PathLike`): its folder.
        step (`int`): optimizer steps done.
        run (`dict`): what decides the run.
    """
    root = Path(checkpoint)
    sizes = {name: (root / name).stat().st_size for name in files_of(root)}
    digests = file_digests(root, sizes)
    files = {name: {"size": size, "digest": digests[name]} for name, size in sizes.items()}
    content = sealed({"format": FORMAT, "step": step, "files": files, "run": run})
    with (root / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a manifest with its own digest, in place of one that it has."""
    content = {name: value for name, value in content.items() if name != "digest"}
    return content | {"digest": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def read_manifest(checkpoint: str | os.PathLike) -> dict[str, Any] | None:
    """
    The manifest of a checkpoint; None if it has none.

    Raises:
        `ValueError`: It cannot be read, or is not of the form above.
        `OSError`: It is there and cannot be opened.
    """
    path = Path(checkpoint, MANIFEST)
    if not path.exists():
        return None
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"its {MANIFEST} is no file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {MANIFEST} cannot be read ({type(error).__name__})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("run"), dict):
        raise ValueError(f"its {MANIFEST} is not of format {FORMAT}, the one that this version of rlvr_trl reads")
    if "digest" in content and content != sealed(content):
        raise ValueError(f"its {MANIFEST} does not have the content that it was written with")
    files = content.get("files")
    if not isinstance(files, dict) or not files or not all(_is_entry(name, entry) for name, entry in files.items()):
        raise ValueError(f"its {MANIFEST} names a file that cannot be one of the checkpoint")
    if content.keys() - {"digest"} != {"format", "step", "files", "run"}:  # manifests once had no digest
        raise ValueError(f"its {MANIFEST} has other fields than are written")
    return content


def _is_entry(name: str, entry: Any) -> bool:
    """Whether an entry names a file within the checkpoint: the manifest may have come from anywhere."""
    path = PurePosixPath(name)
    is_inside = name == path.as_posix() and not path.is_absolute() and ".." not in path.parts and "\\" not in name
    return (
        is_inside
        and isinstance(entry, dict)
        and type(entry.get("size")) is int
        and isinstance(entry.get("digest"), str)
    )


def find_fault(checkpoint: str | os.PathLike, digests: bool = True) -> str | None:
    """
    Why a checkpoint is not whole, as half a sentence that names the file; None if it is.

    Args:
        checkpoint (`str` or `os.PathLike`): its folder.
        digests (`bool`, *optional*, defaults to `True`):
            Whether the files are read as well. Without, only what is there and how large it is.
    """
    root = Path(checkpoint)
    try:
        if not root.is_dir():
            return "there is no such folder"
        manifest = read_manifest(root)
        if manifest is None:
            return _fault_without_manifest(root)
        sizes = {name: entry["size"] for name, entry in manifest["files"].items()}
        for name, size in sizes.items():
            path = root / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes and was written with {size}"
        found = file_digests(root, sizes) if digests else {}
        for name, digest in found.items():
            if digest != manifest["files"][name]["digest"]:
                return f"{name} does not have the content that it was written with"
        return _fault_of_state(root)
    except (OSError, ValueError) as error:
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _fault_of_state(root: Path) -> str | None:
    """Whether the state of the trainer can be read, and is of the step that the name of the folder says."""
    path, unreadable = root / TRAINER_STATE, f"it has no readable {TRAINER_STATE}"
    if not path.is_file():  # a pipe would be waited for
        return unreadable
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        step = state["global_step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return unreadable
    match = _CHECKPOINT.fullmatch(root.name)
    if match and int(match[1]) != step:
        return f"its {TRAINER_STATE} is of step {step}"
    return None


def _fault_without_manifest(root: Path) -> str | None:
    """What can be said of a checkpoint of stock TRL or of an earlier version."""
    fault = _fault_of_state(root)
    if fault is not None:
        return fault
    states = sorted(root.glob("rlvr_state_*.pt"))
    if states and torch.load(states[0], map_location="cpu", weights_only=True, mmap=True).get("manifest"):
        return f"its {MANIFEST} is missing"
    return None


def lacking_to_go_on(checkpoint: str | os.PathLike) -> str | None:
    """Which of the states without which a run cannot go on a checkpoint lacks, by its usual names; None if none."""
    root = Path(checkpoint)
    is_deepspeed = any(root.glob("global_step*"))  # which keeps its optimizer there, and may do so with the schedule
    wanted = {"rng_state*.pth": "random states"}
    if not is_deepspeed:
        wanted |= {"optimizer*": "optimizer states", "scheduler.pt": "state of the schedule"}
    return next((f"{what} ({name})" for name, what in wanted.items() if not any(root.glob(name))), None)
