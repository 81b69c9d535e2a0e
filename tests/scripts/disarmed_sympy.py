"""What SymPy computes by text of its own, and what it must not do with the text of others."""

import random

import sympy
import sympy.core.backend
import sympy.printing.preview
import sympy.solvers.solvers
from sympy import ZZ, Rational, Sum, factorial, oo, ring
from sympy.utilities.lambdify import lambdastr


DANGEROUS = [sympy.lambdify, lambdastr, sympy.parse_expr, sympy.preview]  # as they were when this was imported
x, n = sympy.symbols("x n")

RUN_TEXT = {
    "lambdify": lambda: sympy.lambdify(x, x),
    "sympify": lambda: sympy.sympify("x + 1"),
    "sum of numbers": lambda: sympy.parse_expr("1 + 1"),
    "call": lambda: x + sympy.S("open('canary', 'w')"),
    "nsolve": lambda: sympy.nsolve(x**2 - 2, x, 1),
    "number": lambda: sympy.Number("x"),
    "preview": lambda: sympy.preview(x),
}


def results():
    rng = random.Random(0)
    lines = []
    for variables in range(1, 6):
        polynomials, *_ = ring([f"x{i}" for i in range(variables)], ZZ)

        def some(polynomials=polynomials, variables=variables):
            terms = {tuple(rng.randint(0, 2) for _ in range(variables)): ZZ(rng.randint(1, 9)) for _ in range(3)}
            return polynomials.from_dict(terms)

        for _ in range(5):
            a, b, c = some(), some(), some()
            lines.append(
                [a * b, (a * c).gcd(b * c), (a * c).lcm(b * c), (a * b).div([b]), a**3, (a * b + c).div([a, b])]
            )
    terms = [
        1 / factorial(n),
        (-1) ** n / factorial(2 * n),
        n**3 / sympy.Integer(7) ** n,
        Rational(2, 3) ** n * (n + 1),
    ]
    lines += [Sum(term, (n, 0, oo)).evalf(20) for term in [*terms, 1 / (n**2 + n + 1), 1 / (2 * n + 1) ** 2]]
    lines += [sympy.cancel((x**2 - 1) / (x - 1)), sympy.radsimp(sympy.sqrt(3) / (4 * sympy.sqrt(2) - 3))]
    lines += [
        bool(sympy.satisfiable(sympy.And(*sympy.symbols("p q")))),
        sympy.ask(sympy.Q.positive(x**2 + 1), sympy.Q.real(x)),
    ]
    return [str(line) for line in lines]
