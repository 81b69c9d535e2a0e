"""The problems of an evaluation: rows of a dataset, each with an id made from its content."""

import hashlib
import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from reprlib import repr as shorten
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from datasets import Dataset


IMAGE_COLUMNS = ("image", "images")


@dataclass(frozen=True)
class Problem:
    """
    One problem.

    Args:
        id (`str`): digest of the prompt and its images. Two problems are the same if the model sees the same.
        row (`dict`): its row of the dataset: `prompt`, and the columns that the reward function reads.
    """

    id: str
    row: dict

    def __repr__(self) -> str:  # rows of any length
        return f"Problem(id={self.id!r}, row={shorten(self.row)})"

    @classmethod
    def from_row(cls, row: dict) -> "Problem":
        """The problem of a row of a dataset."""
        seen = {name: row[name] for name in ("prompt", *IMAGE_COLUMNS) if row.get(name) is not None}
        text = json.dumps(_as_json("prompt", seen), sort_keys=True)
        return cls(hashlib.sha256(text.encode()).hexdigest()[:16], row)

    def to_dict(self) -> dict:
        """
        The problem without its images, ready for `json.dump`.

        Raises:
            ValueError: a column holds something that cannot be written as JSON.
        """
        names = [name for name in self.row if name not in IMAGE_COLUMNS]
        return {"id": self.id, "row": {name: _as_json(name, self.row[name]) for name in names}}

    @property
    def plain_prompt(self) -> Any:
        """The prompt, ready for `json.dump`: an image in it becomes its digest."""
        return _as_json("prompt", self.row["prompt"])

    @property
    def prompt_with_images(self) -> Any:
        """The prompt as an engine takes it, with the images from the row's own columns put in."""
        images = self.row.get("images") or ([self.row["image"]] if self.row.get("image") is not None else [])
        return insert_images(self.row["prompt"], images) if images else self.row["prompt"]


def insert_images(prompt: list[dict], images: list) -> list[dict]:
    """
    The conversation with its images in the content of its messages: in place of its placeholders if it has any, else
    at the beginning of the first user message.

    Raises:
        ValueError: the prompt is not a conversation, or its number of placeholders is not the number of images.
    """
    if isinstance(prompt, str):
        raise ValueError("A problem with images needs a conversation as its prompt, got a string.")
    contents = [m["content"] if isinstance(m["content"], list) else [_text_part(m["content"])] for m in prompt]
    places = [part for content in contents for part in content if part["type"] == "image"]
    if not places:
        first = next((i for i, message in enumerate(prompt) if message["role"] == "user"), None)
        if first is None:
            raise ValueError("A problem with images needs a user message, but its prompt has none.")
        contents[first] = [{"type": "image"}] * len(images) + contents[first]
    elif len(places) != len(images):
        raise ValueError(f"A prompt has {len(places)} places for images, but the row holds {len(images)}.")
    remaining = iter(images)
    filled = [
        [{"type": "image", "image": next(remaining)} if part["type"] == "image" else part for part in content]
        for content in contents
    ]
    return [message | {"content": content} for message, content in zip(prompt, filled, strict=True)]


def _text_part(text: str) -> dict:
    return {"type": "text", "text": text}


def _as_json(name: str, value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, default=_image_digest))
    except (TypeError, ValueError) as error:
        raise ValueError(f"The column {name!r} cannot be saved as JSON ({error}). Remove it.") from None


def _image_digest(value: Any) -> str:
    if isinstance(value, bytes):
        content = value
    elif hasattr(value, "tobytes") and hasattr(value, "mode"):  # a PIL image; text alone does not need PIL
        content = f"{value.mode} {value.size} ".encode() + value.tobytes()
    else:
        raise TypeError(f"{type(value).__name__} is neither JSON nor an image")
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def distinct_problems(dataset: "Dataset | Iterable[dict]") -> tuple[list[Problem], int]:
    """
    The problems of a dataset, each once, and the number of rows that repeat an earlier one.

    Raises:
        ValueError: the dataset holds splits, is empty, or has no `prompt` column.
    """
    if isinstance(dataset, dict):
        raise ValueError(f"dataset holds the splits {sorted(map(str, dataset))}; pass one of them.")
    rows = [dict(row) for row in dataset]
    if not rows:
        raise ValueError("dataset is empty, but an evaluation needs at least 1 problem.")
    if "prompt" not in rows[0]:
        raise ValueError(f"dataset needs a 'prompt' column, but its columns are {list(rows[0])}.")
    first: dict[str, Problem] = {}
    for row in rows:
        problem = Problem.from_row(row)
        first.setdefault(problem.id, problem)
    if num_duplicates := len(rows) - len(first):
        warnings.warn(
            f"{num_duplicates} of {len(rows)} rows repeat the prompt of an earlier row and are left out.",
            stacklevel=2,
        )
    return list(first.values()), num_duplicates


def digest_of(problems: list[Problem]) -> str:
    """One digest of all problems in their order."""
    return hashlib.sha256(" ".join(problem.id for problem in problems).encode()).hexdigest()[:16]
