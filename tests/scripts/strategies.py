"""
Three DARS steps with uneven extra counts, under whatever strategy the script is started with: `accelerate launch`
with a file of accelerate_configs/, or plain Python for one process. Writes losses, whole weights and what was sharded.

Which completions are sampled depends on the place of a row in the batch of all processes, and not on the number of
processes, so every strategy must reach the same losses and weights.
"""

import argparse
import os

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from tiny_training import ON_CPU, WatchesSteps
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList, PrinterCallback
from transformers.distributed import DistributedConfig

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_model, build_tokenizer


# Extra completions of the four prompts of each batch; process 0 of 2 has the first two prompts
EXTRA = ((0, 0, 5, 4), (0, 0, 0, 0), (1, 0, 0, 5))
# No reference model, which TRL would shard in its own way; so rows without advantage need no backward pass
NATIVE = {"beta": 0.0, "save_strategy": "no"}
# Two batches of 9 completions and up to 5 more, one an epoch: process 1 of 2 has the last prompt, and filler. An
# update is one prompt, so that a process has none in some
UPDATES = {"prompts_per_batch": 3, "num_generations": 3, "prompts_per_update": 1, "max_steps": 6, "save_steps": 4}
UPDATES["num_mazes"] = 5


class FixedCounts:
    """A rollout allocator that follows the table above."""

    max_generations = 9

    def __init__(self):
        self.batches = 0

    def start_batch(self, progress):
        self.batches += 1

    def __call__(self, stage, num_samples, num_correct, num_judged):
        extra = EXTRA[(self.batches - 1) % len(EXTRA)] if stage == 1 else (0,) * 4
        return torch.tensor(extra, device=num_samples.device)[: len(num_samples)]

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state):
        self.batches = state["batches"]


class NoiseByPlace(LogitsProcessor):
    """Gumbel noise for each row, so that the likeliest token is a sample that its seed decides."""

    def __init__(self, first_seed: int, rows: int):
        self.generators = [torch.Generator().manual_seed(first_seed + row) for row in range(rows)]

    def __call__(self, input_ids, scores):
        uniform = torch.stack([torch.rand(scores.shape[1], generator=generator) for generator in self.generators])
        return scores - torch.log(-torch.log(uniform.clamp(1e-6, 1 - 1e-6))).to(scores.device)


class SamplesByPlace(WatchesSteps, RLVRTrainer):
    """Generates for real, with that noise, and keeps the loss of every optimizer step and the completions."""

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs):
        first = 10_000 * self.state.global_step + 100 * self.stage + self.accelerator.process_index * len(prompt_ids)
        self.stage += 1
        usual = self.model.generate

        def generate(**inputs):
            return usual(**inputs, logits_processor=LogitsProcessorList([NoiseByPlace(first, len(prompt_ids))]))

        self.model.generate = generate
        try:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs
            )
        finally:
            del self.model.generate

    def _generate_in_stages(self, inputs):
        self.stage = 0
        output = super()._generate_in_stages(inputs)
        self.completions.append(self.logged_completions["completion"])
        self.rows.append(len(output["prompt_ids"]))
        return output

    def see_step(self, model, loss, passes):
        self.losses.append(self.accelerator.reduce(loss.clone(), reduction="mean").item())
        self.passes.append([(part.num_real, len(part.rows)) for part in passes])


def moves(prompts, completions, **kwargs):
    return [len(set(completion) & set("UDLR")) / 4 for completion in completions]


def whole_weights(trainer) -> dict[str, torch.Tensor]:
    """All weights on every process, gathered from the shards."""
    wrapped = trainer.deepspeed if trainer.is_deepspeed_enabled else trainer.model_wrapped
    weights = {}
    for name, weight in trainer.accelerator.unwrap_model(wrapped).named_parameters():
        if hasattr(weight, "ds_tensor"):
            import deepspeed

            with deepspeed.zero.GatheredParameters([weight]):
                weights[name] = weight.detach().clone()
        else:
            whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
            weights[name] = whole.detach().clone()
    return weights


def what_is_sharded(trainer) -> dict:
    """The strategy, and how many elements of the weights and of ZeRO's optimizer states are on this process."""
    model, own = trainer.model, 0
    for weight in model.parameters():
        part = getattr(weight, "ds_tensor", weight)
        own += (part.to_local() if hasattr(part, "to_local") else part).numel()
    found = {
        "distributed_type": trainer.accelerator.distributed_type.value,
        "processes": trainer.accelerator.num_processes,
        "on_machine": int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        "elements": own,
        "whole": sum(getattr(weight, "ds_numel", weight.numel()) for weight in model.parameters()),
        "placements": sorted({str(getattr(weight, "placements", None)) for weight in model.parameters()}),
        "wrapper": type(trainer.model_wrapped).__name__,
    }
    if trainer.is_deepspeed_enabled:
        engine = trainer.deepspeed
        found["stage"] = engine.zero_optimization_stage()
        names = {2: "single_partition_of_fp32_groups", 3: "fp32_partitioned_groups_flat"}
        found["optimizer"] = sum(part.numel() for part in getattr(engine.optimizer, names[found["stage"]]))
    return found


def pretend_gpu() -> None:
    """accelerate never uses FSDP on CPU processes. Here it takes gloo for a backend of GPUs, and shards for real."""
    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)


def save_model(folder: str) -> None:
    """The model that all processes start from, and the reference model: TRL loads it from its folder."""
    tokenizer = build_tokenizer()
    build_model(tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def without_compiler() -> None:
    """Uses gloo: DeepSpeed would compile its own collectives for the CPU, which takes minutes on a busy machine."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def make_trainer(output_dir: str, model, num_mazes: int = 16, **settings):
    tokenizer = build_tokenizer()
    defaults = {
        "prompts_per_batch": 4,
        "num_generations": 4,
        "per_device_train_batch_size": 2,
        "max_completion_length": 6,
        "generation_kwargs": {"do_sample": False},
        "max_steps": 3,
        "learning_rate": 0.5,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "optim_args": "momentum=0.9",  # a state that a resumed run needs
        "max_grad_norm": 1.0,
        "beta": 0.04,
        "loss_type": "dapo",
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "model_init_kwargs": {"dtype": "float32"},
        **ON_CPU,
        "use_cpu": os.environ.get("ACCELERATE_TORCH_DEVICE") != "cpu",
    }
    trainer = SamplesByPlace(
        model,
        moves,
        RLVRConfig(output_dir, **defaults | settings),
        make_maze_dataset(num_mazes, prompt_style="bare", seed=5),
        processing_class=tokenizer,
        rollouts=FixedCounts(),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.losses, trainer.passes, trainer.completions, trainer.rows = [], [], [], []
    return trainer


def sharded_at_load(folder: str):
    """The model, sharded by transformers with FSDP2 while it is loaded. accelerate knows nothing of it."""
    PartialState(cpu=True)
    config = DistributedConfig(fsdp_size=2)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, distributed_config=config)
    model.config._name_or_path = folder
    return model


def train(folder: str, name: str, resume: str | None = None, model=None, **settings) -> None:
    trainer = make_trainer(f"{folder}/{name}", f"{folder}/model" if model is None else model, **settings)
    trainer.train(resume_from_checkpoint=resume)
    result = what_is_sharded(trainer) | {
        "losses": trainer.losses,
        "passes": trainer.passes,
        "completions": trainer.completions,
        "rows": trainer.rows,
        "weights": whole_weights(trainer),
    }
    torch.save(result, f"{folder}/{name}-{trainer.accelerator.process_index}.pt")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="where `save_model` has written the model")
    parser.add_argument("name")
    args = parser.parse_args()
    if os.environ.get("ACCELERATE_TORCH_DEVICE") == "cpu":
        pretend_gpu()
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        without_compiler()
    if args.name == "native_fsdp2":
        train(args.folder, args.name, model=sharded_at_load(f"{args.folder}/model"), **NATIVE)
        return
    train(args.folder, args.name)
    train(args.folder, f"{args.name}-resumed", resume=f"{args.folder}/{args.name}/checkpoint-2")
    # which the run on one process does not
    updates = UPDATES | {"share_prompt_prefill": True, "share_prompt_scoring": True}
    train(args.folder, f"{args.name}-updates", **updates)
    amid = f"{args.folder}/{args.name}-updates/checkpoint-4"  # after the first of the three updates of a batch
    train(args.folder, f"{args.name}-updates-resumed", resume=amid, **updates)


if __name__ == "__main__":
    main()
