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

import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from io import BytesIO, FileIO
from numbers import Real
from pathlib import Path
from reprlib import repr as shorten
from typing import Any

import numpy as np
from filelock import lock_descriptor

from .problems import Problem, digest_of
from .results import OVERALL, ProblemCounts, SavedCounts, pooled
from .samples import Sample


SETTINGS, PROBLEMS, SCORES, RESULTS, LOCK = "settings.json", "problems.jsonl", "scores.jsonl", "results.json", "lock"
# Settings that may change between the runs of a folder: names of files, since digests stand for the contents, and all
# that concerns the scoring
NOT_COMPARED = (
    *("versions", "path", "model", "adapter", "reward", "correctness_threshold", "num_duplicates"),
    *("num_beyond_context", "by", "problem_rows"),
)
# Settings that are read again, and what they must be
READ_AGAIN = {
    **{"num_samples": int, "max_new_tokens": int, "num_duplicates": int, "correctness_threshold": Real},
    **{"problems": str, "reward": str, "engine": dict, "versions": dict},
}
WRITE_AGAIN = "The command that sampled the run writes it again, without new samples; it also takes other references."
SAMPLE_AGAIN = "Remove the line, and the command that sampled the run draws it again."


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
        number of samples may grow. The file of the settings gets a digest of that of the problems, `problem_rows`.

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
        text = _as_lines(problem.to_dict() for problem in problems)
        settings = settings | {"problem_rows": _file_digest(text.encode())}
        write_json(settings_path, settings)  # first, because this file marks the folder as that of a run
        _replace(self.path / PROBLEMS, text)

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
        """The settings of the run. Raises `ValueError` if the folder holds no run, or they are damaged."""
        _check_folder(self.path)
        path = self.path / SETTINGS
        if not path.exists():
            raise ValueError(f"The folder '{self.path}' holds no evaluation: it has no {SETTINGS}.")
        settings = read_json(path)
        for name, kind in READ_AGAIN.items():
            value = settings.get(name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"'{path}' needs {name!r} as {kind.__name__}, found {shorten(value)}.")
        for name in ("num_samples", "max_new_tokens"):
            if settings[name] < 1:
                raise ValueError(f"'{path}' needs at least 1 for {name!r}, found {shorten(settings[name])}.")
        if not isinstance(settings.get("by"), str | None):
            raise ValueError(f"'{path}' needs the name of a column for 'by', found {shorten(settings['by'])}.")
        if not math.isfinite(threshold := settings["correctness_threshold"]):
            raise ValueError(f"'{path}' needs a finite number for 'correctness_threshold', found {threshold}.")
        return settings

    def read_problems(self, settings: dict) -> list[Problem]:
        """
        The problems of the run, in order, without their images.

        Raises:
            ValueError: a line is not a problem, or the file is not as the run with these settings wrote it.
        """
        path = self.path / PROBLEMS
        if not path.exists():
            raise ValueError(f"The folder '{self.path}' has no {PROBLEMS}. {WRITE_AGAIN}")
        content, problems = path.read_bytes(), []
        for place, line in _parse_lines(content, path):
            if line.keys() != {"id", "row"} or not isinstance(line["id"], str) or not isinstance(line["row"], dict):
                raise ValueError(f"{place} is not a problem, with an 'id' and a 'row', but {shorten(line)}.")
            if "prompt" not in line["row"]:
                raise ValueError(f"{place} is a problem without a 'prompt': {shorten(line)}.")
            problems.append(Problem(**line))
        found = {"problems": digest_of(problems), "problem_rows": _file_digest(content)}
        for name, digest in found.items():
            if digest != settings.get(name, digest):  # runs of earlier versions have no digest of the rows
                raise ValueError(
                    f"'{path}' is not as the run wrote it: {name!r} in {SETTINGS} is {settings[name]!r}, and of this "
                    f"file {digest!r}. Lines were changed, moved, added or removed. {WRITE_AGAIN}"
                )
        return problems

    def read_samples(self, num_problems: int, settings: dict, repair: bool = False) -> list[Sample]:
        """
        Every completion that was finished.

        Args:
            num_problems (`int`): of the run.
            settings (`dict`): of the run.
            repair (`bool`, *optional*, defaults to `False`): remove a last line that a kill has left without its end.

        Raises:
            ValueError: a process of an earlier run is still writing, or a line is not a sample, is there twice, is of
                a problem or number beyond these, or is longer than a completion may be; the message names file and
                line.
        """
        num_samples, most_tokens = settings["num_samples"], settings["max_new_tokens"]
        samples = {}
        for path in sorted(self.path.glob("samples-*.jsonl")):
            with _locked(path) as file:
                content = _whole_lines(file) if repair else _content(file)
                for place, line in _parse_lines(content, path):
                    sample = _sample_of(line, place)
                    if sample.length > most_tokens:
                        raise ValueError(
                            f"{place} is not a sample: its `length` of {sample.length} is above `max_new_tokens`="
                            f"{most_tokens}. {SAMPLE_AGAIN}"
                        )
                    if sample.problem >= num_problems or sample.sample >= num_samples:
                        raise ValueError(
                            f"{place} is sample {sample.sample} of problem {sample.problem}, but there are "
                            f"{num_samples} samples of {num_problems} problems, numbered from 0."
                        )
                    if (sample.problem, sample.sample) in samples:
                        raise ValueError(
                            f"Sample {sample.sample} of problem {sample.problem} appears twice. {place} is the second."
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
        _replace(self.path / SCORES, _as_lines(lines))


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


def _content(file: FileIO) -> bytes:
    file.seek(0)
    return file.readall()


def _whole_lines(file: FileIO) -> bytes:
    """The content of the file, after a last line without an end has been removed from it."""
    content = _content(file)
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        file.truncate(whole)
    return content[:whole]


def _parse_lines(content: bytes, path: Path) -> Iterator[tuple[str, dict]]:
    """The objects of a file of lines, each with its place for messages."""
    for number, line in enumerate(BytesIO(content), start=1):
        place = f"Line {number} of '{path}'"
        value = _parse(line, place)
        if not isinstance(value, dict):
            raise ValueError(f"{place} is not an object, but {shorten(value)}.")
        yield place, value


def _parse(content: bytes, place: str) -> Any:
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError(f"{place} is nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"{place} is not JSON ({error}).") from None


def _sample_of(line: dict, place: str) -> Sample:
    known = {one.name: one.default for one in fields(Sample)}
    wrong = [name for name in line if name not in known]
    wrong += [name for name, default in known.items() if default is MISSING and name not in line]
    if wrong:
        is_there = "another field" if wrong[0] in line else "no field"
        raise ValueError(f"{place} is not a sample: it has {is_there} {shorten(wrong[0])}. {SAMPLE_AGAIN}")
    try:
        return Sample(**line)
    except ValueError as error:
        raise ValueError(f"{place} is not a sample: {error} {SAMPLE_AGAIN}") from None


def _as_lines(values: Iterable[dict]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def _file_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


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
        earlier = RunFolder(path.parent).read_settings()["engine"]
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
    saved, counts, engines = {}, {}, set()
    for name in (name for name in folders if name not in unfinished):
        with _named(folders[name] / RESULTS):
            saved[name] = read_json(folders[name] / RESULTS)
            counts[name] = SavedCounts.from_dict(saved[name])
            engines.add(json.dumps(saved[name]["settings"]["engine"], sort_keys=True))
    if len(engines) > 1:
        raise ValueError(f"The benchmarks in '{run_dir}' are of {len(engines)} engines or models: {sorted(engines)}.")
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
    with _named(path):
        saved = read_json(path)
        saved = saved.get("benchmarks") or {saved["settings"].get("benchmark", "evaluation"): saved}
        return {name: SavedCounts.from_dict(result) for name, result in saved.items()}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{path}' holds no results of an evaluation ({type(error).__name__}: {error}).") from None


def read_json(path: Path) -> dict:
    """
    The object in a JSON file.

    Raises:
        ValueError: it holds none; the message names the file, and the line where it can.
    """
    value = _parse(path.read_bytes(), f"'{path}'")
    if not isinstance(value, dict):
        raise ValueError(f"'{path}' is not an object, but {shorten(value)}.")
    return value
