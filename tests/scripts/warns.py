"""Two processes train on rewards that teach nothing and prompts beyond the context. They must not warn twice."""

import sys

from accelerate import PartialState
from tiny_training import ON_CPU, build

from rlvr_trl import RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_model, build_tokenizer


def never(completions, **kwargs):
    return [0.0] * len(completions)


tokenizer = build_tokenizer()
model = build_model(tokenizer)
model.config.max_position_embeddings = 16
sizes = {"per_device_train_batch_size": 20, "num_generations": 2, "max_completion_length": 2, "max_steps": 7}
mazes = make_maze_dataset(40, prompt_style="bare", seed=5)
trainer = build(RLVRTrainer, {"output_dir": sys.argv[1], **sizes, **ON_CPU}, mazes, tokenizer, never, model=model)
assert PartialState().num_processes == 2
trainer.train()
