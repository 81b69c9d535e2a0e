"""Every recipe: its numbers against those of the papers, and two steps of the script it names, on a tiny model."""

import contextlib
import importlib.util
import json
import re
from fnmatch import fnmatch
from itertools import product
from pathlib import Path

import pytest
import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image
from tiny_text_model import ANSWERS, only_answers, save_problems, save_text_model
from tiny_vlm import ImageTextProcessor, build_processor, build_vision_model
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, Qwen2_5_VLConfig

from rlvr_trl import RLVRConfig
from rlvr_trl.advantages import (
    AGRAE,
    AdaptivePassAtK,
    CombinedPassAtK,
    DifficultyFocused,
    DominantSide,
    ExceedingPassAtK,
    GroupRelative,
    GRPOLead,
    NegativeOnly,
    PassAtK,
    PositiveNegativeReinforce,
    Scheduled,
    WithoutEasy,
)
from rlvr_trl.recipes import read_settings
from rlvr_trl.rollouts import DARS
from rlvr_trl.scripts import build_reward
from rlvr_trl.trainer.validation import describe_batch


pytestmark = pytest.mark.slow


EXAMPLES = Path(__file__).parents[1] / "examples"
RECIPES = {f"{path.parent.name}/{path.stem}": path for path in sorted(EXAMPLES.glob("recipes/*/*.yaml"))}
PUZZLES = RECIPES.pop("puzzles/1.5b_grpo")  # of no paper
ON_CPU = ["--use_vllm", "false", "--use_cpu", "true", "--bf16", "false", "--gradient_checkpointing", "false"]
ON_CPU += ["--save_strategy", "no"]
COMMAND = re.compile(
    r"--num_processes (\d+).*?examples/(\w+)\.py.*?--config examples/recipes/([\w./-]+)\.yaml", re.DOTALL
)

# --- what the papers print, with the place, and what they do not; later lines that match change earlier ones ---

# Not printed: the head of each recipe says so
OURS = [
    ("dars/7b_instruct*", "Table 5 comes without settings: those of Qwen2.5-Math-7B", {}),
    ("dars/llama*", "lengths are printed for Qwen2.5-Math alone", {"prompt": 1024, "completion": 3072}),
    ("pass_at_k/*", "lengths are printed for Llama and R1 alone", {"prompt": None, "completion": 4096}),
    ("pass_at_k/enigmata_*", "for Llama on puzzles, which the others take over", {"prompt": 4096}),
    ("pass_at_k/math_*", "neither a prompt nor, for R1, its tokens", {"template": "boxed", "prompt": 2048}),
    ("a_grae/*", "tokens of a prompt", {"prompt": 1024}),
    ("a_grae/vl_3b*", "tokens of a prompt", {"prompt": None}),
    ("two_stage/*", "4096 tokens in all are printed, not how they are shared", {"prompt": 1024, "completion": 3072}),
]
DEFAULTS = {"entropy": 0.0, "level": "token", "warmup": 0, "epochs": None, "steps": None, "save": None}
PRINTED = [
    (
        "dars/*",
        "arXiv 2508.13755, Sec. 4.1: batch 128, rollout size 8, 2 PPO mini-steps; Sec. 3.3 and App. E: no KL, no "
        "length normalization; App. E: rate, lengths, data, prompt",
        DEFAULTS
        | {"prompts": 128, "update": 128, "iterations": 2, "n": 8, "rate": 1e-6, "beta": 0.0}
        | {"loss": "dr_grpo", "clip": (0.2, None), "scale": "none", "dataset": "openr1_45k", "template": "dars"},
    ),
    ("dars/[17]*", "App. E: lengths, for Qwen2.5-Math", {"prompt": 1024, "completion": 3072}),
    ("dars/*_rlvr_baseline*", "2 PPO mini-steps: mini-batches, as released", {"update": 64, "iterations": 1}),
    ("dars/*depth_naive", "Sec. 4.1: rollout size 32; likewise", {"update": 64, "iterations": 1, "n": 32}),
    ("dars/*breadth*", "Sec. 4.1: batch 3072; App. E: rate", {"prompts": 3072, "update": 3072, "rate": 5e-6}),
    ("dars/llama*", "App. E: train split of MATH", {"dataset": "math", "template": "dars_plain"}),
    ("dars/*_std", "App. F.1: std-based advantage", {"scale": "group"}),
    *(
        (
            f"dars/{model}*",
            f"App. E: {batches} training steps, checkpoint step 100",
            {"steps": 2 * batches, "save": 200},
        )
        for model, batches in {"1.5b": 600, "7b": 500, "llama": 300}.items()
    ),
    *(
        (f"dars/{model}*breadth*", f"App. E: {batches} training steps, checkpoint step 15", {"steps": 2 * batches})
        for model, batches in {"1.5b": 105, "7b": 75, "llama": 70}.items()
    ),
    ("dars/*breadth*", "App. E: checkpoint step 15", {"save": 30}),
    (
        "pass_at_k/*",
        "arXiv 2508.10751, App. A.2",
        DEFAULTS
        | {"prompts": 128, "update": 32, "iterations": 1, "n": 32, "rate": 1e-6, "beta": 0.0}
        | {"loss": "dapo", "clip": (0.2, 0.28), "scale": "group", "warmup": 10, "dataset": None},
    ),
    ("pass_at_k/pass_at_8_full_sampling_128", "Sec. 2.3, Fig. 4: N_rollout = 128", {"n": 128}),
    ("pass_at_k/pass_at_8_lr_2e-6", "Sec. 3.4, Fig. 8", {"rate": 2e-6}),
    ("pass_at_k/pass_at_8_lr_4e-6", "Sec. 3.4, Fig. 8", {"rate": 4e-6}),
    (
        "pass_at_k/math_llama_*",
        "App. E.1: 2048 + 6144 tokens, data of [9]",
        {"prompt": 2048, "completion": 6144, "dataset": "RUC-AIBOX/STILL-3-Preview-RL-Data"},
    ),
    (
        "pass_at_k/math_r1_*",
        "App. E.1: 10240 tokens, data of [9]",
        {"completion": 10240, "dataset": "RUC-AIBOX/STILL-3-Preview-RL-Data"},
    ),
    ("pass_at_k/enigmata_llama_*", "App. E.2: 4096 + 4096 tokens", {"prompt": 4096, "completion": 4096}),
    *((f"pass_at_k/entropy_{value}", "Sec. 3.1", {"entropy": value}) for value in (0.001, 0.003, 0.005)),
    (
        "a_grae/*",
        "arXiv 2602.05548, Sec. 4.1: batch 1024, mini-batch 256, 8 rollouts, rate; App. C.2: length, system prompt, "
        "20 epochs",
        DEFAULTS
        | {"prompts": 1024, "update": 256, "iterations": 1, "n": 8, "rate": 1e-6, "completion": 2048, "beta": 0.0}
        | {
            "loss": "grpo",
            "clip": (0.2, None),
            "scale": "group",
            "dataset": "math",
            "template": "boxed",
            "epochs": 20,
        },
    ),
    ("a_grae/*_dapo*", "App. C.2: no dynamic sampling", {"loss": "dapo", "clip": (0.2, 0.28)}),
    ("a_grae/*_dr_grpo*", "Table 2", {"loss": "dr_grpo", "scale": "none"}),
    (
        "a_grae/vl_3b*",
        "App. C.2: batch 512, 5 responses, system prompt, 20 epochs",
        {"prompts": 512, "n": 5, "dataset": "geo3k", "template": "a_grae_geo3k"},
    ),
    (
        "a_grae/vl_3b_medical*",
        "App. C.2: batch 32, 10 epochs, the other settings the same",
        {"prompts": 32, "update": 32, "dataset": "medical_mri.parquet", "epochs": 10},
    ),
    (
        "two_stage/*",
        "arXiv 2510.04028, App. C.2: batch 1024, 8 rollouts, 4096 tokens in all, mini-batch 256, rate, KL 1e-3, clip "
        "0.2, entropy 1e-4, prompt; 20 epochs at a constant rate as in arXiv 2506.01347, which it follows",
        DEFAULTS
        | {
            "prompts": 1024,
            "update": 256,
            "iterations": 1,
            "n": 8,
            "rate": 1e-6,
            "beta": 1e-3,
        }
        | {"loss": "grpo", "clip": (0.2, None), "scale": "group", "entropy": 1e-4, "dataset": "math", "epochs": 20}
        | {"template": "qwen_boxed_suffix"},
    ),
    ("two_stage/*gspo*", "Sec. 2: sequence-level ratio", {"level": "sequence"}),
]
MODELS = {
    "dars/1.5b": "Qwen/Qwen2.5-Math-1.5B",
    "dars/7b_instruct": "Qwen/Qwen2.5-7B-Instruct",
    "dars/7b": "Qwen/Qwen2.5-Math-7B",
    "dars/llama_8b": "meta-llama/Llama-3.1-8B",
    "pass_at_k/enigmata_32b": "Qwen/Qwen2.5-32B-Instruct",
    "pass_at_k/enigmata_llama_3b": "meta-llama/Llama-3.2-3B-Instruct",
    "pass_at_k/enigmata_llama_8b": "meta-llama/Llama-3.1-8B-Instruct",
    "pass_at_k/math_llama_3b": "meta-llama/Llama-3.2-3B-Instruct",
    "pass_at_k/math_llama_8b": "meta-llama/Llama-3.1-8B-Instruct",
    "pass_at_k/math_r1_1.5b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "pass_at_k/math_r1_7b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
    "pass_at_k/": "Qwen/Qwen2.5-7B-Instruct",
    "a_grae/7b": "Qwen/Qwen2.5-Math-7B",
    "a_grae/r1_7b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
    "a_grae/vl_3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "a_grae/llama_3b": "meta-llama/Llama-3.2-3B-Instruct",
    "two_stage/qwen_7b": "Qwen/Qwen2.5-Math-7B",
    "two_stage/llama_3b": "meta-llama/Llama-3.2-3B-Instruct",
}


def estimators() -> dict:
    """The advantage of every recipe: the experiments there have to be."""
    plain, centered = GroupRelative(), GroupRelative("none")
    found = {}
    for model, variant in product(("1.5b", "7b", "llama_8b"), ("rlvr_baseline", "depth_naive", "breadth_naive")):
        found[f"dars/{model}_{variant}"] = centered
    for model, schedule, breadth in product(("1.5b", "7b", "llama_8b"), ("et", "hw"), ("", "_breadth")):
        found[f"dars/{model}_dars_{schedule}{breadth}"] = centered
    found |= {"dars/1.5b_rlvr_baseline_std": plain, "dars/1.5b_dars_hw_std": plain}
    found |= dict.fromkeys(["dars/7b_instruct_rlvr_baseline", "dars/7b_instruct_dars_hw_breadth"], centered)

    then = Scheduled([(0, PassAtK(8)), (0.5, PassAtK(1))])
    trainings = {"pass_at_1": plain, "pass_at_8": PassAtK(8), "pass_at_8_then_1": then}
    maze = trainings | {"exceeding": ExceedingPassAtK(8), "without_easy": WithoutEasy(plain, 0.6)}
    maze |= {"pass_at_4": PassAtK(4), "pass_at_16": PassAtK(16)}
    maze |= {"pass_at_8_bootstrap": PassAtK(8, "bootstrap"), "pass_at_8_full_sampling": PassAtK(8, "full_sampling")}
    maze |= {"pass_at_8_full_sampling_128": PassAtK(8, "full_sampling")}
    maze |= dict.fromkeys(["pass_at_8_lr_2e-6", "pass_at_8_lr_4e-6"], PassAtK(8))
    maze |= dict.fromkeys([f"noise_{share}" for share in (10, 30, 50)], plain)
    maze |= dict.fromkeys([f"entropy_{value}" for value in ("0.001", "0.003", "0.005")], plain)
    for model, (name, estimator) in product(("7b", "32b", "llama_3b", "llama_8b"), trainings.items()):
        maze[f"enigmata_{model}_{name}"] = estimator
    for model, (name, estimator) in product(("llama_3b", "llama_8b", "r1_1.5b", "r1_7b"), trainings.items()):
        maze[f"math_{model}_{name}"] = estimator
    maze["math_r1_1.5b_pass_at_8_then_1_twice"] = Scheduled(
        [(0, PassAtK(8)), (0.25, PassAtK(1)), (0.5, PassAtK(8)), (0.75, PassAtK(1))]
    )
    maze |= {"enigmata_7b_combination": CombinedPassAtK(8), "enigmata_7b_adaptive": AdaptivePassAtK(8)}
    found |= {f"pass_at_k/{name}": estimator for name, estimator in maze.items()}

    bases = {"grpo": plain, "dapo": plain, "dr_grpo": centered}
    for (model, alpha), (name, base) in product(
        {"7b": 1.0, "r1_7b": 1.0, "vl_3b": 0.5, "vl_3b_medical": 0.5}.items(), bases.items()
    ):
        found |= {f"a_grae/{model}_{name}": base, f"a_grae/{model}_{name}_a_grae": AGRAE(base, alpha=alpha)}
    single = {"grpo_difficulty_shift": AGRAE(plain, suppression=False)}
    single |= {"grpo_suppression": AGRAE(plain, difficulty_shift=False)}
    single |= {"positive_dominant": DominantSide(10.0), "negative_dominant": DominantSide(0.1)}
    single |= {"hard_focused": DifficultyFocused("hard", 0.5), "easy_focused": DifficultyFocused("easy", 0.5)}
    single |= {"w_reinforce": PositiveNegativeReinforce.w_reinforce(0.1), "grpo_lead": GRPOLead(plain)}
    found |= {f"a_grae/7b_{name}": estimator for name, estimator in single.items()}
    controls = {name: single[name] for name in single if name.endswith(("_dominant", "_focused"))} | {"grpo": plain}
    found |= {f"a_grae/llama_3b_{name}": estimator for name, estimator in controls.items()}  # App. D.1

    for model, level in product(("qwen_7b", "llama_3b"), ("grpo", "gspo")):
        found |= {f"two_stage/{model}_{level}": plain, f"two_stage/{model}_{level}_n": NegativeOnly(plain)}
    return found


def script_of(name: str):
    """The module of a script in `examples/`."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command_of(recipe: str) -> tuple[int, str]:
    """The number of processes and the script that the comment of a recipe names."""
    processes, script, named = COMMAND.search(RECIPES[recipe].read_text()).groups()
    assert named == recipe
    return int(processes), script


def parse(recipe: str, *more: str):
    _, script = command_of(recipe)
    module = script_of(script)
    return module, module.make_parser().parse_args_and_config(["--config", str(RECIPES[recipe]), *ON_CPU, *more])


def printed_of(recipe: str) -> dict:
    """The numbers of the paper for a recipe, and where it has none our own."""
    printed = {"template": None}
    for pattern, _, values in [*OURS, *PRINTED]:
        if fnmatch(recipe, pattern):
            printed |= values
    return printed


@pytest.fixture(scope="module", autouse=True)
def clone_of_enigmata(tmp_path_factory):
    """A stand-in for the clone that recipes name, in the current folder."""
    folder = tmp_path_factory.mktemp("clones")
    task = folder / "Enigmata" / "verifiable_tasks" / "tasks" / "echo"
    task.mkdir(parents=True)
    verifier = "def verify(pred, answer, meta):\n    return pred.strip() == answer\n"
    (task / "verifier.py").write_text(verifier, encoding="utf-8")
    rows = [{"prompt": f"Say {answer}.", "answer": answer, "task_name": "echo", "meta": "{}", "language": "en"}
            for answer in ANSWERS]  # fmt: skip
    (folder / "enigmata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with contextlib.chdir(folder):
        yield


def test_there_is_a_recipe_for_every_experiment():
    assert set(RECIPES) == set(estimators()) and len(RECIPES) == 115


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_numbers_are_those_of_the_paper(recipe):
    processes, _ = command_of(recipe)
    _, (script_args, args, model_args) = parse(recipe)
    assert {
        "prompts": args.prompts_per_batch,
        "update": args.prompts_per_update or args.prompts_per_batch,
        "iterations": args.num_iterations,
        "n": args.num_generations,
        "rate": args.learning_rate,
        "loss": args.loss_type,
        "clip": (args.epsilon, args.epsilon_high),
        "beta": args.beta,
        "prompt": getattr(script_args, "max_prompt_length", None),
        "completion": args.max_completion_length,
        "scale": args.scale_rewards,
        "entropy": args.entropy_coef,
        "level": args.importance_sampling_level,
        "warmup": args.warmup_steps,
        "dataset": getattr(script_args, "dataset_name", None),
        "template": getattr(script_args, "prompt_template", None) if "enigmata" not in recipe else None,
        "epochs": args.num_train_epochs if "num_train_epochs" in read_settings(RECIPES[recipe], []) else None,
        "steps": args.max_steps if args.max_steps > 0 else None,
        "save": args.save_steps if "save_steps" in read_settings(RECIPES[recipe], []) else None,
    } == printed_of(recipe)
    assert model_args.model_name_or_path == next(hub for key, hub in MODELS.items() if recipe.startswith(key))
    # no process is left with a part of a group, which LengthReward needs whole
    assert args.generation_batch_size % (processes * args.num_generations) == 0
    assert args.temperature == 1.0 and args.output_dir == f"runs/{recipe}"
    assert args.build_advantages() == estimators()[recipe]


@pytest.mark.parametrize("processes", [1, 2, 7, 8, 64])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_batch_is_that_of_the_paper_on_any_number_of_processes(recipe, processes, monkeypatch):
    monkeypatch.setattr(RLVRConfig, "world_size", property(lambda self: processes))
    _, (_, args, _) = parse(recipe)
    printed = printed_of(recipe)
    rows, updates = printed["prompts"] * printed["n"], printed["prompts"] // printed["update"]
    batch, steps = describe_batch(args).splitlines()
    assert f" {printed['prompts']} prompts x {printed['n']} generations = {rows} completions on {processes} p" in batch
    assert f" {updates * printed['iterations']} per batch: {updates} update" in steps
    assert f" of {printed['update']} prompts, num_iterations={printed['iterations']}." in steps
    own = args.generation_batch_size // processes
    assert rows <= own * processes < rows + processes * printed["n"]
    text = RECIPES[recipe].read_text()
    (stated,) = re.findall(r"# (\d+) updates per batch|# updates per batch", text)
    assert not stated or int(stated) == updates * printed["iterations"]


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name.startswith("dars/")])
def test_extra_rollouts_are_those_of_the_paper(recipe):
    _, (_, args, _) = parse(recipe)
    expected = None
    if "dars_" in recipe:
        schedule = "hardness_weighted" if "_hw" in recipe else "equal_treatment"
        # Sec. 4.1: N_max = 32
        expected = DARS(schedule, max_generations=32, scale="std" if recipe.endswith("_std") else "none")
    assert args.build_rollouts() == expected


def test_rewards_are_those_of_the_papers():
    for recipe in RECIPES:
        _, (script_args, args, _) = parse(recipe)
        built = [build_reward(spec) for spec in script_args.reward_funcs]
        names = [reward.__name__ for reward in built]
        usual = ["maze_reward"] if recipe.startswith("pass_at_k/") else ["math_reward"]
        usual = ["enigmata_reward"] if "enigmata" in recipe else ["math_reward"] if "/math_" in recipe else usual
        if "noise" in recipe:
            assert names == ["maze_reward_noisy", "maze_reward"] and args.reward_weights == [1.0, 0.0]
            assert built[0].share == int(recipe[-2:]) / 100 and args.correctness_reward == "maze_reward"
        elif recipe.startswith("a_grae/vl_3b"):
            first = "choice_reward" if "medical" in recipe else "math_reward"
            assert names == [first, "boxed_format_reward"] and args.reward_weights == [0.1, 0.9]  # App. C.2
        elif recipe == "a_grae/7b_grpo_lead":
            assert names == ["math_reward_length"] and (built[0].min_tokens, built[0].decay) == (4000, 0.05)
        else:
            assert names == usual and args.reward_weights is None


# --- two steps of each ---


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    return {
        "folder": folder,
        "model": save_text_model(folder / "model"),
        "problems": save_problems(folder / "problems.jsonl"),
        "generation": {
            "train_math": only_answers(),
            "train_maze": only_answers(distractors=30),
            "train_puzzles": only_answers(),
        },
    }


def scaled(recipe: str, output_dir: Path) -> list[str]:
    """Arguments that shrink a recipe to few and short completions, with its number of updates per batch."""
    _, (_, args, _) = parse(recipe)
    batch = ["--prompts_per_batch", "2", "--per_device_train_batch_size", "16"]
    if args.prompts_per_update is not None:
        updates = args.prompts_per_batch // args.prompts_per_update
        batch = ["--prompts_per_batch", str(updates), "--prompts_per_update", "1"]
        batch += ["--per_device_train_batch_size", str(args.num_generations)]
    batch += ["--max_completion_length", "2", "--max_steps", "2", "--output_dir", str(output_dir)]
    return [*batch, "--disable_tqdm", "true", "--logging_steps", "1", "--report_to", "none"]


def check_two_steps(trainer, before: dict[str, torch.Tensor]):
    assert trainer.state.global_step == 2
    assert len([entry for entry in trainer.state.log_history if "loss" in entry]) == 2
    after = trainer.model.state_dict()
    assert all(weight.isfinite().all() for weight in after.values())
    assert any(not torch.equal(after[name], weight) for name, weight in before.items())


@pytest.mark.parametrize("recipe", [name for name in RECIPES if "/vl_" not in name])
def test_two_steps(recipe, text, tmp_path):
    _, script = command_of(recipe)
    arguments = [*scaled(recipe, tmp_path), "--model_name_or_path", text["model"]]
    arguments += ["--generation_kwargs", text["generation"][script]]
    if script == "train_maze":  # without the instructions, which take long to read one byte after the other
        arguments += ["--sizes", "4", "--mazes_per_size", "8", "--walls", "independent", "--prompt_style", "bare"]
        arguments += ["--eval_mazes_per_size", "1"]
    elif script == "train_puzzles":
        arguments += ["--enigmata", "enigmata.jsonl", "--eval_enigmata", "enigmata.jsonl"]
    else:
        arguments += ["--dataset_name" if "/math_" in recipe else "--dataset_path", text["problems"]]
        arguments += ["--eval_path", text["problems"]]
    arguments += ["--eval_every", "2", "--eval_num_samples", "1"]
    module, parsed = parse(recipe, *arguments)
    before = AutoModelForCausalLM.from_pretrained(text["model"]).state_dict()
    trainer = module.main(*parsed)
    check_two_steps(trainer, before)
    assert [entry["step"] for entry in trainer.state.log_history if "eval_pass@1" in entry] == [0, 2]


def test_two_steps_of_puzzles(tmp_path):
    pytest.importorskip("reasoning_gym")
    processes, script, named = COMMAND.search(PUZZLES.read_text()).groups()
    assert (script, named) == ("train_puzzles", "puzzles/1.5b_grpo")
    answers = [f"<answer>{number}</answer>" for number in range(20)]  # some of them are right
    model = save_text_model(tmp_path / "model", answers)
    arguments = ["--config", str(PUZZLES), *ON_CPU, "--model_name_or_path", model, "--problems_per_task", "8"]
    arguments += ["--prompts_per_batch", "4", "--per_device_train_batch_size", "16", "--max_completion_length", "2"]
    arguments += ["--generation_kwargs", only_answers(answers=answers), "--max_steps", "2", "--report_to", "none"]
    arguments += ["--tasks", "{name: chain_sum, max_terms: 2, max_digits: 1}", "letter_counting"]
    arguments += ["--eval_problems_per_task", "2", "--eval_num_samples", "2", "--eval_every", "2"]
    module = script_of(script)
    before = AutoModelForCausalLM.from_pretrained(model).state_dict()
    whole = module.make_parser().parse_args_and_config(["--config", str(PUZZLES), *ON_CPU])[1]
    assert whole.generation_batch_size % (int(processes) * whole.num_generations) == 0
    parsed = module.make_parser().parse_args_and_config([*arguments, "--output_dir", str(tmp_path / "run")])
    trainer = module.main(*parsed)
    check_two_steps(trainer, before)
    logged = [entry["rewards/reasoning_gym_reward/mean"] for entry in trainer.state.log_history if "loss" in entry]
    assert 0 < sum(logged) < 2 and sorted(trainer.train_dataset["task"]) == ["chain_sum"] * 8 + ["letter_counting"] * 8
    assert [entry["step"] for entry in trainer.state.log_history if "eval_pass@1" in entry] == [0, 2]


@pytest.mark.parametrize("recipe", [name for name in RECIPES if "/vl_" not in name])
def test_pass_at_k_is_measured_on_held_out_problems(recipe):
    _, (script_args, args, _) = parse(recipe)
    sets = ("eval_mazes_per_size", "eval_problems_per_task", "eval_benchmark")
    held_out = next(name for name in sets if hasattr(script_args, name))
    assert getattr(script_args, held_out) and script_args.eval_num_samples == 8
    assert script_args.eval_every == (30 if "breadth" in recipe else 50)
    assert args.max_steps == -1 or args.max_steps > script_args.eval_every


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """A vision-language model with answers to say, and problems with an image each, in the columns of Geometry3K."""
    folder = tmp_path_factory.mktemp("figures")
    # Without torchvision, transformers has no processor for Qwen2.5-VL; this one reads and writes the same files
    AutoProcessor.register(Qwen2_5_VLConfig, ImageTextProcessor, exist_ok=True)
    processor, model = build_processor(), build_vision_model()
    letters = [r"\boxed{A}", r"\boxed{B}"]
    processor.tokenizer.add_tokens([*ANSWERS[:2], *letters])
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")

    images = [[Image.new("RGB", (16, 16), color)] for color in ("red", "green", "blue", "black")]
    rows = {"problem": [f"<image>What is {i}?" for i in range(4)], "images": images, "answer": ["1", "2"] * 2}
    features = Features({"problem": Value("string"), "images": List(ImageFeature()), "answer": Value("string")})
    Dataset.from_dict(rows, features=features).to_parquet(folder / "geo3k.parquet")
    Dataset.from_dict(rows | {"answer": ["A", "B"] * 2}, features=features).to_parquet(folder / "medical.parquet")
    generation = {}
    for name, answers in (("geo3k", ANSWERS[:2]), ("medical", letters)):
        allowed = processor.tokenizer.convert_tokens_to_ids([*answers, "<|im_end|>"])
        suppressed = sorted({*range(len(processor.tokenizer))} - {*allowed})
        generation[name] = json.dumps({"suppress_tokens": suppressed})
    return folder, generation


@pytest.mark.parametrize("recipe", [name for name in RECIPES if "/vl_" in name])
def test_two_steps_with_images(recipe, figures, tmp_path):
    folder, generation = figures
    arguments = [*scaled(recipe, tmp_path), "--model_name_or_path", str(folder / "model")]
    name = "medical" if "medical" in recipe else "geo3k"
    arguments += ["--dataset_name" if name == "medical" else "--dataset_path", str(folder / f"{name}.parquet")]
    arguments += ["--generation_kwargs", generation[name]]
    module, parsed = parse(recipe, *arguments)
    before = AutoModelForImageTextToText.from_pretrained(folder / "model").state_dict()
    check_two_steps(module.main(*parsed), before)
