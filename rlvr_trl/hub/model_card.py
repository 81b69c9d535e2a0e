"""What a model card says beyond TRL's: the method and its formula, the configuration, what was measured, what to cite.

TRL writes `README.md`, and these parts are put into it:

    ## Method              estimator, allocator, loss, rewards, dataset; the papers with their formulas; settings
    ## pass@k ...          measured during training or afterwards, see `card_results.py`
    ### Framework versions  with that of rlvr_trl
    ## Citations           of every method used, and of this toolkit
"""

import os
import re
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import yaml
from huggingface_hub import ModelCardData

from .. import __version__
from ..trl_compat import get_config_model_id
from .card_results import TRAINING, load_card, mark, results_in, training_results
from .papers import GRPO, methods_in, papers_of_loss
from .published import default_of, hub_id, is_private, without_places


TOOLKIT_CITATION = f"""@software{{rlvr_trl,
    title        = {{{{rlvr_trl: Reinforcement learning with verifiable rewards on TRL}}}},
    author       = {{{{The rlvr_trl authors}}}},
    version      = {{{__version__}}},
    year         = 2026,
}}"""
VERSIONS = "### Framework versions\n\n"
# in the card even where they are the defaults
ALWAYS = (
    "seed",
    "num_generations",
    "max_completion_length",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "steps_per_generation",
    "num_iterations",
    "learning_rate",
    "temperature",
    "beta",
    "loss_type",
    "scale_rewards",
)


def complete_card(trainer, results: tuple[str, str | None, list | None] | None = None) -> None:
    """
    Adds to the `README.md` that TRL has just written, and draws the curve of what was measured beside it.

    Args:
        trainer ([`RLVRTrainer`]): whose `output_dir` holds the card.
        results (`tuple`, *optional*): what `earlier_results` kept of the card before.
    """
    folder = Path(trainer.args.output_dir)
    card, data = load_card(folder / "README.md")
    adapter, base = _adapter_of(trainer), hub_id(get_config_model_id(trainer.model.config))
    task = "image-text-to-text" if hasattr(trainer.processing_class, "image_processor") else "text-generation"
    _describe_in_metadata(data, base, adapter, task)
    text = _quick_start(card.text, base, adapter is not None, task, trainer.hub_model_id)
    measured = training_results(trainer.state.log_history, folder)
    parts = [_method(trainer), _settings(trainer), *([mark(TRAINING, measured)] if measured else [])]
    if results is not None:
        section, data.model_name, data.eval_results = results
        parts.append(section)
    before, heading, after = text.partition(VERSIONS)
    versions = f"- rlvr_trl: {__version__}\n" + ("" if adapter is None else f"- PEFT: {version('peft')}\n")
    text = "\n\n".join([before.rstrip(), *parts, f"{heading}{versions}{after.strip()}"])
    card.text = f"{text}\n\n{_citations(trainer)}\n"
    card.save(folder / "README.md")


def earlier_results(folder: str | os.PathLike) -> tuple[str, str | None, list | None] | None:
    """What `add_results_to_card` wrote into the card of a folder: the section, the model's name, the results."""
    path = Path(folder) / "README.md"
    if not path.exists():
        return None
    card, data = load_card(path)
    section = results_in(card.text)
    return None if section is None else (section, data.model_name, data.eval_results)


def dataset_id(dataset) -> str | None:
    """Id on the Hub of the dataset that was loaded from there, by the addresses of its files."""
    info = getattr(dataset, "info", None)
    for url in getattr(info, "download_checksums", None) or {}:
        if (found := re.match(r"hf://datasets/([^/@]+/[^/@]+)@", url)) and hub_id(found[1]) is not None:
            return found[1]
    return None


def method_tags(trainer) -> list[str]:
    """Tags of the methods used, nested estimators included. The first is `grpo`, of which all are variants."""
    found = methods_in(trainer.advantages) | methods_in(trainer.rollouts)
    return ["grpo", *dict.fromkeys(tag for _, tag in found.values())]


def describe(part) -> str:
    """
    An estimator or allocator as one would write it; a function by its name, without its address in memory. Folders and
    files that it names are left out.
    """
    written = f"{part.__module__}.{part.__qualname__}" if hasattr(part, "__qualname__") else repr(part)
    written = re.sub(r"<(?:function |bound method )?(\S+?)(?: object)?(?: at 0x[0-9a-f]+| of .*)>", r"\1", written)
    return re.sub(r"(?<![\w.:/])~?(?:/[^\s/'\",)\]}]+){2,}/?", "…", written)


def _adapter_of(trainer) -> str | None:
    """The kind of adapter that is trained, such as `"lora"`; None where the whole model is."""
    if not hasattr(trainer.model, "peft_config"):
        return None
    kind = trainer.model.active_peft_config.peft_type
    return getattr(kind, "value", str(kind)).lower()


def _describe_in_metadata(data: ModelCardData, base: str | None, adapter: str | None, task: str) -> None:
    """What the Hub reads: TRL calls an adapter a model, takes any name for an id, and leaves a placeholder."""
    data.base_model = base
    tags = {*(data.tags or [])}
    if adapter is not None:
        tags |= {adapter, "transformers"} | ({f"base_model:adapter:{base}"} if base else set())
        data.library_name = "peft"
        data.pipeline_tag = task
        data["base_model_relation"] = "adapter"
    data.tags = sorted(tags)  # TRL's order is that of a set, which differs between processes
    data.__dict__.pop("licence", None)  # "license", in every card of TRL


def _quick_start(text: str, base: str | None, is_adapter: bool, task: str, repository: str | None) -> str:
    """TRL's card, whose quick start loads the model from where it is, and which links to the base model if it can."""
    text = re.sub(r"\[(.*?)\]\(https://huggingface.co/\1\)", lambda m: m[0] if m[1] == base else "a local model", text)
    where = repository or "path/to/this/folder"
    start, heading, rest = text.partition("## Quick start\n")
    code, end, rest = rest.partition("## Training procedure\n")
    code = code.replace('model="None"', f'model="{where}"')
    if is_adapter and base is None:
        model, reader = ("ImageTextToText", "Processor") if task == "image-text-to-text" else ("CausalLM", "Tokenizer")
        code = (
            "\nThe adapter belongs to a model that was not loaded from the Hub, and works with that model only:\n\n"
            "```python\nfrom peft import PeftModel\nfrom transformers import "
            f"AutoModelFor{model}, Auto{reader}\n\n"
            f'base = AutoModelFor{model}.from_pretrained("path/to/the/base/model")\n'
            f'model = PeftModel.from_pretrained(base, "{where}")\n'
            f'{reader.lower()} = Auto{reader}.from_pretrained("{where}")\n```\n\n'
        )
    return start + heading + code + end + rest


def _method(trainer) -> str:
    args = trainer.args
    if trainer.rollouts is None:
        rollouts = f"{args.num_generations} completions of every prompt"
    else:
        rollouts = f"{_code(describe(trainer.rollouts))}, after {args.num_generations} completions of every prompt"
    names = [_code(name) for name in trainer.reward_func_names]
    correct = names[trainer._correctness_column]
    processes = trainer.accelerator.num_processes
    rows = {
        "Trainer": f"`{type(trainer).__name__}` on {processes} process{'' if processes == 1 else 'es'}",
        "Advantages": _code(describe(trainer.advantages)),
        "Rollouts": rollouts,
        "Loss": f"`{args.loss_type}`, importance sampling by `{args.importance_sampling_level}`",
        "Rewards": f"{', '.join(names)}; correct where {correct} is above {args.correctness_threshold}",
        "Dataset": _dataset(trainer.train_dataset),
        "Optimizer steps": f"{trainer.state.global_step}",
    }
    table = "\n".join(f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows.items())
    methods = methods_in(trainer.advantages) | methods_in(trainer.rollouts)
    formulas = [f"- `{name}`: {_link(paper)}" for name, (paper, _) in methods.items()]
    formulas += [
        f"- the loss: {_link(paper)}" for paper in papers_of_loss(args.loss_type, args.importance_sampling_level)
    ]
    if not any(paper is GRPO for paper, _ in methods.values()):
        formulas.append(f"- GRPO: {_link(GRPO)}")
    return (
        f"## Method\n\n| | |\n|---|---|\n{table}\n\nThe classes are those of `rlvr_trl.advantages` and "
        f"`rlvr_trl.rollouts`, version {__version__}; their formulas are in\n\n" + "\n".join(formulas)
    )


def _code(text: str) -> str:
    """Text as code in one line of Markdown, whatever it holds."""
    text = " ".join(text.split())
    fence = "`" * (1 + max([0, *map(len, re.findall("`+", text))]))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def _link(paper: dict[str, str]) -> str:
    return f"[{paper['title']}](https://arxiv.org/abs/{paper['id']})"


def _dataset(dataset) -> str:
    name = dataset_id(dataset)
    where = "a local dataset" if name is None else f"[{name}](https://huggingface.co/datasets/{name})"
    return f"{where}, {len(dataset)} prompts" if hasattr(dataset, "__len__") else where


def _settings(trainer) -> str:
    settings = yaml.safe_dump(dict(_public_settings(trainer.args)), sort_keys=False, width=119, allow_unicode=True)
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", settings))]))  # longer than any in the settings
    return (
        f"<details>\n<summary>Configuration: <code>{type(trainer.args).__name__}</code>, its main settings "
        f"and what differs from its defaults</summary>\n\n{fence}yaml\n{settings}{fence}\n\n</details>"
    )


def _public_settings(args) -> Iterator[tuple[str, object]]:
    """Settings that are not their default or in `ALWAYS`, without what is secret or names a place."""
    values = args.to_dict()
    for field in fields(args):
        if not field.init or is_private(field.name):
            continue
        value = values[field.name]
        if field.name in ALWAYS or default_of(field) not in (value, getattr(args, field.name)):
            public = _as_yaml(without_places(value))
            if public is not None:
                yield field.name, public


def _as_yaml(value):
    """`value` as YAML can hold it."""
    if isinstance(value, dict):
        return {str(key): _as_yaml(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_yaml(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _citations(trainer) -> str:
    methods = methods_in(trainer.advantages) | methods_in(trainer.rollouts)
    papers = [paper for paper, _ in methods.values()]
    papers += papers_of_loss(trainer.args.loss_type, trainer.args.importance_sampling_level) + [GRPO]
    cited = trainer._paper.get("id")  # by TRL's part of the card
    entries = dict.fromkeys(paper["citation"] for paper in papers if paper["id"] != cited)
    return "\n\n".join(
        ["Cite the methods as:", *(f"```bibtex\n{entry}\n```" for entry in entries), "Cite rlvr_trl as:"]
        + [f"```bibtex\n{TOOLKIT_CITATION}\n```"]
    )
