"""The `eval`, `score` and `compare` commands. What a command needs is imported when it runs."""

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any


REWARD_HELP = (
    "reward function: math_reward, choice_reward, maze_reward, lenient_maze_reward, grid_reward, boxed_format_reward, "
    "…, or the dotted path of your own, my_module.my_reward"
)


def add_evaluation(commands) -> None:
    """Adds `eval`, `score` and `compare` to the subparsers of `rlvr-trl`."""
    _add_eval(commands)
    _add_score(commands)
    _add_compare(commands)


def _add_eval(commands) -> None:
    parser = commands.add_parser(
        "eval",
        help="pass@k of a model on benchmarks",
        description="Samples a model on benchmarks and reports pass@k. After a kill, the same command goes on where "
        "it stopped. On several GPUs: accelerate launch --num_processes 8 -m rlvr_trl eval ...",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="folder or Hub id of a model or a PEFT adapter, or its name at --base-url"
    )
    parser.add_argument(
        "--benchmarks",
        nargs="+",
        required=True,
        metavar="NAME[=PATH]",
        help="math500, aime24, ..., maze; to read one from a local file or another Hub id: amc23=amc23.parquet; one "
        "of your own, under any other name: mine=test.jsonl (also .json, .csv, .parquet, a folder or a Hub id)",
    )
    parser.add_argument("--reward", metavar="NAME", help=f"{REWARD_HELP} (default: that of each benchmark)")
    parser.add_argument(
        "--output-dir", required=True, metavar="DIR", help="folder of the run, with one folder for each benchmark"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N problems of each benchmark")
    parser.add_argument(
        "--by",
        metavar="COLUMN",
        help="report the problems with each value of this column apart as well, where a benchmark has it (default: "
        "level of math and olymmath, size of maze, version of mathverse, draw of arc_challenge and mmlu_pro)",
    )
    parser.add_argument("--template", metavar="NAME", help="prompt template (default: the benchmark's)")
    _add_sampling(parser.add_argument_group("sampling"))
    _add_model(parser.add_argument_group("model"))
    parser.set_defaults(run=_run_eval)


def _add_sampling(group) -> None:
    group.add_argument("--num-samples", type=int, required=True, metavar="N", help="completions per problem")
    group.add_argument(
        "--max-new-tokens", type=int, required=True, metavar="N", help="tokens after which a completion is cut"
    )
    group.add_argument(
        "--temperature",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="T",
        help="0 is greedy (default: 1.0); several: one run for each, in folders of their own",
    )
    group.add_argument("--top-p", type=float, default=1.0, metavar="P", help="nucleus sampling (default: 1.0, off)")
    group.add_argument("--top-k", type=int, default=0, metavar="K", help="top-k sampling (default: 0, off)")
    group.add_argument("--seed", type=int, default=0, help="seed of the samples (default: 0)")


def _add_model(group) -> None:
    group.add_argument(
        "--engine", choices=("transformers", "vllm"), default="transformers", help="(default: transformers)"
    )
    group.add_argument("--base-url", metavar="URL", help="sample from an OpenAI-compatible server instead")
    group.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable with the key of that server, not the key itself"
    )
    group.add_argument("--api-key-file", metavar="PATH", help="file with the key of that server, on its only line")
    group.add_argument("--adapter", metavar="PATH", help="PEFT adapter for MODEL")
    group.add_argument("--revision", metavar="REVISION", help="revision of MODEL on the Hub")
    group.add_argument(
        "--dtype",
        metavar="DTYPE",
        help="bfloat16, float16, float32, or auto for that of the checkpoint (default: auto)",
    )
    group.add_argument(
        "--trust-remote-code", action="store_true", help="allow code from the model's repository to run"
    )
    group.add_argument(
        "--chat-template-kwargs",
        type=json.loads,
        metavar="JSON",
        help="arguments of the chat template: '{\"enable_thinking\": false}'",
    )
    group.add_argument("--tensor-parallel-size", type=int, metavar="N", help="number of GPUs of one vLLM (default: 1)")
    group.add_argument(
        "--vllm-options",
        type=json.loads,
        metavar="JSON",
        help='further arguments of vllm.LLM: \'{"gpu_memory_utilization": 0.8, "max_model_len": 8192}\'',
    )
    group.add_argument(
        "--token-budget", type=int, metavar="N", help="tokens in a batch of --engine transformers (default: 16384)"
    )


def _add_score(commands) -> None:
    parser = commands.add_parser(
        "score",
        help="score the completions of a run of eval again, without the model",
        description="Replaces the scores and results of a run, with another reward function or a newer version of it.",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the --output-dir of eval, or the folder of one benchmark")
    parser.add_argument("--reward", metavar="NAME", help=f"{REWARD_HELP} (default: that of the run)")
    parser.set_defaults(run=_run_score)


def _add_compare(commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare pass@k of several runs with that of the first",
        description="Compares runs on the same problems: paired differences of pass@k, with intervals.",
    )
    parser.add_argument("reference", metavar="RUN_A", help="the run that the others are compared with")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN_B", help="runs to compare: folders of eval, or results.json files"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=_run_compare)


def _run_eval(args: argparse.Namespace) -> None:
    from .samples import SamplingSettings

    sampling = {name: getattr(args, name) for name in ("max_new_tokens", "top_p", "top_k", "seed")}
    for temperature in args.temperature:
        SamplingSettings(temperature=temperature, **sampling)  # raises for a setting that is out of range
    shown = [format(temperature, "g") for temperature in args.temperature]
    if len(set(shown)) < len(shown):
        raise ValueError(f"--temperature has a value twice: {' '.join(shown)}.")
    _check_no_mixture(Path(args.output_dir), several=len(shown) > 1)
    for option in ("num_samples", "limit", "tensor_parallel_size", "token_budget"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise ValueError(f"--{option.replace('_', '-')} must be at least 1, got {value}.")
    benchmarks = _load_benchmarks(args)
    rewards = _rewards_of(benchmarks, args.reward)
    by = _columns_to_report_by(benchmarks, args.by)
    images = any({"image", "images"} & set(dataset.column_names) for _, dataset in benchmarks.values())

    from .loading import VLLM_SETTINGS, check_engine_settings, load_engine, read_api_key
    from .runs import evaluate_engine
    from .scoring import name_of
    from .store import check_same_engine

    state = _state()
    names = ("engine", "base_url", "adapter", "revision", "dtype", "trust_remote_code", "chat_template_kwargs")
    settings = {name: getattr(args, name) for name in (*names, *VLLM_SETTINGS, "token_budget")}
    settings["api_key"] = read_api_key(args.api_key_env, args.api_key_file)
    check_engine_settings(num_processes=state.num_processes, images=images, **settings)
    engine = load_engine(args.model, images=images, device=state.device, **settings)
    folders = {temperature: _run_folder(args, temperature) for temperature in args.temperature}
    for folder in folders.values():
        check_same_engine(folder, engine.describe())
    for (temperature, folder), (name, (path, dataset)) in product(folders.items(), benchmarks.items()):
        num_samples = 1 if temperature == 0 and len(folders) > 1 else args.num_samples
        if state.is_main_process:
            judge = f"judged by {args.reward or name_of(rewards[name])}"
            at = f" at temperature {temperature:g}" if len(folders) > 1 else ""
            many = "1 completion" if num_samples == 1 else f"{num_samples} completions"
            print(f"{name}: {len(dataset)} problems, {many} each{at}, {judge}", flush=True)
        evaluate_engine(
            engine,
            dataset,
            rewards[name],
            num_samples=num_samples,
            temperature=temperature,
            **sampling,
            by=by[name],
            output_dir=folder / name,
            state=state,
            record={
                **{"benchmark": name, "path": path, "template": args.template, "limit": args.limit},
                **{"model": args.model, "adapter": args.adapter},
            },
        )
    if state.is_main_process:
        summaries = {temperature: _show_results(folder) for temperature, folder in folders.items()}
        if len(summaries) > 1:
            _show_sweep(Path(args.output_dir), summaries)
    state.destroy_process_group()


def _check_no_mixture(folder: Path, several: bool) -> None:
    """Runs at several temperatures have a folder each, and a run at one has none: they cannot share `--output-dir`."""
    from .store import SETTINGS

    if several and (found := next(folder.glob(f"*/{SETTINGS}"), None)):
        raise ValueError(
            f"'{folder}' holds a run at one temperature ('{found.parent.name}'). Use another --output-dir."
        )
    if not several and (found := next(folder.glob(f"temperature-*/*/{SETTINGS}"), None)):
        raise ValueError(
            f"'{folder}' holds runs at several temperatures ('{found.parent.parent.name}'). Use another --output-dir."
        )


def _run_folder(args: argparse.Namespace, temperature: float) -> Path:
    """The folder of a run: `--output-dir`, or one in it for each of several temperatures."""
    folder = Path(args.output_dir)
    return folder if len(args.temperature) == 1 else folder / f"temperature-{temperature:g}"


def _state() -> Any:
    from datetime import timedelta

    import torch
    from accelerate import PartialState

    # Without `cpu`, each of several processes on a machine without accelerators would think that it is the only one.
    # The time-out is long because a process that has finished its share waits for the slowest one.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=30))


def _load_benchmarks(args: argparse.Namespace) -> dict[str, tuple[str | None, Any]]:
    """The path and the problems of each benchmark, by name."""
    from ..data import BENCHMARKS, load_benchmark
    from ..data.benchmarks import benchmark_name
    from ..registry import did_you_mean

    paths = {}
    for spec in args.benchmarks:
        given, is_path, path = spec.partition("=")
        name = benchmark_name(given) if is_path or given.replace("-", "_") in BENCHMARKS else given
        if is_path and not path:
            raise ValueError(f"--benchmarks needs a file, folder or Hub id after {given}=, got nothing.")
        if not is_path and name not in BENCHMARKS:
            hint = did_you_mean(name, BENCHMARKS) or f" To evaluate a dataset of your own, name it: mine={given}."
            raise ValueError(f"Unknown benchmark {name!r}.{hint} Valid benchmarks: {', '.join(BENCHMARKS)}.")
        if twice := next((other for other in paths if other.lower() == name.lower()), None):
            raise ValueError(f"--benchmarks names {twice!r} twice.")
        paths[name] = path or None
    loaded = {}
    for name, path in paths.items():
        dataset = load_benchmark(name, path, template=args.template)
        loaded[name] = (path, dataset if args.limit is None else dataset.select(range(min(args.limit, len(dataset)))))
    return loaded


def _rewards_of(benchmarks: dict[str, tuple[str | None, Any]], reward: str | None) -> dict[str, Any]:
    """
    The reward function of each benchmark, by name: `reward`, or the benchmark's own, or `math_reward`.

    Raises:
        ValueError: there is no such function, or a benchmark lacks a column that it needs.
    """
    from ..data import BENCHMARKS
    from .scoring import check_reward, find_reward

    rewards = {}
    for name, (_, dataset) in benchmarks.items():
        own = BENCHMARKS[name].reward if name in BENCHMARKS else "math_reward"
        rewards[name] = find_reward(reward or own)
        try:
            check_reward(rewards[name], dataset.column_names)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return rewards


def _columns_to_report_by(benchmarks: dict[str, tuple[str | None, Any]], by: str | None) -> dict[str, str | None]:
    """
    The column of each benchmark by which its parts are reported: `by`, where it is there, or else its own.

    Raises:
        ValueError: no benchmark has the column `by`, or it cannot be reported by.
    """
    from ..data import BENCHMARKS
    from .results import check_by

    columns = {name: dataset.column_names for name, (_, dataset) in benchmarks.items()}
    if by is not None and not any(by in names for names in columns.values()):
        found = "; ".join(f"{name} has {', '.join(names)}" for name, names in columns.items())
        raise ValueError(f"No benchmark has the column --by {by}: {found}.")
    own = {name: BENCHMARKS[name].by if name in BENCHMARKS else None for name in benchmarks}
    chosen = {name: by if by in columns[name] else own[name] for name in benchmarks}
    present = {name: column if column in columns[name] else None for name, column in chosen.items()}
    for name, column in present.items():
        try:
            check_by(str(column), [] if column is None else benchmarks[name][1][column][:])
        except ValueError as error:
            raise ValueError(f"{name}: {error} Use another --by.") from None
    return present


def _show_results(run_dir: str | Path) -> dict:
    """Writes the summary and the curves of a run, and prints its tables. Returns the summary."""
    from ..terminal import print_tables
    from .display import plot_pass_at_k, result_tables
    from .results import OVERALL, pooled
    from .store import RESULTS, load_results, summarize

    summary = summarize(run_dir)
    results = load_results(run_dir)
    if len(results) > 1:
        results[OVERALL] = pooled(results.values())
    pictures = [Path(run_dir) / f"pass_at_k.{kind}" for kind in ("png", "svg")]
    plot_pass_at_k(results, *pictures, title="pass@k, 95 % intervals over problems")
    print_tables(*result_tables(summary))
    print(f"{Path(run_dir) / RESULTS}, {', '.join(picture.name for picture in pictures)}")
    return summary


def _show_sweep(folder: Path, summaries: dict[float, dict]) -> None:
    """Prints pass@k at all temperatures, and draws one curve for each, over the problems of all benchmarks."""
    from ..terminal import print_tables
    from .display import plot_pass_at_k, sweep_table
    from .results import pooled
    from .store import load_results

    curves = {
        f"temperature {temperature:g}": pooled(load_results(folder / f"temperature-{temperature:g}").values())
        for temperature in summaries
    }
    pictures = [folder / f"pass_at_k.{kind}" for kind in ("png", "svg")]
    plot_pass_at_k(curves, *pictures, title="pass@k at each temperature, 95 % intervals over problems")
    print_tables(sweep_table(summaries))
    print(f"{pictures[0]}, {pictures[1].name}")


def _run_score(args: argparse.Namespace) -> None:
    from ..terminal import print_tables
    from .display import result_tables
    from .runs import rescore
    from .scoring import find_reward
    from .store import RESULTS, SETTINGS, benchmark_folders, read_json

    reward = None if args.reward is None else find_reward(args.reward)
    folder = Path(args.run_dir)
    if not (folder / SETTINGS).exists():
        for one in benchmark_folders(folder).values():
            rescore(one, reward)
        _show_results(args.run_dir)
        return
    result, run = rescore(folder, reward), folder.resolve().parent
    summary = run / RESULTS
    if summary.exists() and folder.resolve().name in read_json(summary).get("benchmarks", {}):
        _show_results(str(run))  # the results of the run include those of this benchmark
        return
    print_tables(*result_tables({"benchmarks": {folder.resolve().name: result.to_dict()}}))


def _run_compare(args: argparse.Namespace) -> None:
    from ..terminal import print_tables
    from .comparison import compare_runs
    from .display import comparison_table
    from .store import load_results

    reference = load_results(args.reference)
    comparisons = {run: compare_runs(reference, load_results(run)) for run in args.runs}
    if args.json:
        runs = [{"run": run, "comparisons": [row._asdict() for row in rows]} for run, rows in comparisons.items()]
        print(json.dumps({"reference": args.reference, "runs": runs}, indent=2))
        return
    print_tables(*(comparison_table(args.reference, run, rows) for run, rows in comparisons.items()))
