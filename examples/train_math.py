r"""
Trains a model on a mathematics dataset, with any method and any recipe.

    accelerate launch --num_processes 8 examples/train_math.py \
        --config examples/recipes/dars/1.5b_dars_hw.yaml --output_dir runs/dars_hw

A method is two settings of the recipe, `advantages` and `rollouts` (docs/methods). Options after the recipe override
its settings, and can replace the recipe altogether:

    accelerate launch --num_processes 1 examples/train_math.py \
        --model_name_or_path Qwen/Qwen2.5-Math-1.5B --dataset_name gsm8k --output_dir runs/gsm8k \
        --num_generations 8 --advantages '{"name": "pass_at_k", "k": 4}' \
        --eval_benchmark math500 --eval_num_samples 8 --eval_every 50

To resume a run that was stopped, add `--resume_from_checkpoint true` to the same command. To publish the model, add
`--push_to_hub`. LoRA and quantization are TRL's: `--use_peft`, `--load_in_4bit`.
"""

from trl import ModelConfig

from rlvr_trl import RLVRConfig
from rlvr_trl.script_parser import ScriptParser
from rlvr_trl.scripts import SourceScriptArguments, load_eval_set, load_training_set, make_trainer, run_training


def make_parser():
    return ScriptParser((SourceScriptArguments, RLVRConfig, ModelConfig), script="train_math")


def main(script_args, training_args, model_args):
    train_dataset = load_training_set(script_args, model_args)
    trainer = make_trainer(script_args, training_args, model_args, train_dataset, load_eval_set(script_args))
    run_training(trainer)
    return trainer


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
