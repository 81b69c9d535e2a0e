r"""
Trains a vision-language model on geometry problems with figures (Geometry3K), with any method.

    accelerate launch --num_processes 8 examples/train_vlm.py \
        --config examples/recipes/a_grae/vl_3b_grpo_a_grae.yaml --output_dir runs/geo3k

The reward is 0.9 of accuracy plus 0.1 of format unless `--reward_funcs` and `--reward_weights` say otherwise. The
images are a column of the dataset, and TRL puts them into the prompts. Pass@k during training works for text only:
measure a saved model with `rlvr-trl eval`. Resume and publish as with train_math.py: `--resume_from_checkpoint true`,
`--push_to_hub`.
"""

from dataclasses import dataclass, field

from trl import ModelConfig

from rlvr_trl import RLVRConfig
from rlvr_trl.script_parser import ScriptParser
from rlvr_trl.scripts import SourceScriptArguments, load_training_set, make_trainer, run_training


@dataclass
class VisionScriptArguments(SourceScriptArguments):
    """The arguments of train_math.py, with other defaults."""

    dataset_name: str = field(default="geo3k", metadata={"help": "What to train on, a source with images."})
    reward_funcs: list[str] = field(
        default_factory=lambda: ["math_reward", "boxed_format_reward"],
        metadata={"help": "Reward functions; the first says what is correct."},
    )


def make_parser():
    return ScriptParser((VisionScriptArguments, RLVRConfig, ModelConfig), script="train_vlm")


def main(script_args, training_args, model_args):
    if script_args.eval_benchmark is not None:
        raise ValueError(
            f"`eval_benchmark` is {script_args.eval_benchmark!r}, but pass@k during training works for text only. "
            f"Remove it, and measure the trained model with `rlvr-trl eval`."
        )
    if training_args.reward_weights is None and len(script_args.reward_funcs) == 2:
        training_args.reward_weights = [0.9, 0.1]
    train_dataset = load_training_set(script_args, model_args)
    trainer = make_trainer(script_args, training_args, model_args, train_dataset)
    run_training(trainer)
    return trainer


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
