"""Two rows of every dataset of mathematics and multiple choice as published, and what becomes of them."""

import csv
import json

from datasets import Dataset


def write(folder, rows, name):
    """The rows in a file of the format that the name ends in."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(str(path))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def two(**columns):
    """Two rows from pairs of values; what is no pair is in both."""
    both = {name: value if isinstance(value, tuple) else (value, value) for name, value in columns.items()}
    return [{name: values[i] for name, values in both.items()} for i in (0, 1)]


def user(text):
    return [{"role": "user", "content": text}]


DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n{}\n\nRemember to put your answer on its "
    'own line after "Answer:".'
)
VERL = {"data_source": "x", "ability": "MATH", "extra_info": {"index": "0"}}
PROBLEMS = ("What is $1+1$?", "Let $x=5$.\n\nFind $x$.")
LUFFY = [{"role": "system", "content": "Think."}, {"role": "user", "content": PROBLEMS[1]}]

# source, variant: rows as published, and what comes of them besides the prompt
PUBLISHED = {
    ("math", "parts"): (
        two(problem=PROBLEMS, level=("Level 1", "Level ?"), type="Algebra", solution=(r"$\boxed{2}$", r"\boxed{5x}")),
        two(answer=("2", r"5x"), level=("1", "?"), subject="Algebra", solution=(r"$\boxed{2}$", r"\boxed{5x}")),
    ),
    ("math", "merged"): (
        two(problem=PROBLEMS, solution=r"\boxed{9}", answer=("2", ""), subject="A", level=(1, 5), unique_id="t/1"),
        two(answer=("2", "9"), level=("1", "5"), subject="A", solution=r"\boxed{9}"),
    ),
    ("openr1", "220k"): (
        two(problem=PROBLEMS, solution="s", answer=("2", "5"), problem_type="Algebra", question_type="m-w-p",
            source="olympiads", uuid="u", is_reasoning_complete=[True, True], generations=(["a", "b"], ["c"]),
            correctness_math_verify=[True, False], finish_reasons=["stop"], correctness_count=1, messages=user("m")),
        two(answer=("2", "5"), solution="s", subject="Algebra", generations=(["a", "b"], ["c"])),
    ),
    ("openr1_45k", "verl"): (
        two(prompt=([LUFFY[0], *user(PROBLEMS[0])], LUFFY), target=[{"role": "assistant", "content": "t"}],
            reward_model=({"ground_truth": "2"}, {"ground_truth": r"\boxed{5}"}), **VERL),
        two(answer=("2", "5"), generations=["t"]),
    ),
    ("dapo", "original"): (
        two(prompt=(user(DAPO.format(PROBLEMS[0])), user(DAPO.format(PROBLEMS[1]))),
            reward_model=({"ground_truth": "2", "style": "r"}, {"ground_truth": "5", "style": "r"}), **VERL),
        two(answer=("2", "5")),
    ),
    ("dapo", "processed"): (
        two(prompt=PROBLEMS, solution=("2", "5"), source_prompt=user("x"), reward_model=({"ground_truth": "2"},
            {"ground_truth": "5"}), **VERL),
        two(answer=("2", "5")),
    ),
    ("gsm8k", "main"): (
        two(question=PROBLEMS, answer=("She has <<1+1=2>>2.\n#### 2", "#### -1,234")),
        two(answer=("2", "-1234"), solution=("She has <<1+1=2>>2.\n#### 2", "#### -1,234")),
    ),
    ("math500", "test"): (
        two(problem=PROBLEMS, solution="s", answer=("2", "5"), subject="Algebra", level=(2, 5), unique_id="t/1.json"),
        two(answer=("2", "5"), solution="s", level=("2", "5"), subject="Algebra"),
    ),
    ("aime24", "train"): (
        two(id=60, problem=PROBLEMS, solution="s", answer=("204", "025"), url="u", year="2024"),
        two(answer=("204", "025"), solution="s"),
    ),
    ("aime25", "test"): (two(problem=PROBLEMS, answer=("70", "588"), id="0"), two(answer=("70", "588"))),
    ("aime25", "numbers"): (two(question=PROBLEMS, answer=(70, 588)), two(answer=("70", "588"))),
    ("amc23", "test"): (two(id=0, question=PROBLEMS, answer=(27.0, 3.5), url="u"), two(answer=("27", "3.5"))),
    ("minerva", "test"): (two(question=PROBLEMS, answer=("4.5e33", "2")), two(answer=("4.5e33", "2"))),
    ("olympiadbench", "train"): (
        two(id=1, question=PROBLEMS, context=(None, "Let $a=1$."), solution=["s", "t"],
            final_answer=(["2"], ["3", "-3"]), unit=None, is_multiple_answer=(False, True),
            subfield="Algebra", language="English"),
        two(answer=("2", "3, -3"), solution="s\n\nt", subject="Algebra"),
    ),
    ("olymmath", "test"): (
        two(problem=PROBLEMS, answer=("2", "5"), subject="Geometry", unique_id=("O-HARD-1-EN", "O-EASY-2-EN")),
        two(answer=("2", "5"), level=("hard", "easy"), subject="Geometry"),
    ),
}  # fmt: skip
CHOICES = {
    "arc_challenge": (
        two(id="q", question=PROBLEMS, answerKey=("C", "2"), choices=(
            {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}, {"text": ["x", "y", "z"], "label": ["1", "2", "3"]})),
        two(answer=("C", "B")),
    ),
    "mmlu_pro": (
        two(question_id=1, question=PROBLEMS, options=["x", "y", "z"], answer=("A", "C"), answer_index=(0, 2),
            cot_content="", category="math", src="s"),
        two(answer=("A", "C"), subject="math"),
    ),
}  # fmt: skip


def without_prompt(dataset):
    return [{name: value for name, value in row.items() if name != "prompt"} for row in dataset]
