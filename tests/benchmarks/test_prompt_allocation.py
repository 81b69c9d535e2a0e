"""The measurement of prompt choice: its page says what its cells hold, and what was trained is counted right."""

import re
import shutil

import prompt_allocation as allocation


def test_the_page_has_the_tables_of_the_cells(tmp_path):
    page = tmp_path / "page.md"
    shutil.copy(allocation.PAGE, page)
    allocation.report(page)
    assert page.read_text(encoding="utf-8") == allocation.PAGE.read_text(encoding="utf-8")


def test_differences_in_words_are_in_the_tables():
    before, rest = allocation.PAGE.read_text(encoding="utf-8").split(allocation.BEGIN)
    tables, after = rest.split(allocation.END)
    said = re.findall(r"[+-]0\.\d{3} \[.*?\]", re.sub(r"\s+", " ", after))
    assert len(said) >= 10 and [each for each in said if each not in tables] == []


def test_groups_are_those_that_were_trained_on():
    wrong_and_right = {"groups/frac_all_wrong": [0.25, 0.0], "groups/frac_all_right": [0.25, 0.0]}
    saved = {"batches": 2, "of_batches": wrong_and_right}
    assert allocation.groups_trained_on(saved) == (32, 8 + 16)
    refilled = wrong_and_right | {"rollouts/prompts_sampled": [30, 20], "rollouts/frac_dropped": [0.6, 0.2]}
    assert allocation.groups_trained_on({"batches": 2, "of_batches": refilled}) == (12 + 16, 6 + 16)


def test_every_method_is_planned_once_and_named_by_its_setting():
    for parts in allocation.PLAN.values():
        names = [name for _, methods in parts for name in methods]
        assert len(names) == len(set(names))
    sizes = {size.max_tokens for size, _ in allocation.PLAN["repeated"]}
    assert sizes == {allocation.TOKENS, allocation.TOKENS * 4 // 5}
