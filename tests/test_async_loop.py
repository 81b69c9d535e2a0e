"""The loop that samples prompt by prompt, in virtual time with made-up turns."""

import asyncio
import queue
import sys
from collections import Counter

import pytest
import torch
from scripted_sampler import (
    TEMPLATE,
    HalfWay,
    TurnsWithoutServer,
    VirtualTime,
    is_right,
    loop_worker,
    moves_of,
    right_by_chance,
    right_in_time,
)

from rlvr_trl.async_trainer.exchange import Exchange, PromptOrder, Sampling
from rlvr_trl.async_trainer.prompt_worker import PlainCompletions
from rlvr_trl.rollouts import DARS, PromptSource, ReinforceAda, hardness_weighted
from rlvr_trl.testbed import build_tokenizer


# --- rewards, at the top of a module as they must be ---


def raises(completions, **kwargs):
    raise KeyError("no answer")


def too_few(completions, **kwargs):
    return [0.0]


def nothing_known(completions, **kwargs):
    return [None] * len(completions)


class InVirtualTime(TurnsWithoutServer):
    seconds = (0.5, 5.0)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._loop.close()
        self._loop = VirtualTime()


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


def test_an_allocator_is_asked_with_the_progress_of_the_prompt(cpu, mazes, monkeypatch):
    made = PromptOrder
    monkeypatch.setattr(
        "test_async_loop.PromptOrder", lambda ticket, row, seed: made(ticket, row, 0, seed, ticket % 7 / 10)
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


def test_conversations_with_a_template_that_trl_does_not_know(cpu, mazes, monkeypatch):
    chats = mazes.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TEMPLATE
    monkeypatch.setattr("scripted_sampler.build_tokenizer", lambda: tokenizer)
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
