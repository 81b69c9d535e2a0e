"""Where the answer is in a completion, and which letter it chooses."""

import random
import time
from functools import partial

import pytest

from rlvr_trl.answer_text import (
    MAX_BOX_CHARS,
    MAX_LINE_CHARS,
    MAX_PHRASE_CHARS,
    MAX_TEXT_CHARS,
    THINKING_TAGS,
    after_thinking,
    boxes,
    find_answer,
    last_boxes,
)
from rlvr_trl.rewards import boxed_format_reward, choice_reward, maze_reward
from rlvr_trl.rewards.choice import choice_letters, extract_choice


MAZE = "S.\n*E"

FOUND = {
    # Boxes
    r"First \boxed{11}, on reflection \boxed{12}.": ("box", "12"),
    r"\boxed{11} \boxed{}": ("box", "11"),
    r"\boxed{11} and then it ends \boxed{1": ("box", "11"),
    r"\fbox{13}": ("box", "13"),
    r"so $\framebox{14}$": ("box", "14"),
    r"\boxed 15": ("box", "15"),
    r"$\boxed-2.5$ m": ("box", "-2.5"),
    r"\boxed x": ("box", "x"),
    r"$\boxed\frac{3}{4}$": ("box", r"\frac{3}{4}"),
    r"$\boxed\frac34$": ("box", r"\frac34"),
    r"$\boxed\sqrt[3]{7}$.": ("box", r"\sqrt[3]{7}"),
    "\\boxed\n {16}": ("box", "16"),
    r"\\boxed{17}": ("box", "17"),
    r"\boxed{\{1, 2\}}": ("box", r"\{1, 2\}"),
    r"\boxed{\boxed{18}}": ("box", "18"),
    r"\boxed{\text{It is } \boxed{19} \text{ in all}}": ("box", "19"),
    r"$\boxed{20}$ and $\boxed{21}$": ("box", "20", "21"),
    r"$\boxed{20}$,\quad \boxed{21} \text{ or } \boxed{22}.": ("box", "20", "21", "22"),
    r"\\boxed{20}\\\\\\boxed{21}": ("box", "20", "21"),
    "\\boxed{20}\n\n\\boxed{20}": ("box", "20"),
    r"\boxed{19}; I mean $\boxed{20}$, $\boxed{21}$": ("box", "20", "21"),
    r"I put it in \boxed as I was told to, \boxed{23} and not \boxed{}": ("box", "23"),
    r"<answer>It is \boxed{24}</answer>": ("box", "24"),
    r"\boxed{" + "9" * (MAX_BOX_CHARS + 1) + "}": None,
    # Tags
    "<answer>1</answer> <answer> 31 </answer>": ("tag", "31"),
    "<answer>32</answer> and <answer>33": ("tag", "32"),
    "<answer> </answer>\nThe answer is 34": ("phrase", "34"),
    # Phrases
    "The answer is 41.": ("phrase", "41"),
    "The answer is 1.\nNo: the ANSWER is 42": ("phrase", "42"),
    "answer: 43, since 43 is prime.": ("phrase", "43"),
    "The answer is $x = 44$ because of $y$. We are done.": ("phrase", "x = 44"),
    "The answer is (B), as the rest is wrong": ("phrase", "(B)"),
    "The answer is 4.50 (because it rains)": ("phrase", "4.50"),
    "The answer is $12,345.00": ("phrase", "$12,345.00"),
    "The answer is $12,345.00 because each paid $5": ("phrase", "$12,345.00"),
    "The answer is $a. b$ in short. Bye": ("phrase", "$a. b$ in short"),
    "The answer is $46.$ Bye": ("phrase", "46"),
    "The answer is **47.** Bye": ("phrase", "47"),
    "The answer is 1, 2, 3, ... , 9. Bye": ("phrase", "1, 2, 3, ... , 9"),
    r"The answer is \(48\).": ("phrase", "48"),
    "The answer is $4$ and $9$": ("phrase", "$4$ and $9$"),
    r"The answer is \text{yes. so} now": ("phrase", r"\text{yes. so} now"),
    "The answer is 2**5": ("phrase", "2**5"),
    "**Answer:** 49": ("phrase", "49"),
    "🎉 Final Answer: `50`": ("phrase", "50"),
    "**The answer is: 51**": ("phrase", "51"),
    "The answer to the last question is 52.": ("phrase", "52"),
    "The answers are 5 and 6.": ("phrase", "5 and 6"),
    "The answer is therefore 53": ("phrase", "53"),
    "The answer is 54. I hope the answer is correct.": ("phrase", "54"),
    "The answer is 55. This is an answer that is nice": ("phrase", "55"),
    "答案：56": ("phrase", "56"),
    "所以答案是57。": ("phrase", "57"),
    "答案为 58，因为 29 + 29。": ("phrase", "58"),
    "## Final answer\n\n$59$\n\nDone": ("phrase", "59"),
    "The answer is:\n$$\n\\frac{6}{7}\n$$\nDone": ("phrase", r"\frac{6}{7}"),
    "#### Final Answer: 60": ("phrase", "60"),
    "I check my answer\n\n61": ("line", "61"),
    "answering: 62 questions": ("line", "answering: 62 questions"),
    "The answer is " + "6" * MAX_PHRASE_CHARS: None,
    # GSM8K
    "The answer is 5.\n#### 7,100": ("hash", "7,100"),
    "#### 7\n#### 8": ("hash", "8"),
    "#### 7\nSo it is": ("line", "So it is"),
    # The last line
    "Some words\n\n**81**\n\n": ("line", "81"),
    "Some words\n\\[\nx = 82\n\\]": ("line", "x = 82"),
    "8" * MAX_LINE_CHARS: ("line", "8" * MAX_LINE_CHARS),
    "8" * (MAX_LINE_CHARS + 1): None,
    r"The answer is \boxed{": None,
    "": None,
    " \n ": None,
    # The end of a turn
    "The answer is 91<|im_end|>\n<|endoftext|><|endoftext|>": ("phrase", "91"),
    "92</s>": ("line", "92"),
    # Thinking
    r"<think>\boxed{1}</think>": None,
    r"<think>\boxed{1}</think> The answer is 101.": ("phrase", "101"),
    r"\boxed{1}? No.</think>102": ("line", "102"),
    r"<think>\boxed{1}": None,
    r"<think>a</think>\boxed{1}<think>b": None,
    r"<think>a</think>\boxed{1}<think>b</think>103": ("line", "103"),
    r"<think>a<think>\boxed{1}</think>104": ("line", "104"),
    r"<think>a<scratchpad>b</scratchpad>\boxed{1}": None,
}


@pytest.mark.parametrize("text", FOUND, ids=lambda text: ascii(text[:40]))
def test_where_the_answer_is(text):
    found = find_answer(text)
    assert (found and (found.how, *found.texts)) == FOUND[text]


@pytest.mark.parametrize(("opening", "closing"), THINKING_TAGS)
def test_each_kind_of_thinking(opening, closing):
    thought = rf"{opening} \boxed{{1}}, <answer>RD</answer>, (A) "
    assert after_thinking(f"{thought}{closing} It is 2.") == " It is 2."
    assert find_answer(f"{thought}{closing} It is 2.", starts_thinking=True).texts == ("It is 2",)
    assert find_answer(thought.removeprefix(opening), starts_thinking=True) is None
    completions = [thought + closing, thought, thought + closing + r"\boxed{B} <answer>RD</answer>"]
    if not opening:
        completions[1] = ""  # what the tag would say is said by `starts_thinking`
    assert choice_reward(completions, answer=["A", "A", "B"]) == [0.0, 0.0, 1.0]
    assert boxed_format_reward(completions) == [0.0, 0.0, 1.0]
    assert maze_reward(completions, maze=[MAZE] * 3) == [0.0, 0.0, 1.0]


def test_messages_of_gpt_oss():
    thought = "<|channel|>analysis<|message|>We add.<|end|>"
    call = "<|start|>assistant<|channel|>commentary<|message|>We call a tool.<|end|>"
    final = "<|start|>assistant<|channel|>final<|message|>7<|return|>"
    assert after_thinking(thought + call + final) == "7"
    assert after_thinking(thought + call) is after_thinking(call) is None
    assert after_thinking("analysisWe add.assistantfinal7") == "7"


def test_settings_of_the_thinking():
    own = [["<plan>", "</plan>"]]
    text = r"<plan>\boxed{A}</plan>\boxed{B}<think>"
    assert find_answer(text) is None and find_answer(text, own).texts == ("B",)
    unmarked = [r"\boxed{B} <answer>RD</answer>"]
    for reward in (
        partial(choice_reward, answer=["B"]),
        boxed_format_reward,
        partial(maze_reward, maze=[MAZE]),
    ):
        assert reward(unmarked) == [1.0]
        assert partial(reward, starts_thinking=True)(unmarked) == [0.0]
        assert partial(reward, thinking_tags=own)(["<plan>" + unmarked[0]]) == [0.0]
    for broken in (("<a>", "</a>"), [("<a>",)], [("<a>", "")]):
        with pytest.raises(ValueError, match="`thinking_tags` must be pairs .* found"):
            after_thinking("", broken)


def test_thinking_by_a_second_reading():
    rng = random.Random(0)
    kinds = {"<think>": "</think>", "[THINK]": "[/THINK]"}
    pieces = [*kinds, *kinds.values(), "x", "y"]
    seen = set()
    for _ in range(2_000):
        text = "".join(rng.choices(pieces, k=rng.randrange(8)))
        rests = {opening: text.split(closing)[-1] for opening, closing in kinds.items()}
        cut_off = any(opening in rest for opening, rest in rests.items())
        expected = None if cut_off else min(rests.values(), key=len)
        assert after_thinking(text) == expected
        seen.add(expected)
    assert {None, "", "x", "xy"} <= seen


def test_boxes_by_trying_every_end():
    rng = random.Random(0)
    pieces = [r"\boxed{", r"\boxed{", "{", "}", "}", "1", " ", r"\}", "a"]
    found_several = 0
    for _ in range(2_000):
        text = "".join(rng.choices(pieces, k=rng.randrange(16)))
        expected = []
        for begin in range(len(text)):
            start = begin + len(r"\boxed{")
            if text[begin:start] != r"\boxed{":
                continue
            contents = (text[start:end].replace(r"\}", "..") for end in range(start, len(text)))
            ends = [
                start + len(content)
                for content in contents
                if content.count("{") == content.count("}")
                and text[start + len(content)] == "}"
                and not text[start : start + len(content)].endswith("\\")
            ]
            content = text[start : ends[0]] if ends else ""
            if content.strip() and r"\boxed" not in content:
                expected.insert(0, (begin, ends[0] + 1, content))
        assert boxes(text) == boxes(text, braced=True) == expected
        found_several += len(expected) > 1
    assert found_several > 10


def test_boxes_of_a_reference_are_not_cut_by_thinking():
    assert last_boxes(r"<think> $\boxed{ 3 }$ and \boxed{4}") == ("3", "4")
    assert boxes(r"\boxed 5", braced=True) == [] and boxes(r"\boxed 5") == [(0, 8, "5")]
    assert last_boxes("none") == ()


def test_texts_that_are_too_long_are_not_read():
    long = "<answer>RD</answer> The answer is B " + r"\boxed{B}"
    text = " " * (MAX_TEXT_CHARS - len(long)) + long
    for read, expected in ((text, 1.0), (" " + text, 0.0)):
        assert (find_answer(read) is None) == (after_thinking(read) is None) == (expected == 0.0)
        assert choice_reward([read], answer=["B"]) == boxed_format_reward([read]) == [expected]
        assert maze_reward([read], maze=[MAZE]) == [expected]


def test_letters_of_an_answer():
    for text, letters in {
        "E": "E",
        "e": "E",
        "(e)": "E",
        "[E]": "E",
        "E.": "E",
        r"$\text{(E)}$": "E",
        r"\textbf{(E)}\ 31": "E",
        r"\mathrm{E}": "E",
        "E. 31": "E",
        "E) Rome": "E",
        "E: Rome": "E",
        "**E**": "E",
        "option e": "E",
        "(e) 31": "E",
        "B. A house": "B",
        "D) f(A) = 1": "D",
        "B, E": "BE",
        "B and E": "BE",
        "B/E": "BE",
        "E or B": "BE",
        "BE": "BE",
        r"\{B, E\}": "BE",
        "B, C, and E": "BCE",
        "(B)(E)": "BE",
        "(B) 31 or (E) 32": "BE",
        "both B and E": "BE",
        "BED": None,
        "Eve": None,
        "E_1": None,
        "E'": None,
        "E + 31": None,
        "E = 31": None,
        "f(E)": None,
        "A house": None,
        "31": None,
        "K": None,
        "e, f": None,
        "": None,
    }.items():
        found = choice_letters(text)
        assert (found and "".join(sorted(found))) == letters, text


def test_choices():
    for text, letters in {
        r"\boxed{e}": "E",
        r"\boxed{31} (E)": None,
        r"\boxed{B} or \boxed{E}": "BE",
        r"\boxed{B} or \boxed{31}": None,
        "<answer>E</answer>": "E",
        "<answer>none</answer> (E)": None,
        "Answer: E": "E",
        "The answer is **(E) Rome**.": "E",
        "The answer is E, the capital.": "E",
        "The answer is E — Rome": "E",
        "The answer is (E), not (B).": "E",
        "The answer is B or E, who knows": "BE",
        "Answer: B/E": "BE",
        "The answer is a city, so (E)": "E",
        "The answer is I do not know (E)": "E",
        "The answer is Rome, which is option e": "E",
        "答案：E": "E",
        "#### E": "E",
        "Rome it is.\n**E**": "E",
        "It was Rome.\nE. Rome": None,
        "Option E is right": "E",
        "The right option: **E**, Rome": "E",
        r"I take option $\text{E}$ for it": "E",
        "(B) no, (E)": "E",
        "The choice I made": None,
        "<think>(B)</think>": None,
    }.items():
        found = extract_choice(text)
        assert (found and "".join(sorted(found))) == letters, text


def test_several_letters_are_right_together_only():
    logged = {}
    completions = [r"\boxed{B, E}", r"\boxed{E and B}", r"\boxed{B}", "Answer: B/E", r"\boxed{B, C, E}"]
    for reference in ("B,E", "BE", "E and B", "(B), (E)"):
        rewards = choice_reward(completions, answer=[reference] * 5, log_extra=logged.__setitem__)
        assert rewards == [1.0, 1.0, 0.0, 1.0, 0.0], reference
    assert logged["extracted_answer"] == ["B,E", "B,E", "B", "B,E", "B,C,E"]
    assert choice_reward(completions, answer=["B"] * 5) == [0.0, 0.0, 1.0, 0.0, 0.0]


REPEATED = [" ", "\n", "\t", "$", "$$", "*", "**", "`", "{", "}", "(", ")", "[", r"\(", r"\[", "\\", "\\\\", ",", ". "]
REPEATED += [r"\boxed{", r"\boxed ", r"\boxed{1} ", r"\boxed\sqrt[", r"\text{", r"\quad", "####", "1", "-", "as "]
REPEATED += ["<answer>", "</answer>", "<answer></answer>", "<think>", "</think>", "<|im_end|> ", "</s>"]
REPEATED += ["answer is ", "answer to ", "answer:\n", "答案", "答案是", "because ", "and ", "A/", "(A) ", "option "]


@pytest.mark.parametrize("piece", REPEATED, ids=ascii)
def test_time_is_linear_in_the_text(piece):
    for count in (2_000, 100_000):
        many = (piece * count)[: MAX_TEXT_CHARS - 100]
        shapes = (
            many,
            f"The answer is{many}",
            f"{many}The answer is 5",
            rf"\boxed{{{many}}}",
            f"<answer>{many}</answer>",
        )
        for text in (*shapes, rf"\boxed{{1}}{many}\boxed{{2}}"):
            for read in (
                find_answer,
                after_thinking,
                boxes,
                choice_letters,
                lambda text: choice_reward([text], answer=["C"]),
                lambda text: boxed_format_reward([text]),
                lambda text: maze_reward([text], maze=[MAZE]),
            ):
                start = time.thread_time()  # without what other processes take
                read(text)
                assert time.thread_time() - start < 5  # 0.2 s at most on a quiet machine
