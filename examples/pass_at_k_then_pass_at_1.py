r"""
Pass@k Training first, Pass@1 Training after it (arXiv 2508.10751, section 3.5), in one run.

    accelerate launch --num_processes 8 examples/pass_at_k_then_pass_at_1.py \
        --model_name_or_path Qwen/Qwen2.5-7B-Instruct --dataset_name math --output_dir runs/pass_at_8_then_1 \
        --num_generations 32 --prompts_per_batch 128 --k_schedule '{"0": 8, "0.7": 1}'

trains with Pass@8 for 70 % of the steps and Pass@1 for the rest, in one learning rate schedule. `'{"0": 8, "0.4": 1,
"0.5": 8, "0.9": 1}'` does it twice. For two runs instead, each with its own schedule and optimizer, chain them:

    accelerate launch … --k 8 --output_dir runs/first
    accelerate launch … --k 1 --output_dir runs/second --model_name_or_path runs/first

`--config recipe.yaml`, `--resume_from_checkpoint true` and `--push_to_hub` work as in train_math.py. Progress is
counted in steps of the whole run, so a resumed run switches where an uninterrupted one would have.
"""

from trl import ModelConfig

from rlvr_trl import PassAtKConfig, PassAtKTrainer
from rlvr_trl.script_parser import ScriptParser
from rlvr_trl.scripts import SourceScriptArguments, load_eval_set, load_training_set, make_trainer, run_training


def make_parser():
    return ScriptParser((SourceScriptArguments, PassAtKConfig, ModelConfig), script="pass_at_k_then_pass_at_1")


def main(script_args, training_args, model_args):
    train_dataset = load_training_set(script_args, model_args)
    eval_dataset = load_eval_set(script_args)
    trainer = make_trainer(script_args, training_args, model_args, train_dataset, eval_dataset, PassAtKTrainer)
    run_training(trainer)
    return trainer


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
