"""Two gloo processes, for real."""

import pytest
import torch
from launching import launch

from rlvr_trl.advantages import PassAtK, RolloutGroups


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spanning_groups")
    launch("spanning_groups.py", str(folder), processes=2)
    return {
        name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in range(2)]
        for name in ("stock", "group_relative", "pass_at_k")
    }


def test_group_relative_on_two_processes_is_stock_grpo(ranks):
    for ours, stock in zip(ranks["group_relative"], ranks["stock"], strict=True):
        for (ids, advantages), (stock_ids, stock_advantages) in zip(ours["batches"], stock["batches"], strict=True):
            assert torch.equal(ids, stock_ids) and torch.equal(advantages, stock_advantages)
        for name, weight in stock["weights"].items():
            assert torch.equal(ours["weights"][name], weight), name


def test_groups_that_span_the_ranks_are_whole(ranks):
    first, second = ranks["pass_at_k"]
    rewards = torch.tensor(first["rewards"]["share_of_right_moves"])  # of the last batch, all processes
    expected = PassAtK(2)(RolloutGroups(rewards, torch.arange(12) // 4))
    used = torch.cat([first["batches"][-1][1], second["batches"][-1][1]])
    assert len(rewards) == 12 and expected[4:8].abs().max() > 0.1  # the group of rows 4…7 spans both
    assert torch.equal(used, expected)
    assert first["advantages"] == expected.tolist()


def test_metrics_are_over_all_ranks(ranks):
    first, second = ranks["pass_at_k"]
    advantages = torch.tensor(first["advantages"]).view(3, 4)
    logged = [entry for entry in first["history"] if "advantages/abs_sum_mean" in entry][-1]
    assert logged["advantages/abs_sum_mean"] == pytest.approx(advantages.abs().sum(1).mean().item())
    assert logged["advantages/abs_sum_max"] == pytest.approx(advantages.abs().sum(1).max().item())
    for name in first["weights"]:
        assert torch.equal(first["weights"][name], second["weights"][name]), name
