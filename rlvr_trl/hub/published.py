"""What is published of a run, and what stays: nothing that is true of one machine only, and no secret.

folder of the model     the files in it, and of its folders those that are part of a model
folder of a checkpoint  everything in it
training_args.bin       without folders, addresses, names of runs and tokens, on the disk as well
adapter_config.json     without the folder of a local base model, which stays on the disk: it is needed there
trainer_state.json      with the name of the best checkpoint for its path
README.md               see `model_card.py`
"""

import copy
import json
import os
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id


TRAINING_ARGUMENTS = "training_args.bin"
# settings that say where a run is kept rather than how it trains, and secrets
_PRIVATE = re.compile(
    r"(^|_)(token|key|password|secret|dir|path|file|url|host|port|socket)$|^(hub|push_to_hub|trackio|vllm_server|wandb)_|"
    r"^(run_name|project|resume_from_checkpoint|deepspeed|fsdp_config|accelerator_config|report_to|push_to_hub)$|"
    r"^log_completions_hub_repo$"
)
# folders within that of a model which are part of it; adapters with a name of their own have one each
_PARTS_OF_A_MODEL = ("additional_chat_templates",)


def hub_id(name: str | None) -> str | None:
    """`name` if it can be an id of the Hub; None if it cannot, or is a folder or file of this machine."""
    if not name or os.path.exists(name):
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def is_private(setting: str) -> bool:
    """Whether the name of a setting says that its value is a secret or a place."""
    return _PRIVATE.search(setting) is not None


def default_of(field: Field) -> Any:
    """The default of a field of a configuration; None if it has none."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default


def without_places(value: Any) -> Any:
    """`value` without entries that are secret or places. None if nothing is left."""
    if isinstance(value, dict):
        entries = {key: without_places(inner) for key, inner in value.items() if not is_private(str(key))}
        return {key: inner for key, inner in entries.items() if inner is not None} or None
    if isinstance(value, (list, tuple)):
        return [inner for inner in map(without_places, value) if inner is not None] or None
    if isinstance(value, str):
        return None if value.startswith(("~", ".")) or os.path.isabs(value) or "://" in value else value
    return value


def public_arguments(args: Any) -> Any:
    """A copy of a trainer's arguments: the default takes the place of every secret and of every place."""
    public = copy.copy(args)
    for field in fields(args):
        value = getattr(args, field.name)
        if is_private(field.name):
            setattr(public, field.name, default_of(field))
        elif isinstance(value, (dict, list, tuple)) or type(value) is str:
            setattr(public, field.name, without_places(value) if value else value)
    return public


def save_public_arguments(args: Any, folder: str | os.PathLike) -> None:
    """Replaces the arguments that transformers has saved in a folder, if it has, by their public copy."""
    path = Path(folder, TRAINING_ARGUMENTS)
    if path.exists():
        torch.save(public_arguments(args), path)


def operations_for(folder: str | os.PathLike, path_in_repo: str | None) -> list[CommitOperationAdd]:
    """
    The commit of a folder.

    Args:
        folder (`str` or `os.PathLike`): that of the model, or of a checkpoint.
        path_in_repo (`str`, *optional*): where the checkpoint goes. Without it, the folder is that of the model.
    """
    root = Path(folder)
    paths = _files_of_model(root) if path_in_repo is None else (path for path in root.rglob("*") if path.is_file())
    names = {path: path.relative_to(root).as_posix() for path in sorted(paths)}
    return [
        CommitOperationAdd(f"{path_in_repo}/{name}" if path_in_repo else name, _public_content(path))
        for path, name in names.items()
    ]


def _files_of_model(root: Path) -> Iterator[Path]:
    for path in root.iterdir():
        if path.is_file() and not path.name.startswith(("_", ".", "events.out.tfevents")):
            yield path
        elif path.name in _PARTS_OF_A_MODEL or _is_adapter(path):
            yield from (inner for inner in path.rglob("*") if inner.is_file())


def _is_adapter(folder: Path) -> bool:
    has_model = (folder / "config.json").exists() or (folder / "tokenizer_config.json").exists()
    return (folder / "adapter_config.json").exists() and not has_model and not folder.name.startswith("checkpoint-")


def _public_content(path: Path) -> Path | bytes:
    if path.name not in ("adapter_config.json", "trainer_state.json"):
        return path
    content = json.loads(path.read_text(encoding="utf-8"))
    public = dict(content)
    if path.name == "trainer_state.json" and content.get("best_model_checkpoint"):
        public["best_model_checkpoint"] = Path(content["best_model_checkpoint"]).name
    base = content.get("base_model_name_or_path")
    if base is not None and hub_id(base) is None:
        public["base_model_name_or_path"] = None
    return path if public == content else json.dumps(public, indent=2, sort_keys=True).encode() + b"\n"
