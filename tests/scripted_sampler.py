"""
The asynchronous trainer without vLLM, a GPU and a server: turns that are made up, in place of sampled.

Everything else is real: TRL's loop of generation and scoring, the queues, the packing and the loss. What only a GPU
has is replaced by [`without_gpu`]: the attention kernel by the same in torch, segment by segment.
"""

import asyncio
import contextlib
import random
import selectors
import threading
import time
from types import SimpleNamespace

import torch
from trl.experimental.async_grpo import async_grpo_trainer, async_rollout_worker, packing

from rlvr_trl import AsyncRLVRConfig, AsyncRLVRTrainer
from rlvr_trl.async_trainer.exchange import Exchange
from rlvr_trl.async_trainer.prompt_worker import PromptLoop, PromptWorker
from rlvr_trl.testbed import build_model, build_tokenizer


MOVES = "UDLR"


class TurnsWithoutServer(PromptLoop):
    """
    The loop, whose turns take a made-up time and say made-up moves: first the four moves that belong to the prompt,
    then some at random.
    """

    seconds = (0.001, 0.005)  # of a turn, at least and at most
    rng_seed = 0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rng, self.active, self.moves = random.Random(self.rng_seed), 0, self.tokenizer.convert_tokens_to_ids
        self.busy, self.since = 0.0, 0.0  # slots × seconds

    async def _run_loops(self, stop_event):
        loops = [self._generate_loop(stop_event=stop_event), self._score_loop(stop_event=stop_event)]
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            await asyncio.gather(*tasks)
        finally:  # a process ends with what is open; this one goes on
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _generate_one_turn(self, prompt_ids):
        said = moves_of(prompt_ids) + "".join(self.rng.choices(MOVES, k=self.rng.randint(0, 5)))
        ids = [self.moves(move) for move in said] + [self.tokenizer.eos_token_id]
        self._count(+1)
        await asyncio.sleep(self.rng.uniform(*self.seconds))
        self._count(-1)
        return ids, [-self.rng.uniform(0.5, 3.0) for _ in ids]

    def _count(self, change: int) -> None:
        now = asyncio.get_running_loop().time()
        self.busy += self.active * (now - self.since)
        self.active, self.since = self.active + change, now


def moves_of(prompt_ids) -> str:
    """Four moves that tell prompts apart."""
    number = sum((place + 1) * int(each) for place, each in enumerate(prompt_ids))
    return "".join(MOVES[number // 4**place % 4] for place in range(4))


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock goes on by itself when there is nothing to do: the same on any machine."""

    def __init__(self):
        self.now, loop = 0.0, self

        class Selector(selectors.SelectSelector):
            def select(self, timeout=None):
                loop.now += timeout or 0.0
                return super().select(0)

        super().__init__(Selector())

    def time(self):
        return self.now


class ThreadWorker(PromptWorker):
    """The worker, whose loop runs in a thread of this process."""

    _loop_cls = TurnsWithoutServer

    def __init__(self, *, sampling, **kwargs):
        super().__init__(sampling=sampling, **kwargs)
        self.rollout_buffer, self.thread = Exchange(None, sampling), None

    def start(self):
        self.loop = self._loop_cls(
            **self._loop_kwargs,
            rollout_buffer=self.rollout_buffer,
            model_version_value=self._model_version_value,
            heartbeat_value=self._heartbeat_value,
            failed_event=self._failed_event,
            exception_info_queue=self._exception_info_queue,
            metrics_queue=self.metrics_queue,
        )
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        with contextlib.suppress(Exception):  # it has told the trainer
            self.loop.run()

    def stop(self):
        if self.thread is not None and self.thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has failed, and closed its loop meanwhile
                self.loop._loop.call_soon_threadsafe(self.loop._stop_event.set)
            self.thread.join(60)
            assert not self.thread.is_alive()

    def check_health(self, stale_after_s):
        if self._failed_event.is_set():
            super().check_health(stale_after_s)

    def watch_server(self, timeout, accelerator):
        return contextlib.nullcontext()

    @staticmethod
    def check_packages():
        pass


class ChildWorker(PromptWorker):
    """The real worker: its loop is in a process of its own, but for the server."""

    _loop_cls = TurnsWithoutServer
    watch_server, check_packages = ThreadWorker.watch_server, staticmethod(ThreadWorker.check_packages)


class ChildTrainer(AsyncRLVRTrainer):
    _worker_class = ChildWorker


class ThreadTrainer(AsyncRLVRTrainer):
    _worker_class = ThreadWorker


class NoTransfer:
    """Weights go nowhere: there is no server."""

    def init_weight_transfer(self):
        pass

    pause = resume = destroy = init_weight_transfer

    def send_weights(self, iterator):
        for _ in iterator:
            pass


def attention_by_segment(q, k, v, cu_q, cu_k, max_q, max_k, softmax_scale, causal, window_size, **kwargs):
    """`flash_attn_varlen_func`, one segment of queries `(N, H, D)` and its keys after the other."""
    assert causal and window_size == (-1, -1) and not kwargs
    outputs = []
    for index in range(len(cu_q) - 1):
        queries = q[cu_q[index] : cu_q[index + 1]].transpose(0, 1)  # (H, Q, D)
        keys, values = (each[cu_k[index] : cu_k[index + 1]].transpose(0, 1) for each in (k, v))
        keys, values = (each.repeat_interleave(len(queries) // len(each), 0) for each in (keys, values))
        scores = queries @ keys.transpose(1, 2) * softmax_scale  # (H, Q, K)
        ahead = torch.ones(scores.shape[1:], dtype=torch.bool).triu(scores.shape[2] - scores.shape[1] + 1)
        outputs.append((scores.masked_fill(ahead, -torch.inf).softmax(-1) @ values).transpose(0, 1))
    return torch.cat(outputs)


def without_gpu(patch=setattr) -> None:
    """Replaces what needs a GPU, or vLLM on this machine. `patch` may be that of a monkeypatch."""
    kernels = SimpleNamespace(flash_attn_varlen_func=attention_by_segment)
    patch(packing, "_flash_attn", lambda: kernels)
    patch(async_grpo_trainer, "get_peak_flops_per_device", lambda accelerator, dtype: None)
    for name in ("is_vllm_available", "is_aiohttp_available"):
        patch(async_rollout_worker, name, lambda *args, **kwargs: True)


def save_maze_model(folder) -> str:
    """An untrained maze model and its tokenizer: TRL's asynchronous trainer loads both from a folder."""
    tokenizer = build_tokenizer()
    build_model(tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def settings_of_async(folder, **changes):
    """Keyword arguments of a small AsyncRLVRConfig for the CPU: steps of 3 prompts with 4 completions each."""
    return {
        **{"output_dir": str(folder), "use_cpu": True, "bf16": False, "gradient_checkpointing": False},
        **{"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "learning_rate": 1e-3},
        **{"num_generations": 4, "prompts_per_update": 3, "max_completion_length": 16, "token_budget": 64},
        **{"max_steps": 3, "max_inflight_tasks": 8, "max_staleness": 100},
        **changes,
    }


def build_async(model, rewards, dataset, folder, trainer_class=ThreadTrainer, arguments=None, **changes):
    config = AsyncRLVRConfig(**settings_of_async(folder, **changes))
    return trainer_class(model, rewards, config, dataset, weight_transfer=NoTransfer(), **(arguments or {}))


# that TRL does not know
TEMPLATE = "{% for m in messages %}S{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}.{% endif %}"


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


class HalfWay:
    """An allocator whose counts say what progress and batch it was asked with."""

    max_generations = 40

    def start_batch(self, progress):
        self.progress = progress

    def __call__(self, stage, num_samples, num_correct, num_judged):
        assert num_samples.shape == num_correct.shape == num_judged.shape == (1,)
        return torch.tensor([round(self.progress * 10) if stage == 1 else 0])

    def state_dict(self):
        return {"progress": self.progress}

    def load_state_dict(self, state):
        self.progress = state["progress"]


# --- rewards, at the top of a module as they must be ---


def graded(completions, **kwargs):
    return [len(each) / 10 for each in completions]


async def right_in_time(completions, **kwargs):
    return right_by_chance(completions)


def right_by_chance(completions, **kwargs):
    """1 or 0 by the moves that were made up, so that a second route can tell."""
    return [float(is_right(each)) for each in completions]


def is_right(completion: str) -> bool:
    return random.Random(completion).random() < 0.3


class FailsLater:
    def __init__(self, path, hangs=False):
        self.path, self.hangs = path, hangs

    def __call__(self, completions, **kwargs):
        if self.path.exists() and self.hangs:
            time.sleep(1000)
        if self.path.exists():
            raise ZeroDivisionError("of the user's")
        return right_by_chance(completions)
