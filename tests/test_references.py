"""References and problems reach the reward function as they are in the file, or are refused by name."""

import json
import time
import zipfile
from datetime import date, datetime
from decimal import Decimal

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlvr_trl.data import load_benchmark, load_own, load_source
from rlvr_trl.data.text_files import read_text_files


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


# As they stand in a JSON file, and as text
NUMBERS = {
    word: word
    for word in ("12345678901234567890123", "-7", "-0", "1e-5", "1E5", "0.50", "0.1", "1.0e400", "9223372036854775808")
}
TEXTS = {
    json.dumps(word): word for word in ("2024-01-01", "007", "1_000", "True", "NaN", "null", "1e-5", "1,234", "½")
}
WRITTEN = NUMBERS | TEXTS


def as_json(words):
    return [f'{{"problem": "p{i}", "answer": {word}}}' for i, word in enumerate(words)]


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def write_all(tmp_path, words):
    """A file of every text format, and folders of them, as `datasets` finds those of the Hub."""
    lines = as_json(words)
    texts = [word if word in NUMBERS else json.loads(word) for word in words]
    rows = "".join(f'p{i},"{text}"\n' for i, text in enumerate(texts))
    return [
        write(tmp_path / "a.jsonl", "\n".join(lines)),
        write(tmp_path / "a.json", f"[{', '.join(lines)}]"),
        write(tmp_path / "a.csv", f"problem,answer\n{rows}"),
        write(tmp_path / "lines/test.jsonl", "\n".join(lines)).parent,
        write(tmp_path / "cells/test.csv", f"problem,answer\n{rows}").parent,
    ]


ALONE = ("12345678901234567890123", "1e-5", "0.50", '"2024-01-01"', '"007"', '"True"')


@pytest.mark.parametrize("words", [[word] for word in ALONE] + [list(WRITTEN), ["5", '"x"'], ["5", "0.5"]], ids=str)
def test_text_files_give_the_text(words, tmp_path):
    expected = [WRITTEN.get(word, word.strip('"')) for word in words]
    for path in write_all(tmp_path, words):
        assert load_own(path, "test")["answer"][:] == expected, path
    assert load_source("math500", tmp_path / "a.jsonl")["answer"][:] == expected
    assert load_source("math500", tmp_path / "lines")["answer"][:] == expected


def test_floats_of_published_sources_lose_their_point_zero(tmp_path):
    path = write(tmp_path / "a.jsonl", "\n".join(as_json(["27.0", "3.5"])))
    assert load_source("amc23", path)["answer"][:] == ["27", "3.5"]
    assert load_own(path)["answer"][:] == ["27.0", "3.5"]


TYPED = [
    (pa.int64(), [12345678901234567, -7, 0], ["12345678901234567", "-7", "0"]),
    (pa.uint64(), [2**64 - 1], ["18446744073709551615"]),
    (pa.float64(), [0.1, 1e-5, 1e23], ["0.1", "1e-05", "1e+23"]),
    (pa.decimal128(30, 7), [Decimal("0.0000001"), Decimal("12345678901234567890123")],
     ["0.0000001", "12345678901234567890123.0000000"]),
    (pa.date32(), [date(2024, 1, 1)], ["2024-01-01"]),
    (pa.string(), ["007", "True", "NaN"], ["007", "True", "NaN"]),
    (pa.large_string(), ["1_000"], ["1_000"]),
]  # fmt: skip


def write_parquet(path, kind, values):
    columns = {"problem": [f"p{i}" for i in range(len(values))], "answer": pa.array(values, kind)}
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(("kind", "values", "expected"), TYPED, ids=str)
def test_typed_values_read_back_as_the_same(kind, values, expected, tmp_path):
    path = write_parquet(tmp_path / "a.parquet", kind, values)
    assert load_own(path)["answer"][:] == load_source("math500", path)["answer"][:] == expected


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (pa.bool_(), [None, True], "not bool True: write it as text"),
        (pa.timestamp("s"), [None, datetime(2024, 1, 1)], "not datetime"),
        (pa.float64(), [None, float("inf")], "not float inf"),
        (pa.binary(), [None, b"1"], "not bytes"),
    ],
    ids=str,
)
def test_typed_values_without_a_text_of_their_own_are_refused(kind, values, message, tmp_path):
    path = write_parquet(tmp_path / "a.parquet", kind, values)
    for load in (load_own, lambda path: load_source("aime25", path)):
        with pytest.raises(ValueError, match=f"Row 1 of .*a.parquet .*{message}"):
            load(path)


@pytest.mark.parametrize(("kind", "value"), [(pa.float64(), float("nan")), (pa.string(), None), (pa.string(), "")])
def test_missing_references_are_named(kind, value, tmp_path):
    path = write_parquet(tmp_path / "a.parquet", kind, [1.0 if kind == pa.float64() else "1", value])
    for load in (load_own, lambda path, **options: load_source("aime25", path, **options)):
        with pytest.raises(ValueError, match="1 of 2 rows of .* have no answer, the first is row 1"):
            load(path)
        with pytest.warns(UserWarning, match="1 of 2 rows of .* have no answer: left out"):
            assert len(load(path, drop_unanswered=True)) == 1


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            '"answer": true',
            "'answer' needs values of one kind, but is text or a number in row 0 and true or false in r",
        ),
        ('"answer": [1]', "'answer' needs values of one kind, but is text or a number in row 0 and a list in row 1"),
        ('"answer": NaN', "Line 2 of .* is not JSON: NaN is no JSON: write null for a missing value"),
        ('"answer": -Infinity', "-Infinity is no JSON"),
        ('"answer": 007', "Line 2 of .* is not JSON"),
        ('"answer": "1", "answer": "2"', "an object has 'answer' twice"),
        ('"answer": ' + "[" * 100_000 + "]" * 100_000, "Line 2 of .* is nested too deeply"),
        (r'"answer": "\ud800"', "The column 'answer' cannot be read: .*surrogates"),
        ('"answer": null', "1 of 2 rows of .* have no answer, the first is row 1"),
    ],
)
def test_what_json_cannot_give_is_refused(second, message, tmp_path):
    path = write(tmp_path / "a.jsonl", f'{{"problem": "a", "answer": "1"}}\n{{"problem": "b", {second}}}\n')
    with pytest.raises(ValueError, match=message) as error:
        load_own(path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("problem", ["null", '""', '" \\n"'])
def test_missing_problems_are_named(problem, tmp_path):
    path = write(tmp_path / "a.jsonl", f'{{"problem": "a", "answer": "1"}}\n{{"problem": {problem}, "answer": "1"}}\n')
    with pytest.raises(ValueError, match="Row 1 of .*a.jsonl is not as expected: .*the problem is missing or empty"):
        load_source("math500", path)
    with pytest.raises(ValueError, match="`problem` is empty in 1 rows of .*a.jsonl, the first is row 1"):
        load_own(path)


def test_true_and_lists_are_refused_in_references(tmp_path):
    for word, kind in (("true", "bool"), ("[1, 2]", "list"), ('{"a": 1}', "dict")):
        path = write(tmp_path / "a.jsonl", f'{{"problem": "a", "answer": {word}}}')
        with pytest.raises(ValueError, match=f"Row 0 of .* has no usable `answer`: .* not {kind}"):
            load_own(path)
    path = write(tmp_path / "a.jsonl", '{"problem": "a", "final_answer": ["1", null]}')
    with pytest.raises(ValueError, match="Row 0 of .*has an empty part"):
        load_source("olympiadbench", path)


def test_marks_ends_blanks_and_long_lines(tmp_path):
    long = "x" * 3_000_000
    lines = [*as_json(["1", '"a\u2028b\x85c"']), "", "   ", f'{{"problem": "p", "answer": "{long}"}}']
    for encoding, end in (("utf-8", "\n"), ("utf-8-sig", "\r\n")):
        path = write(tmp_path / "a.jsonl", end.join(lines) + end, encoding)
        assert load_own(path)["answer"][:] == ["1", "a\u2028b\x85c", long]
        cells = ["problem,answer", 'a,"1\n2"', "", f"b,{long}"]
        path = write(tmp_path / "a.csv", end.join(cells) + end, encoding)
        assert load_own(path)["answer"][:] == ["1\n2", long]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"problem,answer\na,1\nb,2,3\n", "in line 3 of .*a.csv' has 3 cells, but the header has 2"),
        ("a.csv", b"problem,answer\na\n", "in line 2 of .*a.csv' has 1 cells"),
        ("a.csv", b"problem,answer,answer\na,1,2\n", "has the column 'answer' twice"),
        ("a.csv", b"problem,answer,,\na,1,2,3\n", "has the column '' twice"),
        ("a.csv", b'problem,answer\na,"1"2\n', "is not CSV: .* in line 2"),
        ("a.csv", b"problem,answer\n", "it is empty"),
        ("a.jsonl", b"\n\n", "it is empty"),
        ("a.jsonl", b'{"problem": "\xe9", "answer": "1"}', "is not UTF-8: .* at byte 13. Save it as UTF-8"),
        ("a.jsonl", '{"problem": "a"}'.encode("utf-16"), "is not UTF-8"),
        ("a.jsonl", b'{"problem": "a"}\n3\n', "Line 2 of .* is no JSON object, {...}, but '3'"),
        ("a.json", b'[{"problem": "a"}, "b"]', "Row 1 of .* is no JSON object"),
        ("a.json", b'{"problem": "a"', "Line 1 of .* is not JSON"),
    ],
)
def test_broken_files_are_named(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"No rows could be read from .*{message}"):
        load_own(tmp_path / name)


@pytest.mark.parametrize(("name", "begin", "end"), [("a.json", '[{"a": 1', "}]"), ("a.csv", "a", "")])
def test_a_name_is_found_twice_among_many_in_a_moment(name, begin, end, tmp_path):
    names = [f"k{number}" for number in range(100_000)] + ["k99999"]
    path = write(tmp_path / name, begin + "".join(f', "{key}": 1' if end else f",{key}" for key in names) + end)
    begin = time.monotonic()
    with pytest.raises(ValueError, match="'k99999' twice"):
        read_text_files([path], name.rpartition(".")[2])
    assert time.monotonic() - begin < 10  # minutes where every name is compared with every other


def test_objects_that_share_no_names_and_deep_ones_are_refused_in_a_moment(tmp_path):
    begin = time.monotonic()
    for answer in ('{{"k{0}": 1}}', '1, "k{0}": 1'):
        lines = as_json([answer.format(number) for number in range(20_000)])
        path = write(tmp_path / "d/a.jsonl", "\n".join(lines))
        for source in (path, path.parent):
            with pytest.raises(ValueError, match="No rows could be read .*20000 objects have 2000. different names"):
                load_own(source)
    write(path, as_json(['{"a":' * 60 + "1" + "}" * 60])[0])
    with pytest.raises(ValueError, match="No rows could be read .*(nested too deeply|Recursion level)"):
        load_own(path.parent)
    assert time.monotonic() - begin < 20  # minutes where the table is made


def test_files_in_an_archive_are_read(tmp_path):
    write(tmp_path / "README.md", "---\nconfigs:\n- config_name: default\n  data_files: train.zip\n---\n")
    write(tmp_path / "notes.json", "{}")
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("a.jsonl", "\n".join(as_json(['"007"', "1e-5"])))
        archive.writestr("b.jsonl", as_json(["1", "2", "12345678901234567890123"])[2])
    assert load_own(tmp_path)["answer"][:] == ["007", "1e-5", "12345678901234567890123"]


def test_numbers_of_other_columns_are_numbers_if_nothing_is_lost(tmp_path):
    row = (
        '"problem": "p", "answer": 1, "level": 3, "rate": 0.5, "id": 12345678901234567890, "of": {"n": [1, 2], "x": 1}'
    )
    other = '"problem": "q", "answer": 2, "level": 4, "rate": 2, "id": 5, "of": {"n": [], "x": "y"}'
    path = write(tmp_path / "a.jsonl", f"{{{row}}}\n{{{other}}}\n")
    first, second = load_own(path)
    assert (first["level"], first["rate"], first["id"]) == (3, "0.5", "12345678901234567890")
    assert first["of"] == {"n": [1, 2], "x": "1"} and second["of"] == {"n": [], "x": "y"}
    assert (second["level"], second["rate"], second["id"]) == (4, "2", "5")


def test_files_of_a_dataset_are_typed_together_and_splits_are_taken(tmp_path):
    write(tmp_path / "d/train-0.jsonl", "\n".join(as_json(["1", "2"])))
    write(tmp_path / "d/train-1.jsonl", "\n".join(as_json(['"x"'])))
    write(tmp_path / "d/test-0.jsonl", "\n".join(as_json(["7"])))
    rows = load_own(tmp_path / "d", "train", distinct=False)
    assert rows["answer"][:] == ["1", "2", "x"]
    assert load_own(tmp_path / "d", "train[1:]+test", distinct=False)["answer"][:] == ["2", "x", "7"]
    assert load_benchmark("mine", tmp_path / "d")["answer"][:] == ["7"]
    with pytest.raises(ValueError, match=r"has no split 'validation'. Its splits: train, test"):
        load_own(tmp_path / "d", "validation")
    (tmp_path / "d/test-0.jsonl").rename(tmp_path / "d/validation-0.jsonl")
    with pytest.raises(ValueError, match="has the splits train, validation, but `test` or only one is needed"):
        load_benchmark("mine", tmp_path / "d")


def test_the_limit_of_csv_is_as_it_was(tmp_path):
    import csv

    limit = csv.field_size_limit()
    read_text_files([write(tmp_path / "a.csv", "a\n1\n")], "csv")
    assert csv.field_size_limit() == limit


def test_own_prompts_are_taken_as_they_are(tmp_path):
    messages = [{"role": "user", "content": "hi {problem}"}]
    path = write(tmp_path / "a.jsonl", json.dumps({"prompt": messages, "solution": "s", "tests": ["t"]}))
    (row,) = load_benchmark("mine", path)
    assert row == {"prompt": messages, "solution": "s", "tests": ["t"]}
    with pytest.raises(ValueError, match="has messages"):
        load_benchmark("mine", path, template="plain")
    path = write(tmp_path / "b.jsonl", json.dumps({"prompt": "Q:", "answer": "1"}))
    assert load_benchmark("mine", path)[0]["prompt"] == "Q:"
    assert "Q:" in load_benchmark("mine", path, template="plain")[0]["prompt"] != "Q:"
    path = write(tmp_path / "c.jsonl", json.dumps({"query": "Q:", "answer": "1"}))
    with pytest.raises(
        ValueError, match=r"needs the column prompt or problem or question, found \['query', 'answer'\]"
    ):
        load_benchmark("mine", path)
    with pytest.raises(ValueError, match="There is no file or folder '.*none', and no dataset of this id"):
        load_benchmark("mine", tmp_path / "none")
    with pytest.raises(ValueError, match="The file .*none.jsonl does not exist"):
        load_benchmark("mine", tmp_path / "none.jsonl")


def test_the_current_folder_is_a_folder(tmp_path, monkeypatch):
    write(tmp_path / "test.jsonl", "\n".join(as_json(['"007"', "1"])))
    monkeypatch.chdir(tmp_path)
    assert load_benchmark("mine", ".")["answer"][:] == load_own(".", "test")["answer"][:] == ["007", "1"]
