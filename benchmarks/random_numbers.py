"""Random pairs of numbers as they are written in answers: decimals, fractions, powers of ten, units, bases, times.

A spelling is (text, value); the value is computed from the digits of the text and not from the number that was to be
spelled. A kind is a function of (rng, equal) that returns two texts, or None where the values of the two
spellings do not confirm what was meant.
"""

import random
from decimal import Decimal
from fractions import Fraction
from math import gcd

import mpmath


Spelling = tuple[str, Fraction]


def minus(rng: random.Random, negative: bool) -> str:
    return rng.choice(["-", "-", "-", "−"]) if negative else ""


def dressed(rng: random.Random, text: str, named: bool = True) -> str:
    """Puts around a number what does not change its value: a name, a font, spaces in a box."""
    options = [text] * 4 + [f" {text} ", f"{{{text}}}", rf"{text}\,"]
    if text.isdigit():
        options += [rf"\text{{{text}}}", rf"\mathbf{{{text}}}", rf"\mathrm{{{text}}}"]
    if named:
        options += [f"{name}{sign}{text}" for name in ("x", "n", "AB") for sign in ("=", " = ")][:: rng.choice([2, 5])]
    return rng.choice(options)


def grouped(rng: random.Random, digits: str) -> str:
    if len(digits) < 5:
        return digits
    head = len(digits) % 3 or 3
    groups = [digits[:head]] + [digits[i : i + 3] for i in range(head, len(digits), 3)]
    return rng.choice([",", ",", "{,}", r"\,", r",\!"]).join(groups)


# --- spellings -------------------------------------------------------------------------------------------------------


def spell_integer(rng: random.Random, n: int) -> Spelling:
    digits = str(abs(n))
    text = rng.choice([digits, digits, digits, digits + ".0", digits + ".00", grouped(rng, digits)])
    return minus(rng, n < 0) + text, Fraction(int(digits)) * (-1 if n < 0 else 1)


def spell_decimal(rng: random.Random, digits: int, places: int) -> Spelling:
    """Spells `digits` · 10^-places with all its places, with more, or as a fraction."""
    value = Decimal(digits).scaleb(-places)
    text = f"{abs(value):.{places + rng.choice([0, 0, 0, 1, 2])}f}"
    size = Fraction(text)
    if text.startswith("0.") and rng.random() < 0.3:
        text = text[1:]
    if rng.random() < 0.15:
        whole, _, rest = text.partition(".")
        text = f"{grouped(rng, whole) if whole else whole}.{rest}"
    if rng.random() < 0.15:
        return spell_fraction(rng, Fraction(value))
    return minus(rng, value < 0) + text, -size if value < 0 else size


def spell_fraction(rng: random.Random, q: Fraction) -> Spelling:
    a, b = abs(q.numerator), q.denominator
    k = rng.choice([1, 1, 1, 2, 3, 5])
    a, b, sign = a * k, b * k, -1 if q < 0 else 1
    whole, rest = divmod(a, b)
    value = sign * Fraction(a, b)
    style = rng.choice(["latex", "latex", "latex", "slash", "mixed", "sign inside"])
    command = rng.choice([r"\frac", r"\frac", r"\dfrac", r"\tfrac"])
    if b == 1 and rng.random() < 0.7:
        return spell_integer(rng, sign * a)
    if style == "mixed" and whole and rest:
        text = rng.choice(
            [rf"{whole}{command}{{{rest}}}{{{b}}}", rf"{whole} {rest}/{b}", rf"{whole}\frac {{{rest}}}{{{b}}}"]
        )
        return minus(rng, sign < 0) + text, sign * (whole + Fraction(rest, b))
    if style == "sign inside" and sign < 0:
        return rng.choice([rf"{command}{{-{a}}}{{{b}}}", rf"{command}{{{a}}}{{-{b}}}"]), value
    if style == "slash":
        return f"{minus(rng, sign < 0)}{a}{rng.choice(['/', '/', ' / '])}{b}", value
    single = a < 10 and b < 10
    text = rng.choice([rf"{command}{a}{b}", rf"{command}{a}{{{b}}}", rf"{command} {a} {b}"]) if single else ""
    text = (
        text
        if text and rng.random() < 0.5
        else rng.choice([f"{command}{{{a}}}{{{b}}}", f"{command}{{ {a} }}{{ {b} }}"])
    )
    return minus(rng, sign < 0) + text, value


def spell_scientific(rng: random.Random, mantissa: int, exponent: int) -> Spelling:
    """Spells `mantissa` · 10^exponent."""
    shift = rng.choice([len(str(abs(mantissa))) - 1] * 4 + [0, 1])
    front = f"{abs(Decimal(mantissa).scaleb(-shift)):f}" + rng.choice(["", "", "0"]) * (shift > 0)
    power = exponent + shift
    up = f"{{{power}}}" if power < 0 or power > 9 or rng.random() < 0.7 else str(power)
    times = rng.choice([r"\times", r"\times ", r" \times ", r"\cdot ", r" \cdot ", "×", " × "])
    text = rng.choice(
        [f"{front}{rng.choice('eeE')}{power}"] + [f"{front}{times}10^{up}"] * 3 + [f"{front}{times}10 ^ {up}"]
    )
    sign = -1 if mantissa < 0 else 1
    value = sign * Fraction(front) * Fraction(10) ** power
    if -3 <= power <= 7 and rng.random() < 0.3:
        text = f"{Decimal(mantissa).scaleb(exponent).copy_abs():f}"
        value = sign * Fraction(text)
    return minus(rng, sign < 0) + text, value


def near(rng: random.Random, n: int) -> int:
    """Another integer: another last digit, another sign, one digit dropped or two exchanged."""
    digits = str(abs(n))
    i = rng.randrange(len(digits))
    other = rng.choice(
        [n + 1, n - 1, -n, n + 10, int(digits[:i] + digits[i + 1 :] or 0), int(digits[i:] + digits[:i]), n * 10]
    )
    return other if other != n else n + 1


def confirmed(first: Spelling, second: Spelling, equal: bool) -> tuple[str, str] | None:
    return (first[0], second[0]) if (first[1] == second[1]) is equal else None


def dressed_pair(rng, first: Spelling, second: Spelling, equal: bool, named: bool = True):
    pair = confirmed(first, second, equal)
    return pair and (pair[0], dressed(rng, pair[1], named))


# --- kinds -----------------------------------------------------------------------------------------------------------


def integer(rng, equal):
    n = rng.randint(-999, 9999) if rng.random() < 0.6 else rng.randint(10**4, 10 ** rng.randint(5, 40))
    return dressed_pair(rng, spell_integer(rng, n), spell_integer(rng, n if equal else near(rng, n)), equal)


def decimal(rng, equal):
    places, digits = rng.randint(1, 4), rng.randint(-9999, 99999)
    other, other_places = digits, places
    if not equal:
        cut = places - 1
        rounded = (round(Decimal(digits).scaleb(-1)), cut) if cut else (digits, places + 1)
        other, other_places = rng.choice([(near(rng, digits), places), (digits, places - 1), rounded])
    return dressed_pair(rng, spell_decimal(rng, digits, places), spell_decimal(rng, other, other_places), equal)


def fraction(rng, equal):
    a, b = rng.choice([-1, 1, 1]) * rng.randint(1, 99), rng.choice([rng.randint(2, 9), rng.randint(2, 99)])
    q = Fraction(a, b)
    others = [
        Fraction(a + 1, b),
        Fraction(a, b + 1),
        1 / q,
        -q,
        q + 1,
        q - 1,
        q.numerator % b * (q // 1) * Fraction(1, b),
    ]
    return dressed_pair(rng, spell_fraction(rng, q), spell_fraction(rng, q if equal else rng.choice(others)), equal)


def rounded(rng, equal):
    """A root or a fraction against its first digits: ten places are equal to it, two are not."""
    n = rng.choice([n for n in range(2, 200) if int(n**0.5) ** 2 != n])
    d = rng.choice([3, 7, 9, 11, 13, 17])
    a = rng.choice([a for a in range(1, 60) if gcd(a, d) == 1])
    with mpmath.workdps(40):
        exact, text = rng.choice([(mpmath.sqrt(n), rf"\sqrt{{{n}}}"), (mpmath.mpf(a) / d, rf"\frac{{{a}}}{{{d}}}")])
        number = Decimal(mpmath.nstr(exact, 35))
        places = rng.randint(9, 15) if equal else 2
        digits = str(round(number, places))
        error = abs(mpmath.mpf(digits) - exact)
        right = error <= mpmath.mpf(10) ** -places / 2 if equal else error > 1e-5
    return (text, digits) if right else None


def scientific(rng, equal):
    mantissa, exponent = (
        rng.choice([-1, 1, 1, 1]) * rng.randint(1, 999),
        rng.choice([rng.randint(-35, 35), rng.randint(-6, 6)]),
    )
    other = (mantissa, exponent)
    if not equal:
        other = rng.choice(
            [(near(rng, mantissa), exponent), (mantissa, exponent + rng.choice([-1, 1])), (mantissa, -exponent - 1)]
        )
    return dressed_pair(rng, spell_scientific(rng, mantissa, exponent), spell_scientific(rng, *other), equal)


def percentage(rng, equal):
    digits, places = rng.randint(1, 999), rng.choice([0, 0, 1])
    other = (digits, places) if equal else rng.choice([(near(rng, digits), places), (digits, places + 1)])
    spelled = [spell_decimal(rng, *d) if d[1] else spell_integer(rng, d[0]) for d in ((digits, places), other)]
    sign = [r"\%", r"\%", "%", r" \%", r"\,\%", r"\text{ percent}", " percent", r" \text{ percent}"]
    return confirmed(*((text + rng.choice(sign), value) for text, value in spelled), equal)


def money(rng, equal):
    cents = rng.randint(101, 10**7)
    spelled = []
    for c in (cents, cents if equal else rng.choice([cents + 1, cents - 10, cents + 100, cents * 10])):
        whole, rest = divmod(c, 100)
        amount = grouped(rng, str(whole)) if rng.random() < 0.5 else str(whole)
        amount += f".{rest:02}" if rest or rng.random() < 0.5 else ""
        text = rng.choice(
            [rf"\${amount}", rf"\$ {amount}", rf"{amount}\text{{ dollars}}", f"{amount} dollars", amount]
        )
        spelled.append((text, Fraction(whole * 100 + rest, 100)))
    if not equal and rng.random() < 0.2:
        return rf"\${cents % 90 + 2}", rf"{cents % 90 + 2}\text{{ cents}}"
    return confirmed(*spelled, equal)


UNITS = {  # spellings of a unit
    "cm": [r"\text{ cm}", r"\,\mathrm{cm}", " cm", r"\text{ centimeters}", r"\mathrm{~cm}", r"\,\text{cm}"],
    "m": [r"\text{ m}", r"\,\mathrm{m}", r"\text{ meters}", r"\mathrm{~m}", " meters"],
    "km": [r"\text{ km}", r"\,\mathrm{km}", " km", r"\text{ kilometers}"],
    "cm²": [r"\text{ cm}^2", r"\,\mathrm{cm}^{2}", r"\text{ square centimeters}", r"\text{ cm}^{2}"],
    "m²": [r"\text{ m}^2", r"\,\mathrm{m}^2", r"\text{ square meters}"],
    "m/s": [r"\text{ m/s}", r"\,\mathrm{m/s}", " m/s", r"\text{ meters per second}"],
    "km/h": [r"\text{ km/h}", r"\,\mathrm{km/h}", " km/h"],
    "kg": [r"\text{ kg}", r"\,\mathrm{kg}", " kg", r"\text{ kilograms}"],
    "g": [r"\text{ g}", r"\,\mathrm{g}", r"\text{ grams}"],
    "s": [r"\text{ s}", r"\,\mathrm{s}", r"\text{ seconds}", " seconds"],
    "min": [r"\text{ minutes}", " minutes", r"\text{ min}"],
    "h": [r"\text{ hours}", " hours", r"\,\text{hours}"],
    "°": [r"^\circ", r"^{\circ}", "°", r"\text{ degrees}", " degrees"],
    "J": [r"\text{ J}", r"\,\mathrm{J}", r"\text{ joules}"],
    "N": [r"\text{ N}", r"\,\mathrm{N}", r"\text{ newtons}"],
}
OTHER_UNIT = {"cm": "m", "m": "km", "km": "m", "kg": "g", "g": "kg", "s": "min", "min": "h", "h": "min", "m²": "cm²"}


def quantity(rng, equal):
    """A unit written differently or left out; or another number, or the same number of another unit of its kind."""
    unit = rng.choice(sorted(UNITS))
    digits, places = rng.randint(1, 999), rng.choice([0, 0, 1, 2])
    exponent = rng.randint(-9, 9)
    scientific_notation = rng.random() < 0.2 and unit not in ("°", "m²", "cm²")

    def spell(n: int) -> Spelling:
        if scientific_notation:
            return spell_scientific(rng, n, exponent)
        return spell_decimal(rng, n, places) if places else spell_integer(rng, n)

    other_unit = rng.random() < 0.3 and unit in OTHER_UNIT
    first, second = spell(digits), spell(digits if equal or other_unit else near(rng, digits))
    unit_of_second = OTHER_UNIT[unit] if other_unit and not equal else unit
    pair = confirmed(first, second, equal or other_unit)
    if pair is None:
        return None
    written = [text + rng.choice(UNITS[u]) for text, u in zip(pair, (unit, unit_of_second), strict=True)]
    if rng.random() < 0.3 and unit_of_second == unit:
        bare = rng.randrange(2)
        written[bare] = pair[bare]
    return tuple(written)


def based(rng, equal):
    base = rng.choice([2, 3, 4, 5, 6, 7, 8, 9, 12, 16])
    alphabet = "0123456789ABCDEF"
    digits = rng.choice(alphabet[1:base]) + "".join(rng.choice(alphabet[:base]) for _ in range(rng.randint(1, 6)))
    other, other_base = digits, base
    if not equal:
        i = rng.randrange(1, len(digits))
        bases = [b for b in (7, 8, 9, 11, 16) if b != base and b > int(max(digits), 16)]
        if bases and rng.random() < 0.3:
            other_base = rng.choice(bases)
        else:
            other = digits[:i] + alphabet[(int(digits[i], 16) + 1) % base] + digits[i + 1 :]
    forms = ["{d}_{b}", "{d}_{{{b}}}", "({d})_{{{b}}}", r"{d}_{{{b}}}", r"\text{{{d}}}_{{{b}}}"]
    texts = [
        rng.choice(forms[1:] if b > 9 else forms).format(d=d, b=b) for d, b in ((digits, base), (other, other_base))
    ]
    return tuple(texts) if ((int(digits, base), base) == (int(other, other_base), other_base)) is equal else None


def time_of_day(rng, equal):
    hour, minute, half = rng.randint(1, 12), rng.randint(1, 59), rng.choice(["am", "pm", None])
    other = (hour, minute, half)
    if not equal:
        swapped = {"am": "pm", "pm": "am", None: None}[half]
        other = rng.choice([(hour, minute % 59 + 1, half), (hour % 12 + 1, minute, half), (hour, minute, swapped)])
    texts = []
    for h, m, which in ((hour, minute, half), other):
        letters = "" if which is None else which[0]
        endings = [
            rf"\text{{ {letters}.m.}}",
            rf" \text{{ {letters}.m.}}",
            f" {letters.upper()}M",
            rf"\text{{ {letters}m}}",
        ]
        texts.append(f"{h}:{m:02}" + (rng.choice(endings) if which else ""))
    return tuple(texts) if ((hour, minute, half) == other) is equal else None


NUMBERS = {
    "integer": integer,
    "decimal": decimal,
    "fraction": fraction,
    "rounded": rounded,
    "scientific": scientific,
    "percentage": percentage,
    "money": money,
    "quantity": quantity,
    "base": based,
    "time": time_of_day,
}
