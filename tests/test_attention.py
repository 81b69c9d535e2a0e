"""Where shapes change all the time, torch's attention goes without the kernel of cuDNN; elsewhere nothing changes."""

import pytest
import torch
from tiny_training import build, share_of_right_moves

from rlvr_trl import RLVRTrainer
from rlvr_trl.attention import without_cudnn_attention


@pytest.mark.parametrize("before", [True, False])
def test_the_setting_is_put_back(before):
    torch.backends.cuda.enable_cudnn_sdp(before)
    try:
        with pytest.raises(KeyError), without_cudnn_attention():
            assert not torch.backends.cuda.cudnn_sdp_enabled()
            raise KeyError
        assert torch.backends.cuda.cudnn_sdp_enabled() == before
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)


@pytest.mark.parametrize("trim", [True, False])
def test_passes_go_without_it_and_stock_steps_do_not(trim, cpu_settings, mazes, tokenizer):
    changed = cpu_settings | {"max_steps": 1, "trim_padding": trim}
    trainer = build(RLVRTrainer, changed, mazes, tokenizer, share_of_right_moves)
    seen = []
    trainer.model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
    trainer.train()
    assert set(seen) == {not trim} and torch.backends.cuda.cudnn_sdp_enabled()
