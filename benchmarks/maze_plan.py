"""The plan of the maze table: its scales, its cells, which other cells each of them needs, and where its file is.

A cell is a method, a base model and a seed, and is one JSON file. `maze_cell.py` makes such a file, `maze_table.py`
makes all of them, and the report reads them.
"""

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from maze_methods import SELECTION, SMOKE, TABLE, samples_more


BASE = "base"
# Factors of the learning rate of a method's recipe that the search tries; without a search the last one is taken
RATE_FACTORS = (0.5, 1.0)
SEARCH_BASE = SEARCH_SEED = 9  # in no row of the table
RESULTS = Path(__file__).resolve().parent / "results" / "maze_table"
METHODS_OF = {"4x4": tuple(TABLE), "5x5": SELECTION, "9x9": SELECTION, "smoke": SMOKE}
BASES_OF = {"4x4": (0, 1, 2), "5x5": (0, 1, 2), "9x9": (0,), "smoke": (0,)}
SEEDS_OF = {"4x4": (0, 1), "5x5": (0,), "9x9": (0,), "smoke": (0,)}


@dataclass(frozen=True)
class Scale:
    """How large everything is. `model` overrides sizes of the testbed's model, `rate` scales all learning rates."""

    size: int
    max_path: int = 6
    model: dict = field(default_factory=dict)
    warmup: dict = field(default_factory=lambda: {"steps": 800, "batch_size": 64, "learning_rate": 2e-3})
    warmup_mazes: int = 6000
    batches: int = 200  # of 16 prompts
    test_mazes: int = 200
    samples: int = 64
    validation_mazes: int = 100
    validation_samples: int = 32
    dynamics_points: int = 4
    dynamics_mazes: int = 64
    other_sizes: dict = field(default_factory=lambda: {"3": 4, "5": 6})  # size -> longest path
    other_mazes: int = 100
    rate: float = 1.0


SCALES = {
    "4x4": Scale(4),
    "5x5": Scale(5, model={"hidden_size": 96, "intermediate_size": 288}, other_sizes={"4": 6, "6": 6}),
    # For a GPU: 27 million parameters
    "9x9": Scale(
        9,
        max_path=8,
        model={"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8}
        | {"num_key_value_heads": 8},
        warmup={"steps": 2000, "batch_size": 256, "learning_rate": 5e-4},
        warmup_mazes=50_000,
        dynamics_points=2,
        other_sizes={"7": 8, "11": 8},
        rate=0.25,
    ),
    "smoke": Scale(
        4,
        warmup={"steps": 300, "batch_size": 64, "learning_rate": 2e-3},
        warmup_mazes=1000,
        batches=4,
        test_mazes=20,
        samples=8,
        validation_mazes=10,
        validation_samples=8,
        dynamics_points=2,
        dynamics_mazes=8,
        other_mazes=10,
    ),
}


@dataclass(frozen=True, order=True)
class Cell:
    """`variant` is `""`, `"equal"` for equal rollouts, or `"rate-0.5"` and the like in the search."""

    scale: str
    method: str
    base: int
    seed: int
    variant: str = ""

    @property
    def factor(self) -> float | None:
        """In the search, the factor of the learning rate that is tried."""
        return float(self.variant.removeprefix("rate-")) if self.variant.startswith("rate-") else None

    def path(self, results: Path) -> Path:
        name = f"{self.base}-{self.seed}" + (f"-{self.variant}" if self.variant else "")
        return results / self.scale / self.method / f"{name}.json"

    def __str__(self) -> str:
        return f"{self.scale} {self.method} base {self.base} seed {self.seed} {self.variant}".rstrip()


# --- which cells there are ---


def search_cells(cell: Cell) -> list[Cell]:
    """The cells by which the learning rate of a method is chosen: those of 4x4 for every scale but the smoke."""
    scale = cell.scale if cell.scale == "smoke" else "4x4"
    return [Cell(scale, cell.method, SEARCH_BASE, SEARCH_SEED, f"rate-{factor}") for factor in RATE_FACTORS]


def needed(cell: Cell) -> set[Cell]:
    """The cells whose results this one reads."""
    if cell.method == BASE or cell.factor is not None:
        return set()
    return {*search_cells(cell), *([replace(cell, variant="")] if cell.variant == "equal" else [])}


def plan(scale: str, methods: tuple[str, ...], bases: list[int], seeds: list[int], search: bool) -> list[Cell]:
    """The cells of one scale, the most useful ones first and each after those that it needs."""
    cells = []
    for seed in seeds:
        for base in bases:
            if seed == seeds[0]:
                cells.append(Cell(scale, BASE, base, 0))
            for method in methods:
                cell = Cell(scale, method, base, seed)
                if search and scale != "9x9":  # which takes the committed search of 4x4
                    cells += search_cells(cell)
                cells.append(cell)
                if samples_more(TABLE[method]):
                    cells.append(replace(cell, variant="equal"))
    return list(dict.fromkeys(cells))


# --- their files ---


def read(path: Path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write(path: Path, value: dict) -> None:
    """Writes one line per key, so that differences can be read, and replaces the file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(entry, allow_nan=False)}" for key, entry in value.items())
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    os.replace(temporary, path)
