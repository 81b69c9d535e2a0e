"""A progress bar that shows the latest figures, where transformers prints a line for every log."""

from transformers import PrinterCallback, ProgressCallback, Trainer

from ..trainer.notebook_progress import NotebookProgress, remove_notebook_table


class FiguresInBar(ProgressCallback):
    """
    A progress bar with a title and figures.

    Args:
        title (`str`): what is being done.
        figures (`dict[str, str]`): name in the trainer's log -> name in the bar.
    """

    def __init__(self, title: str, figures: dict[str, str]):
        super().__init__()
        self.title, self.figures = title, figures

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description(self.title)

    def on_log(self, args, state, control, logs=None, **kwargs):
        logs = logs or {}
        shown = {name: f"{logs[key]:.3f}" for key, name in self.figures.items() if key in logs}
        if self.training_bar is not None and shown:
            self.training_bar.set_postfix(shown)


def show_figures_in_bar(trainer: Trainer, title: str, figures: dict[str, str]) -> None:
    """
    Replaces the trainer's progress bar by [`FiguresInBar`]; also its printing, where `disable_tqdm` is set, and its
    table in a notebook.
    """
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(NotebookProgress)
    remove_notebook_table(trainer)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(FiguresInBar(title, figures))
