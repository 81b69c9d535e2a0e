"""
DDP, FSDP2 and ZeRO on two processes, started with the files of accelerate_configs/, against one process.

The files for several machines are started as on two: one launcher each, which know of each other what they are told on
the command line, and both processes have the local rank 0.
"""

import importlib.util
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from launching import launch, launch_with
from safetensors.torch import load_file
from scripts.strategies import EXTRA, NATIVE, UPDATES, make_trainer, save_model, train


pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "accelerate_configs"
ELEMENTS = 161_664  # of the model's weights
TOLERANCE = 1e-5

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed: pip install deepspeed",
)
STRATEGIES = [
    "multi_node",
    "multi_node_fsdp2",
    pytest.param("deepspeed_zero2", marks=needs_deepspeed),
    pytest.param("multi_node_deepspeed_zero3", marks=needs_deepspeed),
]


# The files for several machines, and those for one that are the same but for these settings
ONE_MACHINE = {
    "multi_node": "multi_gpu",
    "multi_node_fsdp2": "fsdp2",
    "multi_node_deepspeed_zero3": "deepspeed_zero3",
}
OF_MACHINES = {"num_machines", "num_processes", "main_process_ip", "main_process_port"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategies")
    save_model(str(folder / "model"))
    return folder


@pytest.fixture(scope="module")
def one(folder):
    """The run on this process."""
    train(str(folder), "one")
    return torch.load(folder / "one-0.pt")


@pytest.fixture(scope="module")
def one_by_one(folder):
    train(str(folder), "one_by_one", **UPDATES)
    return torch.load(folder / "one_by_one-0.pt")


@pytest.fixture(scope="module")
def two(folder):
    """Runs a strategy on two processes and resumes it, once. Returns what each process wrote, of every run."""
    done = {}

    def run(name: str) -> list[list[dict]]:
        if name not in done:
            config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
            config |= {"mixed_precision": "no", "use_cpu": config["distributed_type"] == "DEEPSPEED"}
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
            env = {"ACCELERATE_TORCH_DEVICE": "cpu"} if config["distributed_type"] == "FSDP" else {}
            machines, own = config["num_machines"], folder / f"{name}.yaml"
            launch_with(
                *("strategies.py", str(folder), name),
                **{"processes": 2, "machines": machines, "config": own, "env": env, "timeout": 1800},
            )
            done[name] = [
                [torch.load(folder / f"{name}{which}-{rank}.pt") for rank in range(2)]
                for which in ("", "-resumed", "-updates", "-updates-resumed")
            ]
        return done[name]

    return run


def distance(weights, expected):
    """Relative, of all weights together."""
    assert weights.keys() == expected.keys()
    squares = [(weights[name].double() - weight.double()).square().sum() for name, weight in expected.items()]
    return (sum(squares) / sum(weight.double().square().sum() for weight in expected.values())).sqrt().item()


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_strategy_is_what_it_claims_to_be(two, name):
    kind, wrapper, elements = {
        "multi_node": ("MULTI_CPU", "DistributedDataParallel", ELEMENTS),
        "multi_node_fsdp2": ("FSDP", "FSDPQwen2ForCausalLM", ELEMENTS // 2),
        "deepspeed_zero2": ("DEEPSPEED", "DeepSpeedEngine", ELEMENTS),
        "multi_node_deepspeed_zero3": ("DEEPSPEED", "DeepSpeedEngine", ELEMENTS // 2),
    }[name]
    for rank in two(name)[0]:
        assert (rank["distributed_type"], rank["processes"], rank["wrapper"]) == (kind, 2, wrapper)
        assert rank["on_machine"] == (1 if name.startswith("multi_node") else 2)
        assert rank["whole"] == ELEMENTS and rank["elements"] == elements
        assert rank["placements"] == (["(Shard(dim=0),)"] if kind == "FSDP" else ["None"])
        if kind == "DEEPSPEED":
            assert rank["stage"] == int(name[-1]) and rank["optimizer"] == ELEMENTS // 2


@pytest.mark.parametrize("name", STRATEGIES)
def test_losses_and_weights_are_those_of_one_process(folder, one, two, name):
    initial = load_file(folder / "model/model.safetensors")
    moved = distance(one["weights"], {name: initial[name] for name in one["weights"]})
    assert moved > 1e-2 and min(map(abs, one["losses"])) > 1e-2
    assert one["rows"] == [16 + sum(extra) for extra in EXTRA]
    ranks = two(name)[0]
    assert [list(rows) for rows in zip(*(rank["rows"] for rank in ranks), strict=True)] == [[13, 12], [8, 8], [11, 11]]
    for rank in ranks:
        assert rank["completions"] == one["completions"]
        assert rank["losses"] == pytest.approx(one["losses"], rel=TOLERANCE)
        assert distance(rank["weights"], one["weights"]) < TOLERANCE


@pytest.mark.parametrize("name", STRATEGIES)
def test_resumed_on_two_processes(two, name):
    whole, resumed, _, _ = two(name)
    for before, after in zip(whole, resumed, strict=True):
        assert len(after["losses"]) == 1 and after["completions"] == before["completions"][2:]
        assert after["losses"] == pytest.approx(before["losses"][2:], rel=TOLERANCE)
        assert distance(after["weights"], before["weights"]) < TOLERANCE


@pytest.mark.parametrize("name", STRATEGIES)
def test_updates_of_single_prompts_with_filler_and_resumed_amid_a_batch(folder, one_by_one, two, name):
    _, _, whole, resumed = two(name)
    assert [rank["rows"] for rank in whole] == [[6 + 3, 6], [3 + 2, 3]]
    for rank in whole:
        assert rank["completions"] == one_by_one["completions"]
        assert rank["losses"] == pytest.approx(one_by_one["losses"], rel=TOLERANCE, abs=5e-6)
        assert distance(rank["weights"], one_by_one["weights"]) < TOLERANCE
    for rank in resumed:
        assert rank["losses"] == pytest.approx(one_by_one["losses"][4:], rel=TOLERANCE, abs=5e-6)
        assert distance(rank["weights"], one_by_one["weights"]) < TOLERANCE


def test_ddp_resumed_on_one_process(folder, one, two):
    two("multi_node")
    train(str(folder), "alone", resume=str(folder / "multi_node/checkpoint-2"))
    alone = torch.load(folder / "alone-0.pt")
    assert alone["losses"] == pytest.approx(one["losses"][2:], rel=TOLERANCE)
    assert distance(alone["weights"], one["weights"]) < TOLERANCE


@pytest.mark.parametrize("name", STRATEGIES[1:])
def test_sharded_checkpoints_give_their_weights_to_one_process_and_refuse_to_resume(folder, two, name):
    expected = two(name)[0][0]["weights"]
    checkpoint = folder / name / "checkpoint-3"
    trainer = make_trainer(str(folder / "from_weights"), str(checkpoint))
    assert distance(dict(trainer.model.named_parameters()), expected) == 0
    with pytest.raises(ValueError, match=r"was saved with (FSDP|DeepSpeed ZeRO-\d), and this is one process or DDP"):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def test_fsdp2_of_transformers_is_sharded_and_trains_as_one_process(folder):
    train(str(folder), "without_reference", **NATIVE)
    one = torch.load(folder / "without_reference-0.pt")
    launch("strategies.py", str(folder), "native_fsdp2", processes=2)
    for rank in (torch.load(folder / f"native_fsdp2-{rank}.pt") for rank in range(2)):
        assert rank["processes"] == 2 and rank["placements"] == ["(Shard(dim=0),)"]
        assert (rank["whole"], rank["elements"]) == (ELEMENTS, ELEMENTS // 2)
        assert rank["completions"] == one["completions"]
        assert rank["losses"] == pytest.approx(one["losses"], rel=TOLERANCE)
        assert distance(rank["weights"], one["weights"]) < TOLERANCE


# --- the files ---


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_configs(path):
    config, several = load_config_from_file(str(path)), path.stem.startswith("multi_node")
    kinds = {"multi_gpu": "MULTI_GPU", "multi_node": "MULTI_GPU", "fsdp2": "FSDP", "cpu": "NO", "single_gpu": "NO"}
    kind = path.stem.removeprefix("multi_node_")
    assert config.distributed_type == kinds.get(kind, "DEEPSPEED")
    assert (config.num_processes > 1) == (path.stem not in ("cpu", "single_gpu"))
    assert config.num_machines == (2 if several else 1)
    if several:  # so that a run of one says something of the other
        pair = [yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in (path.stem, ONE_MACHINE[path.stem])]
        assert {key for key in pair[0] if pair[0][key] != pair[1].get(key)} == OF_MACHINES
        assert pair[1].keys() <= pair[0].keys()


def test_all_configs_are_there():
    names = "cpu single_gpu multi_gpu fsdp2 deepspeed_zero2 deepspeed_zero3"
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*names.split(), *ONE_MACHINE}
