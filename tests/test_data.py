"""Loaders and benchmarks: the real MATH and AMC files, folders, templates, errors, draws."""

import json
import re
from pathlib import Path

import datasets
import pandas
import pytest
from published import CHOICES, PROBLEMS, PUBLISHED, two, user, without_prompt, write

import rlvr_trl.data
from rlvr_trl import rewards
from rlvr_trl.data import (
    BENCHMARKS,
    PROMPT_TEMPLATES,
    SOURCES,
    load_arc_agi,
    load_benchmark,
    load_math,
    load_mazes,
    load_source,
    make_maze_dataset,
)
from rlvr_trl.data.sources import MATH_CONFIGS
from rlvr_trl.rewards import grid_reward, math_reward, maze_reward


ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
BOXED = r"Please reason step by step, and put your final answer within \boxed{}."


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def shared(name):
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not beside the repository")
    return SHARED / name


def test_real_math():
    path = shared("math_train.parquet")
    with pytest.raises(ValueError, match="2 of 7500 rows of math .* the first is row 5341"):
        load_math(path)
    with pytest.warns(UserWarning, match="2 of 7500 rows .* left out"):
        dataset = load_math(str(path), drop_unanswered=True)
    assert dataset.column_names == ["prompt", "answer", "solution", "level", "subject"] and len(dataset) == 7498
    assert set(dataset["level"]) == {"1", "2", "3", "4", "5", "?"} and len(set(dataset["subject"])) == 7

    table = pandas.read_parquet(path)
    assert dataset[0]["prompt"][1]["content"] == table.problem[0] and dataset[0]["answer"] == table.answer[0]
    published = dict(zip(table.problem, table.answer, strict=True))
    sample = dataset.select(range(0, 7498, 37))
    references = [published[prompt[1]["content"]] or None for prompt in sample["prompt"]]
    assert sample["answer"][:] == references


def test_answers_from_the_box_are_those_of_the_merged_form(tmp_path):
    rows = pandas.read_parquet(shared("math_train.parquet"))[:300]
    path = tmp_path / "parts.parquet"
    rows.drop(columns="answer").to_parquet(path)
    answers = load_math(path)["answer"][:]
    assert math_reward([rf"\boxed{{{answer}}}" for answer in answers], answer=list(rows.answer)) == [1.0] * 300


def test_real_amc_answers_are_right():
    dataset = load_benchmark("amc23", shared("amc23_test.parquet"))
    answers = dataset["answer"][:]
    assert len(answers) == 40 and dataset.column_names == ["prompt", "answer"]
    assert math_reward([rf"\boxed{{{answer}}}" for answer in answers], answer=answers) == [1.0] * 40


def test_folder_of_a_hub_dataset_with_configurations(tmp_path):
    parts = []
    for config in MATH_CONFIGS:
        row = {"problem": f"{config}?", "level": "Level 1", "type": config, "solution": r"\boxed{1}"}
        for split in ("train", "test"):
            write(tmp_path, [row | {"problem": f"{config} {split}?"}], f"{config}/{split}-00000-of-00001.parquet")
        files = "".join(f"\n  - split: {s}\n    path: {config}/{s}-*" for s in ("train", "test"))
        parts.append(f"- config_name: {config}\n  data_files:{files}\n")
    (tmp_path / "README.md").write_text("---\nconfigs:\n" + "".join(parts) + "---\n", encoding="utf-8")
    dataset = load_math(tmp_path, split="test")
    assert tuple(dataset["subject"]) == MATH_CONFIGS
    assert dataset[0]["prompt"][1]["content"] == "algebra test?"


def test_folder_of_files_without_configurations(tmp_path):
    rows, expected = PUBLISHED["math", "merged"]
    write(tmp_path / "math", rows[:1], "train-0.jsonl")
    write(tmp_path / "math", rows[1:], "train-1.jsonl")
    assert without_prompt(load_math(tmp_path / "math")) == expected
    with pytest.raises(ValueError, match="test.*train"):
        load_math(tmp_path / "math", split="test")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="has no file"):
        load_math(tmp_path / "none")


def test_templates(tmp_path):
    path = write(tmp_path, PUBLISHED["math", "merged"][0], "rows.jsonl")

    def first_prompt(template):
        return load_math(path, template=template)[0]["prompt"]

    problem = PROBLEMS[0]
    assert first_prompt("boxed") == first_prompt(None) == [{"role": "system", "content": BOXED}, *user(problem)]
    assert first_prompt("qwen_boxed_suffix")[-1]["content"] == f"{problem}\n{BOXED}"
    assert isinstance(first_prompt("plain"), str) and problem in first_prompt("plain")
    assert first_prompt(r"Q: {problem} in \boxed{}") == rf"Q: {problem} in \boxed{{}}"
    assert first_prompt(user("{problem}!")) == user(f"{problem}!")
    assert first_prompt(lambda row: f"{row['unique_id']}: {row['problem']}") == f"t/1: {problem}"
    for template in ("qwen", user("no slot"), 3):
        with pytest.raises(ValueError, match="template must be one of .*boxed"):
            first_prompt(template)


def test_own_template_can_keep_the_published_prompt(tmp_path):
    rows = PUBLISHED["dapo", "original"][0]
    dataset = load_source("dapo", write(tmp_path, rows, "rows.parquet"), template=lambda row: row["prompt"])
    assert dataset["prompt"][:] == [row["prompt"] for row in rows]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_wrong_columns_are_named(suffix, tmp_path):
    path = write(tmp_path, [{"query": "x", "answer": "1"}], f"rows{suffix}")
    with pytest.raises(ValueError, match=r"math needs the column problem or question, found \['query', 'answer'\]"):
        load_math(path)
    for source in SOURCES:
        with pytest.raises(ValueError, match=rf"^{source} needs the columns? .*, found \['query', 'answer'\]"):
            load_source(source, path)


def test_broken_rows_are_named(tmp_path):
    rows = two(prompt=PROBLEMS, reward_model=("2", "5"))
    with pytest.raises(ValueError, match="Row 0 of .*is not as expected: AttributeError"):
        load_source("dapo", write(tmp_path, rows, "rows.jsonl"))
    rows = two(question=PROBLEMS, answer=("#### 2", "no mark"))
    path = write(tmp_path, rows, "gsm8k.jsonl")
    with pytest.raises(ValueError, match="1 of 2 rows of gsm8k .* the first is row 1: .*Find"):
        load_source("gsm8k", path)
    with pytest.warns(UserWarning, match="1 of 2 rows"):
        assert load_source("gsm8k", path, drop_unanswered=True)["answer"][:] == ["2"]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.json", "rows.jsonl"])
def test_files_that_are_missing_empty_or_of_another_kind(name, tmp_path):
    path = tmp_path / name
    with pytest.raises(ValueError, match="does not exist"):
        load_math(path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=f"No rows could be read from .*{re.escape(name)}"):
        load_math(path)
    if path.suffix == ".json":
        path.write_text("[]", encoding="utf-8")
        with pytest.raises(ValueError, match="No rows could be read"):
            load_math(path)
    other = tmp_path / "rows.txt"
    other.write_text("problem,answer\n1,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"must end in .parquet, .json, .jsonl, .csv, got .*rows.txt"):
        load_math(other)


def test_unknown_names():
    with pytest.raises(
        ValueError, match=r"'math5000' is not a benchmark. Did you mean 'math500'\? Use one of math, math500, .*, maze"
    ):
        load_benchmark("math5000")
    with pytest.raises(ValueError, match=r"'maths' is not a source. Did you mean 'math'\? Use one of math, openr1"):
        load_source("maths")
    assert set(dir(rlvr_trl.data)) == set(rlvr_trl.data.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_maths'"):
        _ = rlvr_trl.data.load_maths


@pytest.mark.parametrize("name", ["mmlu_pro", "arc_challenge"])
def test_draws(name, tmp_path):
    questions = CHOICES[name][0][:1] * 400
    path = write(tmp_path, [q | {"question": f"Question {i}"} for i, q in enumerate(questions)], "rows.parquet")
    first, again, other = (load_benchmark(name, path, seed=seed) for seed in (0, 0, 1))
    assert first["draw"][:] == [0] * 128 + [1] * 128 + [2] * 128
    texts = [prompt[1]["content"] for prompt in first["prompt"]]
    assert len(set(texts)) == 384  # the draws are disjoint
    assert first["prompt"][:] == again["prompt"][:] != other["prompt"][:]
    with pytest.raises(ValueError, match="3 draws x 128 questions = 384 rows, found 2"):
        load_benchmark(name, write(tmp_path, CHOICES[name][0], "few.parquet"))


def test_benchmark_keeps_equal_rows(tmp_path):
    path = write(tmp_path, PUBLISHED["aime25", "test"][0] * 2, "rows.jsonl")
    assert len(load_benchmark("aime25", path)) == 4
    with pytest.warns(UserWarning, match="2 of 4 rows are left out"):
        assert len(load_source("aime25", path)) == 2


def test_benchmark_of_mazes():
    dataset = load_benchmark("maze")
    assert dataset["size"][:] == [7] * 75 + [size for size in range(9, 22, 2) for _ in range(100)]
    assert len(set(dataset["maze"])) == 775 and load_benchmark("maze", seed=1)["maze"][:] == dataset["maze"][:]
    assert all(set(maze[: maze.index("\n")]) == {"*"} for maze in dataset["maze"])
    answers = [f"<answer>{path}</answer>" for path in dataset["shortest_path"]]
    assert maze_reward(answers, maze=dataset["maze"][:]) == [1.0] * 775
    assert all("You need to solve the following maze." in prompt[0]["content"] for prompt in dataset["prompt"])
    with pytest.raises(ValueError, match="maze has prompts of its own: template must be None, got plain"):
        load_benchmark("maze", template="plain")


@pytest.mark.parametrize("in_prompt", [False, True])
def test_published_mazes(in_prompt, tmp_path):
    """In verl's columns; where the reference is not the maze, the prompt has it."""
    drawn = make_maze_dataset(4, size=[7, 9], walls="lattice", border=True, max_path_length=None, prompt_style="paper")
    references = drawn["shortest_path"] if in_prompt else [f"{maze}\n" for maze in drawn["maze"]]
    rows = [
        {"data_source": "maze", "prompt": prompt, "reward_model": {"style": "rule", "ground_truth": reference}}
        for prompt, reference in zip(drawn["prompt"], references, strict=True)
    ]
    rows.append(rows[0])
    path = write(tmp_path, rows, "mazes.parquet")
    assert load_mazes(path)[:] == drawn[:]
    assert load_benchmark("maze", path)["maze"][:] == [*drawn["maze"], drawn["maze"][0]]
    lines = {"style": "rule", "ground_truth": rows[0]["reward_model"]["ground_truth"].replace("\n", "\r\n")}
    assert load_mazes(write(tmp_path, [rows[0] | {"reward_model": lines}], "lines.parquet"))[0] == drawn[0]
    with pytest.raises(ValueError, match="Row 0 of .* is not as expected: IndexError"):
        load_mazes(write(tmp_path, [rows[0] | {"prompt": [], "reward_model": {"ground_truth": "U"}}], "none.jsonl"))
    broken = {"prompt": rows[0]["prompt"], "reward_model": {"style": "rule", "ground_truth": "S*\n*E"}}
    with pytest.raises(ValueError, match="Row 1 of .* is not as expected: its maze has no path from S to E"):
        load_mazes(write(tmp_path, [rows[0], broken], "broken.parquet"))
    with pytest.raises(ValueError, match="needs the column reward_model"):
        load_mazes(write(tmp_path, [{"prompt": row["prompt"]} for row in rows], "no_reference.parquet"))


ARC_TASK = {
    "train": [{"input": [[0, 1], [2, 3]], "output": [[3, 2], [1, 0]]}, {"input": [[4]], "output": [[4]]}],
    "test": [{"input": [[5, 6]], "output": [[6, 5]]}, {"input": [[7], [8]], "output": [[8], [7]]}],
}


def test_tasks_of_arc_agi(tmp_path):
    """From the files of its repository, and from rows; one question for each test input."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "b0c4d837.json").write_text(json.dumps(ARC_TASK), encoding="utf-8")
    (folder / "a5313dff.json").write_text(json.dumps(ARC_TASK | {"test": ARC_TASK["test"][:1]}), encoding="utf-8")
    dataset = load_benchmark("arc-agi", folder)
    assert dataset["task"][:] == ["a5313dff", "b0c4d837", "b0c4d837"] and dataset["test"][:] == [0, 0, 1]
    assert dataset["grid"][:] == ["6 5", "6 5", "8\n7"]
    text = dataset["prompt"][2][0]["content"]
    assert "Input:\n0 1\n2 3\nOutput:\n3 2\n1 0\n\nInput:\n4\nOutput:\n4\n\nInput:\n7\n8\n" in text
    answers = ["<answer>6 5</answer>", "I think [[6,5]].\n<answer>\n[[6, 5]]\n</answer>", "<answer>8\n7\n</answer>"]
    assert grid_reward(answers, grid=dataset["grid"][:]) == [1.0, 1.0, 1.0]
    rows = load_benchmark("arc_agi", write(tmp_path, [ARC_TASK], "tasks.parquet"))
    assert rows["prompt"][:] == dataset["prompt"][1:] and rows["task"][:] == ["0", "0"]
    with pytest.raises(ValueError, match="arc_agi has no dataset of its own on the Hub: name a folder"):
        load_benchmark("arc_agi")
    for broken, message in (
        ({"train": []}, "KeyError"),
        (ARC_TASK | {"test": []}, "no examples or no test"),
        (ARC_TASK | {"test": [{"input": [[0, 10]]}]}, "from 0 to 9"),
    ):
        (folder / "broken.json").write_text(json.dumps(broken), encoding="utf-8")
        with pytest.raises(ValueError, match=f"The task broken of .* is not as expected: .*{message}"):
            load_arc_agi(folder)


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("<answer>01\n23</answer>", "0 1\n2 3"),
        ("<answer>0, 1\n2, 3</answer>", "0 1\n2 3"),
        ("<answer>[[0, 1], [2, 3]]</answer>", "0 1\n2 3"),
        ("<answer>[0 1]\n[2 3]</answer>", "0 1\n2 3"),
        ("<answer>```text\n0 1\n2 3\n```</answer>", "0 1\n2 3"),
        ("<think><answer>4</answer></think><answer>\n0 1\n\n2 3\n</answer>", "0 1\n2 3"),
        ("<answer>4</answer> <answer>0 1 2 3</answer>", "0 1 2 3"),
        ("0 1\n2 3", None),
        ("<answer>0 1\n2</answer>", None),
        ("<answer>red</answer>", None),
        ("<answer></answer>", None),
        ("<answer>" + "]" * 100_000 + " " * 100_000 + "</answer>", None),  # linear in time
    ],
)
def test_grids_are_read(text, grid):
    logged = {}
    rewards = grid_reward([text, text], grid=["0 1\n2 3", "9"], log_extra=logged.__setitem__)
    assert logged["extracted_answer"] == [grid] * 2 and rewards == [float(grid == "0 1\n2 3"), 0.0]
    for wrong in ("0 1\n2", None, [[0]]):
        with pytest.raises(ValueError, match="grid must have grids of digits as text, found "):
            grid_reward([text], grid=[wrong])


def test_tables_agree_and_are_documented():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for name, benchmark in BENCHMARKS.items():
        assert callable(getattr(rewards, benchmark.reward)) and (name in SOURCES) == (benchmark.split is not None)
        assert re.search(rf"^\| `{name}` \|.*`{benchmark.reward}`", page, re.MULTILINE)
    for name, source in SOURCES.items():
        (row,) = re.findall(rf"^\| `{name}` \| `{source.hub}`.*$", page, re.MULTILINE)
        for needed in source.columns:
            assert f"`{needed.replace('|', '` or `')}`" in row, (name, needed)
    for name in PROMPT_TEMPLATES:
        assert f"| `{name}` |" in page
