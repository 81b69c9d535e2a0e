"""What is published of a run: nothing that was not asked for, and nothing that is true of one machine only.

folder of the model     weights, configuration, tokenizer, card; and the files that `hub_files` names
folder of a checkpoint  what its manifest names, if `hub_strategy` asks for checkpoints
training_args.bin       if asked for: without folders, addresses, names of runs and tokens, on the disk as well
adapter_config.json     without the folder of a local base model, which stays on the disk: it is needed there
trainer_state.json      with the name of the best checkpoint for its path
README.md               see `model_card.py`
"""

import copy
import json
import os
import re
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..manifest import MANIFEST, entry_of, files_of, read_manifest, sealed
from .card_results import RESULTS_CURVE, TRAINING_CURVE


TRAINING_ARGUMENTS = "training_args.bin"
# settings that say where a run is kept rather than how it trains, and secrets
_PRIVATE = re.compile(
    r"(^|_)(token|key|password|secret|dir|path|file|url|host|port|socket)$|^(hub|push_to_hub|trackio|vllm_server|wandb)_|"
    r"^(run_name|project|resume_from_checkpoint|deepspeed|fsdp_config|accelerator_config|report_to|push_to_hub)$|"
    r"^log_completions_hub_repo$"
)
# As `from_pretrained` looks for them: the first that is there is what the model is loaded from
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_OF_ADAPTER = re.compile(r"adapter_config\.json|adapter_model\.(safetensors|bin)")
OF_CARD = ("README.md", TRAINING_CURVE, RESULTS_CURVE)


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
    for name in ("deepspeed_plugin", "hf_deepspeed_config"):  # what was made of a file, with its path
        if getattr(public, name, None) is not None:
            setattr(public, name, None)
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


def operations_for(
    folder: str | os.PathLike, names: list[str], path_in_repo: str | None, read: Mapping[str, bytes]
) -> list[CommitOperationAdd]:
    """
    The commit of files of a folder.

    Args:
        folder (`str` or `os.PathLike`): that of the model, or of a checkpoint.
        names (`list[str]`): the files, by their path in it.
        path_in_repo (`str`, *optional*): where the checkpoint goes. Without it, the folder is that of the model.
        read (`Mapping[str, bytes]`): what was read of some of the files, which may be others by now.
    """
    contents = {name: _public_content(Path(folder, name)) for name in names} | dict(read)
    if MANIFEST in contents and (changed := {n: entry_of(c) for n, c in contents.items() if isinstance(c, bytes)}):
        manifest = json.loads(Path(folder, MANIFEST).read_text(encoding="utf-8"))
        contents[MANIFEST] = json.dumps(sealed(manifest | {"files": manifest["files"] | changed}), indent=1).encode()
    prefix = f"{path_in_repo}/" if path_in_repo else ""
    return [CommitOperationAdd(f"{prefix}{name}", content) for name, content in contents.items()]


def names_of_model(folder: str | os.PathLike, model: Any, processing_class: Any, asked: list[str] | None) -> list[str]:
    """
    Files in the folder of a model that are published: model, tokenizer, card, and what was asked for.

    Args:
        folder (`str` or `os.PathLike`): the folder that it was saved to.
        model: the model, with PEFT that of the adapters.
        processing_class: its tokenizer or processor.
        asked (`list[str]`, *optional*): patterns of further files, such as `"completions/*.parquet"`.
    """
    root = Path(folder)
    adapters = getattr(model, "peft_config", None)
    if adapters is None:
        wanted = {"config.json", "generation_config.json", *_names_of_weights(root), *OF_CARD}
    else:
        wanted = {path.name for path in root.iterdir() if _OF_ADAPTER.fullmatch(path.name)} | {*OF_CARD}
    for name in adapters or ():  # those with a name of their own have a folder each
        inner = root / name
        wanted |= {f"{name}/{path.name}" for path in inner.glob("adapter_*") if _OF_ADAPTER.fullmatch(path.name)}
    wanted |= _names_of_processor(processing_class) | _names_of_code(root)
    for pattern in asked or ():
        found = {path.relative_to(root).as_posix() for path in root.glob(pattern)}
        found = {name for name in found if not name.startswith((".", "_"))}  # the lock of the run, what is not whole
        if not found:
            warnings.warn(f"`hub_files` asks for {pattern!r}, but {root} has no such file.", stacklevel=3)
        wanted |= found
    return sorted(name for name in wanted if (root / name).is_file())


def names_of_checkpoint(folder: str | os.PathLike) -> list[str]:
    """Files of a checkpoint that are published: those that it was written with."""
    manifest = read_manifest(folder)
    return files_of(folder) if manifest is None else [*sorted(manifest["files"]), MANIFEST]


def check_hub_files(patterns: Any) -> None:
    """
    Refuses patterns of `hub_files` that are none, or leave the folder of the model.

    Raises:
        `ValueError`: Names one.
    """
    for pattern in patterns if isinstance(patterns, list) else [patterns]:
        if patterns is not None and (
            not isinstance(patterns, list)
            or not isinstance(pattern, str)
            or not pattern
            or os.path.isabs(pattern)
            or ".." in Path(pattern).parts
        ):
            raise ValueError(
                f"`hub_files` must be a list of patterns of files in `output_dir`, such as 'training_args.bin' or "
                f"'completions/*.parquet', got {pattern!r}."
            )


def _names_of_weights(root: Path) -> set[str]:
    """The files that a full model is loaded from, and none that another model has left beside them."""
    first = next((name for name in _WEIGHTS if (root / name).is_file()), None)
    if first is None or not first.endswith(".index.json"):
        return {first} if first else set()
    parts = json.loads((root / first).read_text(encoding="utf-8"))["weight_map"].values()
    return {first, *parts}


def _names_of_processor(processing_class: Any) -> set[str]:
    """Which files a tokenizer or processor has, as it writes them."""
    if processing_class is None:
        return set()
    with tempfile.TemporaryDirectory() as folder:
        processing_class.save_pretrained(folder)
        return {*files_of(folder)}


def _names_of_code(root: Path) -> set[str]:
    """The modules of a model whose code is saved with it, as its configurations name them, and what these import."""
    names: set[str] = set()
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        path = root / name
        entries = json.loads(path.read_text(encoding="utf-8")).get("auto_map", {}) if path.is_file() else {}
        for entry in entries.values():
            for place in entry if isinstance(entry, list) else [entry]:
                names |= {place.partition(".")[0]} if place and "--" not in place else set()
    waiting = [*names]
    while waiting:
        path = root / f"{waiting.pop()}.py"
        source = path.read_text(encoding="utf-8") if path.is_file() else ""
        new = {*re.findall(r"^\s*from\s+\.(\w+)\s+import", source, re.MULTILINE)} - names
        names |= new
        waiting += new
    return {f"{name}.py" for name in names}


def _public_content(path: Path) -> Path | bytes:
    if path.name not in ("adapter_config.json", "trainer_state.json"):
        return path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        public = dict(content)
    except (ValueError, TypeError):
        return path  # another file of that name, which was asked for
    if path.name == "trainer_state.json" and content.get("best_model_checkpoint"):
        public["best_model_checkpoint"] = Path(content["best_model_checkpoint"]).name
    base = content.get("base_model_name_or_path")
    if base is not None and hub_id(base) is None:
        public["base_model_name_or_path"] = None
    return path if public == content else json.dumps(public, indent=2, sort_keys=True).encode() + b"\n"
