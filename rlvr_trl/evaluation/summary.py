"""The results of several benchmarks together: one file, and what it says when it is read again."""

import json
import warnings
from pathlib import Path

import numpy as np

from .comparison import OVERALL
from .counts import ProblemCounts, SavedCounts, pooled
from .store import RESULTS, SETTINGS, write_json


def benchmark_folders(run_dir: str | Path) -> dict[str, Path]:
    """
    The folders of a run's benchmarks by name, in the order of their names.

    Raises:
        ValueError: there is none.
    """
    run_dir = Path(run_dir)
    folders = {path.parent.name: path.parent for path in sorted(run_dir.glob(f"*/{SETTINGS}"))}
    if not folders:
        raise ValueError(f"The folder '{run_dir}' holds no evaluation: no benchmark in it has a {SETTINGS}.")
    return folders


def check_same_engine(run_dir: str | Path, engine: dict) -> None:
    """
    Refuses to add to a run what another engine or model samples, before it does.

    Raises:
        ValueError: a benchmark of the run was sampled with another one; names both.
    """
    for path in sorted(Path(run_dir).glob(f"*/{SETTINGS}")):
        earlier = read_json(path)["engine"]
        if earlier != json.loads(json.dumps(engine)):
            raise ValueError(
                f"'{path.parent}' was sampled with {earlier}, but now it is {engine}. Use another --output-dir."
            )


def summarize(run_dir: str | Path) -> dict:
    """
    Writes `results.json` of a run from the `results.json` of each of its benchmarks, and returns it.

    `overall` pools the problems of all benchmarks, so that a benchmark weighs by its number of problems;
    `mean_over_benchmarks` weighs each benchmark the same. A benchmark that is not finished is left out with a warning.

    Raises:
        ValueError: there is no benchmark, none is finished, or they are of different engines or models.
    """
    folders = benchmark_folders(run_dir)
    unfinished = [name for name, folder in folders.items() if not (folder / RESULTS).exists()]
    if len(unfinished) == len(folders):
        raise ValueError(f"No benchmark in '{run_dir}' is finished. Run the same command again to go on.")
    if unfinished:
        warnings.warn(f"Not finished, and left out of the summary: {', '.join(unfinished)}.", stacklevel=2)
    saved = {name: read_json(folder / RESULTS) for name, folder in folders.items() if name not in unfinished}
    engines = {json.dumps(result["settings"]["engine"], sort_keys=True) for result in saved.values()}
    if len(engines) > 1:
        raise ValueError(f"The benchmarks in '{run_dir}' are of {len(engines)} engines or models: {sorted(engines)}.")
    counts = {name: SavedCounts.from_dict(result) for name, result in saved.items()}
    ks = sorted(set.intersection(*(set(result.ks) for result in counts.values())))
    means = {str(k): float(np.mean([result.pass_at_k[k] for result in counts.values()])) for k in ks}
    summary = {
        "benchmarks": saved,
        OVERALL: pooled(counts.values()).counts_to_dict(),
        "mean_over_benchmarks": {"avg_at_n": means["1"], "pass_at_k": means},
    }
    write_json(Path(run_dir) / RESULTS, summary)
    return summary


def load_results(path: str | Path) -> dict[str, ProblemCounts]:
    """
    The counts of a finished run by benchmark, for [`compare`] and [`compare_runs`].

    Args:
        path (`str` or `Path`): the folder of a run, of one benchmark of it, or a `results.json`. A result that was not
            recorded as a benchmark's goes by the name `"evaluation"`.

    Raises:
        ValueError: there is no `results.json`, or it is none of ours.
    """
    path = Path(path)
    path = path / RESULTS if path.is_dir() else path
    if not path.exists():
        raise ValueError(f"There is no '{path}': it is written when an evaluation is finished.")
    saved = read_json(path)
    try:
        saved = saved.get("benchmarks") or {saved["settings"].get("benchmark", "evaluation"): saved}
        return {name: SavedCounts.from_dict(result) for name, result in saved.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' holds no results of an evaluation ({type(error).__name__}: {error}).") from None


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
