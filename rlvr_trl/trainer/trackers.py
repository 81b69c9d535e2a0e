"""What trackers show of a measurement of pass@k beyond its numbers: the curve over k, and completions to read."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from ..evaluation.results import EvaluationResult
from ..terminal import printable


ROWS = 16  # completions of a table
CHARACTERS = 2000  # of a prompt or completion; the middle of a longer one is left out
COLUMNS = ("step", "prompt", "completion", "answer", "verdict")

Curves = dict[int, dict[int, float]]  # step -> k -> pass@k


def show_in_trackers(trainer, prefix: str, curves: Curves, result: EvaluationResult) -> None:
    """
    Logs the curves and a sample of the completions to each tracker that is running: Weights & Biases, Trackio and
    TensorBoard. Does nothing without one. To be called on the main process.

    Args:
        trainer ([`~trl.GRPOTrainer`]): whose trackers these are, from `report_to` or its callbacks.
        prefix (`str`): that of the metrics, such as `"eval"`.
        curves (`dict[int, dict[int, float]]`): step -> k -> pass@k, the measurement last.
        result ([`EvaluationResult`]): the measurement.
    """
    trackers: list[tuple[type, Callable]] = [
        (WandbCallback, _in_wandb),
        (TrackioCallback, _in_trackio),
        (TensorBoardCallback, _in_tensorboard),
    ]
    callbacks = trainer.callback_handler.callbacks
    found = [ready(callback) for callback in callbacks for kind, ready in trackers if isinstance(callback, kind)]
    running = [show for show in found if show is not None]
    if not running:
        return
    is_named = prefix.startswith(("eval_", "test_")) or prefix in ("eval", "test")
    name = f"{prefix}_".replace("_", "/", 1) if is_named else f"train/{prefix}_"  # as transformers names metrics
    rows = sampled_rows(result, max(curves))
    for show in running:
        show(name, curves, rows)


def sampled_rows(result: EvaluationResult, step: int) -> list[tuple]:
    """
    At most `ROWS` completions of an evaluation, the same problems and samples each time: of problems that are evenly
    spaced over the dataset, one each, or as many as fit if there are few.

    Returns:
        `list[tuple]`: rows with the cells that `COLUMNS` names. Control characters are escaped, the answer is empty
        where the reward function logs none.
    """
    num_problems, num_samples = result.rewards.shape
    problems = np.linspace(0, num_problems - 1, min(ROWS, num_problems)).round().astype(int)
    samples = min(num_samples, ROWS // len(problems))
    answers = result.extra_columns.get("extracted_answer")
    threshold = result.settings["correctness_threshold"]
    rows = []
    for problem in problems.tolist():
        for sample in range(samples):
            reward, index = result.rewards[problem, sample], problem * num_samples + sample
            verdict = "not scored" if np.isnan(reward) else "right" if reward > threshold else "wrong"
            answer = None if answers is None else answers[index]
            texts = _text_of(result.problems[problem].row["prompt"]), result.completions.texts[index]
            rows.append((step, *map(_shortened, texts), "" if answer is None else _shortened(str(answer)), verdict))
    return rows


def _text_of(prompt: str | list[dict]) -> str:
    if isinstance(prompt, str):
        return prompt
    contents = [message.get("content") or "" for message in prompt]
    texts = [c if isinstance(c, str) else " ".join(part.get("text", "") for part in c) for c in contents]
    return "\n".join(f"{message['role']}: {text}" for message, text in zip(prompt, texts, strict=True))


def _shortened(text: str) -> str:
    if (left_out := len(text) - CHARACTERS) > 0:
        half = CHARACTERS // 2
        text = f"{text[:half]} […{left_out} characters…] {text[-half:]}"
    return printable(text)


# --- one function for each tracker: from its callback to what logs to it, or None while it is not running ---


def _in_wandb(callback: WandbCallback) -> Callable[[str, Curves, list], None] | None:
    import wandb  # pyrefly: ignore[missing-import]  # installed, or there would be no such callback

    if wandb.run is None:
        return None

    def show(name: str, curves: Curves, rows: list) -> None:
        points = [[k, value, f"step {step}"] for step, curve in curves.items() for k, value in curve.items()]
        table = wandb.Table(columns=["k", "pass@k", "step"], data=points)
        chart = wandb.plot.line(table, "k", "pass@k", stroke="step", title="pass@k over k")
        texts = wandb.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        step = {"train/global_step": max(curves)}  # the axis that transformers chose
        wandb.log({f"{name}pass_at_k_over_k": chart, f"{name}completions": texts, **step})

    return show


def _in_trackio(callback: TrackioCallback) -> Callable[[str, Curves, list], None] | None:
    import trackio  # pyrefly: ignore[missing-import]

    if trackio.context_vars.current_run.get() is None:
        return None

    def show(name: str, curves: Curves, rows: list) -> None:
        image = trackio.Image(_picture(curves), caption=f"pass@k over k, step {max(curves)}")
        texts = trackio.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        step = {"train/global_step": max(curves)}
        trackio.log({f"{name}pass_at_k_over_k": image, f"{name}completions": texts, **step})

    return show


def _in_tensorboard(callback: TensorBoardCallback) -> Callable[[str, Curves, list], None] | None:
    writer = callback.tb_writer
    if writer is None:
        return None

    def show(name: str, curves: Curves, rows: list) -> None:
        step = max(curves)
        writer.add_image(f"{name}pass_at_k_over_k", _picture(curves), step, dataformats="HWC")
        writer.add_text(f"{name}completions", _markdown_table(rows), step)

    return show


def _picture(curves: Curves) -> np.ndarray:
    """The curves as an image, bytes of shape (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # without pyplot: no screen, and the caller's backend stays

    figure = Figure(figsize=(6.4, 4.2), layout="constrained", dpi=100)
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    for step, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), marker="o", markersize=4, label=f"step {step}")
    ticks = sorted({k for curve in curves.values() for k in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.set(xlabel="k", ylabel="pass@k", title="pass@k over k")
    axes.grid(alpha=0.3)
    axes.legend()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _markdown_table(rows: list) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([_as_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _as_markdown(cell: Any) -> str:
    """Text as Markdown that shows it: TensorBoard would make tags, links and images of what a model writes."""
    text = re.sub(r"[^\w \n]|_", lambda found: f"&#{ord(found[0])};", str(cell))
    return text.replace("\n", "<br>")
