r"""Hostile completions: huge ones, deeply nested ones, endless ones, and ones with Python that would make a file.

`hostile_completions(folder)` yields 640 `Hostile`. Each payload, if it ran, would make an empty file of its own in
`folder` or in the working directory and do nothing else, so a listing afterwards tells whether anything ran.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


COUNT = 640
REFERENCES = ["42.5", "x+1", r"\frac{\sqrt{3}}{2}", "(1,2)", r"[0,1)"]


@dataclass(frozen=True)
class Hostile:
    group: str
    completion: str
    reference: str


def boxed(text: str) -> str:
    return rf"so it is $\boxed{{{text}}}$"


# --- Python in answers -----------------------------------------------------------------------------------------------

COMMANDS = ["bar", "vec", "hat", "tilde", "dot", "ddot", "acute", "breve", "check", "grave", "mathring", "widehat"]
COMMANDS += ["widetilde", "overline", "underline", "overrightarrow", "overbrace", "underbrace", "mathbb", "mathbf"]
COMMANDS += ["mathrm", "mathcal", "mathfrak", "mathit", "mathsf", "mathtt", "mathscr", "boldsymbol", "bm", "text"]
COMMANDS += ["textbf", "textit", "texttt", "operatorname", "operatorname*", "mbox"]

WRAPPERS = [
    "{}",
    r"\{{{}\}}",
    r"\sqrt{{{}}}",
    "x={}",
    r"\sum_{{n=0}}^{{\infty}}\frac{{{}^n}}{{n!}}",
    r"\frac{{{}}}{{2}}+x",
    r"\int_0^1 {}^x dx",
]


def spelled(text: str) -> str:
    """A Python expression for a string that needs no quotes, which not every reader of LaTeX keeps."""
    return "+".join(f"chr({ord(character)})" for character in text)


def python_payloads(path: str) -> list[str]:
    name = spelled(path)
    return [
        f"[0]if[open({name},chr(119))]else[0]",
        f"open('{path}','w')",
        f"__import__(chr(111)+chr(115)).mknod({name})",
        f"exec(chr(111)+chr(112)+chr(101)+chr(110)+{spelled(f'({path!r},chr(119))')})",
        f"(lambda f:f({name},chr(119)))(open)",
        f"().__class__.__base__.__subclasses__()[0].__init__.__globals__['__builtins__']['open']('{path}','w')",
        f"x.__class__.__mro__[-1].__subclasses__()or open({name},chr(119))",
        f"S(0).func.__globals__['__builtins__']['open']({name},chr(119))",
    ]


def injections(folder: Path) -> Iterator[Hostile]:
    """Every command in every wrapper: in the answer, against `e`, which makes SymPy evaluate a series; and in a box of
    the reference, where it could run just as easily."""
    paths = (str(folder / str(i)) for i in range(10_000))
    i = 0
    for command in COMMANDS:
        for wrapper in WRAPPERS:
            payload = python_payloads(next(paths))[0 if i % 3 else i // 3 % 8]
            answer = wrapper.format(rf"\{command}{{{payload}}}")
            yield Hostile("injection", boxed(answer), "e")
            i += 1
        payload = python_payloads(next(paths))[0]
        reference = rf"\sum_{{n=0}}^{{\infty}}\frac{{\{command}{{{payload}}}^n}}{{n!}}"
        yield Hostile("injection into the reference", boxed("e"), boxed(reference))
    for payload in python_payloads(next(paths)) + python_payloads("made_here"):
        yield Hostile("injection", boxed(payload), "x+1")
        yield Hostile("injection", f"The answer is {payload}", "e")
    path = next(paths)
    for text in [
        r"\input{/etc/passwd}",
        r"\include{/etc/passwd}",
        rf"\immediate\write18{{touch {path}}}",
        rf"\directlua{{io.open('{path}','w')}}",
        f"{{{{ cycler.__init__.__globals__.os.popen('touch {path}').read() }}}}",
        f"{{% set x = cycler.__init__.__globals__.os.mknod('{path}') %}}",
        "{0.__class__.__mro__}",
        "%n%s%x%999999999d",
        "${jndi:ldap://localhost/a}",
        f"`touch {path}`",
        f"$(touch {path})",
        f"'; touch {path}; '",
    ]:
        yield Hostile("injection", boxed(text), "x+1")


# --- what takes long -------------------------------------------------------------------------------------------------


def numbers() -> Iterator[str]:
    yield from ["9^{9^{9^{9}}}", "9^9^9^9", "9^{9^9}+x", "1/9^{9^9}", "0^{-9^{9^9}}", "i^{9^{9^9}}", r"\sqrt{9^{9^9}}"]
    yield from ["2^{2^{2^{2^{2^{2}}}}}", "e^{e^{e^{e^e}}}", r"\log(9^{9^9})", r"\sin(10^{10^{10}})", "x^{x^{x^{9^9}}}"]
    yield from [
        "9!!!!",
        "((9!)!)!",
        "100000000!",
        "(10^9)!",
        r"\frac{1}{(10^8)!}",
        r"\Gamma(10^{10})",
        "(9^9)!-(9^9)!",
    ]
    yield from [r"\binom{10^{10}}{10^9}", r"\binom{10^{100}}{5000000}", r"\binom{9^{9^9}}{2}", r"\binom{x}{10^7}"]
    yield from [
        "1e999999999",
        "1e-999999999",
        r"1\times10^{999999999}",
        "10^{-10^{10}}",
        "1.5e308e308",
        "7_{999999999}",
    ]
    yield from [r"\sum_{n=1}^{10^{12}} n^{10^6}", r"\sum_{n=1}^{\infty}\frac{1}{n^{n^n}}", r"\prod_{k=1}^{10^9} k^k"]
    yield from [
        r"\int_0^{10^{10}} e^{x^{x}} dx",
        r"\int_0^1\int_0^1 \sin(x^y)^{x^y} dx dy",
        r"\lim_{n\to\infty} n!^{n!}",
    ]
    yield from ["(x+1)^{1000000}", "(x+y+z+w)^{500}", "(x+1)^{9^9}-x", r"(\sqrt2+\sqrt3+\sqrt5+\sqrt7)^{300}"]
    yield from [
        r"\lfloor 9^{9^9} \rfloor",
        r"\sqrt[9999999]{2}",
        r"\log_{1}(0)",
        r"\frac{0}{0}",
        r"\frac{1}{0}",
        "0^0^0",
    ]
    yield from [
        r"\sum_{i=1}^{10^9}\sum_{j=1}^{10^9} \frac{1}{i+j}",
        r"10^{9}\pmod{7}",
        "0.(3)^{9^9}",
        r"\tan(\frac\pi2)",
    ]
    yield from [
        r"\begin{pmatrix}1&1\\1&0\end{pmatrix}^{10^{9}}",
        r"[0,9^{9^9}]\cup[9^{9^9},\infty)",
        r"(9^{9^9},9^{9^9})",
    ]


def repetitions() -> Iterator[str]:
    pieces = [
        "1,",
        "1+",
        "-",
        "+",
        "1-",
        r"1\cdot ",
        "x=",
        "x^",
        "/2",
        "!",
        "'",
        "_1",
        r"\pm 1",
        r"\cup[0,1]",
        "%",
        "$",
    ]
    pieces += [r"\frac", r"\sqrt", r"\left", "x(", r"\\", "&", "|", r"\text", r"\infty", "0.", "e9", "^2", ";", "and "]
    for piece in pieces:
        for length in (400, 900, 100_000):
            yield piece * (length // len(piece)) + "1"


BRACKETS = [("(", ")"), ("[", "]"), ("{", "}"), (r"\{", r"\}"), (r"\left(", r"\right)"), (r"\langle ", r"\rangle ")]
BRACKETS += [("|", "|"), (r"\lfloor ", r"\rfloor "), (r"\frac{1}{", "}"), (r"\sqrt{", "}"), ("x^{", "}"), ("x_{", "}")]
BRACKETS += [(r"\text{", "}"), (r"\boxed{", "}"), (r"\begin{pmatrix}", r"\end{pmatrix}"), (r"\sin(", ")"), ("-(", ")")]


def nestings() -> Iterator[str]:
    for opening, closing in BRACKETS:
        for depth in (900 // len(opening + closing), 50_000):
            yield opening * depth + "x" + closing * depth
        yield opening * 300 + "x"
        yield "x" + closing * 300


def matrices() -> Iterator[str]:
    rows = [[str(i * j) for i in range(100)] for j in range(100)]
    body = r"\\".join("&".join(row) for row in rows)
    yield rf"\begin{{pmatrix}}{body}\end{{pmatrix}}"
    yield rf"\begin{{pmatrix}}{'&' * 900}\end{{pmatrix}}"
    yield rf"\begin{{pmatrix}}{chr(92) * 900}\end{{pmatrix}}"
    yield rf"\det\begin{{vmatrix}}{body[:800]}\end{{vmatrix}}"


def whole_texts() -> Iterator[str]:
    """Texts without a proper box, up to 10 MB, which are hard on code that looks for one."""
    size = 10_000_000
    for piece in ["9", " ", "\n", "(", "{", r"\boxed{", r"\boxed{5}", "$", "\\", "answer is ", "<answer>", "<think>"]:
        yield piece * (size // len(piece))
        yield piece * (900_000 // len(piece))
    yield boxed("1" * size)
    yield boxed("1," * (size // 2))
    yield r"\boxed{42.5}," * 100_000 + r"\boxed{7}"
    yield r"\boxed{1}, " * 70_000
    yield "####" * 200_000
    yield "**" * 400_000
    yield ("The answer is (A" * 50_000)
    yield ("\\frac{1}{2" * 90_000)


def characters() -> Iterator[str]:
    yield from [
        "\0",
        "4\x002.5",
        "\ud800",
        "\udfff\ud800x",
        "\u202e5.24\u202c",
        "\ufeff\u200b\u2060",
        "\x1b[2J",
        "\x7f\x80",
    ]
    yield from [
        "x" + "\u0301" * 800,
        "𝟒𝟐" * 100,
        "٤٢",
        "Ⅻ",
        "½¼¾",
        "x\u2028\u2029",
        "👩‍👩‍👧‍👦" * 50,
        "\uffff\U0010ffff",
    ]


def soup(rng: random.Random) -> str:
    tokens = (
        [o for pair in BRACKETS for o in pair] + list("0123456789+-*/^_=,.!%&|'xyzei") + [r"\pm", r"\cup", r"\\", " "]
    )
    return "".join(rng.choice(tokens) for _ in range(rng.randint(5, 150)))


def hostile_completions(folder: Path, seed: int = 0) -> Iterator[Hostile]:
    """Yields `COUNT` of them, one at a time, as the largest have 10 MB."""
    rng, made = random.Random(seed), 0
    for group, texts in [
        ("characters", map(boxed, characters())),
        ("large numbers", map(boxed, numbers())),
        ("matrix", map(boxed, matrices())),
        ("nesting", map(boxed, nestings())),
        ("repetition", map(boxed, repetitions())),
        ("whole text", whole_texts()),
    ]:
        for text in texts:
            yield Hostile(group, text, REFERENCES[made % len(REFERENCES)])
            made += 1
    for hostile in injections(folder):
        yield hostile
        made += 1
    for _ in range(COUNT - made):
        yield Hostile("random tokens", boxed(soup(rng)), rng.choice(REFERENCES))
