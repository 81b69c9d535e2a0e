r"""
Measures pass@k of one or several models on a benchmark and compares them: a script to adapt to your needs.

    python examples/evaluate.py --models Qwen/Qwen2.5-Math-1.5B runs/dars_hw --benchmark amc23 \
        --num_samples 128 --max_new_tokens 3072 --engine vllm --output_dir runs/amc23

prints pass@k of every model and its difference from the first with a paired 95 % interval, and writes the curves to
`pass_at_k.png`. Completions are kept in one folder per model; after a stop, the same command resumes where it was.
`--benchmark_path amc23.jsonl` reads a local file of the same shape; `--benchmark mine --benchmark_path test.jsonl
--reward my_module.my_reward` measures on problems of your own. On several GPUs, with the engine of transformers:
`accelerate launch --num_processes 8 examples/evaluate.py …`. The command `rlvr-trl eval` does this and more.
"""

from dataclasses import dataclass, field
from pathlib import Path

from accelerate import PartialState

from rlvr_trl.data import BENCHMARKS, load_benchmark
from rlvr_trl.evaluation import compare, evaluate_engine, plot_pass_at_k
from rlvr_trl.evaluation.loading import load_engine
from rlvr_trl.evaluation.scoring import check_reward, find_reward
from rlvr_trl.script_parser import ScriptParser


@dataclass
class EvaluationArguments:
    models: list[str] = field(metadata={"help": "Folders or ids of the Hub. The others are compared with the first."})
    output_dir: str = field(metadata={"help": "Folder for the completions and the plot."})
    num_samples: int = field(metadata={"help": "Completions per problem, n."})
    max_new_tokens: int = field(metadata={"help": "Maximum number of tokens of a completion."})
    benchmark: str = field(
        default="math500", metadata={"help": f"One of {', '.join(BENCHMARKS)}; or any name, with benchmark_path."}
    )
    benchmark_path: str | None = field(default=None, metadata={"help": "A local file or folder, or an id of the Hub."})
    reward: str | None = field(
        default=None,
        metadata={
            "help": "Reward function, by name or dotted path. By default that of the benchmark, or math_reward."
        },
    )
    prompt_template: str | None = field(default=None, metadata={"help": "By default the template of the benchmark."})
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus sampling."})
    engine: str = field(default="transformers", metadata={"help": "'transformers' or 'vllm'."})
    seed: int = field(default=0, metadata={"help": "Seed of the samples."})


def main(args: EvaluationArguments) -> None:
    state, folder = PartialState(), Path(args.output_dir)
    dataset = load_benchmark(args.benchmark, args.benchmark_path, template=args.prompt_template)
    own = BENCHMARKS[args.benchmark].reward if args.benchmark in BENCHMARKS else "math_reward"
    reward_func = find_reward(args.reward or own)
    check_reward(reward_func, dataset.column_names)
    results = {}
    for model in args.models:
        results[model] = evaluate_engine(
            load_engine(model, engine=args.engine, device=state.device),
            dataset,
            reward_func,
            num_samples=args.num_samples,
            max_new_tokens=args.max_new_tokens,
            temperature=args.temperature,
            top_p=args.top_p,
            seed=args.seed,
            output_dir=folder / model.strip("/").replace("/", "--"),
            state=state,
        )
    if not state.is_main_process:
        return
    first = results[args.models[0]]
    for model, result in results.items():
        print(f"{model}: " + ", ".join(f"pass@{k} {value:.3f}" for k, value in result.pass_at_k.items()))
        for k in result.ks if result is not first else ():
            difference = compare(result, first, k)
            print(f"  pass@{k} {difference.difference:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]")
    plot_pass_at_k(results, folder / "pass_at_k.png", title=args.benchmark)
    print(f"Curves written to {folder / 'pass_at_k.png'}.")


if __name__ == "__main__":
    main(*ScriptParser((EvaluationArguments,)).parse_args_and_config())
