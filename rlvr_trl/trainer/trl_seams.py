"""The private parts of TRL that the trainer stands on, checked on import.

TRL promises nothing about them. A version that was never tested here warns; a part that is gone or takes other
arguments is an ImportError that names it, instead of a run that trains on something else.
"""

import inspect
import warnings

import transformers
import trl
from packaging.version import Version
from trl import GRPOTrainer


TESTED_TRL = ("1.16",)
TESTED_TRANSFORMERS = "transformers>=5.10,<5.24"

# method of GRPOTrainer, its own or inherited from transformers -> its (first) parameters, as they are used here
SEAMS = {
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_compute_loss": ("self", "model", "inputs"),
    "_finish_current_push": ("self",),
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
    "_get_output_dir": ("self", "trial"),
    "_get_train_sampler": ("self", "dataset"),
    "_issue_warnings_after_load": ("self", "load_result"),
    "_load_best_model": ("self",),
    "_load_from_checkpoint": ("self", "resume_from_checkpoint", "model"),
    "_load_optimizer_and_scheduler": ("self", "checkpoint"),
    "_log_completion_extra": ("self", "column", "values"),
    "_prepare_inputs": ("self", "generation_batch"),
    "_push_from_checkpoint": ("self", "checkpoint_folder"),
    "_save_checkpoint": ("self", "model", "trial"),
    "_save_rng_state": ("self", "output_dir"),
    "compute_loss": ("self", "model", "inputs", "return_outputs", "num_items_in_batch"),
    "create_model_card": ("self", "model_name", "dataset_name", "tags"),
    "init_hf_repo": ("self", "token"),
    "push_to_hub": ("self", "commit_message", "blocking", "token", "revision"),
    "training_step": ("self", "model", "inputs", "num_items_in_batch"),
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
                f"rlvr_trl overrides `{trainer_class.__name__}.{name}`, which {problem} in TRL {version} "
                f"with transformers {transformers.__version__}. Install tested versions: pip install "
                f"'trl=={TESTED_TRL[-1]}.*' '{TESTED_TRANSFORMERS}'."
            )
    if ".".join(map(str, Version(version).release[:2])) not in TESTED_TRL:
        warnings.warn(
            f"rlvr_trl is tested with TRL {', '.join(TESTED_TRL)}, but TRL {version} is installed.", stacklevel=2
        )
