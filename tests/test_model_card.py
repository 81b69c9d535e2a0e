"""What the model card says about trainers that ran and about results as `rlvr-trl eval` writes them."""

import json
import re
from math import comb
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard
from peft import LoraConfig
from tiny_training import build

from rlvr_trl import DARSTrainer, RLVRConfig, RLVRTrainer
from rlvr_trl.advantages import (
    AGRAE,
    ESTIMATORS,
    GroupRelative,
    GRPOLead,
    NegativeOnly,
    PassAtK,
    PositiveNegativeReinforce,
    Scheduled,
    build_estimator,
)
from rlvr_trl.hub.card_results import add_results_to_card
from rlvr_trl.hub.model_card import dataset_id, describe
from rlvr_trl.hub.papers import methods_in
from rlvr_trl.rollouts import ALLOCATORS, DARS, ReinforceAda
from rlvr_trl.trainer.pass_at_k_callback import PassAtKCallback


def own_advantage(groups):
    return groups.rewards - 0.5


def card_of(trainer):
    trainer.create_model_card(model_name="maze")
    return Path(trainer.args.output_dir, "README.md").read_text(encoding="utf-8")


def settings_in(text):
    return yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])


@pytest.fixture
def make_trainer(model, tokenizer, mazes, cpu_settings):
    def make(trainer_class=RLVRTrainer, dataset=mazes, **more):
        names = {"advantages", "rollouts", "rewards", "peft_config"} & more.keys()
        chosen = {name: more.pop(name) for name in names}
        return build(trainer_class, cpu_settings | more, dataset, tokenizer, model=model, **chosen)

    return make


def test_method_papers_and_tags_of_nested_estimators(make_trainer):
    nested = Scheduled([(0, AGRAE(PassAtK(k=2))), (0.5, GRPOLead(NegativeOnly(GroupRelative("none"))))])
    trainer = make_trainer(
        advantages=nested, rollouts=DARS(max_generations=6), loss_type="grpo", importance_sampling_level="sequence"
    )
    text = card_of(trainer)
    assert f"| Advantages | `{nested!r}` |" in text
    assert f"| Rollouts | `{trainer.rollouts!r}`, after 4 completions of every prompt |" in text
    assert "| Rewards | `right_moves`; correct where `right_moves` is above 0.5 |" in text
    assert "| Dataset | a local dataset, 24 prompts |" in text and "a local model" in text
    cited = set(re.findall(r"arXiv:(\d{4}\.\d{5})", text))
    assert cited == {
        "2508.10751",  # Pass@k, also of the schedule
        "2602.05548",  # A-GRAE
        "2504.09696",  # GRPO-LEAD
        "2510.04028",  # GRPO-N
        "2503.20783",  # Dr. GRPO: not divided
        "2508.13755",  # DARS
        "2507.18071",  # GSPO
        "2402.03300",  # GRPO, always
    }
    assert set(re.findall(r"https://arxiv.org/abs/(\d{4}\.\d{5})", text)) == cited
    tags = ModelCard(text).data.tags
    assert {"trl", "rlvr-trl", "grpo", "pass-at-k", "a-grae", "grpo-lead", "grpo-n", "dr-grpo", "dars"} <= set(tags)
    assert tags == sorted(set(tags))


@pytest.mark.parametrize("name", [*ESTIMATORS, *ALLOCATORS])
def test_every_estimator_and_allocator_has_a_paper(name):
    fields = {"k": 2, "size": 2, "base": "group_relative", "stages": [[0, "group_relative"]]}
    known = {
        "scheduled": ["stages"],
        "without_easy": ["base"],
        "training_group": ["size"],
        **{n: ["k"] for n in ESTIMATORS if n.endswith("pass_at_k") or n in ("pkpo", "max_at_k")},
    }
    if name in ALLOCATORS:
        part = ReinforceAda(8, 4) if name == "reinforce_ada" else DARS()
    else:
        part = build_estimator({"name": name, **{field: fields[field] for field in known.get(name, [])}})
    assert next(iter(methods_in(part))) == type(part).__name__
    for paper, _ in methods_in(part).values():
        assert re.fullmatch(r"\d{4}\.\d{5}", paper["id"]) and paper["citation"].count("{") == paper["citation"].count(
            "}"
        )


def test_the_paper_of_a_named_trainer_is_cited_once(make_trainer):
    text = card_of(make_trainer(DARSTrainer, max_generations=6))
    assert text.count("arXiv:2508.13755") == 1 and "Cite DARS as:" in text
    assert "arXiv:2503.20783" in text  # its loss, and its advantage without deviation
    assert text.index("## Method") < text.index("### Framework versions") < text.index("## Citations")
    assert "- rlvr_trl: " in text and "- TRL: " in text and "@software{rlvr_trl," in text


def test_a_users_function_goes_by_its_name(make_trainer):
    assert "| Advantages | `test_model_card.own_advantage` |" in card_of(make_trainer(advantages=own_advantage))
    assert describe(AGRAE(own_advantage)).startswith("AGRAE(base=own_advantage, ")
    assert methods_in(own_advantage) == {}
    assert list(methods_in(NegativeOnly(PositiveNegativeReinforce.nsr()))) == [
        "NegativeOnly",
        "PositiveNegativeReinforce",
    ]


def test_settings_hold_what_differs_and_no_secret(make_trainer, tmp_path):
    secrets = {"hub_token": "hf_secret", "logging_dir": str(tmp_path / "logs"), "run_name": "secret run"}
    secrets = {name: value for name, value in secrets.items() if name in RLVRConfig.__dataclass_fields__}
    kwargs = {"top_p": 0.9, "api_key": "secret", "cache_dir": "/secret", "words": ["/secret", "b"]}
    trainer = make_trainer(advantages=PassAtK(2), epsilon=0.1, generation_kwargs=kwargs, **secrets)
    text = card_of(trainer)
    settings = settings_in(text)
    assert settings["epsilon"] == 0.1 and settings["learning_rate"] == 1e-3 and settings["max_steps"] == 2
    assert settings["seed"] == 42 and settings["num_generations"] == 4 and settings["loss_type"] == "dapo"
    assert settings["generation_kwargs"] == {"top_p": 0.9, "words": ["b"]}
    assert not {"output_dir", "logging_dir", "hub_token", "report_to", "weight_decay"} & settings.keys()
    assert "secret" not in text and str(tmp_path) not in text


def test_a_dataset_of_the_hub_is_named(make_trainer, mazes):
    dataset = Dataset.from_list(list(mazes))
    dataset.info.download_checksums = {"hf://datasets/owner/mazes-4x4@0123abc/train.parquet": {"num_bytes": 1}}
    text = card_of(make_trainer(dataset=dataset))
    assert ModelCard(text).data.datasets == "owner/mazes-4x4"
    assert "[owner/mazes-4x4](https://huggingface.co/datasets/owner/mazes-4x4), 24 prompts" in text


@pytest.mark.parametrize("name", ["math", "data/train.jsonl", "./owner/name", "a\n---\nb", ""])
def test_a_local_dataset_is_not_one_of_the_hub(make_trainer, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/train.jsonl").touch()
    trainer = make_trainer()
    with pytest.warns(
        UserWarning, match="is not the id of a dataset on the Hub, such as 'owner/name'. The card names"
    ):
        trainer.create_model_card(model_name="maze", dataset_name=name)
    text = Path(trainer.args.output_dir, "README.md").read_text(encoding="utf-8")
    assert ModelCard(text).data.datasets is None and "| Dataset | a local dataset, 24 prompts |" in text
    assert "huggingface.co/datasets" not in text


def test_a_dataset_that_the_caller_names(make_trainer):
    trainer = make_trainer()
    trainer.create_model_card(dataset_name="owner/mazes")
    assert ModelCard.load(f"{trainer.args.output_dir}/README.md").data.datasets == "owner/mazes"


def test_the_id_of_a_dataset_survives_what_is_done_to_it(mazes):
    dataset = Dataset.from_list(list(mazes))
    dataset.info.download_checksums = {"hf://datasets/owner/mazes@0123abc/train.parquet": {"num_bytes": 1}}
    dataset = dataset.map(lambda row: {"more": 1}).filter(lambda row: row["more"] == 1).shuffle(seed=1)
    assert dataset_id(dataset.select(range(5))) == "owner/mazes"
    assert dataset_id(dataset.to_iterable_dataset()) in (None, "owner/mazes")
    dataset.info.download_checksums = {"hf://datasets/ow'n\ner/mazes: x@0123abc/train.parquet": {"num_bytes": 1}}
    assert dataset_id(dataset) is None and dataset_id(None) is None


def test_hostile_names_stay_within_their_places(make_trainer):
    name = "a\n---\n\"'`|b: [c] # </code> {{ 1 }}"

    def reward(completions, **kwargs):
        return [float("R" in completion) for completion in completions]

    reward.__name__ = name
    trainer = make_trainer(rewards=reward)
    trainer.create_model_card(model_name=name, tags=name)
    card = ModelCard.load(f"{trainer.args.output_dir}/README.md")
    one_line = " ".join(name.split())
    assert card.data.model_name == one_line and name in card.data.tags
    assert card.text.strip().startswith(f"# Model Card for {one_line}\n")
    escaped = one_line.replace("|", "\\|")
    assert f"| Rewards | `` {escaped} ``; correct where `` {escaped} `` is above 0.5 |" in card.text
    assert 'model="None"' not in card.text and 'model="path/to/this/folder"' in card.text


def test_folders_in_an_estimator_are_left_out(make_trainer):
    class Logging:
        def __call__(self, groups):
            return groups.rewards

        def __repr__(self):
            return "Logging(path='/home/somebody/log.txt', ratio=1/2, cache=~/somebody/x)"

    text = card_of(make_trainer(advantages=Logging()))
    assert "`Logging(path='…', ratio=1/2, cache=…)`" in text and "somebody" not in text


@pytest.mark.parametrize("base", ["owner/base", "gone/../base", "{tmp_path}"])
def test_an_adapter_is_described_as_one_and_stays_so(make_trainer, tmp_path, base):
    base = base.format(tmp_path=tmp_path)
    trainer = make_trainer(peft_config=LoraConfig(r=2, target_modules=["q_proj"]))
    trainer.model.config._name_or_path = trainer.model.get_base_model().name_or_path = base
    text = card_of(trainer)
    trainer.save_model()  # where PEFT would put its own
    assert Path(trainer.args.output_dir, "README.md").read_text(encoding="utf-8") == text
    data = ModelCard(text).data
    assert data.library_name == "peft" and data["base_model_relation"] == "adapter" and "lora" in data.tags
    if base == "owner/base":
        assert data.base_model == base and f"base_model:adapter:{base}" in data.tags
        assert f"[{base}](https://huggingface.co/{base})" in text and "pipeline(" in text
    else:
        assert data.base_model is None and base not in text and "a local model" in text
    trainer.save_model(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere/README.md").exists()


def test_what_was_measured_during_training_is_a_table_and_a_curve(make_trainer, mazes):
    trainer = make_trainer()
    callback = PassAtKCallback(trainer, mazes.select(range(3)), num_samples=2, every=1)
    trainer.add_callback(callback)
    assert "pass@k during training" not in card_of(trainer)  # nothing measured yet
    trainer.train()
    text = card_of(trainer)
    assert len(callback.history) == 3  # before the first step too
    for entry in callback.history:
        assert f"| {entry['step']} | {entry['eval_pass@1']:.4f} | {entry['eval_pass@2']:.4f} |" in text
    assert "| step | pass@1 | pass@2 |" in text and "| Optimizer steps | 2 |" in text
    png = Path(trainer.args.output_dir, "pass_at_k_training.png")
    drawn = png.read_bytes()
    assert drawn.startswith(b"\x89PNG") and "](pass_at_k_training.png)" in text
    assert card_of(trainer) == text
    assert png.read_bytes() == drawn  # nothing to push again


COUNTS = {"aime25": [(4, 0), (4, 1), (4, 4)], "amc23": [(4, 2), (4, 3)]}


def write_results(path, *benchmarks):
    saved = {
        name: {
            "settings": {"benchmark": name, "num_samples": 4, "temperature": 0.6},
            "problems": [{"id": str(i), "num_samples": n, "num_correct": c} for i, (n, c) in enumerate(COUNTS[name])],
        }
        for name in benchmarks
    }
    path.write_text(json.dumps(saved[benchmarks[0]] if len(saved) == 1 else {"benchmarks": saved}))
    return path


def expected(name, k):
    return sum(1 - comb(n - c, k) / comb(n, k) for n, c in COUNTS[name]) / len(COUNTS[name])


@pytest.mark.parametrize("as_one_file", [True, False])
def test_results_of_an_evaluation(make_trainer, tmp_path, as_one_file):
    trainer = make_trainer()
    before = card_of(trainer)
    files = [["aime25", "amc23"]] if as_one_file else [["aime25"], ["amc23"]]
    paths = [write_results(tmp_path / f"{i}.json", *names) for i, names in enumerate(files)]
    add_results_to_card(trainer.args.output_dir, *paths)
    card = ModelCard.load(f"{trainer.args.output_dir}/README.md")
    for name in COUNTS:
        row = " | ".join(f"{expected(name, k):.4f}" for k in (1, 2, 4))
        assert f"| {name} | {len(COUNTS[name])} | 4 | 0.6 | {row} |" in card.text
    found = {(result.dataset_name, result.metric_name): result.metric_value for result in card.data.eval_results}
    assert found == {(name, f"pass@{k}"): round(expected(name, k), 4) for name in COUNTS for k in (1, 2, 4)}
    assert card.data.model_name == "maze" and card.data.tags == ModelCard(before).data.tags
    assert card.text.index("## pass@k") < card.text.index("### Framework versions")

    add_results_to_card(trainer.args.output_dir, write_results(tmp_path / "new.json", "amc23"))
    text = Path(trainer.args.output_dir, "README.md").read_text(encoding="utf-8")
    assert text.count("## pass@k") == 1 and "| aime25 |" not in text and "| amc23 |" in text
    assert card_of(trainer) == text  # pushed again without further training: the results are still true
    trainer.state.global_step = 7
    assert "## pass@k" not in card_of(trainer)


def test_errors_of_add_results_to_card(make_trainer, tmp_path):
    results = write_results(tmp_path / "results.json", "amc23")
    with pytest.raises(ValueError, match=r"README.md' does not exist. The trainer writes it"):
        add_results_to_card(tmp_path, results)
    trainer = make_trainer()
    card_of(trainer)
    with pytest.raises(ValueError, match="names no results.json, but at least 1 is needed"):
        add_results_to_card(trainer.args.output_dir)
    with pytest.raises(ValueError, match="has the benchmark 'amc23' twice"):
        add_results_to_card(trainer.args.output_dir, results, results)
    with pytest.raises(ValueError, match="There is no "):
        add_results_to_card(trainer.args.output_dir, tmp_path / "none.json")
