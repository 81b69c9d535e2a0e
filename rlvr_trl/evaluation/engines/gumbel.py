"""Gumbel noise that needs no generator."""

import torch


# SplitMix64 (Steele, Lea and Flood, 2014, doi 10.1145/2660193.2660195): the increment and the multipliers of the mixer
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
# Elements that are computed at once: what a CPU's cache holds, elsewhere what costs little memory
_CPU_BLOCK, _DEVICE_BLOCK = 2**18, 2**24


class GumbelNoise:
    """
    Standard Gumbel noise as a function of stream, step and token: `argmax(logits + noise)` is a sample.

    There are no generators to advance: the value is a hash (SplitMix64's) of a counter. So the noise of a row needs
    neither the rows beside it nor its own earlier steps, a batch costs a fixed number of tensor operations however
    many rows it has, and CPU and accelerator draw the same.

    Args:
        keys (`torch.Tensor` of shape `(B,)`): int64, see `stream_key`.
        vocab_size (`int`): V.
    """

    def __init__(self, keys: torch.Tensor, vocab_size: int):
        self.keys = keys
        self.counters = torch.arange(1, vocab_size + 1, device=keys.device) * _signed(_GAMMA)  # (V,), modulo 2^64

    def __call__(self, step: int) -> torch.Tensor:
        """Noise of a step, counted from 0: float32, of shape `(B, V)`, always finite."""
        step_keys = _mix(self.keys + _signed(_GAMMA * (step + 1)))  # (B,)
        block = _CPU_BLOCK if step_keys.device.type == "cpu" else _DEVICE_BLOCK
        rows = max(1, block // len(self.counters))
        return torch.cat([self._noise(keys) for keys in step_keys.split(rows)])

    def _noise(self, step_keys: torch.Tensor) -> torch.Tensor:
        bits = _mix(step_keys[:, None] + self.counters)  # (rows, V)
        # 53 bits, and not the 24 of a float32 uniform: the likeliest winner among V tokens has a `uniform` near 1/V,
        # where a grid of 2^-24 would show. Neither 0 nor 1, whose logarithms are infinite.
        uniform = _shift_right(bits, 11).float().add_(0.5).mul_(2.0**-53).clamp_(max=1 - 2.0**-24)
        return uniform.neg_().log1p_().neg_().log_().neg_()  # minus the log of an exponential variable


def _mix(state: torch.Tensor) -> torch.Tensor:
    state = (state ^ _shift_right(state, 30)).mul_(_signed(_MULTIPLIERS[0]))
    state.bitwise_xor_(_shift_right(state, 27)).mul_(_signed(_MULTIPLIERS[1]))
    return state.bitwise_xor_(_shift_right(state, 31))


def _shift_right(state: torch.Tensor, bits: int) -> torch.Tensor:
    # torch shifts the sign in
    return (state >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value
