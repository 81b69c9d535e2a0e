"""The command `rlvr-trl plot`. What it draws is imported when it runs, so that `rlvr-trl --help` stays fast."""

import argparse
from pathlib import Path
from typing import Any

from ..registry import did_you_mean


def add_plot(commands) -> None:
    """Adds `plot curves` and `plot bandit` to the subparsers of `rlvr-trl`."""
    plot = commands.add_parser("plot", help="draw advantages over accuracy, or the softmax bandit, with their numbers")
    kinds = plot.add_subparsers(metavar="KIND", required=True)
    _add_curves(kinds)
    _add_bandit(kinds)


def _add_curves(kinds) -> None:
    curves = kinds.add_parser(
        "curves",
        help="sum of |A| of a group, and its advantages, over accuracy",
        description="Draws what a group of each accuracy gets: the figures of the papers, or any estimator.",
    )
    what = curves.add_mutually_exclusive_group()
    what.add_argument(
        "--figure",
        default="all",
        metavar="NAME",
        help="families (all methods), a figure of the papers, or all (default: all)",
    )
    what.add_argument(
        "--estimator",
        metavar="SPEC",
        help="an advantage estimator: its name, or YAML such as '{name: a_grae, base: {name: pass_at_k, k: 8}}'",
    )
    curves.add_argument(
        "--rollouts",
        metavar="SPEC",
        help="with --estimator, also draw it with the completions that an allocator of rollouts gives: dars, "
        "'{name: knapsack, max_generations: 64}'",
    )
    curves.add_argument(
        "--batch-accuracy", type=float, metavar="SHARE", help="with --estimator, accuracy of the batch (default: 0.5)"
    )
    curves.add_argument(
        "--num-samples", type=int, metavar="N", help="completions of a group (default: the figure's own; 32)"
    )
    _add_output(curves)
    curves.set_defaults(run=_run_curves)


def _add_bandit(kinds) -> None:
    bandit = kinds.add_parser(
        "bandit",
        help="exploitation, then exploration, in a softmax bandit",
        description="Trains a softmax bandit with group-relative advantages over many seeds.",
    )
    what = bandit.add_mutually_exclusive_group()
    what.add_argument("--preset", default="all", metavar="NAME", help="which comparison, or all (default: all)")
    what.add_argument("--rewards", type=float, nargs="+", metavar="R", help="your own: the reward of each action")
    own = "with --rewards, "
    bandit.add_argument("--logits", type=float, nargs="+", metavar="Z", help=f"{own}the first logit of each action")
    bandit.add_argument("--group-size", type=int, metavar="G", help=f"{own}actions sampled a step (default: 2)")
    bandit.add_argument("--temperature", type=float, metavar="T", help=f"{own}of sampling (default: 1)")
    bandit.add_argument("--learning-rate", type=float, metavar="ETA", help=f"{own}step size (default: 0.1)")
    bandit.add_argument("--optimizer", choices=("adam", "sgd"), help=f"{own}(default: adam)")
    bandit.add_argument("--negative-only", action="store_true", help=f"{own}leave out positive advantages")
    bandit.add_argument("--seeds", type=int, default=200, metavar="N", help="independent runs (default: 200)")
    bandit.add_argument("--steps", type=int, metavar="N", help="optimizer steps (default: the preset's own)")
    _add_output(bandit)
    bandit.set_defaults(run=_run_bandit)


def _add_output(parser) -> None:
    parser.add_argument("--output-dir", default="rlvr-plots", help="folder for pictures and CSV (default: rlvr-plots)")
    parser.add_argument(
        "--format", choices=("png", "svg"), default="png", help="format of the pictures (default: png)"
    )


def _run_curves(args: argparse.Namespace) -> None:
    from .figures import FIGURES
    from .plots import plot_curves, plot_families

    if args.estimator is None:
        for option, value in (("--rollouts", args.rollouts), ("--batch-accuracy", args.batch_accuracy)):
            if value is not None:
                raise ValueError(f"{option} needs --estimator: the figures have their own.")
        figures = _choose(args.figure, FIGURES, "figure")
    else:
        figures = {"curves": _figure_of(args)}
    for name, figure in figures.items():
        curves = figure.compute(args.num_samples)
        last = list(curves.values())[-1]
        n = len(last.accuracy) - 1
        if args.rollouts and (last.group_size == n).all():
            raise ValueError(
                f"--rollouts {args.rollouts} adds nothing to groups of {n}. Raise its max_generations, if it has one, "
                f"or lower --num-samples."
            )
        path = _path(args, name)
        title = f"{figure.title} (n = {n})"
        if figure.by_family:
            plot_families(figure.families(curves), path, title)
        else:
            plot_curves(curves, path, title, figure.panels)
        _print_paths(path)


def _figure_of(args: argparse.Namespace) -> Any:
    from ..advantages import build_estimator
    from ..rollouts import build_allocator
    from .figures import Curve, Figure

    estimator = build_estimator(args.estimator)
    batch_accuracy = 0.5 if args.batch_accuracy is None else args.batch_accuracy
    lines = [Curve("without it" if args.rollouts else "advantage", estimator, batch_accuracy=batch_accuracy)]
    if args.rollouts:
        lines.append(Curve("with the allocator", estimator, build_allocator(args.rollouts), batch_accuracy))
    return Figure(args.estimator, tuple(lines))


def _run_bandit(args: argparse.Namespace) -> None:
    from .bandit import PRESETS, crossing_step
    from .plots import plot_bandit

    chosen = _choose(args.preset, PRESETS, "preset") if args.rewards is None else {"own": {"yours": _bandit_of(args)}}
    given = {name: getattr(args, name) for name in ("logits", *_BANDIT_OPTIONS)}
    unused = [name for name, value in given.items() if value is not None and value is not False]
    if args.rewards is None and unused:
        raise ValueError(f"--{unused[0].replace('_', '-')} needs --rewards: the presets have their own.")
    for name, panels in chosen.items():
        runs = {label: (bandit.simulate(args.seeds, args.steps), bandit.actions) for label, bandit in panels.items()}
        path = _path(args, f"bandit_{name}")
        plot_bandit(runs, path, "Softmax bandit: mean over seeds and 5–95 % band")
        for label, (probabilities, _) in runs.items():
            mean, each = crossing_step(probabilities)
            crossed = int((~each.isnan()).sum())
            step = "never" if mean != mean else f"at step {mean:.0f}"
            print(f"{name}, {label}: the mean crosses {step}; {crossed} of {len(each)} seeds do")
        _print_paths(path)


_BANDIT_OPTIONS = ("group_size", "temperature", "learning_rate", "optimizer", "negative_only")


def _bandit_of(args: argparse.Namespace) -> Any:
    from .bandit import Bandit

    rewards, logits = args.rewards, args.logits or [0.0] * len(args.rewards)
    if len(rewards) != len(logits) or len(rewards) < 2:
        raise ValueError(
            f"--rewards and --logits need one value for each of at least 2 actions, got {len(rewards)} and "
            f"{len(logits)}."
        )
    # the best action is the second and the next best the first, as a crossing is of these two
    best, good, *others = sorted(range(len(rewards)), key=lambda action: -rewards[action])
    order = [good, best, *others]
    given = {name: value for name in _BANDIT_OPTIONS if (value := getattr(args, name)) is not None}
    return Bandit(
        tuple(rewards[action] for action in order),
        tuple(logits[action] for action in order),
        tuple(f"reward {rewards[action]:g}, logit {logits[action]:g}" for action in order),
        **given,
    )


def _choose(name: str, choices: dict[str, Any], kind: str) -> dict[str, Any]:
    if name == "all":
        return choices
    if name not in choices:
        hint = did_you_mean(name, choices)
        raise ValueError(f"Unknown {kind} {name!r}.{hint} Valid {kind}s: {', '.join(choices)}, all.")
    return {name: choices[name]}


def _path(args: argparse.Namespace, name: str) -> Path:
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.{args.format}"


def _print_paths(path: Path) -> None:
    print(f"{path} and {path.with_suffix('.csv').name}")
