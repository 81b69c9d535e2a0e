"""The `rlvr-trl` command."""

import argparse
import io
import os
import sys
import traceback
from pathlib import Path

from . import __version__
from .analysis.plot_command import add_plot
from .evaluation.cli import add_evaluation
from .registry import did_you_mean
from .terminal import printable


NEXT_STEPS = """\
new here?
  rlvr-trl demo --quick       train GRPO, Pass@k and DARS on mazes and compare them: a minute on a laptop
  rlvr-trl bench my_module.my_estimator
                              an idea of yours among the published methods: twenty minutes on a laptop
  rlvr-trl eval --help        measure pass@k of a model on math500, aime24, ... or a file of yours
  rlvr-trl recipes            list the recipes for the experiments of the papers
  accelerate launch --num_processes 8 -m rlvr_trl train --recipe pass_at_k/pass_at_8
                              train a model with one of them, here on 8 GPUs
"""


def _add_demo(commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="train GRPO, Pass@k and DARS on mazes, on a CPU, and compare their pass@k",
        description="Builds a tiny model, warms it up on mazes or another task, trains stock GRPO, Pass@k Training "
        "and DARS from it, and compares their pass@k on held-out problems. About 5 minutes on 2 CPU cores.",
    )
    demo.add_argument("--task", default="maze", metavar="NAME", help="maze (default), sudoku, sums or countdown")
    demo.add_argument(
        "--quick", action="store_true", help="a smaller run: about a minute on mazes, and a few on another task"
    )
    demo.add_argument(
        "--seed", type=int, default=0, help="seed of the problems, the model and the training (default: 0)"
    )
    demo.add_argument("--output-dir", default="rlvr-demo", help="folder for results and models (default: rlvr-demo)")
    demo.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="methods to train: grpo, pass_at_k, dars (these by default), a_grae, grpo_n, nsr",
    )
    demo.set_defaults(run=_run_demo)


def _run_demo(args: argparse.Namespace) -> None:
    from .testbed.demo import demo_settings, run_demo
    from .testbed.methods import DEFAULT_METHODS

    settings = demo_settings(args.task, args.quick, args.seed)
    run_demo(args.output_dir, args.methods or list(DEFAULT_METHODS), settings)


def _add_bench(commands) -> None:
    bench = commands.add_parser(
        "bench",
        help="train a method of yours on the cells of the published comparison, on a CPU, and place it among them",
        description="Trains advantage estimators or allocators of your own on the testbed, from the base models and "
        "at the learning rates of the published methods, and compares them at equal rates and rollouts. By default "
        "two tasks, two base models and two rates, as far as they end within 20 minutes. The same command goes on "
        "where the last one stopped.",
    )
    bench.add_argument(
        "estimators",
        nargs="*",
        metavar="ESTIMATOR",
        help="my_package.my_estimator: a function, a class or an instance, also from the current folder; or YAML such "
        "as '{name: a_grae, base: {name: pass_at_k, k: 4}}'",
    )
    bench.add_argument("--rollouts", metavar="SPEC", help="an allocator for each: my_package.MyAllocator, or YAML")
    bench.add_argument("--config", metavar="FILE", help="a YAML file of methods, each a label and its settings")
    bench.add_argument("--tasks", nargs="+", metavar="NAME", help="maze, sudoku, sums, countdown")
    bench.add_argument("--bases", nargs="+", type=int, metavar="N", help="base models: 0, 1, 2")
    bench.add_argument("--rates", nargs="+", type=float, metavar="RATE", help="learning rates: 5e-5, 1e-4, 2e-4")
    bench.add_argument(
        "--full", action="store_true", help="all tasks, base models and rates, without an end unless --budget is given"
    )
    bench.add_argument(
        "--budget",
        metavar="TIME",
        help="begin nothing that would not end within this time: 90s, 20m, 1.5h (default: 20m)",
    )
    bench.add_argument("--jobs", type=int, default=2, metavar="N", help="processes of one thread (default: 2)")
    bench.add_argument(
        "--check", action="store_true", help="also train a published cell again: is it the same on this machine?"
    )
    bench.add_argument(
        "--output-dir", default="rlvr-bench", metavar="DIR", help="folder for cells and tables (default: rlvr-bench)"
    )
    bench.add_argument(
        "--published", metavar="DIR", help="results of benchmarks/comparison.py (default: those of this package)"
    )
    bench.set_defaults(run=_run_bench)


def _run_bench(args: argparse.Namespace) -> None:
    from .checks import check_integer
    from .testbed.bench import Selection, read_duration, run_bench
    from .testbed.own_methods import own_methods

    check_integer("--jobs", args.jobs, at_least=1)
    selection = Selection(args.tasks, args.bases, args.rates, args.full)
    budget = None if args.full and args.budget is None else read_duration(args.budget or "20m")
    published = None if args.published is None else Path(args.published)
    methods = own_methods(args.estimators, args.rollouts, args.config)
    run_bench(methods, selection, Path(args.output_dir), budget, args.jobs, args.check, published)


def _add_train(commands) -> None:
    train = commands.add_parser(
        "train",
        help="train a model with a recipe, or with settings of your own",
        description="Runs the training script of a recipe, on several GPUs as `accelerate launch --num_processes 8 -m "
        "rlvr_trl train --recipe dars/1.5b_dars_hw`. `python examples/train_math.py --help` lists the settings.",
    )
    settings = train.add_mutually_exclusive_group(required=True)
    settings.add_argument("--recipe", metavar="NAME", help="a recipe of this package: dars/1.5b_dars_hw")
    settings.add_argument(
        "--config",
        metavar="FILE",
        help="a YAML file of yours, whose key `script` is train_math (the default), train_maze, "
        "train_puzzles, train_vlm or pass_at_k_then_pass_at_1",
    )
    train.add_argument(
        "changes", nargs="*", metavar="NAME=VALUE", help="changes of the settings, with values in YAML: max_steps=100"
    )
    train.add_argument("--dry-run", action="store_true", help="check and print the settings, and train nothing")
    train.set_defaults(run=_run_train)


def _run_train(args: argparse.Namespace) -> None:
    import torch
    import yaml

    from .recipes import load_script, read_settings, recipe_path

    path = Path(args.config) if args.recipe is None else recipe_path(args.recipe)
    settings = read_settings(path, args.changes)
    script = load_script(settings)
    parser = script.make_parser()
    if args.dry_run:
        if not torch.accelerator.is_available():
            print("# No accelerator here: the settings are checked for a CPU, without bf16.")
            parser.parse_settings(settings | {"use_cpu": True, "bf16": False})
        else:
            parser.parse_settings(settings)
        print(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), end="")
        return
    parsed = parser.parse_settings(settings)
    args.verbose = True  # whatever goes wrong from here on, perhaps after days, is shown with its trace
    script.main(*parsed)


def _add_recipes(commands) -> None:
    recipes = commands.add_parser(
        "recipes",
        help="list the recipes of the papers' experiments, or print one",
        description="Lists the recipes: name, script, and what it is; or prints one, or those of one folder.",
    )
    recipes.add_argument("name", nargs="?", metavar="NAME", help="a recipe, or a folder of them: dars")
    recipes.set_defaults(run=_run_recipes)


def _run_recipes(args: argparse.Namespace) -> None:
    from .plain_yaml import read_yaml_file
    from .recipes import find_recipes, recipe_path, title_of

    folder = "" if args.name is None else f"{args.name.rstrip('/')}/"
    recipes = {name: path for name, path in find_recipes().items() if name.startswith(folder)}
    if not recipes and args.name is not None:
        print(recipe_path(args.name).read_text(encoding="utf-8"), end="")
        return
    width = max(map(len, recipes))
    for name, path in recipes.items():
        script = read_yaml_file(path, "The recipe")["script"]
        print(f"{name:{width}}  {script:10}  {title_of(path)}")


class _CommandParser(argparse.ArgumentParser):
    """
    A parser that takes `--verbose`, and underscores as well as dashes in its options: `--num_samples`, as TRL writes
    them. It says what an unknown option may have been. So do the parsers of its commands, which are of the same class.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_argument(
            "--verbose", action="store_true", default=argparse.SUPPRESS, help="show the whole trace of an error"
        )

    def parse_known_args(self, args=None, namespace=None):  # of a command, this gets what follows its name
        given = sys.argv[1:] if args is None else args
        parsed, unknown = super().parse_known_args([self._with_dashes(arg) for arg in given], namespace)
        for option in unknown:
            if option.startswith("--") and " " in self.prog:  # this is the parser of a command
                name = option.partition("=")[0]
                hint = did_you_mean(name, self._option_string_actions)
                if not hint and hasattr(parsed, "changes"):  # `train`
                    hint = f" A setting is written {name.lstrip('-')}=value here."
                self.error(f"unrecognized argument: {option}.{hint}")
        return parsed, unknown

    def _with_dashes(self, arg: str) -> str:
        name, equals, value = arg.partition("=")
        dashed = name.replace("_", "-")
        is_option = name.startswith("--") and name not in self._option_string_actions
        return dashed + equals + value if is_option and dashed in self._option_string_actions else arg


def _parser() -> argparse.ArgumentParser:
    parser = _CommandParser(
        prog="rlvr-trl",
        description="Reinforcement learning with verifiable rewards on TRL, and pass@k measured properly.",
        epilog=NEXT_STEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rlvr-trl {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    _add_demo(commands)
    _add_bench(commands)
    _add_train(commands)
    _add_recipes(commands)
    add_evaluation(commands)
    add_plot(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """
    Runs the command line `argv` and returns the exit status: 0, 2 for a wrong setting, 1 for any other error, 130 when
    interrupted, 141 when nobody reads its output any more. An error is one line on standard error; `--verbose` prints
    its trace as well, and `train` does so by itself once the training has begun.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal without ± or … shows another character in its place
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    parser = _parser()
    args = parser.parse_args(argv)
    if not hasattr(args, "run"):  # no command
        parser.print_help()
        return 0
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `rlvr-trl recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("rlvr-trl: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        verbose = getattr(args, "verbose", False)
        if verbose:
            traceback.print_exc()
        is_setting = isinstance(error, ValueError)
        message = printable(" ".join(str(error).split()))
        if not is_setting:
            message = f"{type(error).__name__}: {message}" + ("" if verbose else " (--verbose shows the trace)")
        print(f"rlvr-trl: {message}", file=sys.stderr)
        return 2 if is_setting else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
