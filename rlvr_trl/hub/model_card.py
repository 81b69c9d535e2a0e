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
from dataclasses import MISSING, fields
from pathlib import Path

import yaml

from .. import __version__
from .card_results import TRAINING, load_card, mark, results_in, training_results
from .papers import GRPO, methods_in, papers_of_loss


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
# settings that say where a run is kept rather than how it trains, and secrets
_PRIVATE = re.compile(
    r"(^|_)(token|key|password|secret|dir|path|file|url|host|port|socket)$|^(hub|push_to_hub|trackio|vllm_server|wandb)_|"
    r"^(run_name|project|resume_from_checkpoint|deepspeed|fsdp_config|accelerator_config|report_to|push_to_hub)$"
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
    text = card.text.replace("[None](https://huggingface.co/None)", "a local model")
    measured = training_results(trainer.state.log_history, folder)
    parts = [_method(trainer), _settings(trainer), *([mark(TRAINING, measured)] if measured else [])]
    if results is not None:
        section, data.model_name, data.eval_results = results
        parts.append(section)
    before, heading, after = text.partition(VERSIONS)
    text = "\n\n".join([before.rstrip(), *parts, f"{heading}- rlvr_trl: {__version__}\n{after.strip()}"])
    card.text = f"{text}\n\n{_citations(trainer)}\n"
    data.tags = sorted(set(data.tags or []))  # TRL's order is that of a set, which differs between processes
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
        if found := re.match(r"hf://datasets/([^/@]+/[^/@]+)@", url):
            return found[1]
    return None


def method_tags(trainer) -> list[str]:
    """Tags of the methods used, nested estimators included. The first is `grpo`, of which all are variants."""
    found = methods_in(trainer.advantages) | methods_in(trainer.rollouts)
    return ["grpo", *dict.fromkeys(tag for _, tag in found.values())]


def describe(part) -> str:
    """An estimator or allocator as one would write it; a function by its name, without its address in memory."""
    written = f"{part.__module__}.{part.__qualname__}" if hasattr(part, "__qualname__") else repr(part)
    return re.sub(r"<(?:function |bound method )?(\S+?)(?: object)?(?: at 0x[0-9a-f]+| of .*)>", r"\1", written)


def _method(trainer) -> str:
    args = trainer.args
    if trainer.rollouts is None:
        rollouts = f"{args.num_generations} completions of every prompt"
    else:
        rollouts = f"`{describe(trainer.rollouts)}`, after {args.num_generations} completions of every prompt"
    names = [f"`{name}`" for name in trainer.reward_func_names]
    correct = names[trainer._correctness_column]
    processes = trainer.accelerator.num_processes
    rows = {
        "Trainer": f"`{type(trainer).__name__}` on {processes} process{'' if processes == 1 else 'es'}",
        "Advantages": f"`{describe(trainer.advantages)}`",
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
        f"<details>\n<summary>Configuration: <code>{type(trainer.args).__name__}</code>, what differs from its "
        f"defaults</summary>\n\n{fence}yaml\n{settings}{fence}\n\n</details>"
    )


def _public_settings(args) -> Iterator[tuple[str, object]]:
    """Settings that are not their default or in `ALWAYS`, without what is secret or names a place."""
    values = args.to_dict()
    for field in fields(args):
        if not field.init or _PRIVATE.search(field.name):
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        value = values[field.name]
        if field.name in ALWAYS or default not in (value, getattr(args, field.name)):
            public = _public(value)
            if public is not None:
                yield field.name, public


def _public(value):
    """`value` as YAML can hold it, without entries that are secret or places. `None` if nothing is left."""
    if isinstance(value, dict):
        entries = {str(key): _public(inner) for key, inner in value.items() if not _PRIVATE.search(str(key))}
        return {key: inner for key, inner in entries.items() if inner is not None} or None
    if isinstance(value, (list, tuple)):
        return [inner for inner in map(_public, value) if inner is not None] or None
    if value is None:
        return None
    if isinstance(value, str):
        return None if value.startswith(("~", ".")) or os.path.isabs(value) or "://" in value else value
    return value if isinstance(value, (bool, int, float)) else str(value)


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
