"""Every source on two rows of its published columns, as parquet, JSON and JSON lines; images where it has some."""

import time

import datasets
import pandas
import pytest
from datasets import Dataset, Features, Image, List
from PIL import Image as PIL
from published import CHOICES, PROBLEMS, PUBLISHED, two, user, without_prompt, write
from trl.data_utils import prepare_multimodal_messages

from rlvr_trl.data import load_benchmark, load_source
from rlvr_trl.data.sources import read_mathvision
from rlvr_trl.rewards import choice_reward, math_reward


BOXED = r"Please reason step by step, and put your final answer within \boxed{}."


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
@pytest.mark.parametrize(("source", "variant"), PUBLISHED)
def test_published_columns_of_mathematics(source, variant, suffix, tmp_path):
    rows, expected = PUBLISHED[source, variant]
    dataset = load_source(source, write(tmp_path, rows, f"rows{suffix}"))
    assert without_prompt(dataset) == expected
    problems = [PROBLEMS[0], rows[1].get("context", "") + "\n\n" * ("context" in rows[1]) + PROBLEMS[1]]
    assert dataset["prompt"][:] == [[{"role": "system", "content": BOXED}, *user(problem)] for problem in problems]
    assert math_reward([rf"\boxed{{{a}}}" for a in dataset["answer"]], answer=dataset["answer"][:]) == [1.0, 1.0]
    assert math_reward(["7"] * 2, answer=dataset["answer"][:]) == [0.0, 0.0]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("source", CHOICES)
def test_published_columns_of_choices(source, suffix, tmp_path):
    rows, expected = CHOICES[source]
    dataset = load_source(source, write(tmp_path, rows, f"rows{suffix}"))
    assert without_prompt(dataset) == expected
    for row, problem in zip(dataset, PROBLEMS, strict=True):
        system, question = row["prompt"]
        assert "letter" in system["content"] and r"\boxed{}" in system["content"]
        assert question["content"] == f"{problem}\n\nA. x\nB. y\nC. z"
    assert choice_reward([r"\boxed{C}", r"\boxed{C}"], answer=dataset["answer"][:]) == [
        float(row["answer"] == "C") for row in expected
    ]


FIGURES = [PIL.new("RGB", (4, 4), color) for color in ("red", "blue")]
GEO3K = two(problem=("<image>Find x.", "<image>Find x."), answer=("48", r"2 \sqrt { 221 }"))
VISION = two(
    id="1",
    question=("How many? <image1>", "Which one?\n<image1>"),
    options=([], ["A", "B"]),
    image="images/1.jpg",
    answer=("7", "B"),
    solution=None,
    level=(2, None),
    subject="counting",
)


def with_images(tmp_path, rows, column, suffix, is_list, images=FIGURES):
    """A file of the rows and one figure each: in the file for parquet, beside it for JSON."""
    if suffix == ".parquet":
        figures = [[figure] if is_list else figure for figure in images]
        feature = List(Image()) if is_list else Image()
        extra = Dataset.from_dict({column: figures}, features=Features({column: feature}))
        datasets.concatenate_datasets([Dataset.from_list(rows), extra], axis=1).to_parquet(str(tmp_path / "v.parquet"))
        return tmp_path / "v.parquet"
    for i, figure in enumerate(images):
        figure.save(tmp_path / f"{i}.png")
    names = [[f"{i}.png"] if is_list else f"{i}.png" for i in range(len(images))]
    return write(tmp_path, [row | {column: name} for row, name in zip(rows, names, strict=True)], "v.jsonl")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_geo3k_fits_what_trl_does_with_images(suffix, tmp_path):
    dataset = load_source("geo3k", with_images(tmp_path, GEO3K, "images", suffix, is_list=True))
    assert dataset.column_names == ["prompt", "answer", "images"] and len(dataset) == 2  # another figure: not equal
    for row, figure in zip(dataset, FIGURES, strict=True):
        (message,) = prepare_multimodal_messages(row["prompt"], row["images"])
        image, text = message["content"]
        assert image["image"].convert("RGB").tobytes() == figure.tobytes()
        assert text["text"].startswith("Find x.\n") and "<think>" in text["text"] and r"\boxed{}" in text["text"]
    assert math_reward([r"\boxed{48}", r"\boxed{2\sqrt{221}}"], answer=dataset["answer"][:]) == [1.0, 1.0]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_mathvision_has_one_image_and_options_in_some_rows(suffix, tmp_path):
    dataset = load_benchmark("mathvision", with_images(tmp_path, VISION, "decoded_image", suffix, is_list=False))
    assert dataset.column_names == ["prompt", "answer", "level", "subject", "image"]
    assert dataset["answer"][:] == ["7", "B"] and dataset["level"][:] == ["2", None]
    assert [prompt[1]["content"] for prompt in dataset["prompt"]] == ["How many?", "Which one?"]
    assert ["letter" in prompt[0]["content"] for prompt in dataset["prompt"]] == [False, True]
    assert [image.convert("RGB").tobytes() for image in dataset["image"]] == [figure.tobytes() for figure in FIGURES]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_mathverse_names_its_options_in_the_question_or_the_image(suffix, tmp_path):
    rows = two(
        sample_index="1",
        problem_version=("Text Dominant", "Vision Only"),
        question=("Find x.\nChoices:\nA:1°\nB:2°\nC:3°", ""),
        question_type="multi-choice",
        metadata={"split": "testmini", "source": "s", "subject": "Plane Geometry", "subfield": "Angle"},
        answer=("C", "D"),
    )
    rows.append(rows[0] | {"question": "Find y.", "question_type": "free-form", "answer": "7 cm"})
    images = [*FIGURES, FIGURES[0]]
    dataset = load_benchmark("mathverse", with_images(tmp_path, rows, "image", suffix, is_list=False, images=images))
    assert dataset.column_names == ["prompt", "answer", "subject", "image", "version"]
    assert [prompt[1]["content"] for prompt in dataset["prompt"]] == [rows[0]["question"], "", "Find y."]
    assert ["letter" in prompt[0]["content"] for prompt in dataset["prompt"]] == [True, True, False]
    assert dataset["answer"][:] == ["C", "D", "7 cm"] and dataset["version"][1] == "Vision Only"
    assert [image.convert("RGB").getpixel((0, 0))[0] for image in dataset["image"]] == [255, 0, 255]
    with pytest.raises(ValueError, match="Row 0 of .* is not as expected: the image is missing"):
        load_source("mathverse", write(tmp_path, [row | {"image": None} for row in rows], "none.jsonl"))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_mmmu_has_options_as_text_and_up_to_seven_images(suffix, tmp_path):
    rows = two(
        id="validation_Math_1",
        question=("<image 1> How many?", "Is <image 2> like <image 1>?"),
        options=("['$6', \"it's 7 <image 1>\"]", "[]"),
        explanation="",
        img_type="['Plots']",
        answer=("B", "['yes', 'indeed']"),
        topic_difficulty="Easy",
        question_type=("multiple-choice", "open"),
        subfield="Geometry",
    )
    for i, figure in enumerate(FIGURES):
        figure.save(tmp_path / f"{i}.png")
    names = [("0.png", None), ("1.png", "0.png")]
    for row, of in zip(rows, names, strict=True):
        row |= {f"image_{n}": (of + (None,) * 5)[n - 1] for n in range(1, 8)}
    if suffix == ".parquet":
        for row in rows:
            for n in range(1, 8):
                name = row[f"image_{n}"]
                row[f"image_{n}"] = name and {"bytes": (tmp_path / name).read_bytes(), "path": None}
    dataset = load_benchmark("mmmu", write(tmp_path, rows, f"mmmu{suffix}"))
    assert dataset.column_names == ["prompt", "answer", "level", "subject", "images"]
    assert dataset["prompt"][0][1]["content"] == "How many?\n\nA. $6\nB. it's 7"
    assert dataset["prompt"][1][1]["content"] == "Is [image 2] like [image 1]?"
    assert dataset["answer"][:] == ["B", "yes"]
    reds = [[image.convert("RGB").getpixel((0, 0))[0] for image in images] for images in dataset["images"]]
    assert reds == [[255], [0, 255]]
    if suffix == ".jsonl":  # an answer that only looks like a list
        open_answers = [row | {"question_type": "open", "answer": "[0,1)"} for row in rows]
        assert load_source("mmmu", write(tmp_path, open_answers, "open.jsonl"))["answer"][:] == ["[0,1)"] * 2
    for options, message in (("[1]", "is no list of texts"), ("[" * 9000, "is no list"), ("[" * 30_000, "too long")):
        (tmp_path / "wrong.jsonl").unlink(missing_ok=True)
        wrong = [row | {"options": options} for row in rows]
        if suffix == ".jsonl":
            with pytest.raises(ValueError, match=f"Row 0 of .* is not as expected: .*{message}"):
                load_source("mmmu", write(tmp_path, wrong, "wrong.jsonl"))


def test_images_need_messages_and_one_tag_each(tmp_path):
    path = with_images(tmp_path, GEO3K, "images", ".parquet", is_list=True)
    with pytest.raises(ValueError, match="messages where there are images"):
        load_source("geo3k", path, template="plain")
    twice = two(problem="<image> <image>Find x.", answer="1")
    with pytest.raises(ValueError, match="Row 0 .*2 tags <image> and 1 images"):
        load_source("geo3k", with_images(tmp_path, twice, "images", ".jsonl", is_list=True))


@pytest.mark.parametrize("form", ["text", "struct", "parquet"])
@pytest.mark.parametrize("outside", ["absolute", "../private.png", "x/../../private.png", "http://127.0.0.1:9/x.png"])
def test_images_outside_of_the_folder_are_not_read(form, outside, tmp_path):
    FIGURES[0].save(tmp_path / "private.png")
    path = str(tmp_path / "private.png") if outside == "absolute" else outside
    image = path if form == "text" else {"bytes": None, "path": path}
    file = tmp_path / "data" / ("rows.parquet" if form == "parquet" else "rows.jsonl")
    file.parent.mkdir()
    write(file.parent, [GEO3K[0] | {"images": [image]}], file.name)
    with pytest.raises(ValueError, match="is not in .*data, the folder of its dataset"):
        load_source("geo3k", file)


@pytest.mark.parametrize("form", ["text", "struct", "parquet"])
def test_images_in_the_folder_are_read(form, tmp_path):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    FIGURES[0].save(folder / "images/1.png")
    image = "images/1.png" if form == "text" else {"bytes": None, "path": "images/1.png"}
    file = folder / ("rows.parquet" if form == "parquet" else "rows.jsonl")
    write(folder, [GEO3K[0] | {"images": [image]}], file.name)
    for path in (file, folder):
        (figure,) = load_source("geo3k", path)[0]["images"]
        assert figure.convert("RGB").tobytes() == FIGURES[0].tobytes()
    (folder / "images/1.png").unlink()
    with pytest.raises(ValueError, match="There is no image 'images/1.png' in"):
        load_source("geo3k", file)


def test_the_name_of_a_file_is_no_pattern(tmp_path):
    for name, problem in (("rows1.jsonl", "another file"), ("rows[1].jsonl", "this file")):
        write(tmp_path, [{"problem": problem, "answer": "1"}], name)
    assert load_source("math500", tmp_path / "rows[1].jsonl")[0]["prompt"][-1]["content"] == "this file"


def test_blanks_without_an_image_take_linear_time():
    start = time.perf_counter()
    read_mathvision({"question": " " * 300_000 + "?", "options": [], "answer": "1"})  # was: 100 s
    assert time.perf_counter() - start < 10


def test_images_written_by_pandas(tmp_path):
    FIGURES[0].save(tmp_path / "0.png")
    image = {"bytes": (tmp_path / "0.png").read_bytes(), "path": None}
    pandas.DataFrame([GEO3K[0] | {"images": [image]}]).to_parquet(tmp_path / "p.parquet")
    (figure,) = load_source("geo3k", tmp_path / "p.parquet")[0]["images"]
    assert figure.tobytes() == FIGURES[0].tobytes()
