"""PassAtKCallback on two processes with 5 prompts of 3 samples. Writes what each rank measured and trained."""

import sys

import torch
from tiny_training import ON_CPU, build

from rlvr_trl import PassAtKCallback, RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_tokenizer


def first_move(completions, **kwargs):
    return [float(completion[:1] in ("U", "D")) for completion in completions]


def broken_reward(completions, **kwargs):
    raise RuntimeError("broken reward")


class Recording(PassAtKCallback):
    """Keeps what each call of the last measurement asked for, and what an evaluation was given."""

    def _sample(self, processes):
        self.calls = []
        return super()._sample(processes)

    def _complete(self, requests):
        self.calls.append(requests)
        return super()._complete(requests)

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        super().on_evaluate(args, state, control, metrics, **kwargs)
        self.evaluated = {name: value for name, value in metrics.items() if "pass@" in name}


def make_trainer(output_dir):
    mazes = make_maze_dataset(17, prompt_style="bare", seed=5)
    sizes = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "num_generations": 4, "max_steps": 4}
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "no", "logging_steps": 1}
    training = {"output_dir": output_dir, "learning_rate": 1e-3, "max_completion_length": 6, **ON_CPU}
    few, some = mazes.select(range(4)), mazes.select(range(12))
    trainer = build(RLVRTrainer, training | sizes | steps, some, build_tokenizer(), first_move, eval_dataset=few)
    assert trainer.accelerator.num_processes == 2
    assert str(trainer.accelerator.distributed_type).endswith("MULTI_CPU"), trainer.accelerator.distributed_type
    return trainer, mazes.select(range(12, 17))


def main(folder):
    trainer, held_out = make_trainer(f"{folder}/measured")
    callback = Recording(trainer, held_out, num_samples=3)
    trainer.add_callback(callback)
    trainer.train()
    unmeasured, _ = make_trainer(f"{folder}/unmeasured")
    unmeasured.train()
    only = PassAtKCallback(trainer, held_out.select([0]), num_samples=1, prefix="eval_only")
    only._measure()  # of which the second process has nothing
    failing = PassAtKCallback(trainer, held_out, num_samples=3, reward_func=broken_reward)
    error = None
    try:
        failing._measure()
    except RuntimeError as raised:
        error = str(raised)
    torch.save(
        {
            "history": callback.history,
            "evaluated": callback.evaluated,
            "prompts": callback.latest.prompts,
            "texts": callback.latest.completions.texts,
            "calls": callback.calls,
            "weights": trainer.accelerator.unwrap_model(trainer.model).state_dict(),
            "unmeasured": unmeasured.accelerator.unwrap_model(unmeasured.model).state_dict(),
            "only": only.history[0],
            "error": error,
        },
        f"{folder}/rank-{trainer.accelerator.process_index}.pt",
    )


if __name__ == "__main__":
    main(sys.argv[1])
