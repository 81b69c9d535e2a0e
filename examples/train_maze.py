r"""
Trains a model on the mazes of Pass@k Training (arXiv 2508.10751): text mazes, answered with moves in answer tags.

    accelerate launch --num_processes 8 examples/train_maze.py \
        --config examples/recipes/pass_at_k/pass_at_8.yaml --output_dir runs/maze_pass_at_8

Mazes are drawn from a seed: `--mazes_per_size` of each of `--sizes`, lattices as in the paper's Fig. 14 with its
prompt unless `--walls` or `--prompt_style` say otherwise, none of them in the benchmark `maze`. `--published_mazes
RUC-AIBOX/Passk_Training_Maze`, or a file, takes those that the authors have published instead. A model that never
finds a way has nothing to learn from; `--sft_steps 200` first trains it on
shortest paths with TRL's SFTTrainer, and the run starts from the result, in `<output_dir>/warmup`. With
`--eval_mazes_per_size 20 --eval_every 20`, pass@k on held-out mazes is measured during training.

To resume a run that was stopped, add `--resume_from_checkpoint true` to the same command. To publish the model, add
`--push_to_hub`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from transformers import AutoTokenizer
from trl import ModelConfig, SFTConfig, SFTTrainer

from rlvr_trl import RLVRConfig
from rlvr_trl.data import load_benchmark, load_mazes, make_maze_dataset
from rlvr_trl.script_parser import ScriptParser
from rlvr_trl.scripts import TrainingScriptArguments, make_trainer, run_training


@dataclass
class MazeScriptArguments(TrainingScriptArguments):
    reward_funcs: list[str] = field(default_factory=lambda: ["maze_reward"], metadata={"help": "Reward functions."})
    sizes: list[int] = field(default_factory=lambda: [9, 11, 13, 15], metadata={"help": "Rows of the mazes."})
    mazes_per_size: int = field(default=10_000, metadata={"help": "Mazes to train on, of each size."})
    published_mazes: str | None = field(
        default=None, metadata={"help": "An id of the Hub, a file or a folder: its mazes, with their prompts, count."}
    )
    walls: str = field(
        default="lattice", metadata={"help": "'lattice' of pillars as in the paper's figure, or 'independent'."}
    )
    prompt_style: str = field(
        default="paper",
        metadata={"help": "'paper' is as printed, 'instruct' explains the task too, 'bare' is the maze alone."},
    )
    sft_steps: int = field(default=0, metadata={"help": "Supervised steps on shortest paths before the training."})
    sft_learning_rate: float = field(default=1e-5, metadata={"help": "Learning rate of these steps."})
    eval_mazes_per_size: int = field(default=0, metadata={"help": "Held-out mazes of each size for pass@k."})


def make_mazes(script_args: MazeScriptArguments, count: int, seed: int, exclude: Dataset) -> Dataset:
    """`count` mazes of each size, with a border, and E anywhere."""
    settings = {"border": True, "max_path_length": None, "walls": script_args.walls, "seed": seed}
    settings["prompt_style"] = script_args.prompt_style
    return concatenate_datasets(
        [make_maze_dataset(count, size, exclude=exclude, **settings) for size in script_args.sizes]
    ).shuffle(seed)


def published_mazes(script_args: MazeScriptArguments) -> Dataset:
    """All of a published training set, whatever `sizes` and `mazes_per_size` are."""
    changed = [
        name
        for name in ("sizes", "mazes_per_size", "walls", "prompt_style")
        if getattr(script_args, name) != getattr(MazeScriptArguments(), name)
    ]
    if changed:
        raise ValueError(f"`{changed[0]}` is for drawn mazes and has no effect on `published_mazes`. Set one of them.")
    return load_mazes(script_args.published_mazes)


def warm_up(script_args: MazeScriptArguments, training_args: RLVRConfig, model_args: ModelConfig, mazes: Dataset):
    """Trains the model on shortest paths, and makes the result the model of the run. A resumed run finds it there."""
    folder = str(Path(training_args.output_dir, "warmup"))
    if training_args.resume_from_checkpoint is None or not Path(folder, "config.json").exists():
        paths = [f"<answer>{path}</answer>" for path in mazes["shortest_path"]]
        if not isinstance(mazes[0]["prompt"], str):
            paths = [[{"role": "assistant", "content": path}] for path in paths]
        args = SFTConfig(
            folder,
            max_steps=script_args.sft_steps,
            learning_rate=script_args.sft_learning_rate,
            per_device_train_batch_size=training_args.per_device_train_batch_size,
            max_length=None,
            seed=training_args.seed,
            bf16=training_args.bf16,
            use_cpu=training_args.use_cpu,
            gradient_checkpointing=training_args.gradient_checkpointing,
            model_init_kwargs={"revision": model_args.model_revision, "dtype": model_args.dtype},
            report_to="none",
            save_strategy="no",
        )
        dataset = mazes.select_columns(["prompt"]).add_column("completion", paths)
        tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path, revision=model_args.model_revision)
        trainer = SFTTrainer(model_args.model_name_or_path, args, train_dataset=dataset, processing_class=tokenizer)
        trainer.train()
        trainer.save_model()
        trainer.accelerator.wait_for_everyone()
    model_args.model_name_or_path, model_args.model_revision = folder, "main"


def make_parser():
    return ScriptParser((MazeScriptArguments, RLVRConfig, ModelConfig), script="train_maze")


def main(script_args, training_args, model_args):
    held_out, eval_mazes = load_benchmark("maze").select_columns("maze"), None
    mazes = published_mazes(script_args) if script_args.published_mazes else None
    if mazes is not None:
        held_out = concatenate_datasets([held_out, mazes.select_columns("maze")])
    if script_args.eval_mazes_per_size > 0:
        eval_mazes = make_mazes(script_args, script_args.eval_mazes_per_size, training_args.seed + 1, held_out)
        held_out = concatenate_datasets([held_out, eval_mazes.select_columns("maze")])
    if mazes is None:
        mazes = make_mazes(script_args, script_args.mazes_per_size, training_args.seed, held_out)
    if script_args.sft_steps > 0:
        warm_up(script_args, training_args, model_args, mazes)
    trainer = make_trainer(script_args, training_args, model_args, mazes, eval_mazes)
    run_training(trainer)
    return trainer


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
