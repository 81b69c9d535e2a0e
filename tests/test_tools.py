"""Tools, environments and custom rollouts with ragged groups: what is in the loss, and what belongs to whom."""

from importlib.metadata import version

import pytest
import torch
from datasets import Dataset
from packaging.version import Version
from row_by_row import ROLLOUTS, UNEVEN, assert_same_gradient, prompts_of
from tiny_training import build, sample
from tool_user import CallsTools, build_tool_model, build_tool_tokenizer

from rlvr_trl import RLVRTrainer
from rlvr_trl.trainer.batch_layout import merge


pytestmark = pytest.mark.skipif(
    Version(version("transformers")) < Version("5.13"),
    reason="TRL's tools need transformers 5.13; before, jmespath and a tokenizer with a response schema",
)


SUMS = [(3, 4), (1, 5), (2, 9), (8, 0)]


class ToolUser(CallsTools, RLVRTrainer):
    pass


class Insistent(ToolUser):
    insists = True


def add(a: int, b: int) -> int:
    """
    Adds two numbers.

    Args:
        a: the first
        b: the second
    """
    return a + b


async def add_later(a: int, b: int) -> int:
    """
    Adds two numbers.

    Args:
        a: the first
        b: the second
    """
    return a + b


add_later.__name__ = "add"


def right(completions, total, **kwargs):
    return [float(said[-1]["content"] == f"it is {n}") for said, n in zip(completions, total, strict=True)]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tool_tokenizer()


@pytest.fixture
def sums():
    prompts = [[{"role": "user", "content": f"{a}+{b}"}] for a, b in SUMS]
    return Dataset.from_dict({"prompt": prompts, "total": [a + b for a, b in SUMS]})


@pytest.fixture
def settings(cpu_settings):
    more = {"per_device_train_batch_size": 16, "max_completion_length": 200, "shuffle_dataset": False}
    return cpu_settings | more


def build_tool_user(trainer_class, settings, sums, tokenizer, rewards=right, **kwargs):
    return build(trainer_class, settings, sums, tokenizer, rewards, build_tool_model(tokenizer), **kwargs)


def texts_of(tokenizer, batch):
    return [
        tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]


def written_by_model(tokenizer, text: str) -> list[int]:
    """1 for each token of a conversation that the model wrote, 0 for the turn of a tool and the header after it."""
    mask, rest = [], text
    while "<|im_start|>tool" in rest:
        own, rest = rest.split("<|im_start|>tool", 1)
        tools, rest = rest.split("<|im_start|>assistant\n", 1)
        mask += [1] * len(tokenizer(own)["input_ids"])
        mask += [0] * len(tokenizer(f"<|im_start|>tool{tools}<|im_start|>assistant\n")["input_ids"])
    return mask + [1] * len(tokenizer(rest)["input_ids"])


@ROLLOUTS
@pytest.mark.parametrize("tool", [add, add_later], ids=["sync", "async"])
def test_what_tools_wrote_is_out_of_the_loss(settings, tokenizer, sums, tool, rollouts):
    settings |= {"trim_padding": True, "num_iterations": 2}
    trainer = build_tool_user(ToolUser, settings, sums, tokenizer, tools=[tool], rollouts=rollouts)
    batch = sample(trainer, sums, 4)
    order = prompts_of(UNEVEN.extra if rollouts else (0,) * 4)
    texts = texts_of(tokenizer, batch)
    assert len(texts) == len(order)
    for row, (prompt, text) in enumerate(zip(order, texts, strict=True)):
        a, b = SUMS[prompt]
        assert f"{a}+{b}" in tokenizer.decode(batch["prompt_ids"][row])
        expected = written_by_model(tokenizer, text)
        assert batch["tool_mask"][row, : len(expected)].tolist() == expected
        assert (0 in expected) == ("<tool_call>" in text)
        if "<tool_call>" in text:
            assert text.endswith((f"it is {a + b}<|im_end|>", f"it is {b + b}<|im_end|>"))
    written = sum(sum(written_by_model(tokenizer, text)) for text in texts)
    assert batch["num_items_in_batch"] == written < batch["completion_mask"].sum()
    called = sum("<tool_call>" in text for text in texts) / len(texts)
    assert trainer._metrics["train"]["tools/call_frequency"] == [pytest.approx(called)]
    trainer.args.per_device_train_batch_size = 5
    assert_same_gradient(trainer, batch)


@ROLLOUTS
def test_tool_calls_end_after_the_iterations_allowed(settings, tokenizer, sums, rollouts):
    settings |= {"max_tool_calling_iterations": 2, "max_completion_length": 400}
    trainer = build_tool_user(Insistent, settings, sums, tokenizer, tools=[add], rollouts=rollouts)
    trainer.train()
    turns = [sum(message["role"] == "tool" for message in said) for said in trainer.logged_completions["completion"]]
    assert max(turns) == 2 and min(turns) == 0 and len(turns) == (29 if rollouts else 16)


# --- environments ---


class Calculator:
    """Learns from `reset` what the question is, and from its tool what the model answered."""

    made = 0

    def __init__(self):
        type(self).made += 1

    def reset(self, total=None, **kwargs):
        self.total, self.result = total, None
        return " please"

    def add(self, a: int, b: int) -> int:
        """
        Adds two numbers.

        Args:
            a: the first
            b: the second
        """
        self.result = a + b
        return self.result

    def get_reward(self):
        return 0.25 if self.result is None else float(self.result == self.total)


class Other(Calculator):
    made = 0

    def get_reward(self):
        return super().get_reward() - 2.0


@ROLLOUTS
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_every_completion_has_an_environment_of_its_own(settings, tokenizer, sums, several, rollouts):
    Calculator.made = Other.made = 0
    factory = Calculator
    if several:
        factory = {"calculator": Calculator, "other": Other}
        sums = sums.add_column("environment", ["calculator", "other", "calculator", "other"])
    trainer = build_tool_user(
        ToolUser, settings, sums, tokenizer, None, environment_factory=factory, rollouts=rollouts
    )
    batch = sample(trainer, sums, 4)
    order = prompts_of(UNEVEN.extra if rollouts else (0,) * 4)
    rewards = torch.tensor(list(trainer.logged_completions["rewards"].values())).nansum(dim=0)
    for row, (prompt, text) in enumerate(zip(order, texts_of(tokenizer, batch), strict=True)):
        a, b = SUMS[prompt]
        assert f"{a}+{b} please" in tokenizer.decode(batch["prompt_ids"][row])
        expected = float(f"it is {a + b}<|im_end|>" in text) if "<tool_call>" in text else 0.25
        expected -= 2.0 if several and prompt % 2 else 0.0
        assert rewards[row] == pytest.approx(expected)
    # the first stage has 4 of each prompt; the second one uses them again
    if several:
        assert (Calculator.made, Other.made) == (8, 10 if rollouts else 8)
    else:
        assert Calculator.made == 16
    trainer.train()
    assert trainer.state.global_step == 2


class AsksItself(Calculator):
    """Makes up a new prompt each time."""

    asked = 0

    def reset(self, **kwargs):
        self.total, self.result = 7, None
        return "3+4"


def test_environments_that_make_the_prompts_have_no_extra_completions(settings, tokenizer, sums):
    with pytest.raises(ValueError, match="another prompt than its group"):
        build_tool_user(ToolUser, settings, None, tokenizer, None, environment_factory=AsksItself, rollouts=UNEVEN)
    named = Dataset.from_dict({"environment": ["a"] * 4})
    with pytest.raises(ValueError, match=r"columns \['environment'\]"):
        build_tool_user(
            ToolUser, settings, named, tokenizer, None, environment_factory={"a": AsksItself}, rollouts=UNEVEN
        )
    trainer = build_tool_user(ToolUser, settings, None, tokenizer, None, environment_factory=AsksItself)
    trainer.train()
    assert trainer.state.global_step == 2


# --- custom rollouts ---


@ROLLOUTS
@pytest.mark.parametrize("with_log_probs", [False, True])
def test_a_rollout_function_is_asked_in_every_stage(settings, tokenizer, sums, with_log_probs, rollouts):
    asked = []

    def roll_out(prompts, trainer):
        asked.append(len(prompts))
        ids = [tokenizer.apply_chat_template(p, add_generation_prompt=True)["input_ids"] for p in prompts]
        said = [tokenizer(f"{p[0]['content']}={i}<|im_end|>")["input_ids"] for i, p in enumerate(prompts)]
        return {
            "prompt_ids": ids,
            "completion_ids": said,
            "logprobs": [[-0.5] * len(one) for one in said] if with_log_probs else None,
            "env_mask": [[0] * 3 + [1] * (len(one) - 3) for one in said],  # repeats the question
            "number": list(range(len(prompts))),
        }

    def reward(completions, number, **kwargs):
        assert [said[0]["content"].split("=")[1] for said in completions] == [str(n) for n in number]
        return [n / 10 for n in number]

    settings |= {"trim_padding": True, "num_iterations": 2}
    trainer = build_tool_user(RLVRTrainer, settings, sums, tokenizer, reward, rollout_func=roll_out, rollouts=rollouts)
    batch = sample(trainer, sums, 4)
    order = prompts_of(UNEVEN.extra if rollouts else (0,) * 4)
    assert asked == ([16, 13] if rollouts else [16])
    for row, (prompt, text) in enumerate(zip(order, texts_of(tokenizer, batch), strict=True)):
        number = row if row < 16 else row - 16
        assert text == f"{SUMS[prompt][0]}+{SUMS[prompt][1]}={number}<|im_end|>"
        expected = [0] * 3 + [1] * (int(batch["completion_mask"][row].sum()) - 3)
        assert batch["tool_mask"][row, : len(expected)].tolist() == expected
        if with_log_probs:
            assert batch["sampling_per_token_logps"][row, : len(expected)].tolist() == [-0.5] * len(expected)
    assert ("sampling_per_token_logps" in batch) == with_log_probs
    trainer.args.per_device_train_batch_size = 5
    assert_same_gradient(trainer, batch)


# --- stages that cannot be joined ---


def stage(**fields):
    two = torch.ones(2, 3, dtype=torch.long)
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    return dict.fromkeys(names, two) | {"advantages": torch.zeros(2)} | fields


def test_stages_that_differ_in_their_images_are_refused_by_name():
    with pytest.raises(ValueError, match="only some have pixel_values"):
        merge([stage(), stage(pixel_values=[torch.zeros(4, 3)] * 2)], pad_token_id=0)
    one, two = (stage(pixel_values=torch.zeros(2, images, 3, 8, 8)) for images in (1, 2))
    with pytest.raises(ValueError, match=r"`pixel_values` has the shape \(1, 3, 8, 8\) in one and \(2, 3, 8, 8\)"):
        merge([one, two], pad_token_id=0)
    assert len(merge([one, one], pad_token_id=0)["pixel_values"]) == 4
