#!/bin/bash
# Several nodes: the last one generates with a vLLM server on all of its GPUs, all others train.
#
#   sbatch --nodes=3 examples/slurm/multi_node.sh --max_steps 500      2 nodes train, 1 generates
#
# Arguments go to the training script. TRL talks to one server per run: for more generation give it a larger node, or
# more GPUs per copy of the model with TENSOR_PARALLEL. Several runs of this script do not get into each other's way.
#
# ACCELERATE_CONFIG chooses the strategy: multi_node.yaml (DDP), multi_node_fsdp2.yaml or
# multi_node_deepspeed_zero3.yaml of accelerate_configs/. OUTPUT must be on a file system that all nodes share:
# checkpoints are written by all processes.

#SBATCH --job-name=rlvr
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log

set -euo pipefail

: "${SLURM_JOB_ID:?is not set: submit this script with sbatch}"
: "${SLURM_JOB_NODELIST:?is not set: submit this script with sbatch}"

MODEL=${MODEL:-Qwen/Qwen2.5-Math-7B}
SCRIPT=${SCRIPT:-examples/train_math.py}
ACCELERATE_CONFIG=${ACCELERATE_CONFIG:-accelerate_configs/multi_node.yaml}
OUTPUT=${OUTPUT:-runs/$SLURM_JOB_ID}
GPUS=${GPUS:-8}                      # of each node
TENSOR_PARALLEL=${TENSOR_PARALLEL:-1}

source "${VENV:-.venv}/bin/activate"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
training=$((${#nodes[@]} - 1))
if ((training < 1)); then
    echo "At least 2 nodes are needed, one of them for vLLM; this job has ${#nodes[@]}. Ask for more with --nodes." >&2
    exit 1
fi
if ((GPUS % TENSOR_PARALLEL)); then
    echo "TENSOR_PARALLEL=$TENSOR_PARALLEL must divide GPUS=$GPUS, the GPUs of the node that generates." >&2
    exit 1
fi
server=${nodes[training]}
trainers=$(IFS=,; echo "${nodes[*]:0:training}")
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}  # which `srun` does not take over from the job since SLURM 22.05
export SLURM_EXPORT_ENV=ALL  # to `srun`, also in a job that was submitted with --export=NONE
# Of the first node for the processes, of the last for requests, of the first for the weights that vLLM fetches
offset=$((SLURM_JOB_ID % 1000))
export PORT=$((29500 + offset)) SERVER_PORT=$((8000 + offset)) WEIGHTS_PORT=$((51216 + offset))

# What TRL needs of a server: weights over NCCL, the endpoints that they are announced to, and the log-probabilities of
# the distribution that was sampled from. Those endpoints ask for no password: nobody else may reach the node.
VLLM_SERVER_DEV_MODE=1 \
    srun --nodes=1 --ntasks=1 --nodelist="$server" --output="rlvr-$SLURM_JOB_ID-vllm.log" \
    vllm serve "$MODEL" --host 0.0.0.0 --port "$SERVER_PORT" \
    --tensor-parallel-size "$TENSOR_PARALLEL" --data-parallel-size $((GPUS / TENSOR_PARALLEL)) \
    --weight-transfer-config '{"backend": "nccl"}' --logprobs-mode processed_logprobs --max-logprobs -1 &
vllm=$!
trap 'kill "$vllm" 2>/dev/null || true' EXIT  # however the training ends

# What each training node runs, with the arguments of this script. Its number within the step is its machine rank;
# `srun` sets it on the node.
export MASTER=${nodes[0]} MACHINES=$training
export MODEL SCRIPT ACCELERATE_CONFIG OUTPUT GPUS SERVER=$server
train='
    exec accelerate launch --config_file "$ACCELERATE_CONFIG" \
        --num_machines "$MACHINES" --num_processes $((MACHINES * GPUS)) --machine_rank "$SLURM_PROCID" \
        --main_process_ip "$MASTER" --main_process_port "$PORT" \
        "$SCRIPT" --model_name_or_path "$MODEL" --output_dir "$OUTPUT" \
        --use_vllm true --vllm_mode server --vllm_server_host "$SERVER" --vllm_server_port "$SERVER_PORT" \
        --vllm_group_port "$WEIGHTS_PORT" "$@"
'

# --kill-on-bad-exit ends the processes of all nodes when those of one fail, also one that fails before it meets the
# others. The trainer waits for vLLM up to `vllm_server_timeout` seconds.
srun --nodes="$training" --ntasks="$training" --nodelist="$trainers" --kill-on-bad-exit=1 \
    --output="rlvr-$SLURM_JOB_ID-train-%t.log" bash -c "$train" train "$@"
