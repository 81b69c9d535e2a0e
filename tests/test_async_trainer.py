"""The asynchronous trainer: its loop in a thread with made-up turns, its accounts, its gradient, and how it fails."""

import asyncio
import functools
import math
import multiprocessing
import os
import queue
import random
import re
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from launching import on_processes, run_script
from packed_steps import gradient_row_by_row, put_into, random_groups
from scripted_sampler import (
    ChildTrainer,
    FailsLater,
    ThreadTrainer,
    ThreadWorker,
    TurnsWithoutServer,
    VirtualTime,
    build_async,
    is_right,
    moves_of,
    right_by_chance,
    save_maze_model,
    settings_of_async,
    without_gpu,
)
from tiny_training import flat_gradient, flat_weights
from transformers import AutoModelForCausalLM, TrainerCallback
from trl.trainer.utils import RepeatSampler

from rlvr_trl import AsyncRLVRConfig, AsyncRLVRTrainer, RLVRConfig
from rlvr_trl.advantages import AGRAE, GroupRelative, PassAtK, PositiveNegativeReinforce, RolloutGroups
from rlvr_trl.async_trainer.packed_step import pack_passes, plan_packed_passes, samples_of
from rlvr_trl.async_trainer.prompt_feed import PromptFeed
from rlvr_trl.async_trainer.prompt_worker import (
    Exchange,
    PlainCompletions,
    PromptGroup,
    PromptOrder,
    Sampling,
    StopSignal,
)
from rlvr_trl.rollouts import (
    DARS,
    DynamicSampling,
    KnapsackAllocator,
    PredictedDARS,
    PromptSource,
    ReinforceAda,
    SkipSolved,
    hardness_weighted,
)
from rlvr_trl.testbed import build_tokenizer
from rlvr_trl.trainer.checkpoint import is_complete, last_complete_checkpoint
from rlvr_trl.trainer.vllm_watchdog import POLL as POLL_OF_SERVER


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_maze_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def cpu(monkeypatch):
    PartialState(cpu=True)
    without_gpu(monkeypatch.setattr)


# --- rewards, at the top of a module as they must be ---


def graded(completions, **kwargs):
    return [len(each) / 10 for each in completions]


async def right_in_time(completions, **kwargs):
    return right_by_chance(completions)


def raises(completions, **kwargs):
    raise KeyError("no answer")


def too_few(completions, **kwargs):
    return [0.0]


def nothing_known(completions, **kwargs):
    return [None] * len(completions)


# --- the loop, in virtual time ---


class InVirtualTime(TurnsWithoutServer):
    seconds = (0.5, 5.0)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._loop.close()
        self._loop = VirtualTime()


def loop_worker(mazes, sampling, reward, slots=16):
    return ThreadWorker(
        sampling=sampling,
        model_name="none",
        dataset=mazes,
        reward_funcs=[reward],
        processing_class=build_tokenizer(),
        eos_token_ids=[build_tokenizer().eos_token_id],
        max_inflight_tasks=slots,
        vllm_server_url="http://127.0.0.1:9",
    )


def sample_prompts(
    mazes,
    count,
    *,
    rollouts=None,
    reward=right_in_time,
    num_generations=4,
    slots=16,
    seed=0,
    prepare=lambda exchange: None,
    arrived=lambda group, now: None,
):
    """`count` groups from the loop alone, without a trainer, and the loop."""
    sampling = Sampling(num_generations, rollouts, 0, 0.5, reward_timeout=60.0, orders_ahead=0)
    exchange = Exchange(None, sampling)
    orders = PromptSource(len(mazes), shuffle=True, seed=seed).take(len(mazes)).tolist()
    for ticket in range(count + 2 * slots):
        exchange.orders.put(PromptOrder(ticket, orders[ticket % len(orders)], seed=ticket))
    worker = loop_worker(mazes, sampling, reward, slots)
    loop = InVirtualTime(
        **worker._loop_kwargs,
        **{"rollout_buffer": exchange, "model_version_value": worker._model_version_value},
        **{"heartbeat_value": worker._heartbeat_value, "failed_event": worker._failed_event},
        **{"exception_info_queue": worker._exception_info_queue, "metrics_queue": queue.Queue()},
    )
    loop.rng.seed(seed)
    groups = []

    def put(group):
        groups.append(group)
        arrived(group, loop._loop.time())
        if len(groups) == count:
            loop._count(0)
            loop.at_end = loop.busy, loop._loop.time()  # slots × seconds, seconds
            loop._stop_event.set()

    exchange.put_nowait, exchange.qsize = put, lambda: 0
    prepare(exchange)
    loop.run()
    return groups, loop


@pytest.mark.parametrize("rollouts", [None, DARS("hardness_weighted", 12), ReinforceAda(16, 4, positives=1)])
def test_the_loop_samples_whole_groups_and_keeps_its_slots_busy(cpu, mazes, rollouts):
    groups, loop = sample_prompts(mazes, 100, rollouts=rollouts)
    tickets = [group.order.ticket for group in groups]
    assert len(set(tickets)) == 100 and tickets != sorted(tickets)  # short prompts overtake long ones
    tokenizer, sizes = build_tokenizer(), Counter()
    for group in groups:
        row = mazes[group.order.row]
        assert group.prompt == row["prompt"]
        own = moves_of(tokenizer(row["prompt"])["input_ids"])
        assert all(completion.startswith(own) for completion in group.completions)
        right = [is_right(completion) for completion in group.completions]
        assert group.rewards_per_func[:, 0].tolist() == [float(each) for each in right]
        assert group.lengths.tolist() == [len(completion) + 1 for completion in group.completions]
        assert not group.truncated.any()
        for (sequence,), completion in zip(group.sequences, group.completions, strict=True):
            ids = zip(sequence.input_ids, sequence.completion_mask, strict=True)
            trained = [token for token, in_loss in ids if in_loss]
            assert tokenizer.decode(sequence.input_ids[: -len(trained)]) == row["prompt"]
            assert tokenizer.decode(trained, skip_special_tokens=True) == completion
            assert len(sequence.old_log_probs) == len(sequence.input_ids)
        sizes[len(group)] += 1
        assert group.stages.tolist() == stages_expected(rollouts, right)
    assert (len(sizes) > 1) == (rollouts is not None)
    busy, seconds = loop.at_end
    share = busy / (16 * seconds)
    print(f"{share:.4f} of the slots busy over {seconds:.0f} virtual seconds")
    assert share >= 0.95


def stages_expected(rollouts, right) -> list[int]:
    """The stage of each completion of a group, by the formulas."""
    stages = [1] * 4
    while rollouts is not None:
        judged, correct = torch.tensor([len(stages)]), torch.tensor([sum(right[: len(stages)])])
        if isinstance(rollouts, DARS):
            extra = int(hardness_weighted(correct, judged, 12)) if stages[-1] == 1 else 0
        else:
            extra = 0 if correct > 0 else min(4, 16 - len(stages))
        if extra == 0:
            break
        stages += [stages[-1] + 1] * extra
    return stages


def test_slots_stay_free_while_no_prompt_is_ordered(cpu, mazes):
    """The second half of the prompts is ordered long after the first half is done."""
    times = {}

    def ordered_later(exchange):
        later = [exchange.orders.get_nowait() for _ in range(exchange.orders.qsize())]
        usual = exchange.next_order

        def next_order():
            now = asyncio.get_running_loop().time()
            while later and (later[0].ticket < 5 or now > 100):
                exchange.orders.put(later.pop(0))
            return usual()

        exchange.next_order = next_order

    def arrived(group, now):
        times[group.order.ticket] = now

    groups, _ = sample_prompts(
        mazes, 10, rollouts=DARS("hardness_weighted", 12), prepare=ordered_later, arrived=arrived
    )
    assert sorted(times) == sorted(group.order.ticket for group in groups) and len(groups) == 10
    early, late = ([time for ticket, time in times.items() if (ticket < 5) == is_early] for is_early in (True, False))
    assert len(early) == 5 and max(early) < 60 and min(late) > 100


def test_the_heart_beats_while_there_is_nothing_to_do_but_to_score(cpu, mazes, monkeypatch):
    beats, loops = [], []

    class Known(InVirtualTime):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            loops.append(self)

    async def slow(completions, **kwargs):
        await asyncio.sleep(500)  # until all is sampled that is ordered
        loops[0]._heartbeat_value.value = 0.0
        await asyncio.sleep(5)
        beats.append(loops[0]._heartbeat_value.value)
        return [1.0 for _ in completions]

    monkeypatch.setattr(sys.modules[__name__], "InVirtualTime", Known)
    sample_prompts(mazes, 1, reward=slow, slots=4)
    assert beats[0] > 0


def test_rewards_see_a_stage_of_a_prompt_at_once(cpu, mazes):
    seen = []

    async def reward(completions, prompts, maze, path_length, completion_ids, log_extra, log_metric, **kwargs):
        log_extra("extracted_answer", completions)
        log_metric("tries", 1.0)
        assert len(set(prompts)) == len(set(maze)) == 1 and len(completion_ids) == len(path_length) == len(prompts)
        assert kwargs.keys() <= {"size", "shortest_path"}
        seen.append(len(completions))
        return right_by_chance(completions)

    groups, _ = sample_prompts(mazes, 50, rollouts=DARS("equal_treatment", 12), reward=reward)
    of_stages = Counter(count for group in groups for count in Counter(group.stages.tolist()).values())
    assert of_stages - Counter(seen) == Counter() and len(of_stages) > 2


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (raises, "The reward function 'raises' raised KeyError: 'no answer'"),
        (too_few, "The reward function 'too_few' returned 1 rewards, but 4 were expected"),
    ],
)
def test_a_reward_that_fails_ends_the_loop_by_name(cpu, mazes, reward, message):
    with pytest.raises((RuntimeError, ValueError), match=message):
        sample_prompts(mazes, 5, reward=reward)


class HalfWay:
    """An allocator whose counts say what progress and batch it was asked with."""

    max_generations = 40
    asked = None

    def start_batch(self, progress):
        self.progress = progress

    def __call__(self, stage, num_samples, num_correct, num_judged):
        assert num_samples.shape == num_correct.shape == num_judged.shape == (1,)
        return torch.tensor([round(self.progress * 10) if stage == 1 else 0])

    def state_dict(self):
        return {"progress": self.progress}

    def load_state_dict(self, state):
        self.progress = state["progress"]


def test_an_allocator_is_asked_with_the_progress_of_the_prompt(cpu, mazes, monkeypatch):
    made = PromptOrder
    monkeypatch.setattr(
        "test_async_trainer.PromptOrder", lambda ticket, row, seed: made(ticket, row, 0, seed, ticket % 7 / 10)
    )
    groups, _ = sample_prompts(mazes, 60, rollouts=HalfWay())
    assert {len(group) for group in groups} == set(range(4, 11))
    assert all(len(group) == 4 + group.order.ticket % 7 for group in groups)


class Bad(HalfWay):
    def __call__(self, stage, num_samples, num_correct, num_judged):
        return torch.tensor([-1])


def test_an_answer_of_an_allocator_is_checked(cpu, mazes):
    with pytest.raises(ValueError, match="must return one non-negative integer per prompt"):
        sample_prompts(mazes, 5, rollouts=Bad())


# --- prompts as texts and as conversations ---

TEMPLATE = "{% for m in messages %}S{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}.{% endif %}"


def test_conversations_with_a_template_that_trl_does_not_know(cpu, mazes, monkeypatch):
    chats = mazes.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TEMPLATE
    monkeypatch.setattr("test_async_trainer.build_tokenizer", lambda: tokenizer)
    seen = []

    async def reward(completions, prompts, **kwargs):
        seen.extend(zip(prompts, completions, strict=True))
        return [0.0] * len(completions)

    groups, _ = sample_prompts(chats, 20, reward=reward)
    assert all(prompt[0]["role"] == "user" and answer[0]["role"] == "assistant" for prompt, answer in seen)
    for group in groups:
        prompt = mazes[group.order.row]["prompt"]
        ids = tokenizer(f"S{prompt}.")["input_ids"]
        assert all(sequence.input_ids[: len(ids)] == ids for (sequence,) in group.sequences)
        assert all(answer[0]["content"].startswith(moves_of(ids)) for answer in group.completions)


def test_completions_are_those_that_a_synchronous_trainer_decodes():
    """With a template that TRL knows, its asynchronous worker would take the thoughts out of the content."""
    tokenizer = build_tokenizer()
    plain = PlainCompletions(tokenizer, is_text=True)
    ids = tokenizer("UD<answer>LR</answer>")["input_ids"] + [tokenizer.eos_token_id]
    assert plain.parse_response(ids, prefix=[], tools=None) == {
        "role": "assistant",
        "content": tokenizer.batch_decode([ids], skip_special_tokens=True)[0],
    }
    text = "S..E\n"
    assert plain.apply_chat_template([{"role": "user", "content": text}]) == tokenizer(text=[text])["input_ids"][0]
    assert plain.pad_token_id == tokenizer.pad_token_id


# --- the accounts ---


def group_of(order: PromptOrder, version: int, size: int = 2) -> PromptGroup:
    zeros = np.zeros(size)
    sequences, metrics = [[] for _ in range(size)], [{} for _ in range(size)]
    return PromptGroup(
        order, "", [""] * size, zeros[:, None], zeros + 1, zeros, zeros > 0, sequences, metrics, version
    )


def make_feed(rows=10, *, shuffle=True, prompts=3, most=9, attempts=2, visits=None, seed=0, **kwargs):
    sampling = Sampling(2, None, 0, 0.5, reward_timeout=60.0, orders_ahead=5)
    source = PromptSource(rows, shuffle=shuffle, seed=seed)
    return PromptFeed(
        Exchange(None, sampling),
        source,
        num_prompts=prompts,
        seed=seed,
        max_open=most,
        max_attempts=attempts,
        num_visits=visits,
        **kwargs,
    )


class FakeSampler(threading.Thread):
    """Finishes orders out of order, with the version of the weights at their beginning."""

    def __init__(self, feed, seed, in_work=4):
        super().__init__(daemon=True)
        self.feed, self.rng, self.in_work = feed, random.Random(seed), in_work
        self.version, self.ended, self.seen = 0, threading.Event(), []

    def run(self):
        work = []
        while not self.ended.is_set():
            while len(work) < self.in_work:
                try:
                    order = self.feed.exchange.orders.get(timeout=0.05)
                except queue.Empty:
                    break
                self.seen.append(order)
                work.append((order, self.version))
            if work:
                self.feed.exchange.groups.put(group_of(*work.pop(self.rng.randrange(len(work)))))


def run_steps(feed, seed, steps, staleness, settled=None):
    """Takes and settles steps, each with newer weights. Returns them and the sampler."""
    sampler, taken = FakeSampler(feed, seed), []
    feed.start()
    sampler.start()
    try:
        for _ in range(steps):
            groups = feed.take(sampler.version, staleness, lambda: None)
            assert all(sampler.version - group.model_version <= staleness for group in groups)
            taken.append(groups)
            feed.settle([group.order.ticket for group in groups])
            sampler.version += 1
            if not groups:
                break
    finally:
        sampler.ended.set()
        feed.close()
        sampler.join()
    return taken, sampler


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_each_visit_is_trained_on_once_or_counted_as_dropped(seed, staleness):
    draw = random.Random(seed)
    rows, prompts = draw.randint(5, 12), draw.randint(1, 4)
    visits = math.ceil(draw.uniform(0.5, 3) * rows)
    feed = make_feed(rows, prompts=prompts, most=prompts + draw.randint(0, 3), visits=visits, seed=seed)
    taken, _ = run_steps(feed, seed, 200, staleness)
    trained = [group.order for groups in taken for group in groups]
    tickets = [order.ticket for order in trained]
    assert len(tickets) == len(set(tickets)) and set(tickets).isdisjoint(feed._dropped)
    assert sorted([*tickets, *feed._dropped]) == list(range(visits))
    assert feed.num_left == 0 and feed.trained_tickets() == set(tickets) and feed.num_trained == len(tickets)
    # all but the last step have all their prompts; the rows are those of whole epochs
    sizes = [len(groups) for groups in taken[:-1]]
    assert sizes[:-1] == [prompts] * (len(sizes) - 1) and taken[-1] == []
    sampler = RepeatSampler(range(rows), 1, rows, seed=seed)
    expected = [row for _ in range(4) for row in sampler][:visits]
    assert all(order.row == expected[order.ticket] for order in trained)


def test_stale_prompts_are_sampled_again_and_then_dropped():
    feed = make_feed(4, prompts=2, attempts=3, shuffle=False)
    feed._allowance = 7
    for attempt in range(3):
        orders = [feed._next_order() for _ in range(2)]
        assert [(order.ticket, order.row, order.attempt) for order in orders] == [(0, 0, attempt), (1, 1, attempt)]
        feed._waiting = [group_of(order, version=attempt, size=5) for order in orders]
        with feed.lock:
            feed._return_stale(oldest=attempt + 1)
        assert feed._waiting == []
    assert feed._dropped == [0, 1] and feed._open == {}
    counts = feed.count_stale()
    assert counts == {"stale/groups_total": 6.0, "stale/completions_total": 30.0, "stale/groups_dropped_total": 2.0}
    assert set(feed.count_stale().values()) == {0.0}
    assert feed._next_order().ticket == 2


class Eager(threading.Thread):
    """Samples whatever is ordered at once, however long a step takes."""

    def __init__(self, feed):
        super().__init__(daemon=True)
        self.feed, self.version, self.ended = feed, 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.0005):
            self.sample()

    def sample(self):
        with self.feed.lock:
            while (order := self.feed._next_order()) is not None:
                self.feed._waiting.append(group_of(order, self.version))
            self.feed.lock.notify_all()


@pytest.mark.parametrize(("staleness", "sync_steps"), [(0, 1), (1, 1), (3, 1), (0, 3), (2, 3)])
def test_no_more_is_sampled_ahead_than_can_be_trained_on_in_time(staleness, sync_steps):
    feed, ages = make_feed(prompts=4, most=(staleness * sync_steps + 1) * 4, attempts=1), []
    sampler = Eager(feed)
    sampler.start()
    for step in range(1, 40):
        groups = feed.take(sampler.version, staleness, lambda: None)
        ages += [sampler.version - group.model_version for group in groups]
        sampler.sample()
        feed.settle([group.order.ticket for group in groups])
        sampler.sample()  # the weights are still the old ones
        sampler.version = step // sync_steps
    sampler.ended.set()
    sampler.join()
    assert set(feed.count_stale().values()) == {0.0} and feed._dropped == []
    assert max(ages) == staleness and len(ages) == 39 * 4


def test_a_resumed_run_samples_no_more_ahead_than_another_one(cpu):
    """It has more visits open than it may have in work, since the saved one trained on older groups."""
    saved = make_feed(300, prompts=16, most=9 * 16, visits=300)
    saved._allowance = 9 * 16
    Eager(saved).sample()
    feed = make_feed(300, prompts=4, most=8, attempts=1, visits=300)
    feed.load_state_dict(saved.state_dict())
    sampler, tickets = Eager(feed), []
    while groups := feed.take(sampler.version, 1, sampler.sample):
        sampler.sample()
        assert len(groups) + len(feed._waiting) <= 8
        tickets += [group.order.ticket for group in groups]
        feed.settle([group.order.ticket for group in groups])
        sampler.version += 1
    assert sorted(tickets) == list(range(300)) and feed._dropped == []


def test_the_oldest_groups_come_first_and_seeds_are_all_different():
    feed = make_feed(20, prompts=3, shuffle=False)
    feed._allowance = 9
    orders = [feed._next_order() for _ in range(9)]
    versions = [2, 0, 1, 1, 0, 2, 2, 1, 0]
    feed._waiting = [group_of(order, version) for order, version in zip(orders, versions, strict=True)]
    taken = [[group.order.ticket for group in feed.take(2, 2, lambda: None)] for _ in range(3)]
    assert taken == [[1, 4, 8], [2, 3, 7], [0, 5, 6]]
    again = replace(orders[0], attempt=1)
    feed._again.append(again)
    feed._allowance = 1
    seeds = [order.seed for order in [*orders, feed._next_order()]]
    assert len(set(seeds)) == 10


@pytest.mark.parametrize("seed", range(5))
def test_a_resumed_feed_orders_what_is_open_first(seed):
    feed = make_feed(7, prompts=2, visits=21, seed=seed)
    before, sampler = run_steps(feed, seed, 4, staleness=2)
    state = feed.state_dict()
    resumed = make_feed(7, prompts=2, visits=21, seed=seed)
    resumed.load_state_dict(state)
    assert resumed.num_trained == 8 and resumed.trained_tickets() == feed.trained_tickets()
    after, again = run_steps(resumed, seed + 100, 50, staleness=2)
    tickets = [group.order.ticket for groups in before + after for group in groups]
    assert sorted([*tickets, *resumed._dropped]) == list(range(21))
    open_before = sorted(ticket for ticket, _, _ in state["open"])
    assert [order.ticket for order in again.seen[: len(open_before)]] == open_before
    rows = {order.ticket: order.row for order in sampler.seen}
    assert all(rows[order.ticket] == order.row for order in again.seen if order.ticket in rows)


def test_visits_beyond_the_end_of_a_resumed_run_are_kept_for_one_with_more():
    feed = make_feed(12, prompts=3, visits=24)
    feed._allowance = 18
    Eager(feed).sample()
    feed.settle(range(9))
    assert max(feed._open) >= 12
    fewer = make_feed(12, prompts=3, most=9, visits=12)
    fewer.load_state_dict(feed.state_dict())
    middle, _ = run_steps(fewer, 1, 50, staleness=2)
    assert fewer.num_left == 0 and fewer.num_trained == 12
    more = make_feed(12, prompts=3, most=9, visits=36)
    more.load_state_dict(fewer.state_dict())
    after, _ = run_steps(more, 2, 50, staleness=2)
    tickets = [*range(9), *(group.order.ticket for groups in middle + after for group in groups)]
    assert sorted([*tickets, *more._dropped]) == list(range(36))


def test_what_a_thread_of_the_feed_raises_is_raised_by_the_training():
    def selection(choice):
        raise ZeroDivisionError("a selection of the user's")

    feed = make_feed(selection=selection, history="a history", places=np.arange(10))
    feed.start()
    with pytest.raises(ZeroDivisionError, match="of the user's"):
        feed.take(0, 0, lambda: None)
    feed.close()


def test_a_wait_ends_when_the_sampler_is_gone():
    def check():
        raise RuntimeError("gone")

    feed = make_feed()
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match="gone"):
        feed.take(0, 0, check)
    assert time.monotonic() - begin < 5


# --- from groups to gradient ---

STEPS = {
    "equal": ([4, 4, 4], GroupRelative("none")),
    "as DARS makes them": ([4, 9, 6, 4], GroupRelative("none")),
    "pass@k": ([4, 9, 6, 4], PassAtK(2)),
    "some left out": ([4, 9, 6, 4], PositiveNegativeReinforce(0.1, 1.0)),
    "one prompt": ([5], GroupRelative("none")),
    "single completions": ([1, 2, 1], GroupRelative("none")),
}


def prepared(trainer):
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # transformers sets this in its training loop
    trainer.get_train_dataloader()
    return trainer


def gradient_of_step(trainer, groups) -> torch.Tensor:
    put_into(trainer, groups)
    batch = trainer._next_step()
    trainer._feed.close()
    trainer.model.zero_grad()
    trainer.training_step(trainer.model, batch)
    return flat_gradient(trainer.model)


@pytest.mark.parametrize(("sizes", "estimator"), STEPS.values(), ids=STEPS)
def test_the_gradient_of_a_step_is_that_of_its_rows(cpu, tmp_path, model, mazes, sizes, estimator):
    groups = random_groups(len(sizes), sizes)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    expected = gradient_row_by_row(plain, groups, estimator, low=0.2, high=0.28, temperature=0.8)
    settings = {"prompts_per_update": len(sizes), "temperature": 0.8, "epsilon_high": 0.28}
    settings |= {"max_completion_length": 1}  # of what is not sampled here
    by_budget = [({"token_budget": 30}, groups), ({"token_budget": 512}, groups[::-1])]  # the order must not matter
    for passes, some in [*by_budget, ({"token_budget": 0, "per_device_train_batch_size": 3}, groups)]:
        arguments = {"advantages": estimator}
        trainer = build_async(model, graded, mazes, tmp_path, arguments=arguments, **settings | passes)
        found = gradient_of_step(prepared(trainer), some)
        print(f"{passes}: {(found - expected).norm() / expected.norm():.1e}")
        assert (found - expected).norm() <= 1e-5 * expected.norm() > 0, passes


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_passes_hold_every_sample_once_and_no_row_is_empty(seed, rows):
    rng = random.Random(seed)
    groups = random_groups(seed, [rng.randint(1, 9) for _ in range(rng.randint(1, 6))])
    samples = samples_of(groups, list(range(100)), [True] * 100)
    for max_tokens, max_samples in ((0, 1), (0, 4), (30, 0), (200, 0)):
        passes = plan_packed_passes(samples, rows, max_tokens=max_tokens, max_samples=max_samples)
        planned = [sample for each in passes for row in each for sample in row.samples]
        real = [id(sample) for sample in planned if any(sample is one for one in samples)]
        assert sorted(real) == sorted(map(id, samples))
        filler = [sample for sample in planned if id(sample) not in real]
        assert all(sample["advantage"] == 0 for sample in filler) and len(filler) < rows
        assert all(len(each) == rows and all(row.samples for row in each) for each in passes)
        if max_tokens:
            assert all(len(row.tokens) <= max_tokens for each in passes for row in each)
        else:
            assert all(len(row.samples) <= max_samples for each in passes for row in each)
        packed = pack_passes(passes, 77, pad_token_id=0, max_tokens=max_tokens, metrics=defaultdict(list))
        assert [batch["global_n_tokens"].tolist() for batch in packed] == [[77.0] * rows] * len(passes)
    with pytest.raises(ValueError, match=r"`token_budget`=3\. Raise it"):
        plan_packed_passes(samples, rows, max_tokens=3, max_samples=0)


def test_a_step_without_a_completion_in_the_loss_has_no_gradient(cpu, tmp_path, model, mazes):
    trainer = build_async(model, graded, mazes, tmp_path, arguments={"advantages": NoneInLoss()})
    assert gradient_of_step(prepared(trainer), random_groups(0, [3, 3, 3])).norm() == 0
    assert trainer._feed.num_trained == 3


class NoneInLoss:
    def __call__(self, groups):
        return groups.rewards

    def rows_in_loss(self, groups):
        return torch.zeros_like(groups.scored)


# --- training ---


def test_a_training_takes_whole_groups_of_so_many_prompts(cpu, tmp_path, model, mazes):
    class Recording(ThreadTrainer):
        def _estimate_step(self, groups):
            result = super()._estimate_step(groups)
            self.steps.append((groups, *result))
            return result

    seen = []

    def batch_level(groups: RolloutGroups):
        seen.append((groups.seed, groups.progress, groups.num_groups))
        return groups.rewards - groups.rewards.mean()

    trainer = build_async(
        *(model, right_by_chance, mazes, tmp_path, Recording),
        arguments={"advantages": batch_level, "rollouts": DARS("hardness_weighted", 10)},
        max_steps=5,
        seed=3,
    )
    trainer.steps, before = [], flat_weights(trainer.model).clone()
    trainer.train()
    tickets = [group.order.ticket for groups, *_ in trainer.steps for group in groups]
    assert [len(groups) for groups, *_ in trainer.steps] == [3] * 5 and len(set(tickets)) == 15
    assert trainer._trained_groups == set(tickets) == trainer._feed.trained_tickets()
    # the estimator is asked for the first stage and for all of it, with the seed and progress of the step
    assert seen == [(3 * 2**32 + step, step / 5, 3) for step in range(5) for _ in range(2)]
    for groups, advantages, in_loss in trainer.steps:
        rewards = torch.tensor([float(is_right(each)) for group in groups for each in group.completions])
        torch.testing.assert_close(advantages, rewards - rewards.mean())
        assert in_loss.all()
        for group in groups:
            right = [is_right(each) for each in group.completions]
            first = torch.tensor([sum(right[:4])])
            assert len(group) == 4 + int(hardness_weighted(first, torch.tensor([4]), 10))
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    for entry, (groups, advantages, _) in zip(logged, trainer.steps, strict=True):
        count = sum(map(len, groups))
        assert entry["batch/groups_per_step"] == 3 and round(entry["batch/samples_per_step"]) == count
        rewards = np.concatenate([group.rewards_per_func for group in groups])
        assert entry["rewards/right_by_chance/mean"] == pytest.approx(rewards.mean())
        assert entry["rollouts/per_prompt_mean"] == pytest.approx(count / 3)
        assert entry["advantages/frac_zero"] == pytest.approx((advantages == 0).float().mean().item())
        tokens = sum(int(group.lengths.sum()) for group in groups)
        assert entry["batch/trained_tokens_per_step"] == tokens
        assert not any(value != value for value in entry.values())
    assert [entry["epoch"] for entry in logged] == [pytest.approx(step * 3 / 24) for step in range(1, 6)]
    assert (flat_weights(trainer.model) != before).any()


def test_epochs_are_visits_that_were_trained_on(cpu, tmp_path, model, mazes):
    few = mazes.select(range(5))
    rows = Counter()

    class Counting(ThreadTrainer):
        def _estimate_step(self, groups):
            rows.update(group.order.row for group in groups)
            return super()._estimate_step(groups)

    trainer = build_async(
        *(model, right_by_chance, few, tmp_path, Counting), max_steps=-1, num_train_epochs=2, prompts_per_update=3
    )
    trainer.train()
    assert rows == Counter(dict.fromkeys(range(5), 2))
    assert trainer.state.global_step == 4 and trainer.state.epoch == 2 and trainer._feed.num_left == 0
    assert trainer.state.log_history[-2]["batch/groups_per_step"] == 1


@pytest.mark.parametrize("save_steps", [1, 100])
def test_a_run_that_gives_prompts_up_saves_its_last_step(cpu, tmp_path, model, mazes, save_steps):
    class Ahead(ThreadTrainer):
        """All that waits is stale after the first steps, and given up, so that there are fewer steps than planned."""

        def _sync_weight(self):
            super()._sync_weight()
            if self.state.global_step in (1, 2):
                self.model_version += 9
                self.rollout_worker.update_model_version(self.model_version)

    trainer = build_async(
        *(model, right_by_chance, mazes, tmp_path, Ahead),
        **{"max_steps": -1, "num_train_epochs": 1, "max_staleness": 3, "max_attempts": 1},
        **{"save_strategy": "steps", "save_steps": save_steps},
    )
    trainer.train()
    steps = trainer.state.global_step
    assert 0 < steps < trainer.state.max_steps == 8 and trainer._feed.num_left == 0
    assert Path(last_complete_checkpoint(tmp_path)).name == f"checkpoint-{steps}"


def test_a_resumed_run_trains_on_what_is_left(cpu, tmp_path, model, mazes):
    trained = []

    class Recording(ThreadTrainer):
        def _estimate_step(self, groups):
            trained.append([(group.order.ticket, group.order.row) for group in groups])
            return super()._estimate_step(groups)

    def build(steps):
        return build_async(
            *(model, right_by_chance, mazes, tmp_path, Recording),
            **{"max_steps": steps, "save_strategy": "steps", "save_steps": 2, "max_staleness": 2},
            **{"prompt_history": {}, "rollouts": {"name": "dars", "max_generations": 8}},
            resume_with_changes=["max_steps"],
        )

    first = build(4)
    first.train()
    assert is_complete(tmp_path / "checkpoint-2") and is_complete(tmp_path / "checkpoint-4")
    later = build(8)
    later.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    steps = trained[:2] + trained[4:]
    assert len(trained) == 4 + 6
    tickets = dict(visit for step in steps for visit in step)
    assert len(tickets) == 3 * 8 == len(later._trained_groups)
    order = PromptSource(24, shuffle=True, seed=42).take(24).tolist()
    assert all(row == order[ticket] for ticket, row in tickets.items() if ticket < 24)
    assert sorted(tickets)[:10] == list(range(10))  # none is left out
    assert later.model_version == 3 + 1 + 6  # of the checkpoint, of the start, and one for each step
    assert later.history.seen.sum() == 24 and later.rollouts.progress > 0.4
    with pytest.raises(RuntimeError, match="has trained before"):
        later.train()


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"num_train_epochs": 2}, 16),  # 48 visits, of which 9 are done in 3 steps
        ({"num_train_epochs": 0.5}, 4),
        ({"num_train_epochs": 0.25}, 3),
        ({"prompts_per_update": 5}, 6),
        ({"prompts_per_update": 2}, 3 + 8),
        ({"num_train_epochs": 1.5, "prompts_per_update": 9}, 6),
    ],
)
def test_a_run_is_resumed_with_other_epochs_or_steps(cpu, tmp_path, model, mazes, changes, steps):
    trained, total = [], math.ceil(24 * changes.get("num_train_epochs", 1))

    class Recording(ThreadTrainer):
        def _estimate_step(self, groups):
            trained.extend(group.order.ticket for group in groups)
            return super()._estimate_step(groups)

    def build(**changes):
        epochs = {"max_steps": -1, "num_train_epochs": 1, "save_strategy": "steps", "save_steps": 3}
        names = [*changes] or None
        return build_async(
            model, right_by_chance, mazes, tmp_path, Recording, **epochs | changes, resume_with_changes=names
        )

    build().train()
    del trained[9:]
    again = build(**changes)
    checkpoint = str(tmp_path / "checkpoint-3")
    with pytest.raises(ValueError, match=rf"(?s)other settings.*{next(iter(changes))}") as error:
        again.args.resume_with_changes = None
        again.train(checkpoint)
    assert "max_steps" not in str(error.value)
    later = build(**changes)
    later.train(checkpoint)
    assert later.state.global_step == later.state.max_steps == steps and later._feed.num_left == 0
    assert sorted(trained) == sorted({*trained}) and {*range(total)} <= {*trained}
    assert len(trained) == max(9, total)


@pytest.mark.parametrize("changes", [{"prompts_per_update": 2}, {"num_train_epochs": 2}])
def test_more_steps_change_the_schedule_from_the_next_one_on(cpu, tmp_path, model, mazes, changes):
    def build(**changes):
        epochs = {"max_steps": -1, "num_train_epochs": 1, "save_strategy": "steps", "save_steps": 3}
        settings = epochs | {"lr_scheduler_type": "linear"} | changes
        return build_async(model, right_by_chance, mazes, tmp_path, **settings, resume_with_changes=[*changes] or None)

    build().train()
    later = build(**changes)
    later.train(str(tmp_path / "checkpoint-3"))
    rates = {entry["step"]: entry["learning_rate"] for entry in later.state.log_history if "loss" in entry}
    steps = later.state.max_steps
    assert steps > 8 and all(rates[step] == pytest.approx(1e-3 * (1 - (step - 1) / steps)) for step in range(4, steps))


def test_a_checkpoint_of_another_trainer_is_refused(cpu, tmp_path, model, mazes):
    class WithoutAccounts(ThreadTrainer):
        def _save_rng_state(self, output_dir):
            super(AsyncRLVRTrainer, self)._save_rng_state(output_dir)

    trainer = build_async(
        model, right_by_chance, mazes, tmp_path, WithoutAccounts, save_strategy="steps", save_steps=3
    )
    trainer.train()
    again = build_async(model, right_by_chance, mazes, tmp_path, max_steps=5, resume_with_changes=["max_steps"])
    with pytest.raises(ValueError, match="was not saved by an AsyncRLVRTrainer"):
        again.train(resume_from_checkpoint=True)


def test_a_run_is_resumed_with_other_settings_only_where_it_says_so(cpu, tmp_path, model, mazes):
    def build(reward=right_by_chance, **settings):
        saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "lr_scheduler_type": "constant"}
        return build_async(model, reward, mazes, tmp_path, **saving | settings)

    build(learning_rate=1e-3).train()
    wider = {"prompts_per_update": 4, "rollouts": {"name": "dars", "max_generations": 8}, "max_inflight_tasks": 2}
    changed = build(right_in_time, learning_rate=1e-4, max_staleness=7, **wider)
    names = r"learning_rate.*max_staleness.*rollouts.*reward_funcs.*prompts_per_update"
    with pytest.raises(ValueError, match=rf"(?s)other settings than this one.*{names}") as error:
        changed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert "max_inflight_tasks" not in str(error.value)
    with pytest.raises(ValueError, match="names 'max_inflight_tasks', which is not compared.*prompts_per_update"):
        build(resume_with_changes=["max_inflight_tasks"])
    admitted = build(learning_rate=1e-4, resume_with_changes=["learning_rate"])
    admitted.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    rates = {row["step"]: row["learning_rate"] for row in admitted.state.log_history if "learning_rate" in row}
    assert rates == {1: 1e-3, 2: 1e-3, 3: 1e-4, 4: 1e-4}


def test_completions_are_printed_as_often_as_metrics(cpu, tmp_path, model, mazes, monkeypatch):
    printed, place = [], "rlvr_trl.async_trainer.async_rlvr_trainer.print_prompt_completions_sample"
    monkeypatch.setattr(place, lambda prompts, completions, rewards, advantages, step, count: printed.append(step))
    settings = {"log_completions": True, "logging_steps": 3, "max_steps": 7}
    build_async(model, right_by_chance, mazes, tmp_path, **settings).train()
    assert printed == [3, 6, 7]  # and after the training


def test_stale_groups_are_sampled_again_while_training(cpu, tmp_path, model, mazes):
    """The weights are far ahead of what was sampled, whatever the machine."""

    class Ahead(ThreadTrainer):
        def _sync_weight(self):
            super()._sync_weight()
            self.model_version += 3
            self.rollout_worker.update_model_version(self.model_version)

    trainer = build_async(
        *(model, right_by_chance, mazes, tmp_path, Ahead), max_steps=4, max_staleness=1, max_inflight_tasks=40
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 4 and all(entry["sample/staleness_max"] <= 1 for entry in logged)
    assert sum(entry["stale/groups_total"] for entry in logged) > 0
    assert sum(entry["stale/completions_total"] for entry in logged) % 4 == 0


def test_nothing_is_stale_by_default_where_sampling_outruns_training(cpu, tmp_path, model, mazes):
    class Slow(ThreadTrainer):
        def _sync_weight(self):
            time.sleep(0.3)
            super()._sync_weight()

    trainer = build_async(
        *(model, right_by_chance, mazes, tmp_path, Slow),
        **{"max_steps": 8, "max_staleness": 2, "max_inflight_tasks": -1, "max_attempts": 1},
    )
    assert trainer.args.max_inflight_tasks == 2 * 3 * 4
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert 0 < max(entry["sample/staleness_max"] for entry in logged) <= 2
    assert all(entry["stale/groups_total"] == 0 for entry in logged) and trainer._feed._dropped == []


@pytest.mark.parametrize(
    "selection", [SkipSolved(0.5, 1.0), {"name": "skip_solved", "threshold": 0.5, "skip_rate": 1}]
)
def test_prompts_are_chosen_by_what_is_known_of_them(cpu, tmp_path, model, mazes, selection):
    chosen = []

    class Recording(ThreadTrainer):
        def _estimate_step(self, groups):
            chosen.append([group.order.row for group in groups])
            return super()._estimate_step(groups)

    by_name = {"selection": selection} if isinstance(selection, dict) else {}
    arguments = {} if by_name else {"selection": selection}
    trainer = build_async(
        *(model, solved_by_size, mazes.select(range(12)), tmp_path, Recording),
        arguments=arguments,
        **by_name,
        **{"max_steps": 12, "max_inflight_tasks": 4, "shuffle_dataset": False},
    )
    trainer.train()
    solved = {row for row in range(12) if mazes[row]["path_length"] % 2}
    late = Counter(row for step in chosen[8:] for row in step)
    assert 0 < len(solved) < 12 and sum(late[row] for row in solved) < late.total() / 4
    assert trainer.history.seen.sum() == 36


def solved_by_size(completions, path_length, **kwargs):
    return [float(length % 2) for length in path_length]


def test_weights_of_rewards_and_the_reward_that_says_what_is_correct(cpu, tmp_path, model, mazes):
    seen = []

    def estimator(groups):
        seen.append(groups)
        return groups.rewards - 1

    trainer = build_async(
        *(model, [graded, right_by_chance], mazes, tmp_path),
        **{"max_steps": 1, "reward_weights": [0.25, 2.0], "correctness_reward": "right_by_chance"},
        **{"estimate_entropies": True},
        arguments={"advantages": estimator, "rollouts": ReinforceAda(12, 4)},
    )
    kept = []
    usual = trainer._estimate_step
    trainer._estimate_step = lambda groups: kept.extend(groups) or usual(groups)
    trainer.train()
    merged = seen[0]
    texts = [completion for group in kept for completion in group.completions]
    expected = [0.25 * len(text) / 10 + 2 * is_right(text) for text in texts]
    torch.testing.assert_close(merged.rewards, torch.tensor(expected))
    assert merged.correct.tolist() == [is_right(text) for text in texts]
    assert merged.lengths.tolist() == [len(text) + 1 for text in texts]
    means = [-sum(row.old_log_probs) / sum(row.completion_mask) for group in kept for (row,) in group.sequences]
    torch.testing.assert_close(merged.entropies, torch.tensor(means), rtol=1e-5, atol=1e-6)
    sizes = [len(group) for group in kept]
    assert sizes == [4 if any(map(is_right, group.completions[:4])) else len(group) for group in kept]


# --- several processes ---


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(cpu, tmp_path, model, mazes):
    alone = on_processes("async_gradients.py", str(tmp_path), model, processes=1)
    both = on_processes("async_gradients.py", str(tmp_path), model, processes=2)
    for ran in alone + both:
        assert ran.returncode == 0, ran.stderr
    expected = torch.load(tmp_path / "1-0.pt", weights_only=True)
    for index in range(2):
        found = torch.load(tmp_path / f"2-{index}.pt", weights_only=True)
        for gradient, other in zip(found["gradients"], expected["gradients"], strict=True):
            assert (gradient - other).norm() <= 1e-5 * other.norm()
        assert found["steps"] == 3  # of a training with made-up turns
    weights = [torch.load(tmp_path / f"2-{index}.pt", weights_only=True)["weights"] for index in range(2)]
    assert torch.equal(*weights)


# --- failures end, with their cause and a whole checkpoint ---

EARLIEST = 2  # the step in which something fails


def test_a_reward_that_raises_while_training(cpu, tmp_path, model, mazes):
    trainer = build_async(
        *(model, FailsLater(tmp_path / "fail"), mazes, tmp_path),
        **{"max_steps": 50, "save_strategy": "steps", "save_steps": 1},
        arguments={},
    )
    trainer.add_callback(At(EARLIEST, (tmp_path / "fail").touch))
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match="child has failed") as caught:
        trainer.train()
    assert "The reward function 'FailsLater' raised ZeroDivisionError: of the user's" in str(caught.value.__cause__)
    assert time.monotonic() - begin < 60
    assert Path(last_complete_checkpoint(tmp_path)).name >= f"checkpoint-{EARLIEST}"


class At(TrainerCallback):
    """Does something once after a step, and says when."""

    def __init__(self, step, action):
        self.step, self.action, self.time = step, action, None

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()
            self.time = time.monotonic()


def build_with_child(model, rewards, mazes, folder, **changes):
    settings = {"max_steps": 200, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2, **changes}
    return build_async(model, rewards, mazes, folder, ChildTrainer, **settings)


@pytest.mark.slow
def test_a_process_that_samples_and_is_killed(cpu, tmp_path, model, mazes):
    trainer = build_with_child(
        model, right_by_chance, mazes, tmp_path, rollouts={"name": "dars", "max_generations": 8}
    )
    killed = At(EARLIEST, lambda: os.kill(trainer.rollout_worker._process.pid, signal.SIGKILL))
    trainer.add_callback(killed)
    with pytest.raises(RuntimeError, match="samples has died with exit code -9.*resume_from_checkpoint=True"):
        trainer.train()
    seconds = time.monotonic() - killed.time
    print(f"ended {seconds:.1f} s after the kill")
    assert seconds < 20 and trainer.rollout_worker._process is None
    weights = AutoModelForCausalLM.from_pretrained(last_complete_checkpoint(tmp_path)).state_dict()
    assert all(value.isfinite().all() for value in weights.values())
    steps = trainer.state.global_step + 1
    resumed = build_async(
        *(model, right_by_chance, mazes, tmp_path),
        max_steps=steps,
        rollouts={"name": "dars", "max_generations": 8},
        resume_with_changes=["max_steps"],
    )
    resumed.train(resume_from_checkpoint=True)
    assert len(resumed._trained_groups) == 3 * steps == resumed._feed.num_trained


def test_the_reason_of_a_failure_may_come_after_it(cpu, mazes):
    """A queue between processes sends what is put into it in a thread of its own."""
    worker = loop_worker(mazes, Sampling(4, None, 0, 0.5, reward_timeout=60.0, orders_ahead=0), right_by_chance)
    worker._failed_event.set()
    late = threading.Timer(0.5, worker._exception_info_queue.put, [("ValueError", "too late", "its trace")])
    late.start()
    with pytest.raises(RuntimeError, match="child has failed") as caught:
        worker.check_health(60.0)
    assert str(caught.value.__cause__) == "ValueError: too late\nits trace"
    late.join()


@pytest.mark.slow
def test_a_process_that_samples_and_fails(cpu, tmp_path, model, mazes):
    trainer = build_with_child(model, FailsLater(tmp_path / "fail"), mazes, tmp_path)
    failed = At(EARLIEST, (tmp_path / "fail").touch)
    trainer.add_callback(failed)
    with pytest.raises(RuntimeError, match="child has failed") as caught:
        trainer.train()
    assert "FailsLater' raised ZeroDivisionError" in str(caught.value.__cause__)
    seconds = time.monotonic() - failed.time
    print(f"ended {seconds:.1f} s after the failure")
    assert seconds < 40


@pytest.mark.slow
def test_a_reward_that_does_not_return(cpu, tmp_path, model, mazes):
    trainer = build_with_child(model, FailsLater(tmp_path / "fail", hangs=True), mazes, tmp_path, reward_timeout=3.0)
    stuck = At(EARLIEST, (tmp_path / "fail").touch)
    trainer.add_callback(stuck)
    with pytest.raises(RuntimeError, match="samples has died with exit code 1"):
        trainer.train()
    seconds = time.monotonic() - stuck.time
    print(f"ended {seconds:.1f} s after a reward did not return")
    assert seconds < 3 + 40


@pytest.mark.slow
def test_a_process_that_samples_and_hangs(cpu, tmp_path, model, mazes):
    trainer = build_with_child(model, right_by_chance, mazes, tmp_path, heartbeat_stale_after_s=5)
    stopped = At(EARLIEST, lambda: os.kill(trainer.rollout_worker._process.pid, signal.SIGSTOP))
    trainer.add_callback(stopped)
    with pytest.raises(RuntimeError, match="heartbeat stale"):
        trainer.train()
    seconds = time.monotonic() - stopped.time
    print(f"ended {seconds:.1f} s after it was stopped")
    assert seconds < 5 + 40  # TRL waits 15 s for its end, then 5 s more, and kills it


@pytest.mark.slow
def test_a_whole_training_with_a_process_that_samples(cpu, tmp_path, model, mazes):
    trainer = build_with_child(
        model, right_by_chance, mazes, tmp_path, max_steps=4, rollouts={"name": "dars", "max_generations": 8}
    )
    trainer.train()
    assert trainer.state.global_step == 4 and trainer.rollout_worker._process is None
    assert len(trainer._trained_groups) == 12


@pytest.mark.slow
def test_a_server_that_goes_away(tmp_path, model):
    """In a process of its own, which the watch ends where it is too busy to raise the error in time."""
    ended = run_script("async_server_goes.py", str(tmp_path), model)
    url, gone = re.match(r"(\S+)\n(?:.*\n)*?gone at (\S+)\n", ended.stdout).groups()
    assert ended.returncode == 1, ended.stderr[-2000:]
    assert re.search(f"{url} has not answered for .* `vllm_server_timeout`=2", ended.stderr), ended.stderr[-2000:]
    seconds = time.time() - float(gone)
    print(f"ended {seconds:.1f} s after the server had gone")
    assert seconds < 2 + 2 * POLL_OF_SERVER + 30
    assert Path(last_complete_checkpoint(tmp_path)).exists()


def test_a_stop_signal_is_heard_and_needs_no_listener():
    context = multiprocessing.get_context("spawn")
    told = StopSignal(context)
    heard = threading.Thread(target=told.wait)
    heard.start()
    told.set()
    heard.join(5)
    assert not heard.is_alive()
    nobody = StopSignal(context)
    begin = time.monotonic()
    nobody.set()
    assert time.monotonic() - begin < 1
    orphan = StopSignal(context)
    heard = threading.Thread(target=orphan.wait)
    heard.start()
    orphan._writer.close()
    heard.join(5)
    assert not heard.is_alive()


# --- what is refused ---


def refuse(folder, model, mazes, match, rewards=right_by_chance, error=ValueError, arguments=None, **changes):
    with pytest.raises(error, match=match):
        build_async(model, rewards, mazes, folder, arguments=arguments, **changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"gradient_accumulation_steps": 2}, "`gradient_accumulation_steps`=2 must be 1"),
        ({"prompts_per_update": 0}, "`prompts_per_update` must be an integer of at least 1, got 0"),
        ({"num_generations": 0}, "`num_generations`"),
        ({"max_attempts": 0}, "`max_attempts`"),
        ({"max_staleness": -1}, "`max_staleness`"),
        ({"queue_maxsize": 2}, "`queue_maxsize`=2 has no effect here.*Remove it"),
        ({"vllm_server_base_url": "http://me:secret@host:8000"}, "`vllm_server_base_url` must be an address without"),
        ({"reward_timeout": 0}, "`reward_timeout` must be a positive number, got 0"),
        ({"max_inflight_tasks": 0}, "`max_inflight_tasks` must be an integer of at least 1"),
        ({"max_inflight_tasks": 2.5}, "`max_inflight_tasks` must be an integer of at least 1, got 2.5"),
        ({"weight_sync_steps": 0}, "`weight_sync_steps` must be an integer of at least 1"),
        ({"max_completion_length": -4}, "`max_completion_length` must be an integer of at least 1"),
        ({"temperature": 0}, "`temperature` must be a positive number, got 0"),
        ({"token_budget": math.nan}, "`token_budget` must be an integer of at least -1, got nan"),
        ({"heartbeat_stale_after_s": -1}, "`heartbeat_stale_after_s` must be a positive number, got -1"),
        ({"request_timeout": 0}, "`request_timeout` must be a positive number, got 0"),
        ({"top_p": 3}, "`top_p` must be a number above 0 and at most 1, got 3"),
        ({"epsilon": -1}, "`epsilon` must be a number of at least 0, got -1"),
        ({"reward_weights": [math.nan, 1]}, "`reward_weights` must be finite numbers.*got nan"),
        ({"max_steps": -1, "num_train_epochs": 0}, "`num_train_epochs` must be a positive number, got 0"),
        ({"save_strategy": "epoch"}, "`save_strategy` is 'epoch'.* how many to `save_steps`"),
        ({"logging_strategy": "epoch"}, "`logging_strategy` is 'epoch'.* how many to `logging_steps`"),
        ({"auto_find_batch_size": True}, "`auto_find_batch_size` begins a training again"),
        ({"token_budget": 16}, "`token_budget`=16 must be above `max_completion_length`=16"),
        ({"advantages": {"name": "pass_at_k", "k": 8}}, "needs groups of at least 8 completions"),
        ({"rollouts": {"name": "dars", "max_generations": 3}}, "`num_generations`=4"),
        ({"rollouts": "dynamic_sampling"}, "decides from a whole batch.*DARS or ReinforceAda"),
        ({"prompt_history": {"idss": "x"}}, "`prompt_history` has no 'idss'"),
        ({"selection": "skip_solve"}, "Did you mean 'skip_solved'"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, changes, match):
    with pytest.raises(ValueError, match=match):
        AsyncRLVRConfig(**settings_of_async(tmp_path, **changes))


def test_a_budget_that_a_prompt_exceeds_is_refused(cpu, tmp_path, model, mazes):
    longest = max(range(len(mazes)), key=lambda row: len(mazes[row]["prompt"]))
    tokens = len(build_tokenizer()(mazes[longest]["prompt"])["input_ids"])
    build_async(model, graded, mazes, tmp_path, token_budget=tokens + 16)
    build_async(model, graded, mazes, tmp_path, token_budget=-1)  # none, as in TRL
    match = rf"has a prompt of {tokens} tokens.*`token_budget`={tokens + 15}\. Raise it to {tokens + 16} or more"
    refuse(tmp_path, model, mazes, match, token_budget=tokens + 15)
    chats = mazes.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TEMPLATE
    given = {"processing_class": tokenizer}
    build_async(model, graded, chats, tmp_path, arguments=given, token_budget=tokens + 2 + 16)
    refuse(tmp_path, model, chats, f"has a prompt of {tokens + 2} tokens", arguments=given, token_budget=tokens + 17)


class Entropic:
    needs_entropies = True

    def __call__(self, groups):
        return groups.entropies


class Said:
    def __init__(self, **says):
        vars(self).update(says)

    def __call__(self, groups):
        return groups.rewards


def local_allocator():
    class Local(HalfWay):
        pass

    return Local()


def test_what_cannot_work_is_refused_before_a_model_is_loaded(tmp_path, mazes):
    no = functools.partial(refuse, tmp_path, "no-such-model", mazes)
    batch = [DynamicSampling(), KnapsackAllocator(8), PredictedDARS(max_generations=8)]
    for allocator in batch:
        no("decides from a whole batch", arguments={"rollouts": allocator})
    no("reads entropies, which a vLLM server does not report", arguments={"advantages": Entropic()})
    no(
        "needs `temperature`=1.0, got 0.7",
        arguments={"advantages": Entropic()},
        estimate_entropies=True,
        temperature=0.7,
    )
    no("needs `top_k`=0, got 5", arguments={"advantages": Entropic()}, estimate_entropies=True, top_k=5)
    no("reads answers", arguments={"advantages": Said(needs_answers=True)})
    no("gives each token an advantage", arguments={"advantages": Said(shapes_tokens=True)})
    no("must be a callable", error=TypeError, arguments={"advantages": "grpo"})
    no("set both as a trainer argument", arguments={"rollouts": DARS()}, rollouts="dars")
    no("cannot be sent to the process that samples: <lambda> cannot", rewards=lambda completions, **kwargs: [0.0])
    no("`rollouts` cannot be sent to the process that samples: Local", arguments={"rollouts": local_allocator()})
    no("Two of `reward_funcs` have the name 'graded'", rewards=[graded, graded])
    no("`reward_weights` has 2 weights for 1", reward_weights=[1.0, 2.0])
    no("takes functions alone", rewards="a-reward-model")
    no("`reward_funcs` is empty", rewards=[])
    no("`correctness_reward` is 'other', but the reward functions are: right_by_chance", correctness_reward="other")
    two = [graded, right_by_chance]
    no("weighs by the mean reward", arguments={"advantages": AGRAE(omega="reward")}, rewards=two)
    with pytest.raises(ValueError, match="is a IterableDataset, but prompts whose groups were stale"):
        build_async("no-such-model", graded, mazes.to_iterable_dataset(), tmp_path)
    with pytest.raises(ValueError, match="it has 0 rows"):
        build_async("no-such-model", graded, mazes.select([]), tmp_path)
    with pytest.raises(ValueError, match="`train_dataset` has no column `prompt`"):
        build_async("no-such-model", graded, mazes.remove_columns("prompt"), tmp_path)
    with pytest.raises(TypeError, match="must be a AsyncRLVRConfig, got RLVRConfig"):
        config = RLVRConfig(str(tmp_path), use_cpu=True, bf16=False)
        ThreadTrainer("no-such-model", graded, config, mazes)
    with pytest.raises(ImportError, match="AsyncRLVRTrainer needs"):
        AsyncRLVRTrainer("no-such-model", graded, AsyncRLVRConfig(**settings_of_async(tmp_path)), mazes)


def test_by_name_and_by_object_are_the_same(tmp_path):
    config = AsyncRLVRConfig(
        **settings_of_async(
            tmp_path,
            advantages="{name: a_grae, base: {name: pass_at_k, k: 4}}",
            rollouts="{name: dars, schedule: hardness_weighted, max_generations: 8}",
        )
    )
    assert config.build_advantages() == AGRAE(PassAtK(k=4))
    assert config.build_rollouts() == DARS("hardness_weighted", max_generations=8)
    assert AsyncRLVRConfig(**settings_of_async(tmp_path)).build_advantages() == GroupRelative()
