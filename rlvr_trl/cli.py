"""The `rlvr-trl` command."""

import argparse
import io
import sys
import traceback

from . import __version__
from .analysis.plot_command import add_plot
from .evaluation.cli import add_evaluation
from .terminal import printable


NEXT_STEPS = """\
new here?
  rlvr-trl demo --quick       train GRPO, Pass@k and DARS on mazes and compare them: a minute on a laptop
  rlvr-trl eval --help        measure pass@k of a model on math500, aime24, ... or a file of yours
  accelerate launch examples/train_math.py --config examples/recipes/pass_at_k/pass_at_8.yaml
                              train a model with a published recipe (in a clone of the repository)
"""


def _add_demo(commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="train GRPO, Pass@k and DARS on mazes, on a CPU, and compare their pass@k",
        description="Builds a tiny model, warms it up on mazes, trains stock GRPO, Pass@k Training "
        "and DARS from it, and compares their pass@k on held-out mazes. About 5 minutes on 2 CPU cores.",
    )
    demo.add_argument("--quick", action="store_true", help="a smaller run of about a minute")
    demo.add_argument("--seed", type=int, default=0, help="seed of the mazes, the model and the training (default: 0)")
    demo.add_argument("--output-dir", default="rlvr-demo", help="folder for results and models (default: rlvr-demo)")
    demo.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="methods to train: grpo, pass_at_k, dars (these by default), a_grae, grpo_n, nsr",
    )
    demo.set_defaults(run=_run_demo)


def _run_demo(args: argparse.Namespace) -> None:
    from .testbed.demo import QUICK, DemoSettings, run_demo
    from .testbed.methods import DEFAULT_METHODS

    settings = DemoSettings(seed=args.seed, **(QUICK if args.quick else {}))
    run_demo(args.output_dir, args.methods or list(DEFAULT_METHODS), settings)


class _CommandParser(argparse.ArgumentParser):
    """A parser that takes `--verbose`; so do the parsers of its commands, which are of the same class."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_argument(
            "--verbose", action="store_true", default=argparse.SUPPRESS, help="show the whole trace of an error"
        )


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
    add_evaluation(commands)
    add_plot(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """
    Runs the command line `argv` and returns the exit status: 0, 2 for a wrong setting, 1 for any other error, 130 when
    interrupted. An error is one line on standard error; `--verbose` prints its trace as well.
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
    except KeyboardInterrupt:
        print("rlvr-trl: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if getattr(args, "verbose", False):
            traceback.print_exc()
        is_setting = isinstance(error, ValueError)
        message = printable(" ".join(str(error).split()))
        if not is_setting:
            message = f"{type(error).__name__}: {message} (--verbose shows the trace)"
        print(f"rlvr-trl: {message}", file=sys.stderr)
        return 2 if is_setting else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
