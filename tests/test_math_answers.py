r"""What counts as equal: pairs of each kind, the policy where people disagree, and names that no text can make."""

import random
import re
import subprocess
import sys
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest


pytest.importorskip("math_verify")
pytest.importorskip("flint")

from flint import acb, fmpq

from rlvr_trl.rewards import MathReward
from rlvr_trl.rewards.answers.equality import RULES, judge
from rlvr_trl.rewards.answers.evaluate import Evaluation, TooLarge, Undefined, same_value
from rlvr_trl.rewards.answers.expressions import Expr, render
from rlvr_trl.rewards.answers.kinds import Answer, Named, Unread, Value, show
from rlvr_trl.rewards.answers.literals import settled
from rlvr_trl.rewards.answers.parser import parse
from rlvr_trl.rewards.answers.reader import read, readings
from rlvr_trl.rewards.answers.sympy_judge import _parse_latex, latex
from rlvr_trl.rewards.answers.tokens import MAX_DEPTH, Unreadable, tokenize


# kind -> groups of texts: the texts of a group are equal, and different from those of other groups of the kind
GROUPS = {
    "e-notation": [["7.2e15", r"7.2\times10^{15}", r"7.2 \cdot 10^{15}", "7.2×10^15", "7200000000000000"], ["7.2e16"]],
    "small e-notation": [["3.5e-4", "0.00035", r"3.5 \times 10^{-4}"], ["3.5e-3"], ["3.6e-4"]],
    "last letter": [["60-4t", "4(15-t)"], ["60-4s"], ["60-4"], ["60t-4"]],
    "Greek and last letter": [[r"\alpha h", r"h\alpha"], [r"\alpha g"], [r"\alpha"]],
    "volume": [[r"\frac{1}{6}\pi d^2 l", r"\pi l d^2/6"], [r"\frac{1}{6}\pi d^2"]],
    "constants of integration": [["C_1e^{2x}+C_2l", "C_2 l + C_1 e^{2x}"], ["C_1e^{2x}+C_2"], ["C_2e^{2x}+C_1l"]],
    "lists of large members": [["16, 256", "256, 16", r"\{16, 256\}", r"256 \text{ and } 16", "16; 256"], ["16256"]],
    "a number with its thousands": [["16256", "16,256", r"16,\!256", r"16\,256", "16{,}256"], ["16, 257"]],
    "a set is no number": [[r"\{16,256\}", r"\{256,16\}"], ["16256"], ["(16,256)"], ["(256,16)"]],
    "units of one capital": [["8", r"8\text{ N}", r"8\ \mathrm{N}", "8 N"], ["9"]],
    "compound units": [["9.8", "9.8 m/s", r"9.8\,\mathrm{m}\,\mathrm{s}^{-1}", r"9.8\text{ m/s}"], ["8.9"]],
    "units told apart": [[r"7\text{ hours}", "420 minutes"], [r"7\text{ minutes}"], [r"7\text{ kg}"]],
    "area": [[r"6\text{ cm}^2", "6 square centimeters", r"6 \text{ sq cm}"], [r"6\text{ cm}^3"], [r"6\text{ cm}"]],
    "expressions with units": [[r"4x\text{ cm}", "4x"], [r"4y\text{ cm}"]],
    "degrees Celsius": [["18", r"18^\circ\text{C}", "18°C"], ["81"]],
    "degrees": [["45^{\\circ}", "45", "45°", r"45\text{ degrees}"], [r"\frac{45}{2}"]],
    "minutes of arc": [[r"20^\circ 30'", "20.5°"], ["2030'"]],
    "vectors": [[r"5\mathbf{u}", r"5\vec{u}"], [r"5\mathbf{w}"], ["5"]],
    "unit vectors": [
        [r"\mathbf{i}+4\mathbf{j}", r"4\hat{j}+\hat{i}"],
        [r"\mathbf{i}+4\mathbf{k}"],
        [r"\mathbf{j}+4\mathbf{i}"],
    ],
    "a variable in a sum": [["4+2m", "2m+4"], ["6"], ["4+2k"]],
    "factorials": [[r"\frac{1}{12!}", r"\frac{13}{13!}"], [r"\frac{1}{13!}"], [r"\frac{1}{11!}"]],
    "tiny terms": [
        [r"\frac13+\frac{1}{5^{900}}", r"\frac{5^{900}+3}{3\cdot5^{900}}"],
        [r"\frac13-\frac{1}{5^{900}}"],
        [r"\frac13"],
        [r"\frac13+\frac{1}{5^{901}}"],
    ],
    "tiny terms beside roots": [
        [r"\sqrt{3}+10^{-400}", r"10^{-400}+\sqrt{3}"],
        [r"\sqrt{3}"],
        [r"\sqrt{3}-10^{-400}"],
    ],
    "derivatives": [["g'(t)", r"g^{\prime}(t)"], ["g(t)"], ["g''(t)"]],
    "points": [["B_2", "B_{2}"], ["B"], ["B_{22}"]],
    "true equations": [[r"\int_0^{\pi}\cos t\,dt=0"], [r"\int_0^{1}(2t-1)\,dt=0"], [r"1+1=2"]],
    "exponents end": [["3^{2}5", "45"], ["3^{25}"]],
    "subscripts end": [["a_{1}3", "3a_1"], ["a_{13}"]],
    "powers side by side": [["3^{2}2^{3}", "72"], ["3^{22^3}"]],
    "mixed numbers": [["5 1/4", r"5\frac{1}{4}", r"\frac{21}{4}", "5.25"], ["51/4"], [r"\frac{5}{4}"]],
    "letters in any order": [["P,Q,R", "R,Q,P"], ["P,Q"], ["P,Q,S"]],
    "case of letters": [["uvw", "wvu"], ["UVW"]],
    "decimals of six places": [["2.718282", "2.7182818284", "e"], ["2.718285"], ["2.72"]],
    "tiny decimals": [["0.000002"], ["0.0000024"], ["0.000003"]],
    "repeating decimals": [[r"0.\overline{6}", r"\frac{2}{3}", r"0.\overline6"], ["0.6"]],
    "mixed repeating decimals": [[r"0.1\overline{6}", r"\frac16"], [r"0.\overline{16}", r"\frac{16}{99}"]],
    "empty sets": [[r"\varnothing", r"\emptyset", r"\{\}", r"\text{no solution}"], [r"\{0\}", "0"]],
    "full-width": [["（3，4）", "(3,4)", r"\langle 3,4\rangle"], ["（4，3）"]],
    "plain names": [["pi/3", r"\frac{\pi}{3}"], ["3/pi"]],
    "plain functions": [["exp(3)", "e^3"], ["exp(4)"], ["sqrt(3)"]],
    "percent words": [[r"31\%", "31 pct", r"31\text{ percent}"], [r"13\%"]],
    "hexadecimal": [["3f_{16}", "3F_{16}"], ["3e_{16}"]],
    "bold in a box": [["**73**", "`$73$`", r"\boxed{73}", r"\mathbf{73}"], ["37"]],
    "half-open": [["(2,5]", r"2<x\le5", r"5 \ge x > 2"], ["[2,5)"], ["(2,5)"], ["(5,2]"]],
    "all but some": [[r"(-\infty,1)\cup(1,\infty)", r"x\ne1", r"\mathbb{R}\setminus\{1\}"], [r"x\ne2"], [r"x>1"]],
    "unions": [[r"[0,1)\cup(2,3]", r"(2,3]\cup[0,1)"], [r"[0,1]\cup(2,3]"], [r"[0,3]"]],
    "touching unions": [[r"[0,1)\cup[1,2]", r"[0,2]"], [r"[0,1)\cup(1,2]"]],
    "matrices": [
        [r"\begin{pmatrix}1&0\\2&\frac12\end{pmatrix}", r"\begin{bmatrix} 1 & 0 \\ 2 & 0.5 \\ \end{bmatrix}"],
        [r"\begin{pmatrix}1&2\\0&\frac12\end{pmatrix}"],
        [r"\frac12\begin{pmatrix}2&0\\4&2\end{pmatrix}"],
    ],
    "columns": [[r"\begin{pmatrix}3\\4\end{pmatrix}", "(3,4)"], [r"\begin{pmatrix}4\\3\end{pmatrix}"]],
    "equations": [["3x-6y=9", "x-2y=3", "x=2y+3", "9=3x-6y"], ["x-2y=4"], ["x+2y=3"]],
    "inequalities": [["2x+y<4", "4>y+2x", "-2x-y>-4"], ["2x+y>4"], [r"2x+y\le4"]],
    "functions": [["f(x)=x^2-1", "f(x)=(x-1)(x+1)"], ["f(x)=x^2+1"], ["g(x)=x^2-1"]],
    "named results": [["17", r"\text{Area}=17"], ["18"]],
    "named lengths": [["17", "AB=17"], ["18"]],
    "names told apart": [["x=17"], ["y=17"], [r"\text{Area}=18"]],
    "true sums": [["1+3=4"], ["2+2=4"]],
    "two signs": [[r"3\pm\sqrt2", r"3+\sqrt2, 3-\sqrt2"], [r"3+\sqrt2"], [r"2\pm\sqrt3"]],
    "times of day": [["4:15 p.m.", r"4:15\text{ PM}"], ["4:15 a.m."], ["4:51 p.m."]],
    "ratios": [["3:4", "3 : 4", "6:8"], ["4:3"]],
    "bases": [["312_5", "312_{5}", r"(312)_5", r"312_{\text{five}}"], ["312_6"], ["3125"], ["82"], ["3^{22^3}"]],
    "words": [[r"\text{North}", "north", "North."], ["south"]],
    "logarithms": [[r"\log_3 5", r"\frac{\ln 5}{\ln 3}", r"\frac{\log 5}{\log 3}"], [r"\log_5 3"]],
    "trigonometry": [[r"\cos 2y", r"1-2\sin^2 y", r"\cos^2 y-\sin^2 y"], [r"\cos^2 y"], [r"\sin 2y"]],
    "complex numbers": [["2-5i", r"-5\mathrm{i}+2", "2.0 - 5.0i"], ["2+5i"], ["5-2i"]],
    "polar form": [[r"e^{i\pi/6}", r"\frac{\sqrt3}{2}+\frac12 i"], [r"\frac12+\frac{\sqrt3}{2}i"]],
    "absolute values": [["|x|", r"\sqrt{x^2}"], ["x"], ["-x"]],
    "several options": [["A,D", "D, A", r"\text{A and D}"], ["A"], ["A,C"]],
    "huge": [[r"7^{200}", str(7**200)], [str(7**200 + 1)]],
    "squeezed commands": [[r"3\pir", r"3\pi r"], [r"3\pi"]],
    "money": [[r"\$12.50", "12.50 dollars", "1250 cents", "USD 12.50"], ["12.50 cents"]],
    "no interval": [["(4,-2)"], [r"\emptyset", r"\text{no solution}"], ["(7,7)"], ["[4,-2]"]],
    "ratios with zero": [["2:5", "200:500"], ["0:0"], ["5:2"], ["2:0"]],
    "words with signs": [[r"\text{the slope is } -3"], [r"\text{the slope is } 3"], [r"\text{the slope is } 0.3"]],
    "words with relations": [[r"\text{all integers } n\ge4"], [r"\text{all integers } n\le4"]],
    "words with brackets": [[r"\text{decreasing on } (0,2)"], [r"\text{decreasing on } (0,2]"]],
    "thousands with zeros": [["3,072", "3072"], ["3,72", "72,3"]],
    "round thousands": [["6,000"], ["6,0", "0,6", "6 and 0"]],
    "a set with a large member": [["4,500"], [r"\{4,500\}"]],
    "cases": [[r"8 \text{ if } n \text{ is even}, 9 \text{ otherwise}"], ["8"], ["9"]],
    "conditions": [[r"x+2 \text{ for } x>0"], [r"x+2 \text{ for } x<0"]],
    "no units": [
        ["6"],
        *([rf"6\text{{ {w}}}"] for w in ("squared", "factorial", "thirds", "minus } x", "less one", "tens")),
    ],
    "no counted nouns": [
        ["6"],
        [r"6\text{ more than }x"],
        [r"6\text{ th root}"],
        [r"6\text{ for some, }7\text{ for others}"],
    ],
    "and is not or": [["2<x<5", "x>2 and x<5", "(2,5)"], ["x>2 or x<5"], ["x<2 or x>5"], ["x<2 and x>5"]],
    "variables of inequalities": [["x<2 or x>5"], ["y<2 or y>5"]],
    "sets of something else": [["(4,\\infty)", r"\{x : x>4\}"], [r"\{2x : x>4\}"], [r"\{x \in \mathbb{Z} : x>4\}"]],
    "integers are not rounded": [["1000000003"], [r"1.00000\times10^9"], ["987654321"], [r"9.87654\times10^8"]],
    "cross products": [[r"\vec{u}\times\vec{v}"], [r"\vec{v}\times\vec{u}"]],
    "composed functions": [[r"f\circ g"], [r"g\circ f"]],
    "inverse functions": [["f^{-1}(x)"], [r"\frac{x}{f}"]],
    "quotients of differentials": [[r"\frac{dy}{dx}", "dy/dx"], [r"\frac{y}{x}"]],
    "conjugates": [["z^*"], ["z"]],
    "factorials of factorials": [["(n!)!"], ["n!!"]],
    "minutes and seconds": [["20'"], ["20''"]],
    "arrows": [[r"p\Rightarrow q"], [r"p\iff q"]],
    "values that a function comes close to": [["1"], [r"\tanh(500)"], [r"\tanh(501)"]],
    "roots of products": [[r"\sqrt{ab}", r"\sqrt{a}\sqrt{b}"], [r"\sqrt{a}+\sqrt{b}"]],
    "factorials of variables": [[r"\frac{(n+1)!}{n!}", "n+1"], ["n"]],
    "systems": [[r"\begin{cases}x=4\\y=5\end{cases}", "x=4, y=5", "(x,y)=(4,5)"], ["x=5, y=4"]],
    "equations that are no multiples": [["xy=3", r"y=\frac{3}{x}"], [r"y=\frac{x}{3}"]],
    "rest of an inequality": [[r"\ge 4", r"x\ge4"], [r"\le 4"]],
    "points with signs": [[r"(\pm3,1)", "(3,1),(-3,1)"], ["(3,1)"]],
    "inches": [[r"4\text{ inches}", r"4\text{ in}"], [r"\frac13\text{ inches}"]],
    "feet and inches": [[r"3\text{ feet}", r"36\text{ inches}"], [r"36\text{ feet}"]],
    "micrometers": [["7", r"7\,\mu\text{m}", "7 μm"], ["8"]],
    "compound quantities": [[r"1 \text{ h } 20 \text{ min}", r"80 \text{ min}"], [r"2 \text{ h } 10 \text{ min}"]],
    "feet with inches": [[r"5\text{ ft }3\text{ in}", r"63\text{ inches}"], [r"3\text{ ft }5\text{ in}"]],
    "conditions of equations": [[r"y=3x \text{ for } x>0"], [r"y=3x \text{ for } x<0"]],
    "else": [["x^3"], [r"x^3 \text{ if } x>0 \text{ else } 0"]],
    "two variables": [["x>1 and y>3"], ["x>1 or y>3"]],
    "numbers among words": [[r"\text{odds } 2:3"], [r"\text{odds } 23"], [r"\text{odds } 2,3"]],
    "factorials among words": [[r"\text{factor of } m!"], [r"\text{factor of } m"]],
    "nouns with a sign": [["8", r"8\text{ positive integers}"], ["9"]],
    "plural nouns": [["8", r"8\text{ real roots}"], [r"8\text{ th root}"]],
    "more that is no noun": [
        ["8"],
        *([rf"8\text{{ {w}}}"] for w in ("quadrillion", "elevenths", "below zero", "per million")),
    ],
    "no name": [["8"], [r"\text{not } x=8"], [r"\sin x=8"]],
    "over": [[r"3 \over 4", r"{3 \over 4}", "0.75"], [r"4 \over 3"]],
    "choose": [[r"{7 \choose 2}", "21"], [r"{7 \choose 3}"]],
    "dots above digits": [[r"0.\dot{4}", r"\frac49"], [r"0.\dot4\dot5", r"\frac{45}{99}"]],
    "distances": [["|x|<3", "(-3,3)", "-3<x<3"], ["|x|>3"], [r"|x|\le3"]],
    "memberships": [[r"2k\pi, k\in\mathbb{Z}", r"2k\pi", r"2k\pi \ (k\in\mathbb{Z})"], [r"k\pi"]],
    "all but two": [[r"x\ne 2,5", r"\mathbb{R}\setminus\{2,5\}"], [r"x\ne2"]],
    "bases in words": [["31_5", r"31_{\text{base }5}", r"31 \text{ (base 5)}"], ["31_6"]],
    "logic": [[r"p\land q"], [r"p\lor q"]],
    "Greek letters that are units": [[r"-4\cdot5 \mu-5", r"-20\mu-5"], [r"-20\mu+5"], ["-25"]],
    "large powers": [["2^{100000}", "4^{50000}"], ["2^{100001}"]],
    "floors": [[r"\lfloor x\rfloor"], ["x"], [r"\lfloor x+\frac{1}{500}\rfloor"]],
    "infinity": [[r"\infty", r"+\infty", r"\text{infinity}", "∞"], [r"-\infty"]],
}
# reference, answer, verdict: where people disagree, and where it matters which of the two is the reference
POLICY = [
    ("9", r"\frac{81}{9}", True),
    ("9", r"a+b=9", True),
    ("a+b=9", "9", False),
    ("0", "x^2-y=0", False),
    ("9", "4+5=9", True),
    ("9", "4+6=9", False),
    ("(4,5)", "x=4,y=5", True),
    ("(4,5)", "y=5,x=4", True),
    ("(4,5)", "4,5", False),
    (r"40\%", "40", True),
    (r"40\%", "0.4", True),
    ("0.4", r"40\%", True),
    ("40", r"40\%", True),
    ("0.4", r"0.4\%", False),
    ("40", "0.4", False),
    (r"60\text{ minutes}", r"1\text{ hour}", True),
    (r"3\text{ thousand}", "3000", True),
    (r"3\text{ dozen}", "3", False),
    (r"12\text{ J}", r"12\text{ N}", False),
    ("12", "12 oranges", True),
    (r"90^\circ", r"\frac{\pi}{2}", True),
    (r"90^\circ", r"90\%", False),
    (r"\cos 60^\circ", "0.5", True),
    (r"\cos 60^\circ", r"\cos 60", True),
    ("3:5", r"\frac35", True),
    ("4:20", r"4:20 \text{ p.m.}", True),
    ("4:20", "4.333333333", False),
    (r"5\text{ a.m.}", r"5:00 \text{ a.m.}", True),
    ("16:05", "4:05 p.m.", True),
    ("61_7", "61", True),
    ("61_7", "43", False),
    ("BD", "B, D", True),
    ("2,2,3", "2,3", False),
    (r"\{2,2,3\}", r"\{2,3\}", True),
    (r"\frac{1}{\sqrt{m}}", r"\sqrt{1/m}", True),
    (r"\log_{10} 7", r"\log 7", True),
    (r"\ln 7", r"\log 7", True),
    (r"\ln 7", r"\log_{10} 7", False),
    (r"\binom{k+1}{2}", r"\frac{k(k+1)}{2}", True),
    ("x^3", "x**3", True),
    (r"\begin{pmatrix}3&4\end{pmatrix}", r"\begin{pmatrix}3\\4\end{pmatrix}", False),
    (r"\text{Ann and Max}", r"\text{Max and Ann}", True),
    (r"\text{circle}", r"\text{a circle}", True),
    ("23", r"\text{The answer is } 23", True),
    ("23", r"\approx 23", True),
    ("23", r"\color{red}{23}", True),
    ("23", r"\underline{23}", True),
    ("23", "2 3", False),
    ("2n-1", r"2n-1 \text{ for } n \ge 1", True),
    ("2, 5", "x=2 or x=5", True),
    ("x=1, 300", "x=300, 1", True),
    ("6", r"6, \frac{12}{2}", True),
    ("6", "6, 7", False),
    ("a+1=b", r"\forall a, a+1=b", False),
    ("12", "2x=12", False),
    ("12", "|x|=12", False),
    ("16", "x^2=16", False),
    ("12", "x-1=12", False),
    ("12", "x=11=12", False),
    ("12", r"x=\frac{24}{2}=12", True),
    ("0.5", r"\cos A=0.5", True),
    (r"\tan\beta=3", "3", True),
    (r"\frac{AB}{CD}=\frac25", "2/5", True),
    ("AB:BC=2:5", "2:5", True),
    ("f(1)+f(4)=7", "7", True),
    (r"\lim_{x\to 0} f(x)=2", "2", True),
    ("|CD|=9", "9", True),
    ("f'(0)=3", "3", True),
    ("2:3", "10:15", True),
    ("3:30", "6:60", False),
    (r"12:30\text{ a.m.}", "0:30", True),
    ("9", r"9\text{ because 8 is even}", True),
    (r"\frac{a}{b}", r"\frac{a}{b}, b>0", True),
]


@pytest.mark.parametrize("kind", GROUPS)
def test_equal_and_different(kind):
    groups = GROUPS[kind]
    for i, group in enumerate(groups):
        for reference, answer in product(group, repeat=2):
            assert judge(reference, answer), (reference, answer)
        for reference, answer in product(group, [text for other in groups[:i] + groups[i + 1 :] for text in other]):
            assert not judge(reference, answer), (reference, answer)


@pytest.mark.parametrize(("reference", "answer", "verdict"), POLICY)
def test_policy(reference, answer, verdict):
    assert judge(reference, answer) is verdict


def rows_of_the_page():
    page = (Path(__file__).parents[1] / "docs" / "verifier.md").read_text(encoding="utf-8")
    table = page.split("| kind | reference |")[1].split("\n\n")[0].splitlines()[2:]
    for line in table:
        kind, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
        (reference,), equal, different = (re.findall(r"`([^`]+)`", cell) for cell in cells)
        yield kind, reference, equal, different


@pytest.fixture(scope="module")
def reward():
    reward = MathReward(num_workers=1)
    yield reward
    reward.close()


@pytest.mark.parametrize(("kind", "reference", "equal", "different"), rows_of_the_page())
def test_the_page_tells_the_policy(kind, reference, equal, different, reward):
    texts = [rf"\boxed{{{text}}}" for text in [*equal, *different]]
    rewards = reward(texts, answer=[reference] * len(texts))
    assert equal and different and rewards == [1.0] * len(equal) + [0.0] * len(different), [*equal, *different]


def test_what_is_settled_without_a_worker_is_what_the_judge_says():
    texts = [text for groups in GROUPS.values() for group in groups for text in group]
    certain = 0
    for reference, answer in zip(texts, texts[1:], strict=False):
        known = settled(read(reference), read(answer))
        if known is not None:
            certain += 1
            assert known == judge(reference, answer), (reference, answer)
    assert certain > 30


def test_rules_are_for_kinds_of_answers():
    kinds = set(Answer.__args__)
    assert all(set(pair) <= kinds for pair in RULES)
    assert {kind for kind in kinds if (kind, kind) not in RULES} == {Named, Unread}  # equal only to themselves


@pytest.mark.parametrize(
    "text",
    [
        r"3\frac{1}{2}",
        r"\frac{x+2}{7}",
        r"-2^{3}x_{12}",
        r"\sqrt[3]{2}+|x-1|",
        r"\log_{2}(x)!",
        "f(x,2)-f'(x)",
        "1.50",
    ],
)
def test_a_tree_is_written_as_text_that_is_read_as_the_same_tree(text):
    tree = parse(tokenize(text))
    assert parse(tokenize(render(tree))) == tree


def test_numbers_are_exact():
    for text, value in {"0.1": Fraction(1, 10), "4.5e3": 4500, "0.(27)": None, "1.": 1, ".5": Fraction(1, 2)}.items():
        if value is not None:
            assert parse(tokenize(text)).value == value
    assert parse(tokenize(r"0.\overline{27}")).value == Fraction(3, 11)
    with pytest.raises(Unreadable):
        parse(tokenize("1e999999999"))


def test_values_are_balls_that_hold_them():
    for text, value in {
        r"\sqrt{2}": 2**0.5,
        r"\sin\frac{\pi}{6}": 0.5,
        r"\ln 10": 2.302585092994046,
        "5!": 120,
    }.items():
        found = acb(Evaluation({})(parse(tokenize(text))))
        assert found.overlaps(acb(value) + acb(0, 0)) or abs(found - value).abs_upper() < 1e-15
    for text, error in {"1/0": Undefined, "0^0": Undefined, r"\ln 0": Undefined, "9^{9^{9^9}}": TooLarge}.items():
        with pytest.raises(error):
            Evaluation({})(parse(tokenize(text)))
    eight = parse(tokenize(r"\sqrt[3]{-8}"))
    assert Evaluation({})(eight) == -2
    x, y = (parse(tokenize(text)) for text in (r"\sqrt{x^2}", "x"))
    assert same_value(x, y, {"x": fmpq(3)}, 10, real=True) is True
    assert same_value(x, y, {"x": fmpq(-3)}, 10, real=True) is False
    with pytest.raises(Undefined):
        same_value(parse(tokenize(r"\sqrt{x}")), y, {"x": fmpq(-3)}, 10, real=True)
    assert same_value(parse(tokenize("ix")), y, {"x": fmpq(3)}, 10, real=True) is None
    # an exact number and a ball, and a number that a function approaches
    third, tangent = (parse(tokenize(text)) for text in (r"-\frac{7}{24}", r"\tan(2\arctan(-\frac17))"))
    assert same_value(third, tangent, {}, 10, real=False) is True
    assert same_value(parse(tokenize("1")), parse(tokenize(r"\tanh(1000)")), {}, 10, real=False) is False


HOSTILE = "[0]if[open(chr(47)+chr(120),chr(119))]else[0]"


@pytest.mark.parametrize(
    "accent", ["bar", "vec", "hat", "tilde", "dot", "overline", "mathcal", "mathbb", "widehat", "mathrm", "text"]
)
@pytest.mark.parametrize(
    "wrapped", [r"\sum_{n=0}^{\infty}\frac{%s^n}{n!}", r"\{%s\}", r"\sqrt{%s}", "x=%s", "x_{%s}", r"\operatorname{%s}"]
)
def test_no_text_becomes_a_name(accent, wrapped):
    text = wrapped % (rf"\{accent}{{{HOSTILE}}}")
    for answer in read(text):
        assert isinstance(answer, Unread) or not any(
            "(" in node.name for node in getattr(answer, "expr", Expr("num")).walk()
        )
        given = latex(answer.tokens) if isinstance(answer, Unread) else None
        assert given is None or "open" not in given


def test_what_reaches_math_verify_is_of_a_closed_set():
    assert latex(tokenize(r"\sum_{k=1}^{n} \frac{k}{2}")) == r"\sum_{k=1}^{n}\frac {k}{2}"
    for text in (
        r"x_{a(b)}",
        r"x_{\bar{y}}",
        r"\text{import os}",
        r"\foo",
        "abcdefghijklmnop",
        "3 4",
        r"x_{y_{z}}",
        "é",
    ):
        assert latex(tokenize(text)) is None, text


BRACED = r"\sum_{n=0}^{\infty}\frac{x_x^{(1)i{f}(0)e{l}{s}{e}(p{r}{i}{n}{t}(7))}^n}{n!}"


@pytest.mark.parametrize("text", [rf"\bar{{{HOSTILE}}}+1", BRACED, r"x_{x^{1}}", r"\sum_{k=1}^{n} x_{a(b)}^k"])
def test_names_that_sympy_makes_are_checked_too(text):
    for answer in read(text):
        assert latex(getattr(answer, "tokens", ())) in (None, "")
    assert _parse_latex(text) == ()


def test_numbers_of_many_digits_are_shown():
    for text in ("1e-5000", "1e5000", "x=1e-4400", "(1e-4400,1)", "1e-4400%", "3^{9000}", "1e-4400:2"):
        assert all(show(answer) for answer in read(text))


PIECES = r"""
{ } ( ) [ ] \{ \} \frac \sqrt ^ _ , ; : = < > \le + - * / ! ' % $ \$ ^\circ | \| 1 2 0 345 0.5 1e5 x y e i sin \sin
\log \pi \infty \text{ \text{cm} \mathrm{m} cm and or for if the of per million & \\ \begin{pmatrix} \end{pmatrix}
\begin{cases} \end{cases} \pm \cup \in \mathbb{R} \overline{3} \bar{x} \vec \left . \ldots \int \sum \to p.m. \binom
\mathbf A B \approx ? \lfloor \rfloor \pmod hours base 元 \mu \Omega \times \over \not \dot{3}
"""


def test_any_text_is_read_shown_and_compared_without_an_error():
    rng, previous = random.Random(3), read("1")
    for _ in range(6_000):
        text = "".join(rng.choices([*PIECES.split(), " "], k=rng.randint(1, 14)))
        try:
            found = readings(text)
        except (Unreadable, RecursionError):
            found = (Unread(text),)
        assert all(isinstance(show(answer), str) for answer in found)
        if found:
            settled(found, previous)
            previous = found


def test_texts_that_cannot_be_read_are_equal_to_themselves_only():
    for text in (
        "{" * 50 + "x" + "}" * 50,
        r"\frac{1",
        "x" * 3_000 + "+",
        r"\unknown{x}+1",
        "a^^b",
        r"\begin{cases}x\end{cases}",
    ):
        assert judge(text, text) is True and judge(text, text + "1") is False
    assert MAX_DEPTH < 50
    assert read("") == read("  ") == read("$$") == read(r"\,") == ()


def test_what_is_shown():
    for text, shown in {
        r"\left( 3 , \dfrac{1}{2} \right)": r"(3,\frac{1}{2})",
        r"5\text{ cm}^2": "5",
        r"\$1,234.50": "1234.50",
        r"\text{(B)}": "B",
        r"3 \text{ p.m.}": "3:00pm",
        r"\pi r^{2}": r"\pi r^2",
        "40 \\%": r"40\%",
        "x = 7": "x=7",
    }.items():
        assert show(read(text)[0]) == shown
    assert isinstance(read("1/2")[0], Value)


def test_the_readers_load_neither_flint_nor_sympy():
    script = """
import sys
from rlvr_trl.rewards.answers.literals import settled
from rlvr_trl.rewards.answers.reader import read, readings
assert settled(read("1/2"), read("0.5"))
loaded = {"flint", "sympy", "math_verify", "torch"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True)
