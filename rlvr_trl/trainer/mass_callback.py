"""How much probability a model gives to fixed answers while it trains: those it could give at first, and others."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from ..checks import check_integer
from ..distributed import Processes
from ..evaluation.problems import digest_of
from ..evaluation.results import EvaluationResult
from ..trl_compat import borrow
from .pass_at_k_callback import PassAtKCallback, score_tokens


KINDS = ("correct", "wrong", "known")


class MassDynamicsCallback(TrainerCallback):
    """
    Follows where the probability goes while a model trains: what arXiv 2510.04028 (Fig. 1) draws of a bandit, in any
    model. The second stage there needs an answer that earns more than the right ones that were sampled; with rewards
    of 0 and 1 there is none.

    At the start it samples `num_samples` completions of each prompt and takes the greedy one. From then on these are
    the answers that it follows: at the first step and every `every` steps it computes the probability that the model
    gives to each of them, at temperature 1, and logs means over prompts:

    | logged | total probability of |
    |---|---|
    | `mass_correct`, `mass_wrong` | the distinct sampled answers that are right, and that are wrong |
    | `mass_known` | right answers that you name and that were not sampled: unexplored ones |
    | `mass_rest` | everything else: 1 − all of these |
    | `mass_greedy` | the greedy answer of the model at the start, which is among the others or in the rest |

    pass@k of the samples and greedy accuracy are logged once, at the start, as [`PassAtKCallback`] does, under
    `mass_sampled` and `mass_greedy`. Answers that were cut at `max_completion_length` are in the rest. Probabilities
    are of whole answers, token by token, so they say something only where answers are short; of long solutions each
    has next to none. The answers are kept in `<output_dir>/<prefix>_answers.json`, so that a resumed run follows the
    same ones.

    ```python
    trainer = RLVRTrainer(..., args=RLVRConfig("run"))
    callback = MassDynamicsCallback(trainer, test_set, num_samples=32, every=20)
    trainer.add_callback(callback)
    trainer.train()
    from rlvr_trl.analysis import plot_mass

    plot_mass({"GRPO": callback.history}, "mass.png", "Where the probability goes")
    ```

    Args:
        trainer ([`~trl.GRPOTrainer`]): the trainer, TRL's own or one of this package.
        dataset ([`~datasets.Dataset`] or iterable of rows): a few prompts, and what the reward function reads.
        num_samples (`int`): completions per prompt at the start.
        every (`int`): optimizer steps from one measurement to the next.
        reward_func (`Callable`, *optional*): as in [`PassAtKCallback`].
        known (`str`, *optional*): column with a list of right answers for each prompt, as texts.
        batch_size (`int`, *optional*): as in [`PassAtKCallback`].
        prefix (`str`): what the names of the metrics begin with.

    Attributes:
        history (`list[dict]`): what was logged, with its `step`.

    Raises:
        `ValueError`: A setting cannot work, as in [`PassAtKCallback`]; `known` is no column of lists of texts; or a
        resumed run has no file with answers, or one of other prompts or settings.
    """

    def __init__(
        self,
        trainer,
        dataset: Dataset | Iterable[dict],
        num_samples: int = 16,
        every: int = 10,
        reward_func: Callable | None = None,
        known: str | None = None,
        batch_size: int | None = None,
        prefix: str = "mass",
    ):
        check_integer("every", every, at_least=1)
        shared = {"reward_func": reward_func, "every": every, "at_start": False, "batch_size": batch_size}
        self.sampled = PassAtKCallback(trainer, dataset, num_samples, prefix=f"{prefix}_sampled", **shared)
        self.greedy = PassAtKCallback(trainer, dataset, 1, temperature=0, prefix=f"{prefix}_greedy", **shared)
        self.known = _known_answers(self.sampled.problems, known)
        self.trainer, self.every, self.prefix = trainer, every, prefix
        # what the answers depend on, beside the model
        asked = [digest_of(self.sampled.problems), num_samples, self.known]
        self.asked = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
        # per prompt: its tokens, and the tokens of every answer with its kind
        self.answers: list[dict[str, Any]] = []

    @property
    def history(self) -> list[dict]:
        return [entry for entry in self.trainer.state.log_history if f"{self.prefix}_correct" in entry]

    def on_train_begin(self, args, state, control, **kwargs):
        processes, path = Processes(PartialState()), Path(args.output_dir, f"{self.prefix}_answers.json")
        if state.global_step == 0:
            answers = self._choose(processes)
            with processes.agreed("writing the answers"):
                if processes.is_main:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps({"asked": self.asked, "answers": answers}), encoding="utf-8")
        else:
            with processes.agreed("reading the answers"):
                if not path.is_file():
                    raise ValueError(
                        f"The run is resumed, but there is no '{path}' with the answers that MassDynamicsCallback has "
                        f"followed before. Leave the callback out, or begin anew."
                    )
                answers = self._read(path)
        self.answers = answers
        if not any(entry["step"] == state.global_step for entry in self.history):
            self._measure()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0:
            self._measure()

    def _read(self, path: Path) -> list[dict[str, Any]]:
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            asked, answers = saved["asked"], saved["answers"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"'{path}' holds no answers of MassDynamicsCallback: {error!r}.") from None
        if asked != self.asked:
            raise ValueError(
                f"'{path}' holds answers to other prompts, with another `num_samples` or other `known` answers. A "
                f"resumed run follows the same ones: use the same settings, or begin anew."
            )
        return answers

    def _choose(self, processes: Processes) -> list[dict[str, Any]]:
        """Samples, and sorts what was sampled. The same on all processes."""
        for callback in (self.sampled, self.greedy):
            callback._measure()
        result, greedy = self.sampled.latest, self.greedy.latest
        assert result is not None and greedy is not None
        prompt_ids = dict(processes.gather(list(self.sampled._prompt_ids.items())))
        tokenizer, width = self.trainer._tokenizer, result.rewards.shape[1]
        answers = []
        for index in range(len(result.problems)):
            kinds: dict[tuple[int, ...], str] = {}
            for place in range(index * width, (index + 1) * width):
                reward = result.rewards.flat[place]
                if not result.completions.truncated[place] and not math.isnan(reward):
                    is_correct = reward > result.settings["correctness_threshold"]
                    kinds[_ids_of(result, place)] = "correct" if is_correct else "wrong"
            for text in self.known[index]:
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                kinds.setdefault((*ids, tokenizer.eos_token_id), "known")
            answers.append(
                {
                    "prompt": prompt_ids[index],
                    "kinds": [[kind, list(ids)] for ids, kind in kinds.items()],
                    "greedy": list(_ids_of(greedy, index)),
                }
            )
        return answers

    def _measure(self) -> None:
        """Scores all answers, and logs their mass. Every process must call it."""
        processes = Processes(PartialState())
        rows = [(i, kind, ids) for i, one in enumerate(self.answers) for kind, ids in one["kinds"]]
        rows += [(i, "greedy", one["greedy"]) for i, one in enumerate(self.answers)]
        own = processes.share_of(rows)
        filled = own + rows[-1:] * (math.ceil(len(rows) / processes.count) - len(own))  # equally many calls of a model
        training = self.trainer.model.training
        self.trainer.model.eval()
        try:
            log_probabilities, _ = score_tokens(
                self.trainer, [self.answers[i]["prompt"] for i, *_ in filled], [ids for *_, ids in filled]
            )
        finally:
            self.trainer.model.train(training)
        scored = [(kind, math.exp(value)) for (_, kind, _), value in zip(own, log_probabilities, strict=False)]
        mass = dict.fromkeys((*KINDS, "greedy"), 0.0)
        for kind, probability in processes.gather(scored):
            mass[kind] += probability / len(self.answers)
        mass["rest"] = 1 - sum(mass[kind] for kind in KINDS)
        if not any(self.known):
            del mass["known"]
        control = self.trainer.control
        with borrow(control, should_log=control.should_log):
            Trainer.log(self.trainer, {f"{self.prefix}_{kind}": value for kind, value in mass.items()})


def _ids_of(result: EvaluationResult, place: int) -> tuple[int, ...]:
    ids = result.completions.token_ids[place]
    assert ids is not None  # the trainer's engines return tokens
    return tuple(ids)


def _known_answers(problems: Sequence, column: str | None) -> list[list[str]]:
    if column is None:
        return [[] for _ in problems]
    known = [problem.row.get(column) for problem in problems]
    for answers in known:
        if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
            raise ValueError(f"`known`={column!r} must be a column of lists of texts, got {answers!r:.80} in it.")
    return known
