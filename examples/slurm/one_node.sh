#!/bin/bash
# One node of 8 GPUs: 6 train, 2 generate with a vLLM server. Arguments go to the training script.
#
#   sbatch examples/slurm/one_node.sh --max_steps 500
#
# Needs rlvr-trl with vLLM (pip install 'rlvr-trl[vllm]') in the environment below.

#SBATCH --job-name=rlvr
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log

set -euo pipefail

MODEL=${MODEL:-Qwen/Qwen2.5-Math-1.5B}
SCRIPT=${SCRIPT:-examples/train_math.py}
ACCELERATE_CONFIG=${ACCELERATE_CONFIG:-accelerate_configs/fsdp2.yaml}

source "${VENV:-.venv}/bin/activate"

CUDA_VISIBLE_DEVICES=6,7 trl vllm-serve --model "$MODEL" --tensor_parallel_size 1 --data_parallel_size 2 \
    --host 127.0.0.1 --port 8000 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT  # however the training ends

# The trainer waits for the server up to `vllm_server_timeout` seconds.
CUDA_VISIBLE_DEVICES=0,1,2,3,4,5 accelerate launch --config_file "$ACCELERATE_CONFIG" --num_processes 6 \
    "$SCRIPT" --model_name_or_path "$MODEL" --use_vllm --vllm_mode server \
    --vllm_server_host 127.0.0.1 --vllm_server_port 8000 "$@"
