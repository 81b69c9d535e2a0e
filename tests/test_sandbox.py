"""What a worker gives up, layer by layer: answers that run Python, direct attempts, and judgements that still work."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import worker_functions as functions

from rlvr_trl.rewards import sandbox
from rlvr_trl.rewards.workers import Outcome, WorkerPool


pytest.importorskip("math_verify")

import math_verify_judge as judging


pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent / "scripts"
LINUX = sys.platform.startswith("linux")


def run(code: str, *arguments: str, variables: dict[str, str] | None = None) -> list[str]:
    """Lines that a new interpreter prints, in which the layers can be applied for good."""
    head = f"import os, sys\nsys.path.insert(0, {str(SCRIPTS)!r})\nfrom rlvr_trl.rewards import sandbox\n"
    process = subprocess.run(
        [sys.executable, "-c", head + code, *arguments],
        env=os.environ | (variables or {}),
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout.splitlines()


EXPLOIT = """
import math_verify_judge as judging
judging.warm_up()
sandbox.{layer}
print(judging.judge("{gold}", judging.exploit(sys.argv[1])), flush=True)
os._exit(0)
"""
TRY_ALL = """
import worker_functions as functions
path, tries = sys.argv[1], {tries!r}
sandbox.{layer}
refused = []
for what in tries:
    try:
        functions.attempt(what, path)
    except (PermissionError, OSError, ImportError):
        refused.append(what)
print(*refused, sep="\\n", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("layer", "stopped"),
    [
        ("KEPT_VARIABLES", False),  # none: the answer does what it says, so that this test can fail
        ("isolate(1)", False),
        ("disarm_sympy()", True),
        ("limit()", True),
        ("lock()", True),
    ],
)
def test_an_answer_that_runs_python_is_stopped_by_each_layer_alone(tmp_path, layer, stopped):
    canary = tmp_path / "canary"
    assert run(EXPLOIT.format(layer=layer, gold=r"\\sqrt{2}"), str(canary)) == ["False"]
    assert canary.exists() is not stopped


def test_what_python_refuses(tmp_path):
    file = tmp_path / "file"
    file.write_text("here")
    assert run(TRY_ALL.format(layer="lock()", tries=list(functions.ATTEMPTS)), str(file)) == list(functions.ATTEMPTS)
    assert file.read_text() == "here" and [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="the limits are those of POSIX systems")
def test_what_the_kernel_refuses(tmp_path):
    file = tmp_path / "file"
    file.write_text("here")
    tries = ["read", "read variables", "write", "append", "create", "create without Python's open", "list"]
    tries += ["subprocess", "connect", "exec", "import"]
    landlock = landlock_version()
    tries += ["remove", "rename", "make a directory", "link", "execute"] if landlock >= 1 else []
    tries += ["kill"] if landlock >= 6 else []
    assert run(TRY_ALL.format(layer="limit()", tries=tries), str(file)) == tries
    assert run(TRY_ALL.format(layer="limit()", tries=["system"]), str(file)) == [""]  # a shell that cannot start
    assert file.read_text() == "here" and [path.name for path in tmp_path.iterdir()] == ["file"]


def landlock_version() -> int:
    code = "import ctypes; print(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1))"
    return int(run(code)[0]) if LINUX else 0


def test_what_is_open_goes_on_within_the_limits(tmp_path):
    code = """
reader, writer = os.pipe()
file = open(sys.argv[1], "wb", buffering=0)
sandbox.limit()
os.write(writer, b"through the pipe")
print(os.read(reader, 100).decode())
try:
    file.write(b"into the file")
except OSError as error:
    print(type(error).__name__)
"""
    assert run(code, str(tmp_path / "file")) == ["through the pipe", "OSError"]
    assert (tmp_path / "file").read_bytes() == b""


def test_variables_are_forgotten(tmp_path):
    code = """
out = os.fdopen(os.dup(1), "w")
os.set_inheritable(out.fileno(), True)
sandbox.isolate(out.fileno())
print(dict(os.environ), os.getenv("HF_TOKEN"), os.getcwd(), sorted(sandbox.bare_environment()), file=out, flush=True)
"""
    assert run(code, variables={"HF_TOKEN": "secret"}) == ["{} None / ['PYTHONHASHSEED']"]


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_an_answer_that_runs_python_in_a_pool(tmp_path, start_method):
    canary, file = tmp_path / "canary", tmp_path / "file"
    file.write_text("here")
    pool = WorkerPool(judging.judge, 1, time_limit=20, start_method=start_method, warm_up=judging.warm_up)
    jobs = [("e", r"\sum_{n=0}^{\infty}\frac{1}{n!}"), (r"\frac12", "0.5"), (r"\frac12", "0.6")]
    bad = [(gold, judging.exploit(str(path))) for gold in (r"\sqrt{2}", "e", r"\pi") for path in (canary, file)]
    outcomes = pool.run([*jobs, *bad, *jobs])
    assert [outcome.value for outcome in outcomes[:3] + outcomes[-3:]] == [True, True, False] * 2
    assert all(outcome.status == "failed" or outcome.value is False for outcome in outcomes[3:-3])
    assert not canary.exists() and file.read_text() == "here"
    pool.close()


DISARMED = """
import disarmed_sympy as script
sandbox.disarm_sympy()
print([name for module in list(sys.modules.values()) if module is not script and hasattr(module, "__dict__")
       for name, value in list(vars(module).items()) if any(value is old for old in script.DANGEROUS)])
for name, run in script.RUN_TEXT.items():
    try:
        run()
        print("not refused", name)
    except PermissionError:
        pass
numbers = [script.sympy.Number(text) for text in ("12", "-3", "0.5", ".5", "1e5", "3/2", "007")]
print([script.sympy.sstr(number, full_prec=False) for number in numbers])
"""


def test_sympy_runs_no_text():
    assert run(DISARMED) == ["[]", str(["12", "-3", "0.5", "0.5", "100000.0", "3/2", "7"])]


def test_sympy_computes_as_before():
    code = "import disarmed_sympy as script\n{}\nprint(*script.results(), sep='\\n')"
    expected = run(code.format(""))
    assert run(code.format("sandbox.disarm_sympy()")) == expected
    assert run(code.format("sandbox.disarm_sympy(), sandbox.lock()") + "\nsys.stdout.flush(); os._exit(0)") == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [("(8/2)*(8-2)", 24), (" [[1, -2], ['a']]\n", [[1, -2], ["a"]]), ("{'a': (1,)}", {"a": (1,)}), ("0x3a >> 1", 29)],
)
def test_arithmetic_and_literals_are_evaluated(text, value):
    assert sandbox.evaluate_arithmetic(text) == value


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "x", "len('a')", "(1).real", "'a'.upper()", "[1][0]", "[x for x in (1,)]", "lambda: 1"]
    + ["1 if 1 else 2", "f'{1}'", "(x := 1)", "1 < 2", "[*(1,)]", "print", "sin(1)", "await 1"],
)
def test_nothing_else_is_evaluated(text):
    with pytest.raises((ValueError, SyntaxError)):
        sandbox.evaluate_arithmetic(text)
    names = {"sin": abs, "open": open, "getattr": getattr, "E": 2}  # which SymPy's parser has, and more
    assert sandbox.evaluate_arithmetic("sin(-E) + y", names, {"y": 1}) == 3
    for call in ("open('x')", "getattr(E, 'real')", "sin(-E, key=1)", "sin.real", "sin(1)(2)", "open"):
        with pytest.raises(ValueError, match="only arithmetic is evaluated here"):
            sandbox.evaluate_arithmetic(call, names, {})


def test_a_worker_for_arithmetic_refuses_everything_else(tmp_path):
    file = tmp_path / "file"
    file.write_text("here")
    tries = [what for what in functions.ATTEMPTS if what not in ("eval", "compile")]  # the text of "exec" opens a file
    assert run(TRY_ALL.format(layer="lock(arithmetic=True)", tries=list(functions.ATTEMPTS)), str(file)) == tries
    assert file.read_text() == "here" and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sympy_reads_arithmetic_in_a_worker_for_it():
    code = """
import sympy
from sympy.parsing.sympy_parser import parse_expr
sandbox.disarm_sympy(arithmetic=True)
print(parse_expr("3*x**2 + sin(x)/2 + C", {"x": sympy.Symbol("x")}).diff("x"))
for text in ("__import__('os')", "x.subs(1, 2)", "getattr(x, 'a')", "Integral(x, x)", "sin('open(1)')", "S('x')"):
    try:
        print("not refused", text, parse_expr(text))
    except (ValueError, TypeError, sympy.SympifyError):
        pass
"""
    assert run(code) == ["6*x + cos(x)/2"]


def test_ordinary_judgements_are_not_refused():
    rng = random.Random(0)
    pairs = [(gold, rng.choice([gold, f"{gold}+0", rng.choice(judging.ORDINARY)])) for gold in judging.ORDINARY * 4]
    pairs += [(r"\prod_{n=1}^{5} n", "120"), (r"-80\le g(x)\le 82", "7"), (r"\frac{xyz+1}{abc+2}", r"\frac{1}{2}")]
    pairs += [("x^3-3x+1=0", "x>0"), (r"\sin\frac{\pi}{5}", "x+1"), (r"\int_0^{\infty} e^{-x^2} dx", r"\sqrt{2}")]
    pool = WorkerPool(judging.judge, 2, time_limit=60, warm_up=judging.warm_up)
    outcomes = pool.run(pairs)
    assert [(pair, outcome) for pair, outcome in zip(pairs, outcomes, strict=True) if outcome.status != "done"] == []
    assert [outcome.value for outcome in outcomes] == [judging.judge(*pair) for pair in pairs]
    pool.close()


def test_nothing_of_it_reaches_the_process_of_the_user():
    import sympy

    assert sympy.sympify("1 + 1") == 2 and sympy.lambdify(sympy.Symbol("x"), "x + 1")(1) == 2
    assert eval("1 + 1") == 2 and "PATH" in os.environ


def test_what_cannot_be_refused_by_an_exception_is_refused_by_the_end_of_the_worker():
    pool = WorkerPool(functions.swallow, 1, time_limit=20)
    assert pool.run([()]) == [Outcome("failed", "refused: os.listdir")]
    pool.close()


def test_the_environment_of_a_new_interpreter(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/lib")
    environment = sandbox.bare_environment()
    assert environment["LD_LIBRARY_PATH"] == "/lib" and environment["PYTHONHASHSEED"] == "0"
    assert set(environment) <= {*sandbox.KEPT_VARIABLES, "PYTHONHASHSEED"}
