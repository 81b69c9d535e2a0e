"""The tiny model: its tokenizer survives a folder, demonstrations are right, the warm-up learns and ends in time."""

import numpy as np
import pytest
import torch
from tiny_task import LETTERS
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast, set_seed

from rlvr_trl.data import make_maze_dataset
from rlvr_trl.mazes import is_solution, parse_maze, shortest_path, shortest_paths, step
from rlvr_trl.rewards import maze_reward
from rlvr_trl.testbed import TASKS, build_model, build_tokenizer, demonstrations, warm_up, warm_up_to
from rlvr_trl.testbed.warmup import StopAtTarget


TEXT = "S.*.\n*..*\n.**.\n...E\n<answer>RDRUDL</answer>"


@pytest.fixture(scope="module")
def mazes():
    return make_maze_dataset(300, size=4, prompt_style="bare", seed=0)


def test_one_token_for_each_symbol():
    tokenizer = build_tokenizer()
    ids = tokenizer(TEXT)["input_ids"]
    assert len(tokenizer) == 14 and len(tokenizer("S..E\n" * 4)["input_ids"]) == 20
    assert tokenizer.convert_tokens_to_ids("<answer>") == ids[20] and tokenizer.decode(ids[4]) == "\n"
    assert len(ids) == 20 + len("RDRUDL") + 2
    assert tokenizer.decode([*ids, tokenizer.eos_token_id, tokenizer.pad_token_id], skip_special_tokens=True) == TEXT


def test_tags_are_not_special_and_end_is_not_padding():
    tokenizer = build_tokenizer()
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert {tokenizer.eos_token_id, tokenizer.pad_token_id} < set(tokenizer.all_special_ids)
    assert not {"<answer>", "</answer>"} & set(tokenizer.all_special_tokens)


@pytest.mark.parametrize("loader", [AutoTokenizer, AutoProcessor, PreTrainedTokenizerFast])
def test_tokenizer_survives_a_folder_with_its_model(loader, tmp_path):
    tokenizer = build_tokenizer()
    build_model(tokenizer).save_pretrained(tmp_path / "0")
    tokenizer.save_pretrained(tmp_path / "0")
    for generation in range(2):  # a loaded tokenizer is saved again with every checkpoint
        loaded = loader.from_pretrained(tmp_path / str(generation))
        ids = tokenizer(TEXT)["input_ids"] + [tokenizer.eos_token_id]
        assert loaded(TEXT)["input_ids"] + [loaded.eos_token_id] == ids
        assert loaded.get_vocab() == tokenizer.get_vocab()
        assert loaded.decode(ids, skip_special_tokens=True) == TEXT
        assert loaded.batch_decode([ids]) == tokenizer.batch_decode([ids])
        assert loaded.special_tokens_map == tokenizer.special_tokens_map
        assert loaded.all_special_ids == tokenizer.all_special_ids
        assert (loaded.padding_side, loaded.model_max_length) == ("left", tokenizer.model_max_length)
        build_model(tokenizer).save_pretrained(tmp_path / str(generation + 1))
        loaded.save_pretrained(tmp_path / str(generation + 1))


@pytest.mark.parametrize("name", ["sudoku", "sums", "countdown"])
def test_tokenizers_of_the_other_tasks_survive_too(name, tmp_path):
    task = TASKS[name]
    tokenizer = task.build_tokenizer()
    build_model(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab() and len(loaded) == len(task.symbols) + 5
    for row in task.demonstrations(task.draw(20)[name], 20):
        text = row["prompt"] + row["completion"]
        ids = loaded(text)["input_ids"]
        assert ids == tokenizer(text)["input_ids"] and loaded.unk_token_id not in ids
        assert len(ids) == len(row["prompt"]) + len(row["answer"]) + 2  # one a symbol, and the tags
        assert loaded.decode([*ids, loaded.eos_token_id], skip_special_tokens=True) == text


def test_model_size_and_configs():
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    assert 150_000 < model.num_parameters() < 170_000 and model.dtype == torch.float32
    for config in (model.config, model.generation_config):
        assert config.eos_token_id == tokenizer.eos_token_id and config.pad_token_id == tokenizer.pad_token_id


def test_model_seeds():
    tokenizer = build_tokenizer()
    set_seed(3)
    expected = torch.rand(1)
    set_seed(3)
    first, same, other = (build_model(tokenizer, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.rand(1) == expected  # the caller's random state is untouched
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_demonstrations_are_right_and_fit(mazes):
    tokenizer = build_tokenizer()
    walks = demonstrations(mazes["maze"], 1_000, seed=1)
    assert len(walks) == 1_000 and set(walks["maze"]) <= set(mazes["maze"])
    assert maze_reward(completions=walks["completion"], maze=walks["maze"]) == [1.0] * len(walks)
    for row in walks:
        assert row["prompt"] == row["maze"] + "\n" and row["completion"] == f"<answer>{row['moves']}</answer>"
        assert not any(is_solution(row["maze"], row["moves"][:n]) for n in range(len(row["moves"])))  # stops on E
    lengths = [len(ids) + 1 for ids in tokenizer(list(walks["completion"]))["input_ids"]]
    assert max(lengths) == 12
    assert demonstrations(mazes["maze"], 20, seed=1)[:] == walks.select(range(20))[:]
    assert demonstrations(mazes["maze"], 20, seed=2)["moves"][:] != walks["moves"][:20]


def share_of_detours(walks):
    """Share of the moves that do not shorten the way, and the share expected if every move were random."""
    found, expected = [], []
    for row in walks:
        grid, cell, end = parse_maze(row["maze"])
        distance = {target: len(path) for target, path in shortest_paths(grid, end).items()}
        for move in row["moves"]:
            legal = [target for other in "UDLR" if (target := step(grid, cell, other))]
            expected.append(np.mean([distance[target] > distance[cell] for target in legal]))
            found.append(distance[step(grid, cell, move)] > distance[cell])
            cell = step(grid, cell, move)
    return np.mean(found), np.mean(expected)


def test_a_quarter_of_the_moves_is_random():
    # Short ways only, so that the limit of 9 moves, which favours walks with few detours, hardly counts.
    mazes = make_maze_dataset(300, size=4, min_path_length=1, max_path_length=2, seed=0)["maze"]
    found, expected = share_of_detours(demonstrations(mazes, 4_000))
    assert abs(found / expected - 0.25) < 0.03
    assert share_of_detours(demonstrations(mazes, 100, random_move_probability=0))[0] == 0


def test_without_random_moves_the_walks_are_shortest(mazes):
    walks = demonstrations(mazes["maze"], 200, random_move_probability=0)
    assert all(len(row["moves"]) == len(shortest_path(row["maze"])) for row in walks)


@pytest.mark.parametrize(
    ("mazes", "probability", "message"),
    [
        ([], 0.25, "at least one maze"),
        (["S.\n.E"], 1.5, "`random_move_probability` must be a number from 0 to 1, got 1.5"),
        (["S*\n*E"], 0.25, "at most 9 moves, found no moves"),
        (["S....\n****.\n.....\n.****\nE...."], 0.25, "at most 9 moves, found 12 moves"),
    ],
)
def test_impossible_demonstrations(mazes, probability, message):
    with pytest.raises(ValueError, match=message):
        demonstrations(mazes, 1, random_move_probability=probability)


def greedy_answers(model, tokenizer, prompts):
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    output = model.eval().generate(**inputs, do_sample=False, max_new_tokens=12)
    return tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_warm_up_learns_and_what_it_saves_answers_the_same(mazes, tmp_path):
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    losses = warm_up(model, tokenizer, mazes["maze"], output_dir=tmp_path, steps=5, batch_size=16, disable_tqdm=True)
    assert len(losses) == 5
    assert losses[0] == pytest.approx(np.log(14), abs=0.15)  # random weights: uniform over the vocabulary
    assert losses[-1] < losses[0] - 0.5

    model.to("cpu")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    prompts = list(mazes["prompt"][:16])
    answers = greedy_answers(loaded, AutoTokenizer.from_pretrained(tmp_path), prompts)
    assert answers == greedy_answers(model, tokenizer, prompts)
    assert any(answers)


def test_loss_ignores_the_prompt(mazes, tmp_path):
    # With a prompt in the loss, the mean of the first step could not equal that of the completions alone.
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    walk = demonstrations(mazes["maze"], 1, seed=0)[0]
    completion = tokenizer(walk["completion"])["input_ids"] + [tokenizer.eos_token_id]
    ids = torch.tensor([tokenizer(walk["prompt"])["input_ids"] + completion])
    with torch.no_grad():
        log_probs = model(ids).logits[0, :-1].log_softmax(-1)
    expected = -log_probs[range(19, ids.shape[1] - 1), completion].mean().item()
    losses = warm_up(model, tokenizer, mazes["maze"], output_dir=tmp_path, steps=1, batch_size=1, disable_tqdm=True)
    assert losses[0] == pytest.approx(expected, abs=1e-3)


# --- to a target ---


def warm_up_letters(folder, **settings):
    tokenizer = LETTERS.build_tokenizer()
    model = build_model(tokenizer)
    validation = LETTERS.draw(20)
    settings = {
        "target": 0.2,
        "steps": 200,
        "check_every": 4,
        "decay_steps": 5,
        "batch_size": 16,
        "learning_rate": 5e-3,
    } | settings
    problems = LETTERS.draw(100, exclude=validation)["letters"]
    reached = warm_up_to(
        model,
        tokenizer,
        problems,
        task=LETTERS,
        validation=validation,
        output_dir=folder,
        disable_tqdm=True,
        **settings,
    )
    return model.state_dict(), reached


def test_warm_up_ends_some_steps_after_the_target(tmp_path, monkeypatch):
    rates = []
    on_step_begin = StopAtTarget.on_step_begin

    def recorded(self, args, state, control, **kwargs):
        on_step_begin(self, args, state, control, **kwargs)
        rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    weights, reached = warm_up_letters(tmp_path / "first")
    steps, values = zip(*reached.checks, strict=True)
    assert list(steps) == list(range(4, steps[-1] + 1, 4)) and reached.steps == steps[-1] + 5
    assert values[-1] >= 0.2 > max(values[:-1]) and 0.2 < reached.pass_at_1 < 0.8
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "first").state_dict()
    assert all(torch.equal(weights[name], saved[name]) for name in weights)

    monkeypatch.setattr(StopAtTarget, "on_step_begin", recorded)
    again, same = warm_up_letters(tmp_path / "second", steps=100)  # whatever the most steps are
    assert same == reached and all(torch.equal(weights[name], again[name]) for name in weights)
    assert len(rates) == reached.steps
    risen = [5e-3 * min(step / 30, 1) for step in range(steps[-1] + 1)]
    assert rates == pytest.approx(risen + [risen[-1] * share for share in (0.8, 0.6, 0.4, 0.2)])


def test_a_target_that_is_not_reached_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"must reach `target`=0.99 within `steps`=10, but was at most 0.\d+. Raise"):
        warm_up_letters(tmp_path, target=0.99, steps=10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 0}, "`target` must be between 0 and 1, got 0"),
        ({"target": 1.0}, "`target` must be between 0 and 1, got 1.0"),
        ({"steps": 3}, "`steps` must be at least `check_every`=4, got 3"),
        ({"check_every": 0}, "`check_every` must be an integer of at least 1, got 0"),
        ({"decay_steps": 0}, "`decay_steps` must be an integer of at least 1, got 0"),
    ],
)
def test_impossible_targets(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        warm_up_letters(tmp_path, **settings)
