"""The `rlvr-trl` command."""

import argparse
import sys

from .analysis.cli import add_plot
from .evaluation.cli import add_evaluation


def _add_demo(commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="train GRPO, Pass@k and DARS on mazes, on a CPU, and compare their pass@k",
        description="Builds a tiny model, warms it up on mazes, trains stock GRPO, Pass@k Training "
        "and DARS from it, and compares their pass@k on held-out mazes. About 4 minutes on 2 CPU cores.",
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


def main(argv: list[str] | None = None) -> int:
    """Runs the command line `argv` and returns the exit status; a wrong setting is one line on standard error."""
    parser = argparse.ArgumentParser(
        prog="rlvr-trl", description="Reinforcement learning with verifiable rewards on TRL. Start with: rlvr-trl demo"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_demo(commands)
    add_evaluation(commands)
    add_plot(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except ValueError as error:
        print(f"rlvr-trl: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
