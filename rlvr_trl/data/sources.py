r"""What the published datasets look like, and how their rows are read.

A source has a function from one of its rows to a [`Question`]. Everything else (reading, templates, images, errors) is
the same for all and lives in `loaders`.
"""

import ast
import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from ..answer_text import last_boxes


LETTERS = "ABCDEFGHIJ"
MATH_CONFIGS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)

MMMU_CONFIGS = (
    *("Accounting", "Agriculture", "Architecture_and_Engineering", "Art", "Art_Theory", "Basic_Medical_Science"),
    *("Biology", "Chemistry", "Clinical_Medicine", "Computer_Science", "Design"),
    *("Diagnostics_and_Laboratory_Medicine", "Economics", "Electronics", "Energy_and_Power", "Finance", "Geography"),
    *("History", "Literature", "Manage", "Marketing", "Materials", "Math", "Mechanical_Engineering", "Music"),
    *("Pharmacy", "Physics", "Psychology", "Public_Health", "Sociology"),
)
MMMU_IMAGES = tuple(f"image_{number}" for number in range(1, 8))

_DAPO_FIRST = "Solve the following math problem step by step."
_DAPO_LAST = "Remember to put your answer on its own line"
_LEVEL = re.compile(r"level\s*", re.IGNORECASE)
_OLYMMATH_LEVEL = re.compile(r"EASY|HARD", re.IGNORECASE)
_NUMBERED_IMAGE = re.compile(r"<image (\d)>")
_MATHVERSE_OPTION = re.compile(r"^([A-J])\s*:", re.MULTILINE)
_LONGEST_LIST = 20_000  # characters of a list that is written as text
_IMAGE_TAG = re.compile(r"(?:(?<![ \t])[ \t]+)?<image\d*>[ \t]*\n?")  # starts once in a run of blanks, hence linear


@dataclass(frozen=True)
class Question:
    """
    One row of a source.

    Args:
        text (`str`): the problem, without options.
        answer (`str`, *optional*): the final answer alone, or the letter of the right option; `None` if there is none.
        options (`tuple[str]`): texts of the options A, B, C… of a multiple-choice question.
        columns (`dict`): further columns, with the same names in all rows of a dataset.
    """

    text: str
    answer: str | None
    options: tuple[str, ...]
    columns: dict[str, Any]

    @property
    def full_text(self) -> str:
        """The problem and its lettered options, unless the options are mere letters."""
        if not self.options or self.options == tuple(LETTERS[: len(self.options)]):
            return self.text
        return "\n".join([self.text, "", *(f"{a}. {b}" for a, b in zip(LETTERS, self.options, strict=False))])


@dataclass(frozen=True)
class Source:
    """
    Where a dataset is and how it is read.

    Args:
        hub (`str`): id on the Hub.
        split (`str`): split that is read unless another is asked for.
        columns (`tuple[str]`): needed columns; `problem|question` is either of the two.
        read (`callable`): a row to a [`Question`].
        configs (`tuple[str]`): configurations, joined in this order.
        template (`str`): name of the default template. Questions with options have `"choice"`.
        images (`str` or `tuple[str]`, *optional*): column with an image, or a list of images, which becomes `image` or
            `images`; or columns with one image each or none, which become `images` together.
    """

    hub: str
    split: str
    columns: tuple[str, ...]
    read: Callable[[dict], Question]
    configs: tuple[str, ...] = ()
    template: str = "boxed"
    images: str | tuple[str, ...] | None = None


def read_math(row: dict) -> Question:
    """`problem` or `question`, and the answer in a column of its own or else in the last box of `solution`."""
    solution = row.get("solution")
    if isinstance(solution, list):  # OlympiadBench
        solution = "\n\n".join(solution)
    answer = _clean_answer(_first(row, "answer", "final_answer"))
    if answer is None and solution is not None:
        answer = ",".join(last_boxes(solution)) or None
    columns = {"solution": solution} if "solution" in row else {}
    if "level" in row:
        columns["level"] = _level(row["level"])
    subject = next((name for name in ("subject", "type", "problem_type", "subfield") if name in row), None)
    if subject:
        columns["subject"] = row[subject]
    text = "\n\n".join(part for part in (row.get("context"), _first(row, "problem", "question")) if part)
    return _question(text, answer, columns)


def read_olymmath(row: dict) -> Question:
    """As [`read_math`], with the level from the id, as in `OlymMATH-HARD-1-EN`."""
    level = _OLYMMATH_LEVEL.search(row["unique_id"])
    return read_math(row | {"level": level[0].lower() if level else None})


def read_openr1(row: dict) -> Question:
    """The 220k set and the 45k subset. What DeepSeek-R1 wrote is kept as `generations`, one text each."""
    if "prompt" in row:
        return read_verl(row)
    question = read_math(row)
    if "generations" in row:
        question.columns["generations"] = row["generations"]
    return question


def read_verl(row: dict) -> Question:
    """Datasets for verl (`prompt` of messages, `reward_model`), and DAPO as processed by Open R1 (`solution`)."""
    text = row["prompt"]
    if not isinstance(text, str):
        text = next((m["content"] for m in reversed(text) if m["role"] == "user"), "")
    paragraphs = text.strip().split("\n\n")
    if paragraphs[0].startswith(_DAPO_FIRST):
        paragraphs = paragraphs[1:]
    if paragraphs and paragraphs[-1].startswith(_DAPO_LAST):
        paragraphs = paragraphs[:-1]
    answer = (row.get("reward_model") or {}).get("ground_truth", row.get("solution"))
    columns = {}
    if "target" in row:
        columns["generations"] = [message["content"] for message in row["target"] or []]
    return _question("\n\n".join(paragraphs), _clean_answer(answer), columns)


def read_gsm8k(row: dict) -> Question:
    """The answer follows `####` and loses its thousands separators; the whole column is the solution."""
    _, mark, answer = row["answer"].rpartition("####")
    answer = answer.strip().replace(",", "") if mark else None
    return _question(row["question"], answer or None, {"solution": row["answer"]})


def read_arc(row: dict) -> Question:
    """Labels are letters or 1 to 4; both become letters."""
    labels, texts = row["choices"]["label"], row["choices"]["text"]
    answer = LETTERS[labels.index(row["answerKey"])] if row["answerKey"] in labels else None
    return _question(row["question"], answer, {}, texts)


def read_mmlu_pro(row: dict) -> Question:
    return _question(row["question"], _clean_answer(row["answer"]), {"subject": row["category"]}, row["options"])


def read_geo3k(row: dict) -> Question:
    """
    The tags `<image>` are removed: TRL puts the images before the text, in their order.

    Raises:
        ValueError: there are tags, but not one for each image.
    """
    text = row["problem"]
    tags = text.count("<image>")
    if tags and tags != len(row["images"]):
        raise ValueError(f"{tags} tags <image> and {len(row['images'])} images in {text[:80]!r}")
    return _question_of_images(_IMAGE_TAG.sub("", text).strip(), _clean_answer(row["answer"]), {})


def read_mathvision(row: dict) -> Question:
    """Some questions have options and a letter as their answer; the others have a short text."""
    columns = {"level": _level(row["level"])} if "level" in row else {}
    if "subject" in row:
        columns["subject"] = row["subject"]
    return _question_of_images(
        _IMAGE_TAG.sub("", row["question"]).strip(), _clean_answer(row["answer"]), columns, row["options"] or ()
    )


def read_mathverse(row: dict) -> Question:
    """The options are part of the question, or of the image; the answer is then a letter."""
    if row["image"] is None:
        raise ValueError("the image is missing.")
    text = row["question"] or ""
    found = _MATHVERSE_OPTION.findall(text) or LETTERS[:4]
    options = LETTERS[: LETTERS.index(max(found)) + 1] if row["question_type"] == "multi-choice" else ()
    columns = {"version": row["problem_version"], "subject": (row["metadata"] or {}).get("subject")}
    return _question_of_images(text.strip(), _clean_answer(row["answer"]), columns, tuple(options))


def read_mmmu(row: dict) -> Question:
    """
    Options are a list, or one written as text. Of several answers to an open question the first counts. A tag
    `<image 2>` becomes [image 2], and is left out if there is one image.
    """
    several = len(row["images"]) > 1

    def shown(text: str) -> str:
        return _NUMBERED_IMAGE.sub(r"[image \1]" if several else "", text).strip()

    answer = row["answer"]
    if row["question_type"] != "multiple-choice" and isinstance(answer, str) and answer.startswith("["):
        with suppress(ValueError):  # an interval or the like, and no list of answers
            answer = next(iter(_list_of_texts(answer)), None)
    columns = {"subject": row["subfield"], "level": row["topic_difficulty"]}
    options = [shown(option) for option in _list_of_texts(row["options"])]
    return _question_of_images(shown(row["question"]), _clean_answer(answer), columns, options)


def _list_of_texts(value: list | str | None) -> list[str]:
    """A list of texts, which may be written as one text in Python's way; it is read and never run."""
    if isinstance(value, str):
        if len(value) > _LONGEST_LIST:
            raise ValueError(f"a list of {len(value)} characters is too long.")
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise ValueError(f"{value!r:.100} is no list of texts.") from None
    if not isinstance(value, list | None) or not all(isinstance(one, str) for one in value or ()):
        raise ValueError(f"{value!r:.100} is no list of texts.")
    return value or []


def _question(text, answer, columns, options=()) -> Question:
    text = reference_text(text)
    if text is None or not text.strip():
        raise ValueError("the problem is missing or empty.")
    return _question_of_images(text, answer, columns, options)


def _question_of_images(text: str, answer, columns, options=()) -> Question:
    """As [`_question`], but the text may be empty: the image may be all of the problem."""
    if len(options) > len(LETTERS):
        raise ValueError(f"At most {len(LETTERS)} options have a letter, found {len(options)} in {text[:80]!r}")
    return Question(text=text, answer=answer, options=tuple(options), columns=columns)


def _first(row: dict, *names: str):
    return next((row[name] for name in names if row.get(name) is not None), None)


def _level(value) -> str | None:
    return None if value is None else _LEVEL.sub("", str(value))


def _clean_answer(value) -> str | None:
    """An answer as text: `27.0` becomes 27, a list is joined by commas, and a text with a box becomes its content."""
    if isinstance(value, list):
        parts = [_clean_answer(part) for part in value]
        if None in parts:
            raise ValueError(f"the answer {value!r:.100} has an empty part.")
        value = ", ".join(filter(None, parts))
    # above 2**53 a float may stand for another integer than the one that was meant
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    text = (reference_text(value) or "").strip()
    if "\\boxed" in text:
        text = ",".join(last_boxes(text))
    return text or None


def reference_text(value: Any) -> str | None:
    """
    A reference as text, with nothing changed. Text stays as it is; a number or a date, which has no text of its own,
    gets the one that reads back as the same. A missing value and NaN are `None`.

    Raises:
        ValueError: the value has no such text: it is true or false, infinite, a time, a list or anything else.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Decimal) and value.is_finite():
        return format(value, "f")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    raise ValueError(
        f"text, a number or a date is needed, not {type(value).__name__} {value!r:.100}: write it as text."
    )


_PROBLEM = ("problem|question",)
_WITH_ANSWER = ("problem|question", "answer|final_answer")

SOURCES: dict[str, Source] = {
    "math": Source("EleutherAI/hendrycks_math", "train", (*_PROBLEM, "solution|answer"), read_math, MATH_CONFIGS),
    "openr1": Source("open-r1/OpenR1-Math-220k", "train", ("problem|prompt", "answer|reward_model"), read_openr1),
    "openr1_45k": Source(
        "Elliott/Openr1-Math-46k-8192", "train", ("problem|prompt", "answer|reward_model"), read_openr1
    ),
    "dapo": Source("BytedTsinghua-SIA/DAPO-Math-17k", "train", ("prompt", "reward_model|solution"), read_verl),
    "gsm8k": Source("openai/gsm8k", "train", ("question", "answer"), read_gsm8k, ("main",)),
    "geo3k": Source(
        "hiyouga/geometry3k", "train", ("problem", "images", "answer"), read_geo3k, template="geo3k", images="images"
    ),
    "arc_challenge": Source(
        "allenai/ai2_arc", "train", ("question", "choices", "answerKey"), read_arc, ("ARC-Challenge",)
    ),
    "mmlu_pro": Source("TIGER-Lab/MMLU-Pro", "test", ("question", "options", "answer", "category"), read_mmlu_pro),
    "math500": Source("HuggingFaceH4/MATH-500", "test", (*_PROBLEM, "solution|answer"), read_math),
    "aime24": Source("HuggingFaceH4/aime_2024", "train", _WITH_ANSWER, read_math),
    "aime25": Source("math-ai/aime25", "test", _WITH_ANSWER, read_math),
    "amc23": Source("math-ai/amc23", "test", _WITH_ANSWER, read_math),
    "minerva": Source("math-ai/minervamath", "test", _WITH_ANSWER, read_math),
    "olympiadbench": Source("Hothan/OlympiadBench", "train", _WITH_ANSWER, read_math, ("OE_TO_maths_en_COMP",)),
    "olymmath": Source(
        "RUC-AIBOX/OlymMATH", "test", (*_WITH_ANSWER, "unique_id"), read_olymmath, ("en-easy", "en-hard")
    ),
    "mathvision": Source(
        "MathLLMs/MathVision",
        "test",
        ("question", "options", "decoded_image", "answer"),
        read_mathvision,
        images="decoded_image",
    ),
    "mathverse": Source(
        "AI4Math/MathVerse",
        "testmini",
        ("question", "image", "answer", "question_type", "problem_version", "metadata"),
        read_mathverse,
        ("testmini",),
        images="image",
    ),
    "mmmu": Source(
        "MMMU/MMMU",
        "validation",
        ("question", "options", "answer", "question_type", "subfield", "topic_difficulty", *MMMU_IMAGES),
        read_mmmu,
        MMMU_CONFIGS,
        images=MMMU_IMAGES,
    ),
}
