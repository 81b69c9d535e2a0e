r"""
Trains a model on tasks of reasoning-gym, with its own scorers, and measures pass@k on held-out problems of them.

    accelerate launch --num_processes 8 examples/train_puzzles.py \
        --config examples/recipes/puzzles/1.5b_grpo.yaml --output_dir runs/puzzles

`--tasks` names them, with settings where the defaults are too hard: `--tasks leg_counting '{name: chain_sum,
max_terms: 3}'`. Problems are drawn from a seed: `--problems_per_task` to train on, and with
`--eval_problems_per_task 50 --eval_every 50` as many as that to measure pass@k on during training, none of them in the
training set. A task whose scorer evaluates text needs `--run_text true`, and a reward that knows of it:
`--reward_funcs '{name: reasoning_gym_reward, run_text: true}'`.

To resume a run that was stopped, add `--resume_from_checkpoint true` to the same command. To publish the model, add
`--push_to_hub`.
"""

from dataclasses import dataclass, field

from datasets import Dataset, concatenate_datasets
from trl import ModelConfig

from rlvr_trl import RLVRConfig
from rlvr_trl.data import load_reasoning_gym
from rlvr_trl.registry import name_and_fields
from rlvr_trl.script_parser import ScriptParser
from rlvr_trl.scripts import TrainingScriptArguments, make_trainer, run_training


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


def draw_problems(script_args: PuzzleScriptArguments, count: int, seed: int, exclude: Dataset | None) -> Dataset:
    """`count` problems of each task, none of them in `exclude`."""
    settings = {"template": script_args.prompt_template, "run_text": script_args.run_text, "exclude": exclude}
    tasks = [name_and_fields(spec, "task") for spec in script_args.tasks]
    drawn = [load_reasoning_gym(name, count, seed, **settings, **config) for name, config in tasks]
    return concatenate_datasets(drawn).shuffle(seed)


def make_parser():
    return ScriptParser((PuzzleScriptArguments, RLVRConfig, ModelConfig), script="train_puzzles")


def main(script_args, training_args, model_args):
    held_out = None
    if script_args.eval_problems_per_task > 0:
        held_out = draw_problems(script_args, script_args.eval_problems_per_task, training_args.seed + 1, None)
    problems = draw_problems(script_args, script_args.problems_per_task, training_args.seed, held_out)
    trainer = make_trainer(script_args, training_args, model_args, problems, held_out)
    run_training(trainer)
    return trainer


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
