"""One cell of the maze table: a method trained from one base model with one seed, and evaluated, as one JSON file.

python benchmarks/maze_cell.py 4x4 pass_at_8 --base 0 --seed 0 --results again

A cell depends on these arguments and on the files of earlier cells in `--results`: the learning rate of a method
follows from its search cells, and the number of batches at equal rollouts from the full run. `maze_table.py` runs them
in order.
"""

import argparse
import fcntl
import json
import platform
import subprocess
import tempfile
import time
import traceback
import warnings
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch
import transformers
import trl
from datasets import Dataset
from maze_methods import TABLE
from maze_plan import BASE, RATE_FACTORS, SCALES, Cell, read, search_cells, write
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from rlvr_trl.data import make_maze_dataset
from rlvr_trl.evaluation import EvaluationResult, evaluate
from rlvr_trl.rewards import maze_reward
from rlvr_trl.testbed import build_model, build_tokenizer, warm_up
from rlvr_trl.testbed.cells import LOG_POINTS, TOKEN_BUDGET, log_columns, measured
from rlvr_trl.testbed.methods import (
    NUM_GENERATIONS,
    PROMPTS_PER_STEP,
    make_method_trainer,
    rollouts_per_prompt,
)
from rlvr_trl.testbed.progress_bar import show_figures_in_bar
from rlvr_trl.testbed.tasks import MAZE
from rlvr_trl.trainer.pass_at_k_callback import PassAtKCallback


# --- mazes: all cells of a scale have the same test set, and no other set shares a maze with it ---


@cache
def held_out(scale_name: str) -> dict[str, Dataset]:
    scale = SCALES[scale_name]
    test = draw(scale.test_mazes, scale.size, scale.max_path, 90_001)
    sets = {"test": test, "validation": draw(scale.validation_mazes, scale.size, scale.max_path, 90_002, test["maze"])}
    for size, max_path in scale.other_sizes.items():
        sets[size] = draw(scale.other_mazes, int(size), max_path, 90_003)
    return sets


def draw(count: int, size: int, max_path: int, seed: int, exclude: list[str] | None = None) -> Dataset:
    return make_maze_dataset(
        count, size=size, max_path_length=max_path, prompt_style="bare", seed=seed, exclude=exclude
    )


def warmup_mazes(cell: Cell) -> list[str]:
    scale, sets = SCALES[cell.scale], held_out(cell.scale)
    exclude = [*sets["test"]["maze"], *sets["validation"]["maze"]]
    return list(draw(scale.warmup_mazes, scale.size, scale.max_path, 1000 + cell.base, exclude)["maze"])


def training_mazes(cell: Cell, count: int) -> Dataset:
    """The first `count` of a sequence that is the same for every method."""
    scale, sets = SCALES[cell.scale], held_out(cell.scale)
    exclude = [*sets["test"]["maze"], *sets["validation"]["maze"], *warmup_mazes(cell)]
    return draw(count, scale.size, scale.max_path, 100 * (cell.base + 1) + cell.seed, exclude)


# --- what is trained ---


def base_model(cell: Cell, work: Path) -> Path:
    """The folder of the warmed-up base model. The first cell that needs the model makes it."""
    folder, scale = work / "bases" / cell.scale / str(cell.base), SCALES[cell.scale]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            tokenizer = build_tokenizer()
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                made = Path(temporary) / "model"
                model, mazes = build(scale.model, tokenizer, cell.base), warmup_mazes(cell)
                warm_up(model, tokenizer, mazes, output_dir=made, seed=cell.base, disable_tqdm=True, **scale.warmup)
                made.rename(folder)
    return folder


def build(sizes: dict, tokenizer, seed: int) -> Qwen2ForCausalLM:
    """The model of the testbed, with some of its sizes overridden."""
    if not sizes:
        return build_model(tokenizer, seed)
    small = build_model(tokenizer).config.to_dict()
    config = Qwen2Config(**{name: value for name, value in small.items() if name != "layer_types"} | sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def rate_factor(cell: Cell, results: Path) -> float:
    """
    The factor with the best validation score, or the largest one where there was no search.

    Raises:
        `ValueError`: All cells of the search failed.
    """
    if cell.factor is not None:
        return cell.factor
    found = {other.factor: read(other.path(results)) for other in search_cells(cell)}
    found = {factor: saved for factor, saved in found.items() if saved is not None}
    if not found:
        return RATE_FACTORS[-1]
    scores = {factor: saved["score"] for factor, saved in found.items() if "error" not in saved}
    if not scores:
        raise ValueError(f"Every cell of the search for {cell.method} failed: see {search_cells(cell)[0]}.")
    return max(scores, key=scores.get)


def num_batches(cell: Cell, results: Path) -> int:
    """
    As many batches as hold the prompts of `scale.batches` batches of 16, but at most `scale.batches`; half as many in
    the search. At equal rollouts, as many as cost the rollouts of `scale.batches` batches of 16 x 16.

    Raises:
        `ValueError`: The cell that equal rollouts are computed from is missing or failed.
    """
    scale, prompts = SCALES[cell.scale], TABLE[cell.method].prompts_per_batch
    if cell.variant != "equal":
        batches = min(scale.batches, scale.batches * PROMPTS_PER_STEP // prompts)
        return batches if cell.factor is None else max(1, batches // 2)
    full = read(replace(cell, variant="").path(results))
    if full is None or "error" in full:
        raise ValueError(f"Equal rollouts of {cell} need the cell itself, which is missing or failed.")
    budget = scale.batches * PROMPTS_PER_STEP * NUM_GENERATIONS
    return max(1, round(budget / full["completions"] * full["batches"]))


def run(cell: Cell, results: Path, work: Path) -> dict:
    """Trains and evaluates a cell, and returns what is to be saved."""
    begin, base = time.perf_counter(), base_model(cell, work)
    about = {"cell": asdict(cell), "label": "base model", "scale": asdict(SCALES[cell.scale]), **environment()}
    tokenizer = AutoTokenizer.from_pretrained(base)
    if cell.method == BASE:
        model, trained = AutoModelForCausalLM.from_pretrained(base), {}
        model.to("cuda" if torch.cuda.is_available() else "cpu")
    else:
        model, trained = train(cell, base, results)
    about |= trained | {"train_seconds": round(time.perf_counter() - begin, 1)}
    measure = tests if cell.factor is None else search_score
    about |= measure(cell, model, tokenizer)
    return about | {"seconds": round(time.perf_counter() - begin, 1)}


def train(cell: Cell, base: Path, results: Path) -> tuple:
    scale, method = SCALES[cell.scale], TABLE[cell.method]
    batches = num_batches(cell, results)
    rate = scale.rate * rate_factor(cell, results) * method.recipe["learning_rate"]
    updates = batches * method.recipe.get("num_iterations", 1)
    every = max(1, updates // LOG_POINTS)
    mazes = training_mazes(cell, batches * method.prompts_per_batch)
    with tempfile.TemporaryDirectory() as folder:
        changes = {"learning_rate": rate, "logging_steps": every, "disable_tqdm": True}
        trainer = make_method_trainer(method, base, Path(folder), mazes, seed=cell.seed, **changes)
        show_figures_in_bar(trainer, method.label, {})
        dynamics = None
        if not cell.variant and cell.seed == 0:  # takes a seventh of the time of a cell
            few = held_out(cell.scale)["test"].select(range(scale.dynamics_mazes))
            step = max(1, updates // scale.dynamics_points)
            samples = min(32, scale.samples)
            dynamics = PassAtKCallback(trainer, few, samples, reward_func=maze_reward, every=step, batch_size=1024)
            trainer.add_callback(dynamics)
        trainer.train()
    # the last entry sums up the run, and also covers the steps after the last regular one
    log = [entry for entry in trainer.state.log_history if "reward" in entry]
    regular = [entry for entry in log if "loss" in entry]
    saved = {
        "label": method.label,
        "settings": json.loads(json.dumps(method.settings, default=str)),
        "rewards": [reward.__name__ for reward in method.rewards_on(MAZE)],
        "learning_rate": rate,
        "batches": batches,
        "updates": updates,
        "completions": round(batches * method.prompts_per_batch * rollouts_per_prompt(method, log)),
        "tokens": round(log[-1]["num_tokens"]),
        "log": log_columns(regular, ("step", "reward", "entropy", "grad_norm", "rollouts/per_prompt_mean")),
    }
    if dynamics:
        wanted = [name for name in dynamics.history[0] if "pass@" in name or name.endswith("token_entropy")]
        saved["dynamics"] = log_columns(dynamics.history, ("step", *wanted))
    return trainer.accelerator.unwrap_model(trainer.model), saved


# --- what is measured ---


def search_score(cell: Cell, model, tokenizer) -> dict:
    """The mean of pass@1 and pass@32 on validation mazes."""
    scale = SCALES[cell.scale]
    result = sample(model, tokenizer, held_out(cell.scale)["validation"], scale.validation_samples, cell.seed)
    shown = {str(k): round(value, 4) for k, value in result.pass_at_k.items()}
    return {"validation": shown, "score": round((result.pass_at_k[1] + result.pass_at_k[max(result.ks)]) / 2, 5)}


def tests(cell: Cell, model, tokenizer) -> dict:
    scale, sets = SCALES[cell.scale], held_out(cell.scale)
    results = {"test": sample(model, tokenizer, sets["test"], scale.samples, cell.seed)}
    for size in scale.other_sizes:
        results[f"{size}x{size}"] = sample(model, tokenizer, sets[size], min(32, scale.samples), cell.seed)
    return {name: of_mazes(result) for name, result in results.items()}


def sample(model, tokenizer, mazes: Dataset, samples: int, seed: int) -> EvaluationResult:
    options = {"num_samples": samples, "max_new_tokens": MAZE.max_completion_length, "seed": seed, "progress": False}
    return evaluate(model, tokenizer, mazes, maze_reward, token_budget=TOKEN_BUDGET, **options)


def of_mazes(result: EvaluationResult) -> dict:
    found = measured(result)
    return {"mazes": found.pop("problems"), **found}


def environment() -> dict:
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, encoding="utf-8"
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {"transformers": transformers.__version__, "trl": trl.__version__}
    return {"commit": git.stdout.strip() or None, "versions": versions, "device": device}


def run_and_write(cell: Cell, results: Path, work: Path) -> dict:
    """Runs a cell and saves it; one that fails is saved with its error."""
    try:
        saved = run(cell, results, work)
    except Exception as error:
        traceback.print_exc()
        saved = {"cell": asdict(cell), "scale": asdict(SCALES[cell.scale])}
        saved["error"] = f"{type(error).__name__}: {error}"
    write(cell.path(results), saved)
    return saved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scale", choices=SCALES)
    parser.add_argument("method", choices=[BASE, *TABLE], metavar="method", help=f"base, {', '.join(TABLE)}")
    parser.add_argument("--base", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", default="", help="'equal', or 'rate-0.5' and the like")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/maze_table"), help="where base models are kept")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    cell = Cell(args.scale, args.method, args.base, args.seed, args.variant)
    saved = run_and_write(cell, args.results, args.work)
    raise SystemExit(1 if "error" in saved else 0)


if __name__ == "__main__":
    main()
