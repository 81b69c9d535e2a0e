"""A Pass@k run of 3 steps that pushes to the Hub at HF_ENDPOINT, and reports the outcome on standard output."""

import argparse
import contextlib
import io
import json
import warnings

from peft import LoraConfig
from tiny_training import ON_CPU, build
from transformers import AutoModelForCausalLM

from rlvr_trl import PassAtKTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.hub import push
from rlvr_trl.testbed import build_model, build_tokenizer


push.WAIT = 0.05
TOKEN = "hf_notarealtokenbutlookslikeone"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir")
    parser.add_argument("--strategy", default="end")
    parser.add_argument("--push-at-end", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="list what would be pushed before it is")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--base", help="folder that the base model is saved in and loaded from")
    parser.add_argument("--settings", type=json.loads, default={})
    args = parser.parse_args()
    sizes = {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 4, "max_steps": 3}
    sizes["learning_rate"] = 1e-2  # so that every step changes the model
    pushing = {"push_to_hub": True, "hub_strategy": args.strategy, "hub_token": TOKEN, "save_steps": 1}
    settings = {"output_dir": args.output_dir, "k": 2, **sizes, **ON_CPU, **pushing, **args.settings}
    mazes = make_maze_dataset(4, prompt_style="bare", seed=5)
    adapter = LoraConfig(r=2, target_modules=["q_proj"]) if args.lora else None
    tokenizer, model = build_tokenizer(), None
    if args.base is not None:
        build_model(tokenizer, seed=0).save_pretrained(args.base)
        model = AutoModelForCausalLM.from_pretrained(args.base)
    parts = {"model": model, "peft_config": adapter, "eval_dataset": mazes}
    trainer = build(PassAtKTrainer, settings, mazes, tokenizer, **parts)
    told = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
        if args.dry_run:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                told["listed"] = trainer.push_to_hub(dry_run=True)
            told["printed"] = printed.getvalue()
        if args.push_at_end:
            try:
                trainer.push_to_hub()
            except RuntimeError as error:
                told["error"] = str(error)
    told["warnings"] = [str(warning.message) for warning in caught if "push" in str(warning.message)]
    told["step"] = trainer.state.global_step
    print("TOLD" + json.dumps(told))


if __name__ == "__main__":
    main()
