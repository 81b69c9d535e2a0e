"""The accounts of the asynchronous trainer: which prompts are ordered, and which groups are trained on."""

import math
import multiprocessing
import queue
import random
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from trl.trainer.utils import RepeatSampler

from rlvr_trl.async_trainer.exchange import Exchange, PromptGroup, PromptOrder, Sampling, StopSignal
from rlvr_trl.async_trainer.prompt_feed import PromptFeed
from rlvr_trl.rollouts import PromptSource


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
