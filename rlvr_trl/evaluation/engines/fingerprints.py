"""
Digests of weights. A folder in which training goes on keeps its name but not its weights, and samples of the two must
not be taken for one evaluation. Training changes every parameter, so a few values of each will do.
"""

import hashlib
from pathlib import Path


PIECES = 64


def fingerprint_model(model) -> str:
    """Digest of a few values of every parameter, adapters included."""
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        values = parameter.detach().flatten()
        some = values[:: max(1, len(values) // PIECES)].float().cpu().numpy()
        digest.update(name.encode() + some.tobytes())
    return digest.hexdigest()


def fingerprint_folder(folder: str) -> str | None:
    """Digest of a few bytes from all over each file of weights of a local folder; `None` if it is no such folder."""
    files = sorted(file for pattern in ("*.safetensors", "*.bin") for file in Path(folder).glob(pattern))
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}/{size}".encode())
        with file.open("rb") as stream:
            for start in range(0, size, max(1, size // PIECES)):
                stream.seek(start)
                digest.update(stream.read(PIECES))
    return digest.hexdigest() if files else None
