"""The warnings of what would train nothing, or on prompts that the model cannot read: when they come, and when not.

docs/troubleshooting.md lists them. Those of advantages that are always 0 are here as far as settings go; the
mathematics is in test_estimators.py.
"""

import copy
import json
import subprocess
import sys
import warnings
from contextlib import contextmanager

import pytest
import torch
from datasets import Dataset
from launching import environment, free_port, launch
from tiny_lm import tiny_model, tiny_tokenizer
from tiny_training import build, right_moves, share_of_right_moves, trained
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, MambaConfig, Qwen2Config, TrainerCallback
from trl import GRPOTrainer

from rlvr_trl import DARSTrainer, PassAtKCallback, PassAtKTrainer, RLVRTrainer
from rlvr_trl.advantages import (
    AGRAE,
    AdaptivePassAtK,
    CombinedPassAtK,
    GroupRelative,
    PassAtK,
    RolloutGroups,
    Scheduled,
)
from rlvr_trl.distributed import PROCESSES_STARTED, warn_of_lone_process
from rlvr_trl.evaluation import Sample, evaluate, evaluate_engine, rescore
from rlvr_trl.evaluation.display import result_tables
from rlvr_trl.evaluation.engines.prompts import context_of
from rlvr_trl.rollouts import DARS
from rlvr_trl.testbed import build_model
from rlvr_trl.trainer.batch_watch import BatchWatch


OURS = "signal in groups|counts as correct|trained nothing|beyond the model's context|two BOS|1 process in this run"


@contextmanager
def warned(*patterns):
    """Exactly these warnings come, of those that this file is about, in this order."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    messages = [str(warning.message) for warning in caught]
    ours = [message for message in messages if any(part in message for part in OURS.split("|"))]
    assert len(ours) == len(patterns), ours
    for pattern, message in zip(patterns, ours, strict=True):
        for part in pattern.split("*"):
            assert part in message, message


# --- an estimator without a signal at this group size ---


def test_pass_at_k_of_whole_groups_warns_on_every_path(cpu_settings, mazes, tokenizer):
    found = "PassAtK(k=4*at least 5*`num_generations`=4: every advantage is always 0*Raise `num_generations` to 5"
    with warned(found):
        build(RLVRTrainer, cpu_settings, mazes, tokenizer, advantages=PassAtK(4))
    with warned(found):
        build(RLVRTrainer, cpu_settings | {"advantages": {"name": "pass_at_k", "k": 4}}, mazes, tokenizer)
    with warned(found):
        build(RLVRTrainer, cpu_settings | {"advantages": '{"name": "pass_at_k", "k": 4}'}, mazes, tokenizer)
    with warned(found):
        build(PassAtKTrainer, cpu_settings | {"k": 4}, mazes, tokenizer)
    with warned("AGRAE(base=PassAtK(k=4*at least 5"):
        build(RLVRTrainer, cpu_settings, mazes, tokenizer, advantages=AGRAE(PassAtK(4)))
    with warned("'full_sampling'*at least 6*`num_generations`=4"):
        build(RLVRTrainer, cpu_settings, mazes, tokenizer, advantages=PassAtK(3, "full_sampling"))


def test_a_stage_of_a_schedule_without_a_signal_warns(cpu_settings, mazes, tokenizer):
    with warned("PassAtK(k=4*, a part of Scheduled(*nothing is trained where it is in use"):
        build(PassAtKTrainer, cpu_settings | {"k_schedule": {0: 4, 0.5: 1}}, mazes, tokenizer)
    nested = AGRAE(Scheduled([(0, GroupRelative()), (0.5, PassAtK(4)), (0.8, PassAtK(3, "full_sampling"))]))
    with warned("PassAtK(k=4*a part of AGRAE(", "PassAtK(k=3*at least 6"):
        build(RLVRTrainer, cpu_settings, mazes, tokenizer, advantages=nested)


def test_prompts_that_get_pass_at_k_of_whole_groups_warn(cpu_settings, mazes, tokenizer):
    with warned("PassAtK(k=4*, a part of AdaptivePassAtK(k=4)*nothing is trained where it is in use"):
        build(RLVRTrainer, cpu_settings, mazes, tokenizer, advantages=AdaptivePassAtK(4))


def test_with_extra_completions_only_prompts_without_them_train_nothing(cpu_settings, mazes, tokenizer):
    part = "PassAtK(k=4*`num_generations`=4: a prompt that gets no extra completions*trains nothing"
    with warned(part):
        build(DARSTrainer, cpu_settings, mazes, tokenizer, advantages=PassAtK(4))
    with warned(part):  # the one is in `args`, the other is not
        settings = cpu_settings | {"advantages": {"name": "pass_at_k", "k": 4}}
        build(RLVRTrainer, settings, mazes, tokenizer, rollouts=DARS(max_generations=8))
    with warned("`num_generations`=4 and `max_generations`=4: every advantage is always 0"):
        build(RLVRTrainer, cpu_settings, mazes, tokenizer, advantages=PassAtK(4), rollouts=DARS(max_generations=4))


@pytest.mark.parametrize(
    "advantages",
    [
        None,
        GroupRelative(),
        PassAtK(3),
        PassAtK(2, "full_sampling"),
        CombinedPassAtK(4),
        AGRAE(PassAtK(3)),
        lambda g: g,
    ],
)
def test_estimators_with_a_signal_are_not_warned_of(cpu_settings, mazes, tokenizer, advantages):
    with warned():
        build(RLVRTrainer, cpu_settings, mazes, tokenizer, advantages=advantages)
        build(DARSTrainer, cpu_settings, mazes, tokenizer, advantages=advantages)


# --- batches without a correct completion, or without an advantage ---


def watch(**settings):
    defaults = {
        "correctness_reward": "mine",
        "correctness_threshold": 0.5,
        "advantages": GroupRelative(),
        "context": 100,
        "max_completion_length": 20,
        "bos_token_id": 1,
        "is_main": True,
    }
    return BatchWatch(**defaults | settings)


def see(watch, rewards, batches=1, prompts=10, advantages=None):
    """The same rewards of 4 completions for every prompt."""
    rewards = torch.tensor(rewards, dtype=torch.float32).repeat(prompts)
    groups = RolloutGroups(rewards, torch.arange(prompts).repeat_interleave(4), judged=~rewards.isnan())
    for _ in range(batches):
        watch.see_batch(groups, GroupRelative()(groups) if advantages is None else advantages, rewards)


def test_rewards_that_vary_below_the_threshold_warn_once():
    mine = watch()
    with warned():
        see(mine, [0.1, 0.4, 0.3, 0.1], batches=4)
    with warned("'mine' were between 0.1 and 0.5 in the first 5 batches, 50 prompts*`correctness_threshold`=0.5"):
        see(mine, [0.1, 0.5, 0.3, 0.1], batches=20)


@pytest.mark.parametrize("rewards", [[0.0, 0.0, 0.0, 0.0], [0.1, 0.4, 0.3, 0.6], [float("nan")] * 4])
def test_rewards_above_the_threshold_or_all_the_same_are_no_such_case(rewards):
    mine = watch()
    mine.open = {"no completion is correct"}
    with warned():
        see(mine, rewards, batches=9)


def test_one_correct_completion_in_the_run_is_enough():
    mine = watch()
    with warned():
        see(mine, [0.1, 0.4, 0.3, 0.6])
        see(mine, [0.1, 0.4, 0.3, 0.1], batches=20)


@pytest.mark.parametrize(
    ("rewards", "shares", "advice"),
    [
        ([0.0] * 4, "100% of the prompts were all wrong, of 0% all right, of 0% mixed; 0% of", "easier prompts"),
        ([1.0] * 4, "0% of the prompts were all wrong, of 100% all right", "`filter_by_pass_rate`"),
        ([float("nan")] * 4, "of 0% mixed; 100% of the prompts had no completion that could be judged", "None"),
    ],
)
def test_batches_without_an_advantage_warn_once_with_their_shares(rewards, shares, advice):
    mine = watch()
    with warned():
        see(mine, [1.0, 0.0, 0.0, 1.0])
        see(mine, rewards, batches=4)
        see(mine, [1.0, 0.0, 0.0, 1.0])  # the count begins anew
        see(mine, rewards, batches=4)
    with warned(f"last 5 batches, 50 prompts had the advantage 0*{shares}*{advice}"):
        see(mine, rewards, batches=20)


def test_mixed_groups_without_an_advantage_point_at_the_estimator():
    with warned("of 100% mixed*mixed, but PassAtK(k=4"):
        see(watch(advantages=PassAtK(4)), [1.0, 0.0, 0.0, 1.0], batches=9, advantages=torch.zeros(40))


def test_batches_of_few_prompts_say_nothing_until_there_are_enough():
    mine = watch()
    with warned():
        see(mine, [0.0] * 4, batches=49, prompts=1)
    with warned("last 50 batches, 50 prompts"):
        see(mine, [0.0] * 4, prompts=1)


def test_only_the_main_process_warns_and_what_was_said_is_said():
    with warned():
        see(watch(is_main=False), [0.0] * 4, batches=9)
    first, resumed = watch(), watch()
    with warned("advantage 0"):
        see(first, [0.0] * 4, batches=9)
    resumed.load_state_dict(first.state_dict())
    with warned():
        see(resumed, [0.0] * 4, batches=9)
    with warned("counts as correct"):  # which has not been said
        see(resumed, [0.1, 0.4, 0.3, 0.1], batches=9)


def tenth(completions, **kwargs):
    return [reward / 10 for reward in share_of_right_moves(completions)]


def never(completions, **kwargs):
    return [0.0] * len(completions)


def test_a_run_warns_once_and_not_again_when_it_is_resumed(cpu_settings, mazes, tokenizer, tmp_path):
    many = {"num_generations": 2, "per_device_train_batch_size": 24, "max_completion_length": 2}  # 12 prompts a batch
    settings = cpu_settings | many | {"save_strategy": "steps", "save_steps": 6, "max_steps": 6}
    with warned("'tenth' were between 0 and 0.05*first 5 batches, 60 prompts"):
        trained(RLVRTrainer, settings, mazes, tokenizer, tenth)
    with warned():
        longer = {"max_steps": 12, "resume_with_changes": ["max_steps"]}
        again = build(RLVRTrainer, settings | longer, mazes, tokenizer, tenth)
        again.train(resume_from_checkpoint=True)
    settings |= {"output_dir": str(tmp_path / "other")}
    with warned("last 5 batches, 60 prompts had the advantage 0*100% of the prompts were all wrong"):
        trained(DARSTrainer, settings | {"max_generations": 3}, mazes, tokenizer, never)


# --- several processes that are one ---


LONE = """
import sys, warnings
from accelerate import PartialState
from rlvr_trl.distributed import warn_of_lone_process
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    warn_of_lone_process(PartialState(cpu="--gpu" not in sys.argv).num_processes)
sys.stdout.write(f"<{[str(warning.message) for warning in caught]}>")
"""
ACCELERATE = ("accelerate.commands.launch",)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a script with a launcher. Returns what each process of it was warned of."""
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", *PROCESSES_STARTED):
        monkeypatch.delenv(name, raising=False)
    script = tmp_path / "lone.py"
    script.write_text(LONE)

    def run(*launcher, arguments=(), **env):
        command = [sys.executable, "-m", *launcher, str(script), *arguments]
        ended = subprocess.run(command, env=environment() | env, capture_output=True, text=True, timeout=180)
        assert ended.returncode == 0, ended.stderr[-3000:]
        return [part.split(">")[0] for part in ended.stdout.split("<")[1:]]

    return run


@pytest.mark.slow
def test_a_launcher_that_starts_one_process_of_two_is_noticed(start):
    [found] = start(*ACCELERATE, "--cpu", "--num_processes=2")
    assert "told to start several processes, but it started this one alone: there is 1 process" in found
    port = f"--main_process_port={free_port()}"
    both = start(*ACCELERATE, "--multi_gpu", "--num_processes=2", port, arguments=["--gpu"])
    assert len(both) == 2 and all("WORLD_SIZE=2" in found and "a run of its own" in found for found in both)


@pytest.mark.slow
def test_runs_that_are_what_was_asked_for_are_not_warned_of(start):
    assert start(*ACCELERATE, "--cpu", "--num_processes=1", MASTER_ADDR="10.0.0.1") == ["[]"]
    torchrun = ("torch.distributed.run", f"--master_port={free_port()}", "--nproc_per_node=2")
    assert start(*torchrun) == ["[]", "[]"]


def test_a_step_of_slurm_is_told_from_the_script_of_a_job(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with warned():
        warn_of_lone_process(1)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with warned():
        warn_of_lone_process(4)
    with warned("SLURM_STEP_NUM_TASKS=4 says that several processes were started*there is 1 process in this run"):
        warn_of_lone_process(1)


@pytest.mark.slow
def test_two_processes_warn_once(tmp_path):
    output = launch("warns.py", str(tmp_path), processes=2)
    for text in ("beyond the model's context of 16 tokens", "had the advantage 0"):
        assert output.count(text) == 1, output
    assert "The prompts of 40 of 40 completions" in output and "last 5 batches, 100 prompts" in output


def test_the_trainer_says_so(cpu_settings, mazes, tokenizer, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with warned("SLURM_STEP_NUM_TASKS=2*1 process in this run"):
        build(RLVRTrainer, cpu_settings, mazes, tokenizer)


# --- prompts beyond the context ---


def short_context(tokenizer, length):
    model = build_model(tokenizer, seed=0)
    model.config.max_position_embeddings = length
    return model


def test_prompts_beyond_the_context_warn_once_in_training(cpu_settings, mazes, tokenizer):
    longest = max(len(tokenizer(prompt)["input_ids"]) for prompt in mazes["prompt"])
    found = f"The prompts of * of 8 completions*context of {longest} tokens*`max_completion_length`=6: the longest"
    with warned(found):
        trained(RLVRTrainer, cpu_settings, mazes, tokenizer, model=short_context(tokenizer, longest))
    with warned(found):
        settings = cpu_settings | {"max_generations": 6}
        trained(DARSTrainer, settings, mazes, tokenizer, model=short_context(tokenizer, longest))
    with warned():
        trained(RLVRTrainer, cpu_settings, mazes, tokenizer, model=short_context(tokenizer, longest + 6))


def test_the_context_is_what_the_configuration_says():
    assert context_of(Qwen2Config(max_position_embeddings=77)) == 77
    assert context_of(MambaConfig()) is None
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1e6}
    assert context_of(Qwen2Config(max_position_embeddings=32768, rope_parameters=yarn)) == 131072  # Qwen's card
    llama = yarn | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert context_of(LlamaConfig(max_position_embeddings=131072, rope_parameters=llama)) == 131072


PROBLEMS = [{"prompt": prompt} for prompt in ("1+1=", "22+22=", "1+1+1+1+1+1+1=")]


def any_digit(completions, **kwargs):
    return [float(any(letter.isdigit() for letter in completion)) for completion in completions]


def test_prompts_beyond_the_context_are_counted_in_an_evaluation(tmp_path):
    model, options = tiny_model(), {"num_samples": 2, "max_new_tokens": 4, "progress": False}
    model.config.max_position_embeddings = 12
    with warned("1 of 3 prompts reach beyond the model's context of 12 tokens*max_new_tokens=4*has 14 tokens"):
        result = evaluate(model, tiny_tokenizer(), PROBLEMS, any_digit, output_dir=tmp_path / "a", **options)
    saved = json.loads((tmp_path / "a" / "results.json").read_text())
    assert result.num_beyond_context == saved["num_beyond_context"] == 1
    assert rescore(tmp_path / "a", any_digit).num_beyond_context == 1
    table = result_tables({"benchmarks": {"sums": saved}, "overall": saved})[1]
    assert table.caption == "prompts that reach beyond the context of the model: sums 1"
    model.config.max_position_embeddings = 18
    with warned():
        result = evaluate(model, tiny_tokenizer(), PROBLEMS, any_digit, **options)
    assert result.num_beyond_context == 0
    assert result_tables({"benchmarks": {"sums": result.to_dict()}})[1].caption is None


class Cuts:
    """An engine that sees no tokens, such as a server, and cuts completions of one problem at `limit`."""

    def __init__(self, limit):
        self.limit = limit

    def check(self, prompts):
        pass

    def describe(self):
        return {"engine": "cuts"}

    def sample(self, prompts, requests, settings):
        for problem, sample in requests:
            length = self.limit if problem == 1 else 3
            yield [Sample(problem, sample, "1", None, length, truncated=problem == 1, entropy=None)]


def test_what_a_server_cuts_before_the_limit_is_counted():
    options = {"num_samples": 2, "max_new_tokens": 9, "progress": False}
    with pytest.warns(UserWarning, match="1 of 3 problems have completions that were cut off before max_new_tokens=9"):
        result = evaluate_engine(Cuts(limit=5), PROBLEMS, any_digit, **options)
    assert result.num_beyond_context == result.to_dict()["num_beyond_context"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = evaluate_engine(Cuts(limit=9), PROBLEMS, any_digit, **options)
    assert result.num_beyond_context is None  # not known


# --- two BOS tokens ---


def adds_bos(tokenizer):
    """The tokenizer, which now writes BOS before every text, and has a chat template that writes it as well."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    bos = ("<s>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[bos])
    tokenizer.chat_template = "<s>{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


def test_a_text_with_bos_and_a_tokenizer_that_adds_one_warn_in_training(cpu_settings, mazes, tokenizer):
    tokenizer, texts = adds_bos(tokenizer), mazes["prompt"]
    assert tokenizer(f"<s>{texts[0]}")["input_ids"][:2] == [tokenizer.bos_token_id] * 2

    def train_on(prompts):
        rows = Dataset.from_dict({"prompt": prompts})
        trained(RLVRTrainer, cpu_settings, rows, tokenizer, lambda completions, **_: [0.0, 1.0] * 4)

    with warned("The prompts of 8 of 8 completions begin with two BOS tokens"):
        conversations = [[{"role": "user", "content": text}] for text in texts]
        train_on([tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations])
    with warned():
        train_on(texts)
        train_on(conversations)


def test_a_text_with_bos_and_a_tokenizer_that_adds_one_warn_in_an_evaluation():
    tokenizer, options = adds_bos(tiny_tokenizer()), {"num_samples": 1, "max_new_tokens": 2, "progress": False}
    with warned("1 of 2 prompts begin with two BOS tokens"):
        evaluate(tiny_model(), tokenizer, [{"prompt": "<s>1+1="}, {"prompt": "2+2="}], any_or_none, **options)
    with warned():
        chat = [{"role": "user", "content": "1+1="}]
        evaluate(tiny_model(), tokenizer, [{"prompt": chat}], any_or_none, **options)
        evaluate(tiny_model(), tiny_tokenizer(), [{"prompt": "<s>1+1="}], any_or_none, **options)


def any_or_none(completions, **kwargs):
    return [1.0] * len(completions)


# --- PassAtKCallback looks at its own prompts ---


@pytest.mark.parametrize("trainer_class", [RLVRTrainer, GRPOTrainer])
def test_the_prompts_of_the_callback_are_looked_at_once(cpu_settings, mazes, tokenizer, trainer_class):
    lengths = [len(tokenizer(prompt)["input_ids"]) for prompt in mazes["prompt"]]
    model = short_context(tokenizer, max(lengths) + 6)
    trainer = build(trainer_class, cpu_settings, mazes, tokenizer, model=model)
    rows = [{"prompt": mazes[0]["prompt"] * 2}, {"prompt": mazes[1]["prompt"]}]
    callback = PassAtKCallback(trainer, rows, num_samples=2, every=1, reward_func=right_moves)
    trainer.add_callback(callback)
    with warned("PassAtKCallback: 1 of 2 prompts reach beyond"):
        trainer.train()
    assert callback.latest.num_beyond_context == 1 and len(callback.history) == 3


# --- metrics without a value ---


class Logged(TrainerCallback):
    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(dict(logs))


def sometimes_none(completions, **kwargs):
    return [None] * len(completions)


def test_metrics_without_a_value_are_left_out_of_the_log(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {"max_generations": 6, "max_steps": 3, "eval_strategy": "steps", "eval_steps": 2}
    rewards = [right_moves, sometimes_none]
    trainer = build(DARSTrainer, settings, mazes, tokenizer, rewards, eval_dataset=mazes.select(range(2)))
    logged = Logged()
    trainer.add_callback(logged)
    trainer.add_callback(PassAtKCallback(trainer, mazes.select(range(3)), num_samples=2))
    trainer.train()
    assert len(logged.logs) >= 6
    for logs in [*logged.logs, *trainer.state.log_history]:
        assert all(isinstance(value, (int, float)) and value == value for value in logs.values()), logs
    training = [logs for logs in logged.logs if "rollouts/extra" in logs]
    assert len(training) == 3 and all("rewards/right_moves/mean" in logs for logs in training)
    assert not any("rewards/sometimes_none/mean" in logs for logs in logged.logs)
    buckets = [sum(name.startswith("rollouts/per_prompt/accuracy") for name in logs) for logs in training]
    assert all(1 <= count <= 2 for count in buckets), buckets  # of 6, with 2 prompts a batch


def test_stock_trl_logs_none_there(cpu_settings, mazes, tokenizer):
    """Otherwise the part of `log` that leaves them out could go."""
    rewards = [right_moves, sometimes_none]
    stock = trained(GRPOTrainer, cpu_settings | {"max_steps": 1}, mazes, tokenizer, rewards)
    assert stock.state.log_history[0]["rewards/sometimes_none/mean"] is None
