"""Training sets of a user's own, or any of the Hub: what is read, and what is refused."""

import json
from pathlib import Path

import pytest
from datasets import Dataset
from published import write
from trl import ModelConfig
from trl.rewards import accuracy_reward, think_format_reward

from rlvr_trl.data import load_own, load_source
from rlvr_trl.rewards import LengthReward, NoisyReward, boxed_format_reward, choice_reward, math_reward, maze_reward
from rlvr_trl.scripts import SourceScriptArguments, check_reward_columns, load_training_set


REAL = Path(__file__).parents[2] / "shared" / "data"
# References that some reader would change: a number too long for a float, a date, zeros in front, an exponent, a word
# that means "missing" elsewhere.
REFERENCES = ["12345678901234567890123", "2024-01-01", "007", "1e-5", "NaN", "null", " 5 ", "1_000", "True"]
ROWS = [{"prompt": f"Question {i}", "answer": reference} for i, reference in enumerate(REFERENCES)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet", "rows.csv"])
def test_references_stay_as_they_are(name, tmp_path):
    path = write(tmp_path, ROWS, name)
    assert load_own(path)["answer"][:] == REFERENCES
    assert load_own(path)["prompt"][:] == [row["prompt"] for row in ROWS]


@pytest.mark.parametrize("reference", ["007", "2024-01-01", "12345678901234567890123", "1.0", "NA"])
@pytest.mark.parametrize("form", ["file", "folder"])
def test_cells_of_a_csv_file_are_text(reference, form, tmp_path):
    """In a column of its own, which a reader would take for numbers or dates."""
    path = write(tmp_path, [{"problem": f"{i}?", "answer": reference} for i in range(3)], "train.csv")
    where = str(path) if form == "file" else str(tmp_path)
    assert load_own(where)["answer"][:] == [reference] * 3
    assert load_source("aime24", where)["answer"][0] == reference


def test_conversations_and_further_columns_are_kept(tmp_path):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    rows = [{"prompt": messages, "solution": "$2$", "tests": ["a", "b"], "difficulty": 0.5}]
    (row,) = load_own(write(tmp_path, rows, "own.jsonl"))
    assert row == rows[0]
    with pytest.raises(ValueError, match="template='plain' is for texts, but `prompt` of .*own.jsonl has messages"):
        load_own(tmp_path / "own.jsonl", template="plain")


@pytest.mark.parametrize("column", ["prompt", "problem", "question"])
def test_templates(column, tmp_path):
    path = write(tmp_path, [{column: "1 + 1?", "answer": "2"}], "own.jsonl")
    plain = load_own(path, template="Q: {problem}")
    assert plain[0] == {"answer": "2", "prompt": "Q: 1 + 1?"}
    (row,) = load_own(path)
    if column == "prompt":
        assert row["prompt"] == "1 + 1?"
    else:
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert row["prompt"][1]["content"] == "1 + 1?"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "1?", "label": "1"}], r"needs the column prompt or problem or question, found \['text', 'label'\]"),
        ([{"prompt": 5}], "`prompt` of .* must be text or messages with role and content, found"),
        ([{"prompt": ["1?"]}], "must be text or messages"),
        ([{"prompt": [{"text": "1?"}]}], "must be text or messages"),
        ([{"problem": [{"role": "user", "content": "1?"}]}], "`problem` of .* must be text, found"),
        (
            [{"prompt": "1?"}, {"prompt": None}, {"prompt": ""}],
            "`prompt` is empty in 2 rows of .*, the first is row 1",
        ),
        ([{"prompt": "1?", "answer": "1"}, {"prompt": "2?", "answer": None}], "1 of 2 rows of .* have no answer"),
        ([{"prompt": "1?", "solution": ""}], "1 of 1 rows of .* have no answer"),
    ],
)
def test_what_is_no_training_set_is_refused(rows, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_own(write(tmp_path, rows, "own.jsonl"))


def test_rows_left_out_are_counted(tmp_path):
    rows = [{"prompt": "1?", "answer": "1"}, {"prompt": "2?", "answer": None}, {"prompt": "1?", "answer": "3"}]
    with pytest.warns(UserWarning) as caught:
        dataset = load_own(write(tmp_path, rows, "own.jsonl"), drop_unanswered=True)
    assert dataset.to_list() == rows[:1]
    shown = [str(warning.message) for warning in caught]
    assert any("1 of 3 rows" in text and "no answer" in text for text in shown)
    assert any("1 of them with a different answer" in text for text in shown)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gsm8", "'gsm8' is neither a source nor a file or folder nor an id.*Did you mean 'gsm8k'"),
        ("./nothing", "'./nothing' is neither"),
        ("nothing.jsonl", "nothing.jsonl does not exist"),
        ("data/nothing.jsonl", "data/nothing.jsonl does not exist"),
        ("../x/../etc/passwd", "is neither"),
        ("", "`dataset_name` is '', but a source"),
        (None, "`dataset_name` is None, but a source"),
        ("räder", "'räder' is neither"),
    ],
)
def test_datasets_that_do_not_exist(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_training_set(SourceScriptArguments(dataset_name=name), ModelConfig())


def test_the_dataset_of_a_script(tmp_path):
    path = str(write(tmp_path, ROWS, "own.jsonl"))

    def load(**settings):
        return load_training_set(SourceScriptArguments(**settings), ModelConfig())

    assert len(load(dataset_name=path)) == len(ROWS)
    (tmp_path / "set").mkdir()
    write(tmp_path / "set", ROWS, "train.jsonl")
    write(tmp_path / "set", ROWS[:2], "test.jsonl")
    assert len(load(dataset_name=str(tmp_path / "set"))) == len(ROWS)
    assert len(load(dataset_name=str(tmp_path / "set"), dataset_train_split="test")) == 2
    with pytest.raises(ValueError, match="dataset_path.*but `dataset_name` .*own.jsonl' is no source: put the file"):
        load(dataset_name=path, dataset_path=path)
    with pytest.raises(ValueError, match="`dataset_config` is 'main', but `dataset_name` 'gsm8k' is a source"):
        load(dataset_name="gsm8k", dataset_config="main")
    with pytest.raises(ValueError, match="no split 'validation'"):
        load(dataset_name=str(tmp_path / "set"), dataset_train_split="validation")


def own_reward(completions, hidden_tests, limit=3, **kwargs):
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    ("reward", "columns", "missing"),
    [
        (math_reward, ["prompt", "solution"], None),
        (math_reward, ["prompt", "target"], "math_reward needs the column answer or solution, but .* prompt, target"),
        (choice_reward, ["prompt"], "choice_reward needs the column answer"),
        (accuracy_reward, ["prompt", "answer"], "accuracy_reward needs the column solution, but .* prompt, answer"),
        (maze_reward, ["prompt", "answer"], "maze_reward needs the column maze"),
        (own_reward, ["prompt"], "own_reward needs the column hidden_tests"),
        (own_reward, ["prompt", "hidden_tests"], None),
        (NoisyReward(LengthReward(math_reward), 0.5), ["prompt"], "math_reward_length_noisy needs the column answer"),
        (think_format_reward, ["prompt"], None),
        (boxed_format_reward, ["prompt"], None),
    ],
)
def test_columns_that_rewards_need(reward, columns, missing):
    dataset = Dataset.from_dict({column: ["x"] for column in columns})
    if missing is None:
        check_reward_columns([reward], dataset)
    else:
        with pytest.raises(ValueError, match=missing):
            check_reward_columns([reward], dataset)


@pytest.mark.skipif(not (REAL / "math_train.parquet").is_file(), reason="the published files are not here")
def test_published_files_as_ones_own():
    with pytest.warns(UserWarning):
        own = load_own(REAL / "math_train.parquet", drop_unanswered=True)
        source = load_source("math", REAL / "math_train.parquet", drop_unanswered=True)
    assert own["prompt"][:5] == source["prompt"][:5] and abs(len(own) - len(source)) < 10
    assert {"solution", "level"} <= set(own.column_names)
    rows = [json.loads(line) for line in (REAL / "minerva_math.jsonl").read_text(encoding="utf-8").splitlines()]
    minerva = load_own(REAL / "minerva_math.jsonl", distinct=False)
    column = next(name for name in ("answer", "solution") if name in rows[0])
    assert minerva[column][:] == [row[column] for row in rows]
    amc = load_own(REAL / "amc23_test.parquet")
    assert len(amc) == 40 and amc["answer"][:] == Dataset.from_parquet(str(REAL / "amc23_test.parquet"))["answer"][:]
