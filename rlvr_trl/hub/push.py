"""The model on the Hub: its card, and pushes that do not get lost.

transformers pushes a saved model in a background thread and never looks at what came of it; it does not push a save at
all while the last push still runs; and at the end of training it catches up on neither. Here a push that failed is
named in a warning and done again with the next save, and at the end of training until it succeeds or was tried
`ATTEMPTS` times. Training goes on meanwhile: everything that is pushed is in `output_dir` first.
"""

import itertools
import os
import shlex
import time
import warnings
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl import GRPOTrainer

from ..manifest import checkpoints_in
from ..trl_compat import PREFIX_CHECKPOINT_DIR, HubStrategy, borrow, hf_api
from .model_card import complete_card, dataset_id, earlier_results, method_tags
from .published import (
    OF_CARD,
    hub_id,
    names_of_checkpoint,
    names_of_model,
    operations_for,
    save_public_arguments,
)


if TYPE_CHECKING:
    from ..trainer.rlvr_config import RLVRConfig

ATTEMPTS = 3
WAIT = 2.0  # seconds after the first failed attempt, twice as many after the second


class PushesToHub(GRPOTrainer):
    """The part of RLVRTrainer that writes the model card and pushes to the Hub. All of it on the main process."""

    # needed, from the part that writes checkpoints and from RLVRTrainer
    _writing_to: Path | None
    args: "RLVRConfig"

    _card_step: int | None = None  # of the last card that this trainer wrote
    _newest: str | None = None  # the last checkpoint to be pushed

    @cached_property
    def _pushes(self) -> dict[str, list[Future]]:
        """Checkpoint -> its uploads that may still fail; an empty list if it has to be pushed (again)."""
        return {}

    @property
    def _output_folder(self) -> str:
        assert self.args.output_dir is not None  # transformers has a default for it
        return self.args.output_dir

    @property
    def _jobs(self) -> list[Future]:
        """transformers' own list of the uploads of the last push. What is added before the first push is lost."""
        jobs: Any = [] if self.push_in_progress is None else self.push_in_progress.jobs
        return jobs

    def init_hf_repo(self, *args, **kwargs):
        super().init_hf_repo(*args, **kwargs)
        # transformers saves its arguments with the model and pushes them: a token among them would be published
        if self.args.hub_token is not None:
            hf_api().token, self.args.hub_token = self.args.hub_token, None

    def create_model_card(self, model_name=None, dataset_name=None, tags=None):
        """TRL's card, completed by the method, the configuration, what was measured, and what to cite."""
        if not self.is_world_process_zero():
            return
        results = earlier_results(self._output_folder) if self._card_step == self.state.global_step else None
        tags = [tags] if isinstance(tags, str) else [*(tags or [])]
        name = None if model_name is None else " ".join(model_name.split())  # it becomes a heading
        super().create_model_card(name, self._dataset_on_hub(dataset_name), tags + method_tags(self))
        complete_card(self, results)
        self._card_step = self.state.global_step

    def _dataset_on_hub(self, named: str | None) -> str | None:
        """The dataset that was loaded from the Hub, or the id of one that the caller names."""
        loaded = dataset_id(self.train_dataset)
        if named is None or named == loaded:
            return loaded
        if hub_id(named) is None or "/" not in named:
            warnings.warn(
                f"`dataset_name` is {named!r}, which is not the id of a dataset on the Hub, such as 'owner/name'. The "
                f"card names {'no dataset' if loaded is None else loaded}.",
                stacklevel=3,
            )
            return loaded
        return named

    def _save(self, output_dir=None, state_dict=None):
        # PEFT puts a card of its own in the place of this one, with the folder of the base model
        folder = Path(self._output_folder if output_dir is None else output_dir)
        card = folder / "README.md"
        before = card.read_bytes() if card.exists() else None
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            if before is not None:
                card.write_bytes(before)
            else:
                card.unlink(missing_ok=True)
            save_public_arguments(self.args, folder)

    def push_to_hub(  # pyrefly: ignore[bad-override]  # not every transformers has `private`: it is among `kwargs`
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        dry_run: bool = False,
        **kwargs,
    ):
        """
        As in transformers, and tried again if it fails. Publishes model, tokenizer, card, and what `hub_files` names.

        Args:
            dry_run (`bool`, *optional*, defaults to `False`):
                Print and return the list of what would be pushed, and push nothing. The model is saved in
                `output_dir` as for a push.

        Raises:
            `RuntimeError`: The push failed `ATTEMPTS` times. Everything is in `output_dir` then.
        """
        if dry_run:
            return self._list_push(kwargs)
        with borrow(hf_api(), upload_folder=self._upload):
            job: Any = super().push_to_hub(commit_message, False, token, revision, **kwargs)  # a Future
        if job is None or not blocking:  # another process, or the caller looks at the result
            return job
        for attempt in itertools.count(1):
            error = job.exception()
            if error is None:
                return job.result()
            failed = self._failed(self._output_folder, error)
            if attempt == ATTEMPTS:
                raise RuntimeError(f"{failed} It was tried {ATTEMPTS} times. {self._how_to_retry()}") from error
            warnings.warn(f"{failed} It is tried again.", stacklevel=2)
            time.sleep(WAIT * attempt)
            job = self._upload(self._output_folder, commit_message, token, revision or self.args.hub_revision)

    def _list_push(self, card: dict[str, Any]) -> list[str]:
        """Saves the model and its card, and prints what a push would publish of them."""
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return []
        name = self.args.hub_model_id or Path(self._output_folder).name
        self.create_model_card(**{"model_name": name.split("/")[-1], **card})
        names = self._names_to_push(self._output_folder, None)
        newest = checkpoints_in(self._output_folder)[:1]
        where = {HubStrategy.CHECKPOINT: "last-checkpoint", HubStrategy.ALL_CHECKPOINTS: None}
        print(f"A push to {name} would publish, from {self._output_folder}:")
        for file in names:
            print(f"  {file} ({Path(self._output_folder, file).stat().st_size:,} bytes)")
        if self.args.push_to_hub and self.args.hub_strategy in where and newest:
            inner = where[self.args.hub_strategy] or newest[0].name
            print(f"and while it trains (`hub_strategy`: {self.args.hub_strategy.value}), as now {newest[0].name}:")
            files = [f"{inner}/{file}" for file in self._names_to_push(newest[0], inner)]
            print("".join(f"  {file}\n" for file in files), end="")
            names += files
        return names

    def _names_to_push(self, folder: str | os.PathLike, path_in_repo: str | None) -> list[str]:
        if path_in_repo is not None:
            return names_of_checkpoint(folder)
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return names_of_model(folder, model, self.processing_class, self.args.hub_files)

    def _push_from_checkpoint(self, checkpoint_folder):
        # transformers calls this while it writes a checkpoint, which is pushed once it is whole
        is_whole = self._writing_to is None
        if is_whole and self.is_world_process_zero() and self.args.hub_strategy != HubStrategy.END:
            self._check_pushes()
            self._newest = checkpoint_folder
            self._start_push(checkpoint_folder)

    def _finish_current_push(self):
        super()._finish_current_push()
        if not self.is_in_train or not self.is_world_process_zero():
            return
        for attempt in range(ATTEMPTS):
            self._check_pushes()
            if not self._pushes:
                return
            time.sleep(WAIT * attempt)
            if self._newest is not None and self._newest in self._pushes:
                self._start_push(self._newest)
            else:
                self._push_older()
            super()._finish_current_push()
        self._check_pushes(again=False)
        if self._pushes:
            names = ", ".join(Path(folder).name for folder in self._pushes)
            warnings.warn(
                f"Training is over, and {names} could not be pushed to {self.hub_model_id}: tried {ATTEMPTS} times at "
                f"the end. {self._how_to_retry()}",
                stacklevel=2,
            )

    def _start_push(self, newest: str) -> None:
        """Pushes the model and the newest checkpoint in the background, or notes that they wait for another push."""
        earlier = list(self._jobs)
        with borrow(hf_api(), upload_folder=self._upload):
            super()._push_from_checkpoint(newest)  # does nothing while an earlier push runs
        jobs = [job for job in self._jobs if job not in earlier]
        if self.args.hub_strategy != HubStrategy.ALL_CHECKPOINTS:
            # the newest replaces those that wait and, once its own upload has started, all earlier ones
            for folder in [folder for folder, running in self._pushes.items() if jobs or not running]:
                del self._pushes[folder]
        self._pushes[newest] = jobs
        if jobs:
            self._push_older()

    def _push_older(self) -> None:
        """Pushes earlier checkpoints that are missing on the Hub, without their models: the newest model is there."""
        for folder, running in self._pushes.items():
            if not running and folder != self._newest:
                name, revision = Path(folder).name, self.args.hub_revision
                message = f"Training in progress, {name}, again"
                self._pushes[folder] = [self._upload(folder, message, None, revision, path_in_repo=name)]
                self._jobs.extend(self._pushes[folder])

    def _upload(
        self,
        folder_path: str,
        commit_message: str | None,
        token: str | None,
        revision: str | None,
        path_in_repo: str | None = None,
        **others: Any,
    ) -> Future:
        """
        In the place of `upload_folder`, which would also publish what is true of this machine only.

        Args:
            others: what transformers also gives: the repository, that this is a job for the background, and which
                files are not part of the model, where here it is said which are.
        """
        if path_in_repo is None:
            save_public_arguments(self.args, folder_path)  # transformers has just saved them again
        names = self._names_to_push(folder_path, path_in_repo)
        # read now: the next save writes the card anew, perhaps while this is on its way
        of_card = [name for name in names if path_in_repo is None and name in OF_CARD]
        card = {name: Path(folder_path, name).read_bytes() for name in of_card}

        def commit():
            return hf_api().create_commit(
                repo_id=str(self.hub_model_id),
                operations=operations_for(folder_path, names, path_in_repo, card),
                commit_message=commit_message or "Upload",
                token=token,
                revision=revision,
            )

        return hf_api().run_as_future(commit)

    def _check_pushes(self, again: bool = True) -> None:
        """Forgets pushes that succeeded, and warns of those that failed. `again`: whether they are tried again."""
        for folder, jobs in list(self._pushes.items()):
            is_gone = self.args.hub_strategy == HubStrategy.ALL_CHECKPOINTS and not Path(folder).exists()
            if not (jobs or is_gone) or not all(job.done() for job in jobs):
                continue
            errors = [error for job in jobs if (error := job.exception()) is not None]
            if not jobs:  # a push of nothing would succeed
                errors = [FileNotFoundError("it waited for an earlier push to end")]
            if errors:
                outlook = " It is pushed again, with the next save or at the end of training." if again else ""
                outlook = " It has been deleted since (`save_total_limit`), and is lost." if is_gone else outlook
                warnings.warn(self._failed(folder, errors[0]) + outlook, stacklevel=3)
                self._pushes[folder] = []
            if is_gone or not errors:
                del self._pushes[folder]

    def _failed(self, folder: str, error: BaseException) -> str:
        problem = f"{type(error).__name__}: {error}"
        if isinstance(error, RuntimeError):  # huggingface_hub's, which names the file
            problem += f" ({type(error.__cause__).__name__}: {error.__cause__})"
        problem = " ".join(problem.split()).rstrip(".")
        return f"The push of {Path(folder).name} to {self.hub_model_id} failed: {problem}."

    def _how_to_retry(self) -> str:
        folder = shlex.quote(self._output_folder)
        names = self._names_to_push(self._output_folder, None)
        included = " ".join(f"--include {shlex.quote(name)}" for name in names)
        return (
            f"Everything is saved in {folder}. To push the model later: `trainer.push_to_hub()`, or `hf upload "
            f"{self.hub_model_id} {folder} . {included}`; a checkpoint: "
            f"`hf upload {self.hub_model_id} {folder}/{PREFIX_CHECKPOINT_DIR}-<step> {PREFIX_CHECKPOINT_DIR}-<step>`."
        )
