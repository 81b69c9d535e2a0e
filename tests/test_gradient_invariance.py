"""One gradient, however a ragged batch is ordered, padded, skipped and split: against a reference without all that."""

import copy
import math
from dataclasses import dataclass, replace

import pytest
import torch
from tiny_training import flat_gradient, planned_steps, train_on

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.trainer.batch_layout import merge, row_lengths
from rlvr_trl.trainer.passes import longest_first, make_passes, split_sizes


LOSS_TYPES = ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]
LEVELS = ["token", "sequence"]
TOLERANCE = 1e-5  # of the norm of the whole gradient
TEMPERATURE, MAX_COMPLETION_LENGTH = 0.8, 9
EPSILON_LOW, EPSILON_HIGH, EPSILON_HIGH_CISPO = 0.2, 0.28, 1.1


# --- a ragged batch as a list of rows ---


@dataclass
class Row:
    """One completion. The log-probabilities are (T,), float64; `advantage` is one number, or one for each token."""

    prompt: list[int]
    completion: list[int]
    advantage: float | torch.Tensor
    old: torch.Tensor
    ref: torch.Tensor
    tool_mask: torch.Tensor  # (T,), 1 where the model wrote the token
    correction: torch.Tensor  # (T,), or (1,) on the level of sequences: importance sampling ratio of the engine
    masked: bool = False  # truncated, with `mask_truncated_completions`

    @property
    def in_loss(self) -> torch.Tensor:
        """Which tokens are in the loss, (T,)."""
        return self.tool_mask.bool() & (not self.masked)


def log_softmax_of(model, row: Row, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Log-probabilities of every token after each prefix of the completion, (T, V). No padding, no mask."""
    ids = torch.tensor([row.prompt + row.completion])
    logits = model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1]
    return torch.log_softmax(logits / temperature, dim=-1)


def chosen(log_probs: torch.Tensor, row: Row) -> torch.Tensor:
    return log_probs.gather(1, torch.tensor(row.completion).unsqueeze(1)).squeeze(1)  # (T,)


@pytest.fixture
def exact(model):
    """The same weights in float64, never touched by a trainer."""
    return copy.deepcopy(model).double()


@pytest.fixture
def rows(exact):
    """Eleven rows, three of them without advantage, of 1 to 7 tokens, some of whose ratios are clipped."""
    generator = torch.Generator().manual_seed(3)
    lengths = [7, 1, 4, 2, 6, 3, 5, 1, 2, 7, 3]
    advantages = [0.9, -1.3, 0.0, 1.7, -0.4, 0.0, -0.8, 0.6, 1.1, -1.9, 0.0]
    made = []
    for index, (length, advantage) in enumerate(zip(lengths, advantages, strict=True)):
        prompt = torch.randint(3, 14, (3 + index * 5 % 7,), generator=generator).tolist()
        completion = torch.randint(1, 14, (length,), generator=generator).tolist()
        row = Row(prompt, completion, advantage, None, None, torch.ones(length), torch.ones(length))
        with torch.no_grad():
            logps = chosen(log_softmax_of(exact, row), row)
        noise = torch.randn(3, length + 1, generator=generator, dtype=torch.float64)
        row.old = logps + 0.25 * noise[0, :-1] + 0.3 * noise[0, -1]  # the last: the whole sequence is off-policy
        row.ref = logps + 0.4 * noise[1, :-1]
        made.append(row)
    return made


def with_tools(rows):
    """A tool wrote the second token of every completion, and the first one of every third."""
    tools = []
    for index, row in enumerate(rows):
        mask = torch.ones(len(row.completion))
        mask[1:2] = 0
        if index % 3 == 2:
            mask[0] = 0
        tools.append(replace(row, tool_mask=mask))
    return tools


def with_masked(rows):
    return [replace(row, masked=index in (0, 5, 7)) for index, row in enumerate(rows)]


def with_correction(rows, level):
    """Ratios of an inference engine to the trained model, some of them cut to 0."""
    generator = torch.Generator().manual_seed(4)
    corrected = []
    for row in rows:
        size = len(row.completion) if level == "token" else 1
        ratio = torch.exp(0.5 * torch.randn(size, generator=generator))
        if level == "token" and size > 3:
            ratio[2] = 0.0
        corrected.append(replace(row, correction=ratio))
    return corrected


VARIANTS = {
    "tools": with_tools,
    "masked": with_masked,
    "masked tools": lambda rows: with_masked(with_tools(rows)),
    "token correction": lambda rows: with_correction(rows, "token"),
    "sequence correction": lambda rows: with_correction(rows, "sequence"),
}


# --- the reference: from the definitions, one row at a time ---


def kl_of(row, logps, ratio):
    """Schulman's third estimator, times the ratio: TRL's `use_bias_correction_kl`, which is its default."""
    return (torch.exp(row.ref - logps) - (row.ref - logps) - 1) * ratio


def token_losses(row: Row, logps: torch.Tensor, loss_type: str, level: str, beta: float, corrected: str | None):
    """The loss of each token in the loss, (M,)."""
    kept = row.in_loss
    a, log_ratio = torch.as_tensor(row.advantage, dtype=torch.float64).expand(len(kept))[kept], (logps - row.old)[kept]
    logps_kept = logps[kept]
    ratio = torch.exp(log_ratio if level == "token" else log_ratio.mean().expand(len(log_ratio)))
    correction = row.correction[kept] if corrected == "token" else row.correction
    if loss_type == "cispo":
        loss = -ratio.detach().clamp(max=EPSILON_HIGH_CISPO) * a * logps_kept
    elif loss_type == "sapo":
        temperature = torch.where(a > 0, 1.0, 1.05)
        loss = -torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature * a
    elif loss_type == "vespo":
        k, lamda = (2.0, 3.0) if row.advantage >= 0 else (3.0, 2.0)
        log_w = log_ratio.detach().sum()
        if corrected:
            log_w = log_w + torch.log(correction).clamp(min=math.log(1e-8)).sum()
        log_w = log_w.clamp(math.log(1e-8), 20)
        loss = -torch.exp(lamda + k * log_w - lamda * torch.exp(log_w)) * a * logps_kept
    else:
        clipped = ratio.clamp(1 - EPSILON_LOW, 1 + EPSILON_HIGH)
        loss = -torch.min(ratio * a, clipped * a)
    if corrected and loss_type != "vespo":
        loss = loss * correction
    if beta:
        loss = loss + beta * kl_of(replace(row, ref=row.ref[kept]), logps_kept, ratio)
    return loss


def reference_loss(
    model,
    rows: list[Row],
    loss_type: str,
    level: str = "token",
    beta: float = 0.0,
    corrected: str | None = None,
    entropy_coef: float = 0.0,
    batch: list[Row] | None = None,
    share: float = 1.0,
) -> torch.Tensor:
    """
    The loss of one optimizer step over `rows`, which are a `share` of the generation batch `batch`.

    By definition bnpo and the entropy bonus are means over the tokens of the step; all others divide by what the
    batch holds, times the share.
    """
    batch = rows if batch is None else batch
    batch_tokens = sum(int(row.in_loss.sum()) for row in batch)
    step_tokens = sum(int(row.in_loss.sum()) for row in rows)
    total, entropy = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for row in rows:
        if not row.in_loss.any():
            continue
        log_probs = log_softmax_of(model, row)
        losses = token_losses(row, chosen(log_probs, row), loss_type, level, beta, corrected)
        total = total + (losses.mean() if loss_type in ("grpo", "sapo") else losses.sum())
        entropy = entropy - (log_probs.exp() * log_probs).sum(-1)[row.in_loss].sum()
    if loss_type in ("grpo", "sapo", "luspo"):
        total = total / (len(batch) * share)
    elif loss_type == "dr_grpo":
        total = total / (len(batch) * share * MAX_COMPLETION_LENGTH)
    elif loss_type == "bnpo":
        total = total / step_tokens
    else:
        total = total / (batch_tokens * share)
    return total - entropy_coef * entropy / step_tokens


def reference_gradient(model, rows, loss_type, *arguments, **kwargs) -> torch.Tensor:
    model.zero_grad()
    reference_loss(model, rows, loss_type, *arguments, **kwargs).backward()
    return flat_gradient(model)


def reference_entropy(model, rows: list[Row]) -> float:
    """Mean over all tokens in the loss."""
    with torch.no_grad():
        every = [log_softmax_of(model, row) for row in rows]
    tokens = [-(p.exp() * p).sum(-1)[row.in_loss] for p, row in zip(every, rows, strict=True)]
    return torch.cat(tokens).mean().item()


# --- the trainer's side ---


def no_reward(completions, **kwargs):
    return [0.0] * len(completions)


@pytest.fixture
def make_trainer(model, tokenizer, mazes, tmp_path):
    def make(loss_type, level="token", beta=0.0, rows_per_pass=4, **settings):
        settings = {"steps_per_generation": 1, "trim_padding": True} | settings
        args = RLVRConfig(
            str(tmp_path),
            loss_type=loss_type,
            importance_sampling_level=level,
            epsilon=EPSILON_LOW,
            epsilon_high=EPSILON_HIGH_CISPO if loss_type == "cispo" else EPSILON_HIGH,
            temperature=TEMPERATURE,
            max_completion_length=MAX_COMPLETION_LENGTH,
            per_device_train_batch_size=8,
            num_generations=2,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            **settings,
        )
        trainer = RLVRTrainer(model, no_reward, args, mazes, processing_class=tokenizer)
        args.per_device_train_batch_size = rows_per_pass  # any number: no batch is sampled here
        # At construction TRL would load a reference model from a folder; its log-probabilities are in the batch here
        trainer.beta = beta
        # Hugging Face sets this in its training loop
        trainer.current_gradient_accumulation_steps = args.gradient_accumulation_steps
        model.train()
        return trainer

    return make


def as_batch(
    rows: list[Row], seed: int = 0, tools: bool = False, corrected: str | None = None, beta: float = 0.0
) -> dict:
    """
    TRL's dict, with up to three columns of nothing but padding on either side, and random numbers in all padding that
    a mask hides.
    """
    generator = torch.Generator().manual_seed(seed)

    def extra():
        return int(torch.randint(4, (1,), generator=generator))

    b = len(rows)
    prompts = max(len(row.prompt) for row in rows) + extra()
    completions = max(len(row.completion) for row in rows) + extra()
    batch = {
        "prompt_ids": torch.randint(14, (b, prompts), generator=generator),
        "prompt_mask": torch.zeros(b, prompts, dtype=torch.long),
        "completion_ids": torch.randint(14, (b, completions), generator=generator),
        "completion_mask": torch.zeros(b, completions, dtype=torch.long),
        "advantages": torch.zeros(b, completions)
        if isinstance(rows[0].advantage, torch.Tensor)
        else torch.tensor([row.advantage for row in rows]),
        "num_items_in_batch": torch.stack([row.in_loss.sum() for row in rows]).sum(),
        "old_per_token_logps": -2 * torch.rand(b, completions, generator=generator),
    }
    if beta:
        batch["ref_per_token_logps"] = -2 * torch.rand(b, completions, generator=generator)
    if tools:
        batch["tool_mask"] = torch.ones(b, completions, dtype=torch.long)  # TRL fills it with 1
    if corrected:
        # TRL computes it from masked differences: it is 1 where nothing is in the loss
        batch["importance_sampling_ratio"] = torch.ones(b, 1 if corrected == "sequence" else completions)
    for i, row in enumerate(rows):
        p, c = len(row.prompt), len(row.completion)
        batch["prompt_ids"][i, prompts - p :] = torch.tensor(row.prompt)
        batch["prompt_mask"][i, prompts - p :] = 1
        batch["completion_ids"][i, :c] = torch.tensor(row.completion)
        batch["completion_mask"][i, :c] = 0 if row.masked else 1
        if batch["advantages"].dim() == 2:
            batch["advantages"][i, :c] = row.advantage
        batch["old_per_token_logps"][i, :c] = row.old
        if beta:
            batch["ref_per_token_logps"][i, :c] = row.ref
        if tools:
            batch["tool_mask"][i, :c] = row.in_loss.long()
        if corrected == "sequence":
            batch["importance_sampling_ratio"][i] = row.correction
        elif corrected == "token":
            batch["importance_sampling_ratio"][i, :c] = torch.where(row.in_loss, row.correction, 1.0)
    return batch


def permuted(rows, seed):
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return [rows[i] for i in order.tolist()]


def trained_gradients(trainer, batch) -> list[torch.Tensor]:
    """The gradient of each optimizer step on the batch."""
    return [flat_gradient(trainer.model) for _ in train_on(trainer, batch)]


def assert_same(gradient, reference):
    assert reference.norm() > 1e-4
    error = ((gradient - reference).norm() / reference.norm()).item()
    assert error <= TOLERANCE, error


def rows_of(passes) -> list[int]:
    return sorted(row for part in passes for row in part.rows[: part.num_real].tolist())


# --- one optimizer step ---


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_every_order_layout_and_size_of_passes_gives_the_reference(make_trainer, exact, rows, loss_type, level, beta):
    reference = reference_gradient(exact, rows, loss_type, level, beta)
    trainer = make_trainer(loss_type, level, beta)
    for seed, rows_per_pass in enumerate((1, 2, 3, 5, len(rows))):
        trainer.args.per_device_train_batch_size = rows_per_pass
        order = permuted(rows, seed)
        assert_same(*trained_gradients(trainer, as_batch(order, seed, beta=beta)), reference)
        (step,) = planned_steps(trainer)
        without_advantage = [i for i, row in enumerate(order) if row.advantage == 0]
        # their KL divergence has a gradient
        assert rows_of(step.without_gradient) == ([] if beta else without_advantage)
        assert rows_of(step.passes) == list(range(len(rows)))


# vespo and ratios of sequences take one advantage for a completion, and are refused
TOKEN_LOSSES = [name for name in LOSS_TYPES if name != "vespo"]


def with_token_advantages(rows):
    """Each token has an advantage of its own, of either sign; those of the third row are 0, and some of the others."""
    generator = torch.Generator().manual_seed(5)
    shaped = []
    for index, row in enumerate(rows):
        advantages = row.advantage + torch.randn(len(row.completion), generator=generator)
        advantages[(torch.rand(len(advantages), generator=generator) < 0.2) | (index == 2)] = 0.0
        shaped.append(replace(row, advantage=advantages))
    return shaped


@pytest.mark.parametrize("variant", [None, "masked tools", "token correction"])
@pytest.mark.parametrize("loss_type", TOKEN_LOSSES)
def test_advantages_of_tokens_give_the_reference_in_any_passes(make_trainer, exact, rows, loss_type, variant):
    rows = with_token_advantages(VARIANTS[variant](rows) if variant else rows)
    corrected = "token" if variant == "token correction" else None
    for beta in (0.0, 0.04):
        reference = reference_gradient(exact, rows, loss_type, "token", beta, corrected)
        trainer = make_trainer(loss_type, "token", beta)
        trainer.use_vllm = corrected is not None  # the correction is in the batch already: no engine is needed
        for seed, rows_per_pass in enumerate((1, 2, 5, len(rows))):
            trainer.args.per_device_train_batch_size = rows_per_pass
            batch = as_batch(
                permuted(rows, seed), seed, tools=variant == "masked tools", corrected=corrected, beta=beta
            )
            assert_same(*trained_gradients(trainer, batch), reference)


def test_some_ratios_are_clipped_and_some_are_not(exact, rows):
    """The other tests rely on this: both branches of every minimum are taken, at both levels."""
    for level in LEVELS:
        outside = []
        for row in rows:
            with torch.no_grad():
                log_ratio = chosen(log_softmax_of(exact, row), row) - row.old
            ratio = torch.exp(log_ratio if level == "token" else log_ratio.mean(0, keepdim=True))
            outside += ((ratio < 1 - EPSILON_LOW) & (row.advantage < 0)).tolist()
            outside += ((ratio > 1 + EPSILON_HIGH) & (row.advantage > 0)).tolist()
        assert 0.05 < sum(outside) / len(outside) < 0.95


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_a_token_budget_gives_the_reference(make_trainer, exact, rows, loss_type):
    reference = reference_gradient(exact, rows, loss_type)
    longest = max(len(row.prompt) + len(row.completion) for row in rows)
    for seed, budget in enumerate((longest, longest + 9, 3 * longest, 1000)):
        trainer = make_trainer(loss_type, rows_per_pass=7, max_tokens_per_micro_batch=budget)
        assert_same(*trained_gradients(trainer, as_batch(permuted(rows, seed), seed)), reference)
        (step,) = planned_steps(trainer)
        assert all(part.num_computed <= budget and part.num_real <= 7 for part in step.passes)
    assert max(part.num_real for part in step.passes) == 7


def test_a_row_above_the_token_budget_is_named(make_trainer, rows):
    longest = max(len(row.prompt) + len(row.completion) for row in rows)
    trainer = make_trainer("grpo", max_tokens_per_micro_batch=longest - 1)
    with pytest.raises(ValueError, match=f"{longest} tokens, more than `max_tokens_per_micro_batch`={longest - 1}"):
        list(train_on(trainer, as_batch(rows)))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_masks_and_corrections_give_the_reference(make_trainer, exact, rows, variant, loss_type, level):
    rows = VARIANTS[variant](rows)
    corrected = variant.split()[0] if "correction" in variant else None
    beta = 0.0 if corrected == "token" else 0.04
    reference = reference_gradient(exact, rows, loss_type, level, beta, corrected)
    trainer = make_trainer(loss_type, level, beta)
    trainer.use_vllm = corrected is not None  # the correction is in the batch already: no engine is needed
    for seed, rows_per_pass in enumerate((2, len(rows))):
        trainer.args.per_device_train_batch_size = rows_per_pass
        batch = as_batch(permuted(rows, seed), seed, "tools" in variant, corrected, beta)
        assert_same(*trained_gradients(trainer, batch), reference)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_entropy_bonus_is_a_mean_over_the_tokens_of_the_step(make_trainer, exact, rows, loss_type):
    rows = with_masked(rows)
    reference = reference_gradient(exact, rows, loss_type, entropy_coef=0.3)
    without = reference_gradient(exact, rows, loss_type)
    assert (reference - without).norm() > 0.01 * without.norm()
    trainer = make_trainer(loss_type, entropy_coef=0.3)
    for seed, rows_per_pass in enumerate((1, 3, len(rows))):
        trainer.args.per_device_train_batch_size = rows_per_pass
        assert_same(*trained_gradients(trainer, as_batch(permuted(rows, seed), seed)), reference)
        assert planned_steps(trainer)[0].without_gradient == []  # without advantage, but with entropy
    assert trainer.entropy_coef == 0.3


def test_the_logged_entropy_coefficient_is_the_configured_one(make_trainer, rows):
    trainer = make_trainer("grpo", entropy_coef=0.3, rows_per_pass=3)
    trained_gradients(trainer, as_batch(rows))
    assert trainer._metrics["train"]["entropy_coef"] == [pytest.approx(0.3)]


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_logged_policy_loss_is_that_of_the_step(make_trainer, exact, rows, loss_type):
    expected = reference_loss(exact, rows, loss_type).item()
    trainer = make_trainer(loss_type, entropy_coef=0.3)
    for rows_per_pass in (1, 3, len(rows)):
        trainer.args.per_device_train_batch_size = rows_per_pass
        logged = metrics_of(trainer, as_batch(rows))
        assert logged["policy_loss"] == pytest.approx(expected, rel=1e-4, abs=1e-5), rows_per_pass


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_a_group_twice_counts_twice(make_trainer, rows, loss_type):
    """There is no normalization per group: what a group adds to the sum over the batch grows with its completions."""
    group = [rows[0], rows[3], rows[4]]

    def unnormalized(some):
        tokens = sum(int(row.in_loss.sum()) for row in some)
        divisor = tokens if loss_type in ("dapo", "bnpo", "cispo", "vespo") else len(some)
        return trained_gradients(make_trainer(loss_type, rows_per_pass=3), as_batch(some))[0] * divisor

    once, twice, alone = unnormalized(rows), unnormalized(rows + group), unnormalized(group)
    assert alone.norm() > 0.1 * once.norm()
    assert_same(twice, once + alone)


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_a_batch_without_any_advantage(make_trainer, exact, rows, beta):
    rows = [replace(row, advantage=0.0) for row in rows]
    trainer = make_trainer("grpo", beta=beta)
    (gradient,) = trained_gradients(trainer, as_batch(rows, beta=beta))
    if beta:
        assert_same(gradient, reference_gradient(exact, rows, "grpo", beta=beta))
    else:  # one pass over filling rows alone, so that there is a gradient at all
        assert gradient.abs().max() == 0
        assert [part.num_real for part in planned_steps(trainer)[0].with_gradient] == [0]
    assert trainer._metrics["train"]["entropy"][-1] == pytest.approx(reference_entropy(exact, rows), rel=1e-5)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_without_old_log_probabilities_the_ratio_is_one(make_trainer, exact, rows, loss_type):
    """The trainer does this when no optimizer step lies between sampling and training."""
    on_policy = []
    for row in rows:
        with torch.no_grad():
            on_policy.append(replace(row, old=chosen(log_softmax_of(exact, row), row)))
    reference = reference_gradient(exact, on_policy, loss_type)
    batch = as_batch(on_policy)
    del batch["old_per_token_logps"]
    assert_same(*trained_gradients(make_trainer(loss_type), batch), reference)


# --- several optimizer steps on one batch, several batches in one step ---


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_each_of_two_steps_on_a_batch_gives_its_reference(make_trainer, exact, rows, loss_type, level):
    """Eleven rows, six in the first step and five in the second, which count as half of the batch each, as in TRL."""
    batch = as_batch(rows, beta=0.04)
    for steps, accumulation in ((2, 1), (4, 2)):
        trainer = make_trainer(
            loss_type,
            level,
            beta=0.04,
            rows_per_pass=2,
            steps_per_generation=steps,
            gradient_accumulation_steps=accumulation,
        )
        first, second = trained_gradients(trainer, batch)
        for gradient, some in ((first, rows[:6]), (second, rows[6:])):
            expected = reference_gradient(exact, some, loss_type, level, 0.04, batch=rows, share=0.5)
            assert_same(gradient, expected)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_each_of_two_batches_in_one_step_counts_half(make_trainer, exact, rows, loss_type):
    trainer = make_trainer(loss_type, gradient_accumulation_steps=2, rows_per_pass=3)
    reference = reference_gradient(exact, rows, loss_type)
    assert_same(*trained_gradients(trainer, as_batch(rows)), reference / 2)


# --- metrics ---


def metrics_of(trainer, batch) -> dict[str, float]:
    trainer._metrics["train"].clear()
    trained_gradients(trainer, batch)
    return {name: values[0] for name, values in trainer._metrics["train"].items() if len(values) == 1}


@pytest.mark.parametrize("variant", ["plain", "tools", "masked"])
def test_the_logged_entropy_is_the_mean_over_all_tokens(make_trainer, exact, rows, variant):
    rows = VARIANTS.get(variant, list)(rows)
    expected = reference_entropy(exact, rows)
    trainer = make_trainer("grpo")
    for seed, rows_per_pass in enumerate((1, 3, len(rows))):
        trainer.args.per_device_train_batch_size = rows_per_pass
        logged = metrics_of(trainer, as_batch(permuted(rows, seed), seed, variant == "tools"))
        assert logged["entropy"] == pytest.approx(expected, rel=1e-5)


def test_the_logged_entropy_where_trimming_leaves_one_column(make_trainer, exact, rows):
    """TRL takes a tensor of one column for one value per completion, and then also counts masked completions."""
    one_token = [replace(row, prompt=rows[0].prompt) for row in rows if len(row.completion) == 1]
    assert len(one_token) == 2
    rows = [rows[0], *one_token, replace(one_token[0], masked=True), replace(one_token[1], masked=True)]
    expected = reference_entropy(exact, rows)
    trainer = make_trainer("grpo")
    for rows_per_pass in (1, 2, 3, len(rows)):
        trainer.args.per_device_train_batch_size = rows_per_pass
        assert metrics_of(trainer, as_batch(rows))["entropy"] == pytest.approx(expected, rel=1e-5), rows_per_pass


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_loss_is_that_of_the_whole_batch(make_trainer, exact, rows, loss_type):
    expected = reference_loss(exact, rows, loss_type, beta=0.04).item()
    trainer = make_trainer(loss_type, beta=0.04)
    for rows_per_pass in (1, 3, len(rows)):
        trainer.args.per_device_train_batch_size = rows_per_pass
        (loss,) = train_on(trainer, as_batch(rows, beta=0.04))
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("level", LEVELS)
def test_the_logged_kl_and_clipping_do_not_depend_on_the_passes(make_trainer, exact, rows, level):
    rows = with_masked(rows)
    kl, clipped = [], []
    for row in rows:
        if not row.in_loss.any():
            if level == "sequence":
                clipped.append(torch.zeros(1, dtype=torch.bool))  # a ratio of 1
            continue
        with torch.no_grad():
            logps = chosen(log_softmax_of(exact, row), row)
        log_ratio = logps - row.old
        ratio = torch.exp(log_ratio if level == "token" else log_ratio.mean(0, keepdim=True))
        kl.append(kl_of(row, logps, ratio))
        low, high = (ratio < 1 - EPSILON_LOW), (ratio > 1 + EPSILON_HIGH)
        clipped.append(low & (row.advantage < 0) | high & (row.advantage > 0))
    trainer = make_trainer("grpo", level, beta=0.04)
    for seed, rows_per_pass in enumerate((1, 3, len(rows))):
        trainer.args.per_device_train_batch_size = rows_per_pass
        logged = metrics_of(trainer, as_batch(permuted(rows, seed), seed, beta=0.04))
        assert logged["kl"] == pytest.approx(torch.cat(kl).mean().item(), rel=1e-5)
        expected = torch.cat(clipped).double().mean().item()
        assert logged["clip_ratio/region_mean"] == pytest.approx(expected, rel=1e-5)


# --- passes, pure ---


@pytest.mark.parametrize("seed", range(30))
def test_passes_hold_every_row_once_and_nothing_too_large(seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    b, max_rows = draw(1, 40), draw(1, 9)
    lengths = torch.stack([torch.randint(1, top, (b,), generator=generator) for top in (30, 50)], dim=1)
    some = torch.randperm(b, generator=generator)[: draw(0, b)]
    max_tokens = None if seed % 3 == 0 else draw(80, 300)
    rows = longest_first(lengths, some)
    totals = lengths[rows].sum(dim=1).tolist()
    assert totals == sorted(totals, reverse=True)
    sizes = split_sizes(lengths[rows], max_rows, max_tokens)
    passes = make_passes(rows, sizes, lengths)
    assert rows_of(passes) == sorted(some.tolist())
    assert len(passes) <= len(some)
    for part, size in zip(passes, sizes, strict=True):
        assert 1 <= size <= max_rows and part.num_real == size == len(part.rows)
        assert max_tokens is None or part.num_computed <= max_tokens
        assert [part.prompt_width, part.completion_width] == [int(lengths[part.rows, i].max()) for i in (0, 1)]
        assert part.num_computed == size * (part.prompt_width + part.completion_width)
    for part, following in zip(passes, passes[1:], strict=False):  # no pass ends while the next row would fit
        wider = lengths[torch.cat([part.rows, following.rows[:1]])].amax(dim=0).sum()
        over = max_tokens is not None and (part.num_real + 1) * wider > max_tokens
        assert part.num_real == max_rows or over


@pytest.mark.parametrize("seed", range(10))
def test_passes_of_several_processes_are_alike(seed):
    """Sizes come from the elementwise maximum, and a process that has fewer rows fills up with masked ones."""
    generator = torch.Generator().manual_seed(seed)
    every = [torch.randint(1, 20, (count, 2), generator=generator) for count in (7, 3, 12)]
    used = [5, 0, 12]
    sorted_rows = [longest_first(own, torch.arange(count)) for own, count in zip(every, used, strict=True)]
    common = torch.zeros(12, 2, dtype=torch.long)
    for own, rows in zip(every, sorted_rows, strict=True):
        common[: len(rows)] = torch.maximum(common[: len(rows)], own[rows])
    sizes = split_sizes(common, max_rows=4, max_tokens=90)
    for own, rows in zip(every, sorted_rows, strict=True):
        passes = make_passes(rows, sizes, own)
        assert [len(part.rows) for part in passes] == sizes and rows_of(passes) == sorted(rows.tolist())
        for part in passes:
            assert part.num_computed <= 90
            assert (own[part.rows[: part.num_real]] <= torch.tensor([part.prompt_width, part.completion_width])).all()
            assert (own[part.rows, 0] <= part.prompt_width).all()  # no prompt is cut, not even a filling one


def random_batch(lengths, generator, corrected_sequences=False):
    """A batch of random numbers, which tell rows apart; padded with 0, or with 1 where TRL pads with 1."""
    b, prompts, completions = len(lengths), int(lengths[:, 0].max()) + 2, int(lengths[:, 1].max()) + 1
    prompt_mask = (torch.arange(prompts) >= prompts - lengths[:, :1]).long()
    completion_mask = (torch.arange(completions) < lengths[:, 1:]).long()

    def draw(mask, fill=0):
        return torch.where(mask.bool(), torch.randint(5, 99, mask.shape, generator=generator), fill)

    ratio = torch.rand(b, 1, generator=generator) if corrected_sequences else draw(completion_mask, 1)
    return {
        "prompt_ids": draw(prompt_mask),
        "prompt_mask": prompt_mask,
        "completion_ids": draw(completion_mask),
        "completion_mask": completion_mask,
        "tool_mask": draw(completion_mask, 1) % 2 | ~completion_mask.bool(),
        "old_per_token_logps": draw(completion_mask).float(),
        "importance_sampling_ratio": ratio,
        "token_type_ids": draw(torch.cat([prompt_mask, completion_mask], dim=1)),
        "advantages": torch.randn(b, generator=generator),
        "names": [f"{length.tolist()}" for length in lengths],
        "num_items_in_batch": completion_mask.sum(),
        "absent": None,
    }


def unpadded(batch, row) -> dict:
    """What one row of a batch says, without its padding."""
    prompt, completion = batch["prompt_mask"][row].bool(), batch["completion_mask"][row].bool()
    both = torch.cat([prompt, completion])
    ratio = batch["importance_sampling_ratio"]
    masks = dict.fromkeys(["prompt_ids", "prompt_mask"], prompt) | {"token_type_ids": both}
    masks |= dict.fromkeys(["completion_ids", "completion_mask", "tool_mask", "old_per_token_logps"], completion)
    told = {name: batch[name][row][mask].tolist() for name, mask in masks.items()}
    told["ratio"] = ratio[row].tolist() if ratio.shape[1] == 1 else ratio[row][completion].tolist()
    return told | {"advantage": batch["advantages"][row].item(), "name": batch["names"][row]}


@pytest.mark.parametrize("seed", range(10))
def test_merging_then_taking_gives_every_row_back(seed):
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for count, longest in ((5, 9), (1, 4), (7, 12)):
        lengths = torch.randint(2, longest, (count, 2), generator=generator)
        batches.append(random_batch(lengths, generator, corrected_sequences=seed % 2 == 0))
    merged = merge(batches, pad_token_id=0)
    told = [unpadded(batch, row) for batch in batches for row in range(len(batch["prompt_ids"]))]
    assert [unpadded(merged, row) for row in range(13)] == told
    padding = ~merged["completion_mask"].bool()
    assert (merged["completion_ids"][padding] == 0).all() and (merged["tool_mask"][padding] == 1).all()
    if seed % 2 == 1:
        assert (merged["importance_sampling_ratio"][padding] == 1).all()

    lengths = row_lengths(merged["prompt_mask"], merged["completion_mask"])
    rows = longest_first(lengths, torch.arange(13))
    for part in make_passes(rows, split_sizes(lengths[rows], 4, 60), lengths):
        taken = part.take(merged)
        assert taken["prompt_ids"].shape == (part.num_real, part.prompt_width)
        assert taken["completion_ids"].shape == (part.num_real, part.completion_width)
        assert taken["prompt_mask"][:, 0].any() and taken["completion_mask"][:, -1].any()  # trimmed to the longest
        assert [unpadded(taken, i) for i in range(part.num_real)] == [told[row] for row in part.rows.tolist()]
        assert taken["num_items_in_batch"] == merged["num_items_in_batch"] and taken["absent"] is None


def test_filling_rows_are_masked_out_and_the_batch_stays_as_it_is():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 9, (4, 2), generator=generator)
    batch = random_batch(lengths, generator)
    before = batch["completion_mask"].clone()
    filled, empty = make_passes(torch.tensor([2]), [3, 2], lengths)
    assert filled.num_real == 1 and filled.rows[1:].tolist() == [int(lengths[:, 0].argmin())] * 2
    assert filled.take(batch)["completion_mask"].sum(dim=1).tolist() == [lengths[2, 1], 0, 0]
    assert empty.num_real == 0 and empty.completion_width <= 2
    assert empty.take(batch)["completion_mask"].sum() == 0 and empty.take(batch)["prompt_mask"].any()
    assert torch.equal(batch["completion_mask"], before)


# --- log-probabilities of a whole batch ---


@pytest.mark.parametrize("max_tokens", [None, 40])
def test_log_probabilities_in_trimmed_passes_are_those_of_the_whole_batch(make_trainer, exact, rows, max_tokens):
    rows = with_masked(rows)
    batch = as_batch(rows)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    width = batch["completion_ids"].shape[1]
    trainer = make_trainer("grpo", max_tokens_per_micro_batch=max_tokens)
    with torch.no_grad():
        stock, _, _ = super(RLVRTrainer, trainer)._get_per_token_logps_and_entropies(trainer.model, ids, mask, width)
        widths = []
        hook = trainer.model.model.register_forward_pre_hook(
            lambda module, args, kwargs: widths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
        )
        for batch_size in (1, 3, len(rows)):
            widths.clear()
            trimmed, _, _ = trainer._get_per_token_logps_and_entropies(
                trainer.model, ids, mask, width, batch_size=batch_size
            )
            assert trimmed.shape == stock.shape
            seen = batch["completion_mask"].bool()
            torch.testing.assert_close(trimmed[seen], stock[seen], rtol=1e-5, atol=1e-5)
            for i, row in enumerate(rows):
                if not row.masked:
                    own = chosen(log_softmax_of(exact, row), row)
                    torch.testing.assert_close(trimmed[i, : len(own)].double(), own, rtol=1e-5, atol=1e-5)
            assert max(count for count, _ in widths) <= batch_size
            assert sum(count * columns for count, columns in widths) < ids.numel()
            assert max_tokens is None or max(count * columns for count, columns in widths) <= max_tokens
        hook.remove()
