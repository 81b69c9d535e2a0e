r"""The references of Minerva Math: right against their own solutions and rewritings, wrong against each other.

    python benchmarks/minerva_references.py minerva_math.jsonl --output benchmarks/results/minerva_references.json

A line of the file has a `solution`, whose last box is the reference. It is compared with its solution, with five
equal rewritings of its text (3e8 as 3\times10^{8}, other brackets and fractions, a name in front, a unit behind, …)
and with the reference of every other problem. Pairs of problems with the same number or text are listed apart. The
exit code is 1 if there is any miss or any hit on another problem.
"""

import argparse
import json
import platform
import re
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from math_gold import ours
from rich.table import Table

from rlvr_trl.terminal import print_tables


NUMBER = re.compile(r"[+-]?\d+\.?\d*(e[+-]?\d+)?")
REWRITINGS = 5


def last_box(text: str) -> str:
    start = text.rindex(r"\boxed{") + len(r"\boxed{")
    depth, end = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[start : end - 1]


def exact(text: str) -> Fraction | None:
    """The value of a number or of a plain fraction."""
    top, slash, bottom = text.strip().partition("/")
    if not NUMBER.fullmatch(top) or slash and not NUMBER.fullmatch(bottom):
        return None
    return Fraction(Decimal(top)) / (Fraction(Decimal(bottom)) if slash else 1)


def same(first: str, second: str) -> bool:
    """Whether two references are the same number, or the same text apart from spaces."""
    a, b = exact(first), exact(second)
    if a is not None or b is not None:
        return a == b
    return re.sub(r"\s|\\left|\\right|\\[,!;]", "", first) == re.sub(r"\s|\\left|\\right|\\[,!;]", "", second)


# --- rewritings ------------------------------------------------------------------------------------------------------


def number_forms(text: str) -> list[str]:
    value = Decimal(text)
    sign, digits, exponent = value.as_tuple()
    power = exponent + len(digits) - 1
    mantissa = "-" * sign + str(digits[0]) + ("." + "".join(map(str, digits[1:])) if digits[1:] else "")
    other = f"{mantissa}E{power}" if "e" not in text or abs(power) > 12 else f"{value:f}"
    return [
        rf"{mantissa} \times 10^{{{power}}}",
        rf"{mantissa}\cdot10^{{{power}}}",
        other,
        rf"x = {text}",
        rf"{text} \text{{ cm}}",
    ]


def equation_forms(text: str) -> list[str]:
    left, right = text.split("=")
    forms = [
        f"{right}={left}",
        f" {left} = {right} ",
        rf"{left}\, = \,{right}",
        rf"\displaystyle {text}",
        f"{{{text}}}",
    ]
    if r"\frac" in text:
        forms.insert(0, text.replace(r"\frac", r"\dfrac"))
    if left.strip("ACLMRS") or right.strip("ACLMRS"):  # names of curves are left as they are
        forms.insert(0, f"2({left}) = 2({right})")
    return forms


def list_forms(text: str) -> list[str]:
    first, second = text.split(",")
    return [
        f"{second},{first}",
        f"{first}, {second}",
        rf"{first} \text{{ and }} {second}",
        rf"{second} \text{{ or }} {first}",
        rf"\{{{first}, {second}\}}",
    ]


def expression_forms(text: str) -> list[str]:
    text = text.replace("$ $", " ")
    name = next(letter for letter in "QWZ" if letter not in text)
    forms = [
        text.replace("np.arcsin", r"\arcsin"),
        text.replace(r"\frac", r"\dfrac"),
        text if r"\left" in text else text.replace("(", r"\left(").replace(")", r"\right)"),
        f"{name} = {text}",
        re.sub(r"([+-])", r" \1 ", text),
        rf"\frac{{{text}}}{{1}}",
        rf"1 \cdot \left({text}\right)",
        f"-(-({text}))",
        f"({text}) + 0",
    ]
    return [form for form in forms if form != text]


def rewritings(text: str) -> list[str]:
    if NUMBER.fullmatch(text):
        forms = number_forms(text)
    elif "=" in text:
        forms = equation_forms(text)
    elif re.fullmatch(r"E_\{1\},E_\{2\}", text):
        forms = list_forms(text)
    else:
        forms = expression_forms(text)
    return forms[:REWRITINGS]


# --- judgements ------------------------------------------------------------------------------------------------------


def judge(triples: list[tuple[str, str, bool]], grade: Callable = ours) -> list[dict]:
    """Those judgements of (completion, reference, expected) that differ from what is expected."""
    rewards = grade([completion for completion, _, _ in triples], [reference for _, reference, _ in triples])
    return [
        {"reference": reference, "completion": completion[-200:], "reward": reward}
        for (completion, reference, expected), reward in zip(triples, rewards, strict=True)
        if (reward == 1.0) is not expected
    ]


def measure(solutions: list[str]) -> list[dict]:
    references = [last_box(solution) for solution in solutions]
    pairs = [(a, b) for i, a in enumerate(references) for j, b in enumerate(references) if i != j]
    parts = {
        "own solution": [(s, r, True) for s, r in zip(solutions, references, strict=True)],
        "rewriting": [(rf"\boxed{{{form}}}", r, True) for r in references for form in rewritings(r)],
        "another problem's reference": [(rf"\boxed{{{a}}}", b, False) for a, b in pairs if not same(a, b)],
        "another problem's, but equal": [(rf"\boxed{{{a}}}", b, True) for a, b in pairs if same(a, b)],
    }
    results = []
    for name, triples in parts.items():
        start = time.perf_counter()
        unexpected = judge(triples)
        seconds = time.perf_counter() - start
        results.append({"against": name, "judged": len(triples), "unexpected": unexpected, "seconds": seconds})
    results[-1]["pairs"] = sorted({tuple(sorted(pair)) for pair in pairs if same(*pair)})
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="JSON lines with the column `solution`")
    parser.add_argument("--limit", type=int, help="only the first problems")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    rows = [json.loads(line) for line in args.data.read_text(encoding="utf-8").split("\n") if line.strip()]
    results = measure([row["solution"] for row in rows[: args.limit]])
    table = Table("against", "judged", "as expected", "not", "seconds")
    for r in results:
        wrong = len(r["unexpected"])
        table.add_row(r["against"], str(r["judged"]), str(r["judged"] - wrong), str(wrong), f"{r['seconds']:.1f}")
    print_tables(table)
    for r in results:
        for row in r["unexpected"]:
            print(f"[{r['against']}] {row['reference']}  |  {row['completion']!r:.150}: {row['reward']}")
    print("Equal references of two problems:", "; ".join(f"{a} = {b}" for a, b in results[-1]["pairs"]))
    if args.output:
        report = {"python": platform.python_version(), "problems": len(rows[: args.limit]), "results": results}
        args.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit(1 if any(r["unexpected"] for r in results) else 0)


if __name__ == "__main__":
    main()
