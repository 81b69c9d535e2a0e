"""The progress of a training in a notebook: reward and pass@k, where transformers shows a loss, which is about 0."""

import html
import re
from typing import Any

from transformers import Trainer, TrainerCallback


ROWS = 20  # of the table: the whole of it is sent to the browser again for each new one


def remove_notebook_table(trainer: Trainer) -> bool:
    """Removes transformers' own table, and says whether there was one."""
    callbacks = trainer.callback_handler.callbacks
    # by its name: its module cannot be imported without IPython
    found = [callback for callback in callbacks if type(callback).__name__ == "NotebookProgressCallback"]
    for callback in found:
        trainer.remove_callback(callback)
    return bool(found)


def show_rewards_in_notebook(trainer: Trainer) -> None:
    """Puts [`NotebookProgress`] in the place of transformers' own table, if that is shown."""
    if remove_notebook_table(trainer):
        trainer.add_callback(NotebookProgress())


class NotebookProgress(TrainerCallback):
    """A bar, and below it a table of what was logged last: reward, length of completions, pass@1 and the largest k."""

    def __init__(self):
        self.rows: dict[int, dict[str, float]] = {}  # step -> column -> figure
        self.evaluated = 0  # batches of the evaluation that runs
        self.shown: Any = None  # IPython's handle of the output

    def on_train_begin(self, args, state, control, **kwargs):
        self.rows, self.shown = {}, None
        self._show(state)

    def on_step_end(self, args, state, control, **kwargs):
        self._show(state)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if figures := _figures(logs or {}):
            self.rows[state.global_step] = self.rows.get(state.global_step, {}) | figures
            self._show(state)

    def on_prediction_step(self, args, state, control, **kwargs):
        self.evaluated += 1
        self._show(state)

    def on_evaluate(self, args, state, control, **kwargs):
        self.evaluated = 0
        self._show(state)

    def on_train_end(self, args, state, control, **kwargs):
        self._show(state)

    def _show(self, state) -> None:
        if not state.is_world_process_zero:
            return
        from IPython.display import HTML, display  # pyrefly: ignore[missing-import]

        content = HTML(self._html(state.global_step, state.max_steps))
        if self.shown is None:
            self.shown = display(content, display_id=True)
        else:
            self.shown.update(content)

    def _html(self, step: int, max_steps: int) -> str:
        evaluating = f", {self.evaluated} batches evaluated" if self.evaluated else ""
        bar = f"<progress value='{step}' max='{max_steps}' style='width: 300px'></progress> "
        parts = [f"<div>{bar}step {step} of {max_steps}{evaluating}</div>"]
        if self.rows:
            columns = dict.fromkeys(column for row in self.rows.values() for column in row)
            columns = sorted(columns, key=lambda column: "pass@" in column)  # last, though measured first
            steps = sorted(self.rows)
            if len(steps) > ROWS:
                parts.append(
                    f"<div>The last {ROWS} of {len(steps)} rows; all are in `trainer.state.log_history`.</div>"
                )
            lines = [["step", *columns]]
            for at in steps[-ROWS:]:
                row = self.rows[at]
                lines.append([str(at), *(f"{row[c]:.3f}" if c in row else "" for c in columns)])
            body = "".join(f"<tr><td>{'</td><td>'.join(line)}</td></tr>" for line in lines)
            parts.append(f"<table>{body}</table>")
        return "".join(parts)


def _figures(logs: dict[str, Any]) -> dict[str, float]:
    names = {"reward": "reward", "completions/mean_length": "length", "eval_reward": "held-out reward"}
    figures = {shown: logs[name] for name, shown in names.items() if logs.get(name) is not None}
    measured: dict[str, dict[int, float]] = {}
    for name, value in logs.items():
        if found := re.fullmatch(r"(.+)_pass@(\d+)", name):
            measured.setdefault(found[1], {})[int(found[2])] = value
    for prefix, by_k in measured.items():
        before = "" if prefix == "eval" else f"{html.escape(prefix)} "
        figures |= {f"{before}pass@{k}": by_k[k] for k in sorted({min(by_k), max(by_k)})}
    return figures
