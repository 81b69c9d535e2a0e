"""Makes engines from the options of a command line: the name of a model, an adapter, the address of a server."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..registry import did_you_mean
from .samples import Engine


ENGINES = ("transformers", "vllm")
DTYPES = ("auto", "bfloat16", "float16", "float32")
SHORT_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}
KEY_LENGTH = 2**14  # characters of a file with a key
VLLM_SETTINGS = ("tensor_parallel_size", "vllm_options")


def check_engine_settings(
    *,
    engine: str,
    base_url: str | None,
    dtype: str | None,
    num_processes: int,
    images: bool,
    api_key: str | None = None,
    **settings: Any,
) -> None:
    """
    Checks, before anything is loaded, that the settings go together.

    Args:
        engine, base_url, dtype, images, api_key: as in [`load_engine`].
        num_processes (`int`): number of processes that sample.
        settings: the other settings of [`load_engine`]. Those that the chosen engine cannot use must have their
            defaults.

    Raises:
        ValueError: the dtype is unknown, or they do not go together; the message names the option to leave out.
    """
    if dtype is not None and dtype not in DTYPES:
        meant = SHORT_DTYPES.get(dtype, dtype.removeprefix("torch."))
        raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.{did_you_mean(meant, DTYPES)}")
    settings["dtype"] = dtype
    if base_url is not None:
        useless = ("adapter", "revision", "dtype", "trust_remote_code", "token_budget", *VLLM_SETTINGS)
        _refuse(settings, useless, "--base-url samples from a server, which has loaded its model")
    elif api_key is not None:
        raise ValueError("A key is for a server: leave out --api-key-env and --api-key-file, or name its --base-url.")
    elif engine == "vllm":
        _refuse(settings, ("token_budget",), "--engine vllm packs its own batches")
        if num_processes > 1:
            raise ValueError(
                f"--engine vllm runs in one process, but there are {num_processes}: use "
                "--tensor-parallel-size, or one server per GPU and --base-url."
            )
        if images:
            raise ValueError("--engine vllm takes no images: use --engine transformers, or --base-url.")
    else:
        _refuse(settings, VLLM_SETTINGS, "--engine transformers loads a whole model in each process")


def _refuse(settings: dict, names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if settings[name] not in (None, False):
            raise ValueError(f"{reason}: leave out --{name.replace('_', '-')}, got {settings[name]}.")


def read_api_key(variable: str | None, file: str | None) -> str | None:
    """
    The key of a server. It is named, never given, on a command line, which every user of the machine can read.

    Args:
        variable (`str`, *optional*): the environment variable that holds it.
        file (`str`, *optional*): the file that holds it, on its only line.

    Raises:
        ValueError: there are both, or no key is there. The message repeats neither name, which may be a key that was
            given in its place.
    """
    if variable is not None and file is not None:
        raise ValueError("--api-key-env and --api-key-file both name a key: leave out one of them.")
    if variable is not None:
        key = os.environ.get(variable, "").strip()
        if not key:
            raise ValueError("The environment variable that --api-key-env names is not set, or is empty.")
        return key
    if file is None:
        return None
    try:
        with open(file, encoding="utf-8") as stream:
            content = stream.read(KEY_LENGTH + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"The file that --api-key-file names cannot be read: {why}.") from None
    key = content.strip()
    if not key or len(content) > KEY_LENGTH or len(key.splitlines()) > 1:
        found = "is empty" if not key else "holds more than one line" if len(content) <= KEY_LENGTH else "is too long"
        raise ValueError(f"The file that --api-key-file names must hold one line with the key, but {found}.")
    return key


def load_engine(
    model: str,
    *,
    engine: str = "transformers",
    base_url: str | None = None,
    api_key: str | None = None,
    adapter: str | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    chat_template_kwargs: dict | None = None,
    tensor_parallel_size: int | None = None,
    vllm_options: dict | None = None,
    token_budget: int | None = None,
    images: bool = False,
    device: torch.device | str = "cpu",
) -> Engine:
    """
    Loads an engine and its model.

    Args:
        model (`str`): folder or Hub id of a model or of a PEFT adapter; with `base_url`, the name of the model at the
            server.
        engine (`str`): `"transformers"` or `"vllm"`.
        base_url (`str`, *optional*): address of an OpenAI-compatible server, with which nothing is loaded here.
        api_key (`str`, *optional*): the key of that server, see [`read_api_key`].
        adapter (`str`, *optional*): folder or Hub id of a PEFT adapter for `model`.
        revision (`str`, *optional*): revision of `model` on the Hub.
        dtype (`str`, *optional*): dtype of the weights: `"bfloat16"`, `"float16"`, `"float32"`, or `"auto"`, the
            default, for that of the checkpoint.
        trust_remote_code (`bool`): whether code of the model's repository may run.
        chat_template_kwargs (`dict`, *optional*): passed on to the chat template.
        tensor_parallel_size (`int`, *optional*): number of GPUs of one vLLM, by default 1.
        vllm_options (`dict`, *optional*): further arguments of `vllm.LLM`.
        token_budget (`int`, *optional*): tokens in a batch of `"transformers"`, see [`TransformersEngine`].
        images (`bool`): whether the problems have images.
        device (`torch.device` or `str`): device of the model of `"transformers"`.

    Raises:
        ValueError: there is no such model or adapter, an adapter alone names no base model, the engine cannot use the
            adapter, or the problems have images and the model takes none.
    """
    from . import engines

    if base_url is not None:
        return engines.ServerEngine(base_url, model, api_key=api_key, chat_template_kwargs=chat_template_kwargs)
    base, base_revision, adapter = _base_and_adapter(model, revision, adapter)
    if engine == "vllm":
        others = [] if adapter is None else [name for name in _adapter_weights(adapter) if "lora_" not in name]
        if others:
            raise ValueError(
                f"--engine vllm takes only the LoRA weights of an adapter, but {adapter!r} also has {others[0]!r}: "
                "use --engine transformers, or merge the adapter into its base model."
            )
        return engines.VLLMEngine(
            base,
            adapter=adapter,
            chat_template_kwargs=chat_template_kwargs,
            tensor_parallel_size=tensor_parallel_size or 1,
            dtype=dtype or "auto",
            revision=base_revision,
            trust_remote_code=trust_remote_code,
            **vllm_options or {},
        )
    loaded, processing_class = _load_or_name(
        lambda: _model_and_processor(base, adapter, images, base_revision, dtype or "auto", trust_remote_code), model
    )
    options = {} if token_budget is None else {"token_budget": token_budget}
    return engines.TransformersEngine(
        loaded.to(device).eval(), processing_class, chat_template_kwargs=chat_template_kwargs, **options
    )


def _load_or_name(load: Callable[[], Any], model: str) -> Any:
    try:
        return load()
    except OSError as error:  # raised by transformers and the Hub for a name that does not exist
        where = "" if Path(model).is_dir() else "there is no folder of this name, and on the Hub: "
        raise ValueError(f"The model {model!r} cannot be loaded: {where}{' '.join(str(error).split())}") from error


def _check_name(name: str) -> None:
    """Raises `ValueError` for a name that is no folder and cannot be an id of the Hub: that of a missing folder."""
    if not Path(name).is_dir() and (".." in name or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name)):
        found = "is a file, not a folder" if Path(name).is_file() else "does not exist"
        raise ValueError(f"The folder {name!r} of the model {found}.")


def _base_and_adapter(model: str, revision: str | None, adapter: str | None) -> tuple[str, str | None, str | None]:
    """The base model, its revision, and the folder of the adapter, which may be `model` itself."""
    from transformers.utils import find_adapter_config_file

    _check_name(model)
    if adapter is not None:
        _check_name(adapter)
    config_file = _load_or_name(lambda: find_adapter_config_file(model, revision=revision), model)
    if config_file is None:
        return (
            model,
            revision,
            None if adapter is None else _load_or_name(lambda: _local_folder(adapter, None), adapter),
        )
    if adapter is not None:
        raise ValueError(f"{model!r} is itself an adapter: to use --adapter {adapter}, name its base model instead.")
    config = json.loads(Path(config_file).read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if not base:
        raise ValueError(
            f"The adapter {model!r} does not say what its base model is: name both, BASE --adapter {model}."
        )
    return base, config.get("revision"), _local_folder(model, revision)


def _local_folder(name: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download

    return name if Path(name).is_dir() else snapshot_download(name, revision=revision)


def _model_and_processor(
    base: str, adapter: str | None, images: bool, revision: str | None, dtype: str, trust_remote_code: bool
) -> tuple[Any, Any]:
    import transformers

    hub = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = transformers.AutoConfig.from_pretrained(base, **hub)
    takes_images = type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if images and not takes_images:
        raise ValueError(f"A benchmark has images, but {base!r} ({config.model_type}) takes only text.")
    model_class = transformers.AutoModelForImageTextToText if takes_images else transformers.AutoModelForCausalLM
    model = model_class.from_pretrained(base, dtype=dtype, **hub)
    processor_class = transformers.AutoProcessor if images else transformers.AutoTokenizer
    if adapter is None:
        return model, processor_class.from_pretrained(base, **hub)
    from peft import PeftModel

    # Training may have added tokens or changed the chat template, and saved that with the adapter
    source, hub = (adapter, {}) if (Path(adapter) / "tokenizer_config.json").exists() else (base, hub)
    _fit_embeddings(model, adapter)
    return PeftModel.from_pretrained(model, adapter), processor_class.from_pretrained(source, **hub)


def _adapter_weights(adapter: str) -> dict[str, torch.Tensor]:
    from peft.utils import load_peft_weights

    return load_peft_weights(adapter, device="cpu")


def _fit_embeddings(model: Any, adapter: str) -> None:
    """
    Gives the base model as many rows of embeddings as it had when the adapter was trained: PEFT saves embeddings that
    were resized, for added tokens, but loads them only into a model that has been resized.

    Raises:
        ValueError: the adapter was trained with added tokens, and does not hold all of their rows.
    """
    ends = [end for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None]
    names = [name.rpartition(".")[2] for name, module in model.named_modules() if module in ends]
    # of each end, what the adapter has of it: all of its rows, or those of some tokens (`trainable_tokens_delta`)
    saved = {name: {} for name in names}
    for key, value in _adapter_weights(adapter).items():
        for name in names:
            if f".{name}." in key and "lora_" not in key:
                saved[name][key] = value
    whole = [len(value) for own in saved.values() for key, value in own.items() if key.endswith(".weight")]
    before = len(ends[0].weight)
    needed = max(whole, default=max(before, _last_trained_token(adapter) + 1))
    if needed == before:
        return
    is_tied = ends[0].weight is ends[-1].weight
    missing = [name for name, own in saved.items() if not own]
    if needed > before and (len(missing) == len(names) if is_tied else missing):
        raise ValueError(
            f"The adapter {adapter!r} was trained with {needed} tokens, its base model has {before}, and it does not "
            f"hold the rows of {' and '.join(missing)} for the others. Save it with save_embedding_layers=True."
        )
    model.resize_token_embeddings(needed, mean_resizing=False)
    with torch.no_grad():  # random until those of the adapter are loaded
        for end in (model.get_input_embeddings(), model.get_output_embeddings()):
            if end is not None:
                end.weight[before:] = 0


def _last_trained_token(adapter: str) -> int:
    """The largest of `trainable_token_indices`, -1 if there are none."""
    config = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))
    indices = config.get("trainable_token_indices") or []
    return max(sum(indices.values(), []) if isinstance(indices, dict) else indices, default=-1)
