r"""
What a worker gives up before it reads text that a model has written.

A judgement must not run what it reads. SymPy makes that hard: it turns text into Python source in several places, so
that an answer such as `\sum_{n=0}^{\infty} \frac{\bar{open('x','w')}^n}{n!}` writes a file. A worker therefore takes
four steps once everything is imported and warm. `disarm_sympy`, `limit` and `lock` each stop that answer alone.

1. `disarm_sympy`: the functions of SymPy that run text as Python now refuse, or are replaced by ones that run nothing.
2. `isolate`: no environment variables (tokens, passwords), no open files, and another current directory.
3. `limit`: what the kernel can take away. On every POSIX system the limits of `resource` keep a worker from opening
   files, from making them larger, from dumping core and from starting processes (root is exempt from the last one). On
   Linux, address space is limited too, and nothing that is executed gains privileges. Linux with Landlock (from 5.13)
   also refuses all access to the file system, even to remove and rename files (but not to change modes and times), TCP
   from 6.7 on, and signals to other processes from 6.12 on.
4. `lock`: an audit hook. Python itself refuses `exec`, `compile`, imports, files, sockets, processes and whatever else
   it audits. Only the few events that ordinary judgements raise are allowed.

This guarantees that text does not become code in any way that Python audits, and that no code that Python runs opens a
file, a socket or a process. It does not guarantee more: an audit hook is no sandbox against *native* code, so only the
limits of the kernel stand against a fault in the interpreter or in a C library. Without Landlock, they do not keep
native code from removing files of the user or from signalling other processes. A forked worker also has a copy of its
parent's memory. And code that does run, however it came to, can return any verdict. Windows has no protection:
the pool does not run there.

Some verifiers of puzzles call `eval` on an answer, or have SymPy do so. A worker made for them (`arithmetic=True`) may
compile and run text, but their `eval`, and SymPy's, is `evaluate_arithmetic`, which looks at the syntax tree first: it
knows numbers, operators, containers and elementary functions, and no attributes, imports or other calls.
"""

import ast
import contextlib
import ctypes
import functools
import importlib
import operator
import os
import re
import sys
from collections.abc import Callable


# What the interpreter of a virtual environment and its shared libraries may need to start: where they are, how paths
# are encoded and where bytecode is cached. `sys.path` is passed on separately.
KEPT_VARIABLES = (
    ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "PYTHONHOME", "__PYVENV_LAUNCHER__")
    + ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8")
    + ("PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE")
)
# `pickle.find_class` is for jobs that hold objects of loaded modules; importing a module is a separate event.
ALLOWED_EVENTS = frozenset({"builtins.id", "array.__new__", "pickle.find_class", "sys.unraisablehook", "time.sleep"})
# What a worker for arithmetic raises as well: `ast.parse` and `eval` of a tree that was looked at
ARITHMETIC_EVENTS = frozenset({"compile", "exec"})
# `inspect.signature`, which SymPy calls on its functions, reads these.
READABLE_ATTRIBUTES = ("__code__", "__defaults__", "__kwdefaults__")

# Modules of SymPy 1.14 that its functions import only when they are called, except printers, plots and physics
_ON_FIRST_USE = (
    ["assumptions.facts", "assumptions.satask", "assumptions.lra_satask", "assumptions.wrapper"]
    + [f"assumptions.handlers.{name}" for name in ("calculus", "matrices", "ntheory", "order", "sets")]
    + [f"combinatorics.{name}" for name in ("coset_table", "fp_groups", "galois", "homomorphisms")]
    + ["concrete.delta", "discrete.recurrences", "integrals.prde", "integrals.manualintegrate"]
    + ["logic.algorithms.dpll", "logic.algorithms.dpll2", "physics.units"]
    + ["matrices.expressions.applyfunc", "polys.dispersion", "polys.distributedmodules"]
    + [f"polys.domains.{name}" for name in ("old_fractionfield", "old_polynomialring", "quotientring")]
    + ["polys.numberfields.resolvent_lookup", "tensor.array.array_derivatives", "tensor.array.expressions", "abc"]
    + [f"sets.handlers.{name}" for name in ("add", "functions", "issubset", "mul", "power")]
)
# Packages that SymPy would use if it found them. It is told that there are none.
_OPTIONAL = ("numpy", "scipy", "pycosat", "pysat", "z3")

_ARITHMETIC = (
    (ast.Expression, ast.Constant, ast.BinOp, ast.UnaryOp, ast.List, ast.Tuple, ast.Set, ast.Dict)
    + (ast.Name, ast.Call)  # these two are looked at once more
    + (ast.operator, ast.unaryop, ast.expr_context)
)
# Names that SymPy's parser may leave in the Python that it writes, or put there
_ELEMENTARY = frozenset(
    ("Integer", "Float", "Rational", "Symbol", "Abs", "Max", "Min", "abs", "max", "min", "pi", "E", "I", "oo")
    + ("sqrt", "cbrt", "exp", "log", "ln", "sign", "floor", "ceiling", "factorial", "erf")
    + ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "sech", "csch")
    + ("asin", "acos", "atan", "acot", "asec", "acsc", "asinh", "acosh", "atanh")
)

_FRACTION = re.compile(r"[+-]?[0-9]+(?:/0*[1-9][0-9]*)?")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][+-]?[0-9]+)?")

_PR_SET_NO_NEW_PRIVS = 38
# These numbers are the same on all architectures but alpha.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_VERSION_FLAG = 1

Refuse = Callable[[str], None]


def bare_environment() -> dict[str, str]:
    """
    The environment of a new interpreter.

    Hashes are not random, so that sets have the same order, and SymPy takes the same path, in each worker.
    """
    return {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | {"PYTHONHASHSEED": "0"}


def raise_permission_error(what: str):
    """Refuse by an exception. A library may catch it, so a worker ends itself instead."""
    raise PermissionError(f"{what} is refused in a worker")


def seal(keep: int, memory_limit_mb: int | None, refuse: Refuse = raise_permission_error, arithmetic: bool = False):
    """
    Take all four steps. There is no way back.

    Args:
        keep (`int`):
            File descriptor that stays open.
        memory_limit_mb (`int` or `None`):
            Megabytes of address space on top of what is in use now.
        refuse (`callable`, *optional*):
            Called with the name of what is refused.
        arithmetic (`bool`, *optional*, defaults to `False`):
            Whether arithmetic that stands in a text may be evaluated, by [`evaluate_arithmetic`] alone.
    """
    disarm_sympy(refuse, arithmetic)
    isolate(keep)
    limit(memory_limit_mb)
    lock(refuse, arithmetic)


def evaluate_arithmetic(source: str, names: dict | None = None, more_names: dict | None = None):
    """
    `eval` for text that is arithmetic or a literal; stands in for it in modules of others, see [`replace_eval`].

    With `names`, which SymPy gives, elementary functions and constants of these, and the names of `more_names`, may
    occur too.

    Raises:
        `ValueError`: There is anything else in the text: an attribute, an index, another name or another call.
        `SyntaxError`: It is not an expression.
    """
    tree = ast.parse(source.strip(), mode="eval")
    known = {*_ELEMENTARY, *(more_names or ())} if names is not None else set()
    for node in ast.walk(tree):
        name = node.func if isinstance(node, ast.Call) else node
        if (
            not isinstance(node, _ARITHMETIC)
            or (isinstance(node, ast.Call) and (node.keywords or not isinstance(name, ast.Name)))
            or (isinstance(name, ast.Name) and name.id not in known)
        ):
            raise ValueError(f"only arithmetic is evaluated here, found {type(node).__name__}")
    return eval(compile(tree, "<arithmetic>", "eval"), (names or {}) | {"__builtins__": {}}, more_names or {})


def replace_eval(*packages: str):
    """Put [`evaluate_arithmetic`] in the place of `eval` in all loaded modules of these packages."""
    for name, module in list(sys.modules.items()):
        if module is not None and any(name == package or name.startswith(f"{package}.") for package in packages):
            vars(module)["eval"] = evaluate_arithmetic


def disarm_sympy(refuse: Refuse = raise_permission_error, arithmetic: bool = False):
    """
    Keep SymPy, if it is loaded, from running text as Python.

    - `lambdify` refuses in all loaded modules, as do `lambdastr`, `eval_expr`, `preview`, `autowrap` and `ufuncify`.
      Only `evalf`, which sums series with it, gets a `lambdify` that knows polynomials.
    - `parse_expr`, and with it `sympify` of a string, reads numbers only. mpmath's `identify` finds nothing: SymPy
      would read its formulas in the same way when it looks for a simpler form of a number. For `arithmetic` they read
      expressions as before, with [`evaluate_arithmetic`] as their `eval`.
    - The functions on monomials, whose source SymPy writes anew for each number of variables, become ordinary ones.

    What SymPy imports on first use is imported here, because `lock` refuses it later. Packages that SymPy can do
    without are marked as absent, unless they are loaded.
    """
    if "sympy" not in sys.modules:
        return
    for name in _ON_FIRST_USE:
        with contextlib.suppress(ImportError):  # another version of SymPy lacks it
            importlib.import_module(f"sympy.{name}")
    for name in _OPTIONAL:
        # pyrefly: ignore[no-matching-overload]  # None makes an import fail, which the stubs of `sys` leave out
        sys.modules.setdefault(name, None)
    import mpmath
    from sympy.polys.monomials import MonomialOps

    numbers = _number_reader(refuse)
    parser = "sympy.parsing.sympy_parser"
    replaced = {} if arithmetic else {f"{parser}.parse_expr": numbers}
    for name in (
        *(() if arithmetic else (f"{parser}.eval_expr",)),
        "sympy.utilities.lambdify.lambdify",
        "sympy.utilities.lambdify.lambdastr",
        "sympy.printing.preview.preview",
        "sympy.utilities.autowrap.autowrap",
        "sympy.utilities.autowrap.ufuncify",
    ):
        replaced[name] = _refusal(name, refuse)
    for name, replacement in replaced.items():
        module, _, attribute = name.rpartition(".")
        if module in sys.modules:  # `sympy.utilities.lambdify` is a function as an attribute, and a module here
            _replace_everywhere(getattr(sys.modules[module], attribute), replacement)
    vars(importlib.import_module("sympy.core.evalf"))["lambdify"] = _polynomial
    mpmath.identify = lambda *args, **kwargs: None
    vars(importlib.import_module(parser))["eval"] = (
        evaluate_arithmetic if arithmetic else _refusal(f"{parser}.eval", refuse)
    )
    MonomialOps._build = lambda self, code, name: _MONOMIALS[name]


def _replace_everywhere(old, new):
    for module in list(sys.modules.values()):
        names = vars(module) if hasattr(module, "__dict__") else {}
        for name in [name for name, value in list(names.items()) if value is old]:
            names[name] = new


def _refusal(name: str, refuse: Refuse) -> Callable:
    def refused(*args, **kwargs):
        refuse(name)

    return refused


def _polynomial(variable, expression) -> Callable[[int], int]:
    """`lambdify` as `evalf` needs it: for polynomials with whole coefficients. For others `evalf` has another way."""
    from sympy import Poly

    coefficients = Poly(expression, variable).all_coeffs()
    if not all(coefficient.is_Integer for coefficient in coefficients):
        raise NotImplementedError
    coefficients = [int(coefficient) for coefficient in coefficients]
    return lambda value: functools.reduce(lambda total, coefficient: total * value + coefficient, coefficients, 0)


def _number_reader(refuse: Refuse) -> Callable:
    from sympy import Float, Rational

    def read_number(text, *args, **kwargs):
        if _FRACTION.fullmatch(text):
            return Rational(*map(int, text.split("/")))
        if _DECIMAL.fullmatch(text):
            return Float(text)
        refuse("sympy.parse_expr")

    return read_number


def _monomial_div(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    quotient = tuple(map(operator.sub, a, b))
    return None if min(quotient) < 0 else quotient


_MONOMIALS = {
    "monomial_mul": lambda a, b: tuple(map(operator.add, a, b)),
    "monomial_pow": lambda a, k: tuple(x * k for x in a),
    "monomial_mulpow": lambda a, b, k: tuple(x + y * k for x, y in zip(a, b, strict=True)),
    "monomial_ldiv": lambda a, b: tuple(map(operator.sub, a, b)),
    "monomial_div": _monomial_div,
    "monomial_lcm": lambda a, b: tuple(map(max, a, b)),
    "monomial_gcd": lambda a, b: tuple(map(min, a, b)),
}


def isolate(keep: int):
    """
    Forget the environment, leave the directory and close every file but `keep`. 0, 1 and 2 become the null device.

    The variables that the process was started with stay in its memory and in `/proc/self/environ`. `limit` and `lock`
    keep that file out of reach, and a new interpreter starts with `bare_environment` in the first place.
    """
    os.environ.clear()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        if standard != keep:
            os.dup2(null, standard)
    close_files(keep)


def close_files(keep: int):
    """Close every file but 0, 1, 2 and `keep`."""
    os.closerange(3, keep)
    os.closerange(max(3, keep + 1), os.sysconf("SC_OPEN_MAX"))


def limit(memory_limit_mb: int | None = None):
    """Set the limits of the kernel, as far as the system has them: see the head of this file."""
    import resource

    if sys.platform.startswith("linux"):
        if memory_limit_mb is not None:
            with open("/proc/self/statm", encoding="utf-8") as file:
                in_use = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            _lower(resource.RLIMIT_AS, in_use + memory_limit_mb * 2**20)
        _restrict_files()
    # With a limit of one descriptor, which 0 takes up, none can be opened. `poll` needs as many as it watches.
    for name, most in {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0, "RLIMIT_NPROC": 0, "RLIMIT_NOFILE": 1}.items():
        if hasattr(resource, name):
            _lower(getattr(resource, name), most)


def _lower(limit: int, value: int):
    import resource

    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _restrict_files():
    """Take away new privileges and, with Landlock, all rights on files, TCP ports and other processes."""
    libc = ctypes.CDLL(None)
    libc.syscall.restype = ctypes.c_long
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG)
    if version < 1:
        return
    # All rights that this version knows are handled and no rule grants one. A right that it does not know is an error.
    files = 2 ** {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16) - 1
    rights = [files] + ([0b11] if version >= 4 else []) + ([0b11] if version >= 6 else [])
    attribute = (ctypes.c_uint64 * len(rights))(*rights)
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, attribute, ctypes.c_size_t(ctypes.sizeof(attribute)), 0)
    if ruleset >= 0:
        libc.syscall(_LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), 0)
        os.close(ruleset)


def lock(refuse: Refuse = raise_permission_error, arithmetic: bool = False):
    """
    Refuse everything that Python audits, with three exceptions: `ALLOWED_EVENTS` (and `ARITHMETIC_EVENTS` for
    `arithmetic`), reading `READABLE_ATTRIBUTES`, and importing what is marked as absent in `sys.modules` now, which
    fails without a look at any file.

    Python has no way to remove an audit hook.
    """
    absent = frozenset(name for name, module in sys.modules.items() if module is None)

    allowed = ALLOWED_EVENTS | ARITHMETIC_EVENTS if arithmetic else ALLOWED_EVENTS

    def hook(event: str, arguments: tuple, allowed=allowed, readable=READABLE_ATTRIBUTES, absent=absent):
        if event in allowed:
            return
        if (event == "import" and arguments[0] in absent) or (
            event == "object.__getattr__" and arguments[1] in readable
        ):
            return
        refuse(f"import of {arguments[0]!r:.100}" if event == "import" else event)
        raise_permission_error(event)

    sys.addaudithook(hook)
