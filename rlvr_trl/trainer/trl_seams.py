"""The private parts of TRL that the trainer stands on, checked on import.

TRL promises nothing about them. A version that was never tested here warns; a part that is gone or takes other
arguments is an ImportError that names it, instead of a run that trains on something else.
"""

import inspect
import warnings

import trl
from packaging.version import Version
from trl import GRPOTrainer


TESTED_TRL = ("1.16",)

# method of GRPOTrainer -> its (first) parameters, as this package calls or overrides it
SEAMS = {
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_compute_loss": ("self", "model", "inputs"),
    "_generate": ("self", "prompts"),
    "_generate_and_score_completions": ("self", "inputs"),
    "_generate_single_turn": ("self", "prompt_ids", "images", "multimodal_fields", "num_generations"),
    "_get_per_token_logps_and_entropies": (
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
    ),
    "_get_train_sampler": ("self", "dataset"),
    "_load_optimizer_and_scheduler": ("self", "checkpoint"),
    "_prepare_inputs": ("self", "generation_batch"),
    "_save_rng_state": ("self", "output_dir"),
}


def check_trl(trainer_class: type = GRPOTrainer, version: str = trl.__version__) -> None:
    """
    Checks that `trainer_class` of TRL `version` has the methods this package overrides.

    Raises:
        `ImportError`: A method is gone or its parameters changed; names it and the version.
    """
    for name, expected in SEAMS.items():
        method = getattr(trainer_class, name, None)
        found = None if method is None else tuple(inspect.signature(method).parameters)[: len(expected)]
        if found != expected:
            problem = "no longer exists" if found is None else f"takes {found} instead of {expected}"
            raise ImportError(
                f"rlvr_trl overrides `{trainer_class.__name__}.{name}`, which {problem} in TRL {version}. "
                f"Install a tested version: pip install 'trl=={TESTED_TRL[-1]}.*'."
            )
    if ".".join(map(str, Version(version).release[:2])) not in TESTED_TRL:
        warnings.warn(
            f"rlvr_trl is tested with TRL {', '.join(TESTED_TRL)}, but TRL {version} is installed.", stacklevel=2
        )
