"""The folder of a run: for each benchmark its settings, every completion as it finished, scores and results.

```
results.json            of all benchmarks
amc23/
    settings.json       what the samples depend on, and the versions they were drawn with
    problems.jsonl      one problem per line
    samples-0.jsonl     one completion per line, appended as they finish; one file per process
    scores.jsonl        the reward of one completion per line
    results.json        every number of the report
```
All files but those of the samples are replaced as a whole, so that a kill leaves either the old file or the new one.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO, FileIO
from pathlib import Path

import numpy as np
from filelock import lock_descriptor

from .problems import Problem
from .results import OVERALL, ProblemCounts, SavedCounts, pooled
from .samples import Sample


SETTINGS, PROBLEMS, SCORES, RESULTS, LOCK = "settings.json", "problems.jsonl", "scores.jsonl", "results.json", "lock"
# Settings that may change between the runs of a folder: names of files, since digests stand for the contents, and all
# that concerns the scoring
NOT_COMPARED = (
    *("versions", "path", "model", "adapter", "reward", "correctness_threshold", "num_duplicates"),
    *("num_beyond_context", "by"),
)


class RunFolder:
    """
    The folder of one evaluation of one benchmark.

    Args:
        path (`str` or `Path`): a folder that is new, is empty, or holds an earlier run with the same settings, or with
            fewer samples.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """
        Keeps other runs out of the folder.

        Raises:
            ValueError: another run is using it, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"The folder '{self.path}' cannot be made: {error.strerror}.") from error
        with _locked(self.path / LOCK):
            yield

    def claim(self, settings: dict, problems: list[Problem]) -> None:
        """
        Writes settings and problems into a new folder, or checks that those of the earlier run are the same. Only the
        number of samples may grow.

        Raises:
            ValueError: the folder holds something other than a run, a run with more samples, or one with another
                setting; the message names the setting and both values.
        """
        settings_path = self.path / SETTINGS
        if settings_path.exists():
            self._check_same_settings(settings)
            settings = settings | {"versions": self.read_settings()["versions"]}  # of the first samples
        elif others := sorted({path.name for path in self.path.iterdir()} - {LOCK, f"{SETTINGS}.tmp"}):
            raise ValueError(f"The folder '{self.path}' holds {others[0]!r} and no evaluation. Name a new folder.")
        lines = [problem.to_dict() for problem in problems]
        write_json(settings_path, settings)  # first, because this file marks the folder as that of a run
        _write_lines(self.path / PROBLEMS, lines)

    def _check_same_settings(self, settings: dict) -> None:
        earlier, now = _flat(self.read_settings()), _flat(json.loads(json.dumps(settings)))
        for name in [*earlier, *(name for name in now if name not in earlier)]:
            if earlier.get(name) == now.get(name) or (name == "num_samples" and earlier[name] < now[name]):
                continue
            if name.startswith("versions."):
                what = f"{name.removeprefix('versions.')} {earlier.get(name)}, and goes on with {now.get(name)}"
                warnings.warn(f"The run in '{self.path}' was begun with {what}.", stacklevel=2)
            elif name.split(".")[0] not in NOT_COMPARED:
                raise ValueError(
                    f"The folder '{self.path}' holds a run with {name} = {earlier.get(name)!r}, but now it is "
                    f"{now.get(name)!r}. Use the same settings to go on with that run, or another folder."
                )

    def check_visible(self, settings: dict) -> None:
        """
        Checks that this process sees what the first process wrote when it claimed the folder.

        Raises:
            ValueError: it does not.
        """
        if not (self.path / SETTINGS).exists() or self.read_settings()["problems"] != settings["problems"]:
            raise ValueError(f"The folder '{self.path}' must be on a file system that all processes share.")

    def read_settings(self) -> dict:
        """The settings of the run. Raises `ValueError` if the folder holds no run."""
        _check_folder(self.path)
        if not (self.path / SETTINGS).exists():
            raise ValueError(f"The folder '{self.path}' holds no evaluation: it has no {SETTINGS}.")
        return json.loads((self.path / SETTINGS).read_text(encoding="utf-8"))

    def read_problems(self) -> list[Problem]:
        """The problems of the run, in order, without their images."""
        path = self.path / PROBLEMS
        return [Problem(**saved) for saved in _parse_lines(path.read_bytes(), path)]

    def read_samples(self) -> list[Sample]:
        """
        Every completion that was finished. A last line that was left incomplete by a kill is removed from its file.

        Raises:
            ValueError: a process of an earlier run is still writing, a complete line is not JSON, or a sample is there
                twice.
        """
        samples = {}
        for path in sorted(self.path.glob("samples-*.jsonl")):
            with _locked(path) as file:
                for line in _parse_lines(_whole_lines(file), path):
                    sample = Sample(**line)
                    if (sample.problem, sample.sample) in samples:
                        raise ValueError(
                            f"Sample {sample.sample} of problem {sample.problem} appears twice in '{self.path}', the "
                            f"second time in {path.name}."
                        )
                    samples[sample.problem, sample.sample] = sample
        return list(samples.values())

    @contextmanager
    def writer(self, process: int) -> Iterator[Callable[[Iterable[Sample]], None]]:
        """A function that appends samples to the file of this process. They are in the file when it returns."""
        path = self.path / f"samples-{process}.jsonl"
        with _locked(path) as file:

            def write(samples: Iterable[Sample]) -> None:
                rest = memoryview("".join(json.dumps(asdict(sample)) + "\n" for sample in samples).encode())
                while rest:  # an unbuffered write may take only a part
                    rest = rest[file.write(rest) :]

            yield write

    def write_scores(self, lines: Iterable[dict]) -> None:
        """Replaces the scores."""
        _write_lines(self.path / SCORES, lines)


@contextmanager
def _locked(path: Path) -> Iterator[FileIO]:
    """
    The file, locked, and open for reading and appending without a buffer. The system releases the lock when the
    process that holds it ends, however that happens.
    """
    with _appendable(path) as file:
        try:
            is_ours = lock_descriptor(file.fileno(), blocking=False)
        except OSError as error:
            warnings.warn(
                f"'{path}' cannot be locked ({error}): make sure that no other run writes there.", stacklevel=2
            )
            is_ours = True
        if not is_ours:
            raise ValueError(f"Another process is at work in the folder '{path.parent}': it holds {path.name}.")
        yield file


def _appendable(path: Path) -> FileIO:
    try:
        return open(path, "a+b", buffering=0)
    except OSError as error:
        raise ValueError(f"'{path}' cannot be written: {error.strerror}.") from error


def _whole_lines(file: FileIO) -> bytes:
    """The content of the file, after a last line without an end has been removed from it."""
    file.seek(0)
    content = file.readall()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        file.truncate(whole)
    return content[:whole]


def _parse_lines(content: bytes, path: Path) -> Iterator[dict]:
    for number, line in enumerate(BytesIO(content), start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ValueError(f"Line {number} of '{path}' is not JSON ({error}).") from None


def _write_lines(path: Path, lines: Iterable[dict]) -> None:
    _replace(path, "".join(json.dumps(line) + "\n" for line in lines))


def write_json(path: Path, value: dict) -> None:
    """Replaces a JSON file as a whole."""
    _replace(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # otherwise a crash of the machine can leave an empty file under the new name
    os.replace(temporary, path)


def _flat(settings: dict, prefix: str = "") -> dict:
    """Nested settings as one dict with dotted names."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def benchmark_folders(run_dir: str | Path) -> dict[str, Path]:
    """
    The folders of a run's benchmarks by name, in alphabetical order.

    Raises:
        ValueError: there is no such folder, or the run has no benchmark.
    """
    run_dir = Path(run_dir)
    _check_folder(run_dir)
    folders = {path.parent.name: path.parent for path in sorted(run_dir.glob(f"*/{SETTINGS}"))}
    if not folders:
        raise ValueError(f"The folder '{run_dir}' holds no evaluation: no benchmark in it has a {SETTINGS}.")
    return folders


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise ValueError(f"There is no folder '{path}'." if not path.exists() else f"'{path}' is not a folder.")


def check_same_engine(run_dir: str | Path, engine: dict) -> None:
    """
    Checks, before anything is sampled, that the benchmarks of a run were sampled with this engine and model.

    Raises:
        ValueError: a benchmark was sampled with another engine or model; the message names both.
    """
    for path in sorted(Path(run_dir).glob(f"*/{SETTINGS}")):
        earlier = read_json(path)["engine"]
        if earlier != json.loads(json.dumps(engine)):
            raise ValueError(
                f"'{path.parent}' was sampled with {earlier}, but now it is {engine}. Use another --output-dir."
            )


def summarize(run_dir: str | Path) -> dict:
    """
    Writes `results.json` of a run from the `results.json` of each of its benchmarks, and returns it.

    `overall` pools the problems of all benchmarks, so that a benchmark has the weight of its number of problems;
    `mean_over_benchmarks` gives each benchmark the same weight. A benchmark that is not finished is left out with a
    warning.

    Raises:
        ValueError: there is no benchmark, none is finished, or they were sampled with different engines or models.
    """
    folders = benchmark_folders(run_dir)
    unfinished = [name for name, folder in folders.items() if not (folder / RESULTS).exists()]
    if len(unfinished) == len(folders):
        raise ValueError(f"No benchmark in '{run_dir}' is finished. Run the same command again to go on.")
    if unfinished:
        warnings.warn(f"Not finished, and left out of the summary: {', '.join(unfinished)}.", stacklevel=2)
    saved = {name: read_json(folder / RESULTS) for name, folder in folders.items() if name not in unfinished}
    engines = {json.dumps(result["settings"]["engine"], sort_keys=True) for result in saved.values()}
    if len(engines) > 1:
        raise ValueError(f"The benchmarks in '{run_dir}' are of {len(engines)} engines or models: {sorted(engines)}.")
    counts = {name: SavedCounts.from_dict(result) for name, result in saved.items()}
    ks = sorted(set.intersection(*(set(result.ks) for result in counts.values())))
    means = {str(k): float(np.mean([result.pass_at_k[k] for result in counts.values()])) for k in ks}
    summary = {
        "benchmarks": saved,
        OVERALL: pooled(counts.values()).counts_to_dict(),
        "mean_over_benchmarks": {"avg_at_n": means["1"], "pass_at_k": means},
    }
    write_json(Path(run_dir) / RESULTS, summary)
    return summary


def load_results(path: str | Path) -> dict[str, ProblemCounts]:
    """
    The counts of a finished run by benchmark, for [`compare`] and [`compare_runs`].

    Args:
        path (`str` or `Path`): the folder of a run or of one of its benchmarks, or a `results.json`. A result that was
            recorded without the name of a benchmark is called `"evaluation"`.

    Raises:
        ValueError: there is no such folder or no `results.json`, or it was not written by an evaluation.
    """
    path = Path(path)
    if path.suffix != ".json":
        _check_folder(path)
    path = path / RESULTS if path.is_dir() else path
    if not path.exists():
        raise ValueError(f"There is no '{path}': it is written when an evaluation is finished.")
    saved = read_json(path)
    try:
        saved = saved.get("benchmarks") or {saved["settings"].get("benchmark", "evaluation"): saved}
        return {name: SavedCounts.from_dict(result) for name, result in saved.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' holds no results of an evaluation ({type(error).__name__}: {error}).") from None


def read_json(path: Path) -> dict:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
