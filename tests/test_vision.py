"""Images in ragged batches: those of each row's prompt, and the gradient of the rows alone."""

import pytest
import torch
from datasets import Dataset
from PIL import Image
from row_by_row import UNEVEN, Uneven, assert_same_gradient, prompts_of
from tiny_training import build, planned_steps, sample, short
from tiny_vlm import IMAGE, build_processor, build_vision_model
from trl import GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid

from rlvr_trl import DARSTrainer, RLVRConfig, RLVRTrainer
from rlvr_trl.advantages import AdaptivePassAtK


# Number and size of the images of each prompt
IMAGES = [[(16, 16)], [(24, 16), (8, 32)], [(32, 32)], [(16, 8), (16, 16), (8, 8)]]


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def pictures():
    """Four prompts, whose images differ in number, size and color."""
    prompts, images = [], []
    for i, sizes in enumerate(IMAGES):
        prompts.append([{"role": "user", "content": "what is this?"[: 5 + 2 * i]}])
        images.append([Image.new("RGB", size, (60 * i, 255 - 40 * j, 30)) for j, size in enumerate(sizes)])
    return Dataset.from_dict({"prompt": prompts, "images": images})


@pytest.fixture
def settings(cpu_settings):
    return cpu_settings | {"per_device_train_batch_size": 16, "shuffle_dataset": False}


def build_with_images(trainer_class, settings, pictures, processor, **kwargs):
    return build(trainer_class, settings, pictures, processor, short, build_vision_model(sharpness=4.0), **kwargs)


@pytest.mark.parametrize("extra", [UNEVEN.extra, (8, 0, 0, 0)], ids=["all widths", "narrow ones only"])
@pytest.mark.parametrize("pad_to_multiple_of", [None, 16])
def test_every_row_has_the_images_of_its_prompt(settings, pictures, processor, pad_to_multiple_of, extra):
    settings |= {"pad_to_multiple_of": pad_to_multiple_of}
    trainer = build_with_images(RLVRTrainer, settings, pictures, processor, rollouts=Uneven(extra, max_generations=12))
    batch = sample(trainer, pictures, 4)
    order = prompts_of(extra)
    assert len(batch["prompt_ids"]) == len(batch["pixel_values"]) == len(order) == 16 + sum(extra)
    image_token = processor.tokenizer.convert_tokens_to_ids(IMAGE)
    for row, prompt in enumerate(order):
        alone = processor.image_processor(images=pictures[prompt]["images"], return_tensors="pt")
        assert batch["num_images"][row] == len(IMAGES[prompt])
        assert torch.equal(batch["pixel_values"][row], alone["pixel_values"])
        assert torch.equal(batch["image_grid_thw"][row], alone["image_grid_thw"])
        ids = torch.cat([batch["prompt_ids"][row], batch["completion_ids"][row]])
        assert torch.equal(batch["mm_token_type_ids"][row], (ids == image_token).long())
        assert (ids == image_token).sum() * 4 == len(alone["pixel_values"])  # 2x2 patches a token
    assert trainer.logged_completions["images"] == [pictures[prompt]["images"] for prompt in order]


SPLITS = {
    "one pass": {"per_device_train_batch_size": 29},
    "small passes": {"per_device_train_batch_size": 5},
    "token budget": {"per_device_train_batch_size": 29, "max_tokens_per_micro_batch": 150},
    "dr_grpo": {"per_device_train_batch_size": 3, "loss_type": "dr_grpo"},
    "reference": {"per_device_train_batch_size": 5, "beta": 0.1},
    "truncated": {"per_device_train_batch_size": 5, "mask_truncated_completions": True},
    "padded": {"per_device_train_batch_size": 5, "pad_to_multiple_of": 16},
}


@pytest.mark.parametrize("rollouts", [None, UNEVEN], ids=["equal", "ragged"])
@pytest.mark.parametrize("split", SPLITS)
def test_groups_have_the_gradient_of_their_rows(settings, pictures, processor, tmp_path, rollouts, split):
    settings |= {"num_iterations": 2, "trim_padding": True} | SPLITS[split]
    rows, settings["per_device_train_batch_size"] = settings["per_device_train_batch_size"], 16
    if "beta" in settings:  # TRL loads the reference model from where the model came from
        build_vision_model(seed=1).save_pretrained(tmp_path / "reference")
    model = build_vision_model(sharpness=4.0)
    model.config._name_or_path = str(tmp_path / "reference")
    trainer = RLVRTrainer(
        model, short, RLVRConfig(**settings), pictures, processing_class=processor, rollouts=rollouts
    )
    batch = trainer_batch(trainer, pictures, rollouts)
    noise = torch.randn(batch["completion_ids"].shape, generator=torch.Generator().manual_seed(0))
    batch["old_per_token_logps"] = batch["old_per_token_logps"] + 0.3 * noise * batch["completion_mask"]
    trainer.args.per_device_train_batch_size = rows
    assert_same_gradient(trainer, batch)
    passes = planned_steps(trainer)[0].passes
    assert all(part.num_real <= rows for part in passes)
    if split == "token budget":
        assert len(passes) > 2 and all(part.num_computed <= 150 for part in passes)


def trainer_batch(trainer, pictures, rollouts):
    batch = sample(trainer, pictures, 4)
    if rollouts is None:  # as the trainer does before it makes passes
        batch = split_pixel_values_by_grid(batch)
    return batch


def test_equal_groups_train_stock_grpo_to_the_last_bit(settings, pictures, processor):
    settings |= {"steps_per_generation": 2, "per_device_train_batch_size": 8}
    stock = build_with_images(GRPOTrainer, settings, pictures, processor)
    stock.train()
    ours = build_with_images(RLVRTrainer, settings, pictures, processor)
    ours.train()
    start = build_vision_model(sharpness=4.0)
    assert any(not torch.equal(a, b) for a, b in zip(stock.model.parameters(), start.parameters(), strict=True))
    for (name, weight), other in zip(ours.model.named_parameters(), stock.model.parameters(), strict=True):
        assert torch.equal(weight, other), name


def test_dars_trains_the_vision_tower_and_resumes_in_the_middle_of_a_batch(settings, pictures, processor, tmp_path):
    settings |= {"num_iterations": 2, "max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    settings |= {"max_generations": 9, "zero_accuracy": "cap", "correctness_threshold": 0.15}
    whole = build_with_images(DARSTrainer, settings, pictures, processor)
    start = {name: weight.clone() for name, weight in whole.model.named_parameters()}
    whole.train()
    extra = [entry["rollouts/extra"] for entry in whole.state.log_history if "rollouts/extra" in entry]
    assert len(extra) == 2 and all(extra)
    tower = [name for name in start if "visual" in name]
    after = dict(whole.model.named_parameters())
    assert tower and any(not torch.equal(after[name], start[name]) for name in tower)
    again = settings | {"output_dir": str(tmp_path / "again")}
    resumed = build_with_images(DARSTrainer, again, pictures, processor)
    resumed.train(resume_from_checkpoint=f"{settings['output_dir']}/checkpoint-1")
    for name, weight in resumed.model.named_parameters():
        assert torch.equal(weight, after[name]), name


def test_entropies_of_rows_with_images(settings, pictures, processor):
    seen = []

    class Recording(AdaptivePassAtK):
        def __call__(self, groups):
            seen.append(groups.entropies)
            return super().__call__(groups)

    trainer = build_with_images(RLVRTrainer, settings, pictures, processor, rollouts=UNEVEN, advantages=Recording(2))
    batch = sample(trainer, pictures, 4)
    assert len(seen[-1]) == 29
    for row in (0, 5, 9, 15, 17, 25, 27):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        completion = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
        ids = torch.cat([prompt, completion])[None]
        with torch.no_grad():
            logits = trainer.model(
                input_ids=ids,
                pixel_values=batch["pixel_values"][row],
                image_grid_thw=batch["image_grid_thw"][row],
                mm_token_type_ids=(ids == processor.tokenizer.convert_tokens_to_ids(IMAGE)).long(),
            ).logits[0]
        entropy = torch.distributions.Categorical(logits=logits[len(prompt) - 1 : -1]).entropy().mean()
        torch.testing.assert_close(seen[-1][row], entropy, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trainer_class", [GRPOTrainer, RLVRTrainer])
def test_prompts_with_and_without_images_do_not_mix(settings, pictures, processor, trainer_class):
    """TRL gives the processor None for a prompt without images, which Qwen's does not accept."""
    images = [pictures[0]["images"], [], [], pictures[3]["images"]]
    mixed = Dataset.from_dict({"prompt": pictures["prompt"], "images": images})
    with pytest.raises(TypeError, match="only a single or a list of entries"):
        build_with_images(trainer_class, settings, mixed, processor).train()
