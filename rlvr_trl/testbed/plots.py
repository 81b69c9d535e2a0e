"""The picture of the demo."""

from pathlib import Path

import numpy as np

from ..evaluation import EvaluationResult


def plot_pass_at_k(results: dict[str, EvaluationResult], path: Path) -> None:
    """Writes the pass@k curves, each with its 95 % interval over problems, as an image of the path's type."""
    import matplotlib

    matplotlib.use("Agg")  # no screen is needed
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for label, result in results.items():
        means, intervals = result.pass_at_k, result.intervals()
        low, high = np.array([intervals[k] for k in means]).T
        (line,) = axes.plot(list(means), list(means.values()), marker="o", markersize=4, label=label)
        axes.fill_between(list(means), low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(result.ks, [str(k) for k in result.ks])
    axes.set(xlabel="k", ylabel="pass@k", title="Held-out mazes: pass@k after training")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
