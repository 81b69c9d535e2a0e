"""evaluate() on two processes with 5 mazes of 3 samples, then with errors on one. Writes what each rank got."""

import json
import sys

import pytest
from accelerate import PartialState

from rlvr_trl.data import make_maze_dataset
from rlvr_trl.evaluation import TransformersEngine, evaluate_engine
from rlvr_trl.rewards import maze_reward
from rlvr_trl.testbed import build_model, build_tokenizer


def broken_reward(completions, **kwargs):
    raise RuntimeError("broken reward")


class BrokenOnOne(TransformersEngine):
    """Fails on the second process, after its first completions."""

    def sample(self, prompts, requests, settings):
        for index, batch in enumerate(super().sample(prompts, requests, settings)):
            if index == 1 and PartialState().process_index == 1:
                raise ValueError("no more memory")
            yield batch


if __name__ == "__main__":
    folder, state = sys.argv[1], PartialState(cpu=True)
    assert state.num_processes == 2
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=0)
    mazes = make_maze_dataset(5, prompt_style="bare", seed=5)
    settings = {"num_samples": 3, "max_new_tokens": 6, "state": state, "progress": False}

    def run(name, engine=TransformersEngine, reward=maze_reward, dataset=mazes):
        engine = engine(model, tokenizer, token_budget=120)
        return evaluate_engine(engine, dataset, reward, output_dir=f"{folder}/{name}", **settings)

    with pytest.raises(ValueError, match="no more memory") as sampling:
        run("run", BrokenOnOne)
    result = run("run")  # the rest
    with pytest.raises(RuntimeError, match="broken reward") as scoring:
        run("run", reward=broken_reward)
    with pytest.raises(ValueError, match="same problems"):
        run("other", dataset=mazes.select(range(4 + state.process_index)))
    told = {"texts": result.completions.texts, "rewards": result.rewards.tolist(), "ids": result.problem_ids}
    told["errors"] = [str(sampling.value), str(scoring.value)]
    with open(f"{folder}/rank-{state.process_index}.json", "w") as file:
        json.dump(told, file)
