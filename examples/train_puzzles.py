r"""
Trains a model on tasks of reasoning-gym or Enigmata, with their own scorers, and measures pass@k on held-out problems.

    accelerate launch --num_processes 8 examples/train_puzzles.py \
        --config examples/recipes/puzzles/1.5b_grpo.yaml --output_dir runs/puzzles

`--tasks` names them, with settings where the defaults are too hard: `--tasks leg_counting '{name: chain_sum,
max_terms: 3}'`. Problems are drawn from a seed: `--problems_per_task` to train on, and with
`--eval_problems_per_task 50 --eval_every 50` as many as that to measure pass@k on during training, none of them in the
training set. A task whose scorer evaluates text needs `--run_text true`, and a reward that knows of it:
`--reward_funcs '{name: reasoning_gym_reward, run_text: true}'`.

`--enigmata` takes the rows of Enigmata in their place: an id of the Hub, a file or a folder, with `--eval_enigmata` to
measure pass@k on and a reward that names your clone of the repository, whose verifiers judge:
`--reward_funcs '{name: enigmata_reward, checkout: Enigmata}'`.

To resume a run that was stopped, add `--resume_from_checkpoint true` to the same command. To publish the model, add
`--push_to_hub`.
"""

from collections import Counter
from dataclasses import dataclass, field

from datasets import Dataset, concatenate_datasets
from trl import ModelConfig

from rlvr_trl import RLVRConfig
from rlvr_trl.data import load_enigmata, load_reasoning_gym
from rlvr_trl.registry import name_and_fields
from rlvr_trl.script_parser import ScriptParser
from rlvr_trl.scripts import TrainingScriptArguments, make_trainer, run_training, without_long_prompts


@dataclass
class PuzzleScriptArguments(TrainingScriptArguments):
    reward_funcs: list[str] = field(
        default_factory=lambda: ["reasoning_gym_reward"], metadata={"help": "Reward functions."}
    )
    tasks: list[str] = field(
        default_factory=lambda: ["leg_counting"],
        metadata={"help": "Tasks of reasoning-gym. With settings: '{name: chain_sum, max_terms: 3}'."},
    )
    problems_per_task: int = field(default=5_000, metadata={"help": "Problems to train on, of each task."})
    eval_problems_per_task: int = field(default=0, metadata={"help": "Held-out problems of each task for pass@k."})
    prompt_template: str = field(
        default="tags", metadata={"help": "Name of one of PROMPT_TEMPLATES, or a text with {problem}."}
    )
    run_text: bool = field(default=False, metadata={"help": "Whether to take tasks whose scorers evaluate text."})
    enigmata: str | None = field(
        default=None, metadata={"help": "Rows of Enigmata, in place of `tasks`: an id of the Hub, a file or a folder."}
    )
    eval_enigmata: str | None = field(default=None, metadata={"help": "Likewise, to measure pass@k on."})
    language: str | None = field(default=None, metadata={"help": "Language of the rows of Enigmata to keep."})
    max_prompt_length: int | None = field(
        default=None, metadata={"help": "Prompts of more tokens are left out, with a warning that counts them."}
    )


def draw_problems(script_args: PuzzleScriptArguments, count: int, seed: int, exclude: Dataset | None) -> Dataset:
    """`count` problems of each task, none of them in `exclude`."""
    settings = {"template": script_args.prompt_template, "run_text": script_args.run_text, "exclude": exclude}
    tasks = [name_and_fields(spec, "task") for spec in script_args.tasks]
    drawn = [load_reasoning_gym(name, count, seed, **settings, **config) for name, config in tasks]
    return concatenate_datasets(drawn).shuffle(seed)


def read_enigmata(script_args: PuzzleScriptArguments, path_or_id: str, split: str) -> Dataset:
    """Rows of Enigmata, with plain prompts as messages, which a chat template needs."""
    rows = load_enigmata(path_or_id, split, language=script_args.language)
    if isinstance(rows["prompt"][0], str):
        prompts = [[{"role": "user", "content": prompt}] for prompt in rows["prompt"]]
        rows = rows.remove_columns("prompt").add_column("prompt", prompts)
    return rows


def first_of_each_task(rows: Dataset, count: int) -> Dataset:
    seen = Counter()
    kept = []
    for i, task in enumerate(rows["task_name"]):
        seen[task] += 1
        if seen[task] <= count:
            kept.append(i)
    return rows.select(kept)


def load_problems(script_args: PuzzleScriptArguments, seed: int) -> tuple[Dataset, Dataset | None]:
    """What is trained on, and what pass@k is measured on, if anything is."""
    count = script_args.eval_problems_per_task
    if script_args.enigmata is None:
        held_out = draw_problems(script_args, count, seed + 1, None) if count > 0 else None
        return draw_problems(script_args, script_args.problems_per_task, seed, held_out), held_out
    if (count > 0) != (script_args.eval_enigmata is not None):
        raise ValueError(
            f"`eval_enigmata` is {script_args.eval_enigmata!r} and `eval_problems_per_task` {count}, but pass@k "
            f"during training needs both, and nothing else needs one of them."
        )
    held_out = None
    if script_args.eval_enigmata is not None:
        held_out = first_of_each_task(read_enigmata(script_args, script_args.eval_enigmata, "test"), count)
    return read_enigmata(script_args, script_args.enigmata, "train"), held_out


def make_parser():
    return ScriptParser((PuzzleScriptArguments, RLVRConfig, ModelConfig), script="train_puzzles")


def main(script_args, training_args, model_args):
    problems, held_out = load_problems(script_args, training_args.seed)
    problems = without_long_prompts(problems, script_args.max_prompt_length, model_args)
    trainer = make_trainer(script_args, training_args, model_args, problems, held_out)
    run_training(trainer)
    return trainer


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
