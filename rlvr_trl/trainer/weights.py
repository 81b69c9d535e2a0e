"""How much the loss of one pass counts in an optimizer step, so that the way rows are split into passes does not.

TRL's `_compute_loss` normalizes by what a micro-batch holds and by the number of gradient accumulation steps g, which
is right when all micro-batches are alike. Here they are not. Its loss is left as it is and multiplied by a weight that
turns its normalizer into one of the whole batch, and never of a group:

| loss_type                   | TRL divides the sum by     | here by                      | weight      |
|-----------------------------|----------------------------|------------------------------|-------------|
| grpo, sapo, luspo, dr_grpo  | rows of the pass · g       | rows of the batch            | b · W·S / R |
| bnpo, and the entropy bonus | tokens of the pass · g     | tokens of the optimizer step | m · W·B / M |
| dapo, cispo, vespo          | tokens of the batch · g/S  | tokens of the batch          | 1           |

with b rows and m tokens in the pass, R rows in the batch and M tokens in the optimizer step over all W processes,
`steps_per_generation` S, and B of these S in one optimizer step. W is there because processes average their gradients.
A batch that is split over several optimizer steps counts R·(share of the steps) in each, as in TRL. bnpo normalizes by
the tokens at hand by definition; at hand means the optimizer step here, which does not depend on the micro-batch size
or the number of processes.
"""

from dataclasses import dataclass


TOKENS_OF_BATCH = ("dapo", "cispo", "vespo")


@dataclass(frozen=True)
class Totals:
    """
    What the weights of the passes of one optimizer step relate to.

    Args:
        rows (`int`): completions in the loss of the generation batch, all processes.
        tokens (`int`): completion tokens in the loss of the optimizer step, all processes.
        num_processes (`int`): W.
        steps_per_generation (`int`): S.
        steps_per_block (`int`): B, those of the S steps that one optimizer step takes.
    """

    rows: int
    tokens: int
    num_processes: int
    steps_per_generation: int
    steps_per_block: int


@dataclass(frozen=True)
class PassWeights:
    """Factors of the three terms of a pass's loss: policy (with KL), entropy bonus, and auxiliary loss of experts."""

    policy: float
    entropy: float
    aux: float


def pass_weights(loss_type: str, num_rows: int, num_counted: int, num_tokens: int, totals: Totals) -> PassWeights:
    """
    The weights of a pass.

    Args:
        num_rows (`int`): b, all rows of the pass, by which TRL divides.
        num_counted (`int`): those that are not masked out to fill it.
        num_tokens (`int`): m, its tokens in the loss.
    """
    per_row = totals.num_processes * totals.steps_per_generation / max(totals.rows, 1)
    by_tokens = num_tokens * totals.num_processes * totals.steps_per_block / max(totals.tokens, 1)
    if loss_type == "bnpo":
        policy = by_tokens
    elif loss_type in TOKENS_OF_BATCH:
        policy = 1.0
    else:
        policy = num_rows * per_row
    return PassWeights(policy=policy, entropy=by_tokens, aux=num_counted * per_row)
