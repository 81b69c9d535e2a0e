#!/bin/bash
# One node of 8 GPUs: 6 train, the last 2 generate with a vLLM server. Arguments go to the training script.
#
#   sbatch examples/slurm/one_node.sh --output_dir runs/first --max_steps 500
#
# ACCELERATE_CONFIG chooses the strategy: another file of accelerate_configs/ for one machine. Needs rlvr-trl with vLLM
# (pip install '.[vllm]' in a clone) in the environment VENV.

#SBATCH --job-name=rlvr
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log

set -euo pipefail

: "${SLURM_JOB_ID:?is not set: submit this script with sbatch}"

MODEL=${MODEL:-Qwen/Qwen2.5-Math-1.5B}
SCRIPT=${SCRIPT:-examples/train_math.py}
ACCELERATE_CONFIG=${ACCELERATE_CONFIG:-accelerate_configs/fsdp2.yaml}
GPUS=${GPUS:-8}
SERVER_GPUS=${SERVER_GPUS:-2}        # of them, for vLLM

source "${VENV:-.venv}/bin/activate"

training=$((GPUS - SERVER_GPUS))
if ((SERVER_GPUS < 1 || training < 1)); then
    echo "SERVER_GPUS=$SERVER_GPUS must leave some of GPUS=$GPUS for training, and be at least 1." >&2
    exit 1
fi
# The GPUs of this job, as SLURM names them where they are not all that a process sees
IFS=, read -ra gpus <<< "${CUDA_VISIBLE_DEVICES:-$(seq -s , 0 $((GPUS - 1)))}"
if ((${#gpus[@]} != GPUS)); then
    echo "GPUS=$GPUS, but this job has ${#gpus[@]}: CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES." >&2
    exit 1
fi
server_gpus=$(IFS=,; echo "${gpus[*]:training}") training_gpus=$(IFS=,; echo "${gpus[*]:0:training}")
# So that jobs can share a node
port=$((8000 + SLURM_JOB_ID % 1000)) weights_port=$((51216 + SLURM_JOB_ID % 1000))

# What TRL needs of a server: weights over NCCL, the endpoints that they are announced to, and the log-probabilities of
# the distribution that was sampled from. Those endpoints ask for no password.
VLLM_SERVER_DEV_MODE=1 CUDA_VISIBLE_DEVICES=$server_gpus \
    vllm serve "$MODEL" --host 127.0.0.1 --port "$port" \
    --tensor-parallel-size 1 --data-parallel-size "$SERVER_GPUS" \
    --weight-transfer-config '{"backend": "nccl"}' --logprobs-mode processed_logprobs --max-logprobs -1 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT  # however the training ends

# The trainer waits for the server up to `vllm_server_timeout` seconds.
CUDA_VISIBLE_DEVICES=$training_gpus \
    accelerate launch --config_file "$ACCELERATE_CONFIG" --num_processes "$training" \
    "$SCRIPT" --model_name_or_path "$MODEL" --use_vllm true --vllm_mode server \
    --vllm_server_host 127.0.0.1 --vllm_server_port "$port" --vllm_group_port "$weights_port" "$@"
