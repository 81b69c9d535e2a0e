"""`math_reward` on every rank of a launch. Writes what each rank judged, and with how many workers."""

import json
import os
import sys
from pathlib import Path

from accelerate import PartialState

from rlvr_trl.rewards import math_reward


def main():
    state = PartialState(cpu=True)
    assert state.num_processes == 2, state
    answers = ["0.5", r"4\sqrt{2}", r"\frac{x+1}{2}", "7"]
    completions = [r"\boxed{\frac12}", r"\boxed{\sqrt{32}}", r"\boxed{\frac{1}{2}(x + 1)}", r"\boxed{8}"]
    if state.process_index == 1:
        completions[0] = r"\boxed{\frac13}"
    metrics = {}
    rewards = math_reward(completions, answer=answers, log_metric=metrics.__setitem__)
    found = {
        "rewards": rewards,
        "metrics": metrics,
        "workers": math_reward.pool.num_workers,
        "cores": len(os.sched_getaffinity(0)),
        "pids": math_reward.pool.pids,
    }
    Path(sys.argv[1], f"{state.process_index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
