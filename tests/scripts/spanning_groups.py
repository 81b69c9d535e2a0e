"""Two ranks of 6 completions with groups of 4: the second group spans both. Writes what each rank trained on."""

import sys

import torch
from trl import GRPOConfig, GRPOTrainer

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.advantages import GroupRelative, PassAtK
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_model, build_tokenizer


def right_moves(completions, **kwargs):
    return [completion.count("R") / 4 for completion in completions]


def train(trainer_class, config_class, output_dir, **kwargs):
    batches = []

    class Recording(trainer_class):
        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            batches.append((output["completion_ids"], output["advantages"]))
            return output

    settings = {"per_device_train_batch_size": 6, "num_generations": 4, "max_completion_length": 6, "max_steps": 3}
    cpu = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    quiet = {"report_to": "none", "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True}
    tokenizer = build_tokenizer()
    trainer = Recording(
        build_model(tokenizer, seed=0),
        right_moves,
        config_class(output_dir, learning_rate=1e-3, **settings, **cpu, **quiet),
        make_maze_dataset(12, prompt_style="bare", seed=5),
        processing_class=tokenizer,
        **kwargs,
    )
    assert trainer.accelerator.num_processes == 2
    assert str(trainer.accelerator.distributed_type).endswith("MULTI_CPU"), trainer.accelerator.distributed_type
    trainer.train()
    rank = trainer.accelerator.process_index
    logged = {name: list(values) for name, values in trainer._logs["rewards"].items()}
    logs = {"rewards": logged, "advantages": list(trainer._logs["advantages"]), "history": trainer.state.log_history}
    weights = {
        name: weight.cpu() for name, weight in trainer.accelerator.unwrap_model(trainer.model).named_parameters()
    }
    torch.save({"batches": batches, "weights": weights, **logs}, f"{output_dir}-{rank}.pt")


if __name__ == "__main__":
    folder = sys.argv[1]
    train(GRPOTrainer, GRPOConfig, f"{folder}/stock")
    train(RLVRTrainer, RLVRConfig, f"{folder}/group_relative", advantages=GroupRelative())
    train(RLVRTrainer, RLVRConfig, f"{folder}/pass_at_k", advantages=PassAtK(2))
