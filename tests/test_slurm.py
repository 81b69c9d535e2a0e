"""The scripts of examples/slurm, run as they stand, on a cluster of stand-ins. tests/with_vllm has a real server."""

import json
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file
from slurm_stand_in import install
from test_recipes import ON_CPU
from tiny_text_model import only_answers, save_problems, save_text_model


pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[1]
SLURM = ROOT / "examples/slurm"
# What TRL's client asks of a server
NEEDED = ["--weight-transfer-config", '{"backend": "nccl"}', "--logprobs-mode", "processed_logprobs"]
NEEDED += ["--max-logprobs", "-1"]


def submit(script: str, folder: Path, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    """Runs the script of a job in `folder`."""
    command = ["bash", str(SLURM / script), *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def server_of(folder: Path) -> dict:
    """How the server was started. It has ended by now."""
    started = json.loads((folder / "vllm.json").read_text(encoding="utf-8"))
    deadline = time.monotonic() + 10
    while psutil.pid_exists(started["pid"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(started["pid"])
    assert started["VLLM_SERVER_DEV_MODE"] == "1" and started["arguments"][-len(NEEDED) :] == NEEDED
    return started


@pytest.fixture
def job(tmp_path):
    """A job that trains a tiny model, without asking the server: two steps of 4 prompts x 4 completions."""
    model, problems = save_text_model(tmp_path / "model"), save_problems(tmp_path / "problems.jsonl")
    env = install(tmp_path) | {"MODEL": model, "SCRIPT": str(ROOT / "examples/train_math.py")}
    arguments = ["--dataset_path", problems, "--generation_kwargs", only_answers(), "--num_generations", "4"]
    arguments += ["--per_device_train_batch_size", "4", "--prompts_per_batch", "4", "--max_completion_length", "2"]
    arguments += [*ON_CPU, "--use_vllm", "false", "--max_steps", "2", "--logging_steps", "1"]
    return env, arguments


def test_several_nodes(job, tmp_path):
    env, arguments = job
    config = yaml.safe_load((ROOT / "accelerate_configs/multi_node.yaml").read_text(encoding="utf-8"))
    (tmp_path / "multi_node.yaml").write_text(yaml.safe_dump(config | {"mixed_precision": "no"}))
    env |= {"GPUS": "1", "ACCELERATE_CONFIG": str(tmp_path / "multi_node.yaml")}
    more = ["--rollouts", '{"name": "dars", "max_generations": 8}', "--save_strategy", "steps", "--save_steps", "2"]
    more += ["--eval_benchmark", "math500", "--eval_path", str(tmp_path / "problems.jsonl")]
    more += ["--eval_num_samples", "2", "--eval_every", "1", "--learning_rate", "1e-3"]
    done = submit("multi_node.sh", tmp_path, env, *arguments, *more)
    logs = [
        (tmp_path / f"rlvr-{env['SLURM_JOB_ID']}-train-{node}.log").read_text(encoding="utf-8") for node in range(2)
    ]
    assert done.returncode == 0, done.stderr + "\n".join(logs)
    run = tmp_path / f"runs/{env['SLURM_JOB_ID']}"
    batch = "Batch: 4 prompts x 4 generations = 16 completions on 2 processes, 8 each"
    for line in (batch, "Model saved to"):
        assert [line in log for log in logs] == [True, False]  # the first node speaks for all
    assert logs[0].count("eval_pass@2") == 3  # before the first step and after each
    assert {path.name for path in run.glob("checkpoint-2/rlvr_state_*")} == {"rlvr_state_0.pt", "rlvr_state_1.pt"}
    before, after = (load_file(folder / "model.safetensors") for folder in (Path(env["MODEL"]), run))
    assert any(not torch.equal(after[name], weight) for name, weight in before.items())
    started = server_of(tmp_path)
    assert started["SLURMD_NODENAME"] == "127.0.0.3"
    assert started["arguments"][:2] == ["serve", env["MODEL"]]
    assert started["arguments"][2:-6] == [
        *("--host", "0.0.0.0", "--port", str(8000 + int(env["SLURM_JOB_ID"]))),
        *("--tensor-parallel-size", "1", "--data-parallel-size", "1"),
    ]


def test_one_node(job, tmp_path):
    env, arguments = job
    env |= {"GPUS": "3", "ACCELERATE_CONFIG": str(ROOT / "accelerate_configs/cpu.yaml")}
    done = submit("one_node.sh", tmp_path, env, *arguments, "--output_dir", str(tmp_path / "run"), "--max_steps", "1")
    assert done.returncode == 0, done.stderr
    assert "16 completions on 1 process" in done.stdout, done.stdout
    started = server_of(tmp_path)
    assert started["CUDA_VISIBLE_DEVICES"] == "1,2"
    assert started["arguments"][2:-6] == [
        *("--host", "127.0.0.1", "--port", str(8000 + int(env["SLURM_JOB_ID"]))),
        *("--tensor-parallel-size", "1", "--data-parallel-size", "2"),
    ]


def put_accelerate(folder: Path, command: str) -> None:
    program = folder / "bin/accelerate"
    program.write_text(f'#!/bin/bash\necho "$@"\nwhile [[ ! -e vllm.json ]]; do sleep 0.1; done\n{command}\n')
    program.chmod(0o755)


def test_a_node_that_fails_ends_the_job(tmp_path):
    """Also before the processes have met."""
    env = install(tmp_path) | {"ACCELERATE_CONFIG": "of my own.yaml", "SLURM_EXPORT_ENV": "NONE"}
    put_accelerate(tmp_path, "if [[ $SLURM_PROCID = 1 ]]; then exit 3; fi\nsleep 600")
    done = submit("multi_node.sh", tmp_path, env, "--advantages", '{"name": "pass_at_k", "k": 4}')
    assert done.returncode == 3
    server_of(tmp_path)
    offset = int(env["SLURM_JOB_ID"])
    assert (tmp_path / f"rlvr-{offset}-train-1.log").read_text() == (
        f"launch --config_file of my own.yaml --num_machines 2 --num_processes 16 --machine_rank 1 "
        f"--main_process_ip 127.0.0.1 --main_process_port {29500 + offset} "
        f"examples/train_math.py --model_name_or_path Qwen/Qwen2.5-Math-7B --output_dir runs/{offset} "
        f"--use_vllm true --vllm_mode server --vllm_server_host 127.0.0.3 --vllm_server_port {8000 + offset} "
        f'--vllm_group_port {51216 + offset} --advantages {{"name": "pass_at_k", "k": 4}}\n'
    )


def test_a_training_that_fails_ends_the_server(tmp_path):
    env = install(tmp_path) | {"GPUS": "4", "CUDA_VISIBLE_DEVICES": "2,3,6,7"}  # of a node that jobs share
    put_accelerate(tmp_path, 'echo "on $CUDA_VISIBLE_DEVICES"; exit 5')
    done = submit("one_node.sh", tmp_path, env)
    assert done.returncode == 5 and done.stdout.startswith("launch --config_file accelerate_configs/fsdp2.yaml")
    assert done.stdout.endswith("on 2,3\n")
    assert server_of(tmp_path)["CUDA_VISIBLE_DEVICES"] == "6,7"


@pytest.mark.parametrize(
    ("script", "changed", "message"),
    [
        ("one_node.sh", {"SLURM_JOB_ID": ""}, "SLURM_JOB_ID: is not set: submit this script with sbatch"),
        ("one_node.sh", {"GPUS": "1"}, "SERVER_GPUS=2 must leave some of GPUS=1 for training"),
        ("one_node.sh", {"SERVER_GPUS": "0"}, "SERVER_GPUS=0 must leave some of GPUS=8 for training, and be at least"),
        ("one_node.sh", {"CUDA_VISIBLE_DEVICES": "4,5"}, "GPUS=8, but this job has 2: CUDA_VISIBLE_DEVICES=4,5."),
        ("multi_node.sh", {"SLURM_JOB_ID": ""}, "SLURM_JOB_ID: is not set: submit this script with sbatch"),
        ("multi_node.sh", {"SLURM_JOB_NODELIST": ""}, "SLURM_JOB_NODELIST: is not set"),
        ("multi_node.sh", {"SLURM_JOB_NODELIST": "node1"}, "this job has 1. Ask for more with --nodes."),
        ("multi_node.sh", {"TENSOR_PARALLEL": "3"}, "TENSOR_PARALLEL=3 must divide GPUS=8"),
    ],
)
def test_a_job_that_cannot_start_says_why(tmp_path, script, changed, message):
    done = submit(script, tmp_path, install(tmp_path) | changed)
    assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "vllm.json").exists()
