"""Two machines that share `<folder>/shared`, and each have `<folder>/<rank>` for themselves."""

import os
import sys
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object
from tiny_training import ON_CPU, build

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_tokenizer
from rlvr_trl.trainer import checkpoint


def refusal(folder: str, **settings) -> str | None:
    args = RLVRConfig(folder, **ON_CPU | {"save_strategy": "steps"} | settings)
    try:
        checkpoint.check_output_dir(args)
    except ValueError as error:
        return str(error)
    return None


def main():
    folder, rank = sys.argv[1], os.environ["RANK"]
    assert os.environ["LOCAL_RANK"] == "0"
    checkpoint.SEEN_WITHIN = 1
    shared, own = f"{folder}/shared", f"{folder}/{rank}"
    Path(folder, "file").touch()
    for path, settings in (
        (shared, {}),
        (own, {"save_strategy": "no"}),
        (own, {}),
        (shared, {"save_on_each_node": True}),
        (f"{folder}/file", {}),
    ):
        said = gather_object([refusal(path, **settings)])
        assert PartialState().num_processes == len(said) == 2
        if rank == "0":
            print(f"{os.path.basename(path)} {settings}: {said}")
    if os.getuid() == 0:  # to test what the second process may do as another user
        os.setreuid(65534 if rank == "1" else 0, -1)
        said = gather_object([refusal(shared)])
        os.setreuid(0, -1)
        if rank == "0":
            print(f"read-only: {said}")
    settings = {
        "output_dir": shared,
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 6,
        "save_strategy": "steps",
        **ON_CPU,
    }
    mazes = make_maze_dataset(8, prompt_style="bare", seed=5)
    trainer = build(RLVRTrainer, settings, mazes, build_tokenizer(), lambda completions, **_: [0.0] * len(completions))
    if rank == "0":  # a checkpoint that the other machine does not see
        os.makedirs(f"{folder}/0/checkpoint-1")
        Path(folder, "0/checkpoint-1/trainer_state.json").write_text('{"global_step": 1}', encoding="utf-8")
    trainer.train(resume_from_checkpoint=f"{own}/checkpoint-1")


if __name__ == "__main__":
    main()
