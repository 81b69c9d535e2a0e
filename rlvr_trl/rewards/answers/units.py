"""Units of measurement: what the words after a number measure, and which multiple of the base units they are."""

from fractions import Fraction
from typing import NamedTuple

from .commands import NAMES
from .tokens import Token, Unreadable


class Unit(NamedTuple):
    """A product of powers of base units, sorted, times an exact factor. A counted noun is its own base unit."""

    dimensions: tuple[tuple[str, int], ...] = ()
    factor: Fraction = Fraction(1)

    @property
    def noun(self) -> bool:
        """Whether a word that the table does not know is part of it, such as apples."""
        return any(base.startswith("noun ") for base, _ in self.dimensions)


# Multiples of base units, by names separated by spaces.
_LENGTH = {
    "m meter metre": 1,
    "ft foot feet": "0.3048",
    "inch in": "0.0254",
    "ly lightyear": 9_460_730_472_580_800,
    "Å": "1e-10",
    "AU": 149_597_870_700,
    "pc parsec": 30_856_775_814_913_673,
    "yd yard": "0.9144",
    "mi mile": "1609.344",
}
_MASS = {"g gram gramme": 1, "lb pound": "453.59237", "oz ounce": "28.349523125", "tonne": 10**6}
_TIME = {"s sec second": 1, "min minute": 60, "h hr hour": 3600, "day d": 86400, "week wk": 604800}
_BASES: dict[str, tuple[dict[str, int], dict]] = {
    "length": ({"length": 1}, _LENGTH),
    "mass": ({"mass": 1}, _MASS),
    "time": ({"time": 1}, _TIME),
    "calendar": ({"month": 1}, {"month mo": 1, "year yr": 12}),
    "volume": ({"length": 3}, {"L l liter litre": "0.001", "cc": "0.000001"}),
    "gallon": ({"gallon": 1}, {"gallon gal": 1, "quart qt": "0.25", "pint pt": "0.125", "cup": "0.0625"}),
    "area": ({"length": 2}, {"hectare ha": 10_000}),
    "acre": ({"acre": 1}, {"acre": 1}),
    "speed": ({"length": 1, "time": -1}, {"mph": Fraction(1609344, 3600000), "kph kmh kmph": Fraction(1000, 3600)}),
    "frequency": ({"time": -1}, {"Hz hertz": 1, "Bq": 1, "rpm": Fraction(1, 60)}),
    "force": ({"mass": 1, "length": 1, "time": -2}, {"N newton": 1000, "dyn dyne": "0.01"}),
    "energy": ({"mass": 1, "length": 2, "time": -2}, {"J joule": 1000, "erg": "0.0001", "cal calorie": 4184}),
    "electronvolt": ({"electronvolt": 1}, {"eV electronvolt": 1}),
    "power": ({"mass": 1, "length": 2, "time": -3}, {"W watt": 1000}),
    "pressure": ({"mass": 1, "length": -1, "time": -2}, {"Pa pascal": 1000, "atm": 101_325_000, "bar": 10**8}),
    "charge": ({"current": 1, "time": 1}, {"C coulomb": 1}),
    "field": ({"tesla": 1}, {"T tesla": 1}),
    "flux": ({"weber": 1}, {"Wb weber": 1}),
    "capacitance": ({"farad": 1}, {"F farad": 1}),
    "inductance": ({"henry": 1}, {"H henry": 1}),
    "level": ({"decibel": 1}, {"dB decibel": 1}),
    "current": ({"current": 1}, {"A amp ampere": 1}),
    "voltage": ({"voltage": 1}, {"V volt": 1}),
    "resistance": ({"voltage": 1, "current": -1}, {"Ohm ohm Omega Ω": 1}),
    "amount": ({"mole": 1}, {"mol mole": 1}),
    "molarity": ({"mole": 1, "length": -3}, {"M": 1000}),
    "kelvin": ({"kelvin": 1}, {"K kelvin": 1}),
    "celsius": ({"celsius": 1}, {"°C celsius": 1}),
    "fahrenheit": ({"fahrenheit": 1}, {"°F fahrenheit": 1}),
    "angle": ({"degree": 1}, {"degree deg °": 1, "arcmin arcminute": Fraction(1, 60), "arcsec": Fraction(1, 3600)}),
    "radian": ({"radian": 1}, {"radian rad": 1}),
    "dollar": ({"dollar": 1}, {"$ dollar USD usd buck": 1, "cent ¢ penny pennies penny": "0.01"}),
    "euro": ({"euro": 1}, {"€ euro EUR": 1}),
    "sterling": ({"sterling": 1}, {"£ GBP": 1}),
    "yuan": ({"yuan": 1}, {"¥ yuan yen RMB CNY JPY 元 圆 円 块": 1}),
    "rupee": ({"rupee": 1}, {"rupee Rs INR": 1}),
}
_PREFIXES = {
    "k": 1000,
    "c": "0.01",
    "d": "0.1",
    "m": "0.001",
    "M": 10**6,
    "G": 10**9,
    "n": "1e-9",
    "p": "1e-12",
    "μ": "1e-6",
    "mu": "1e-6",
}
_PREFIX_WORDS = {"kilo": 1000, "centi": "0.01", "milli": "0.001", "micro": "1e-6", "nano": "1e-9", "mega": 10**6}
_PREFIXED = "m g s L l Hz N J W Pa A V mol eV cal bar F H T C Omega Ohm"
_PREFIXED_WORDS = (
    "meter metre gram second liter litre hertz newton joule watt pascal volt amp ampere mole electronvolt calorie ohm"
)


def _unit_table() -> dict[str, Unit]:
    table = {}
    for dimensions, multiples in _BASES.values():
        for names, factor in multiples.items():
            for name in names.split():
                table[name] = Unit(tuple(sorted(dimensions.items())), Fraction(factor))
    for prefixes, names in ((_PREFIXES, _PREFIXED), (_PREFIX_WORDS, _PREFIXED_WORDS)):
        for name in names.split():
            for prefix, factor in prefixes.items():
                table.setdefault(prefix + name, Unit(table[name].dimensions, table[name].factor * Fraction(factor)))
    return table


UNITS = _unit_table()
# Words that change a number or say something else about it: 5 squared, 5 thirds, 5 more than x, 5 below zero.
_NO_NOUNS = """
about above ago and approximately are at bar base basi be below but by correct cos could couple cubed decreased
divided double doubled eighth else equal equals except factorial false fewer fifth first for fourth from gros gross
half halve halved hundredth if incorrect increased instead into inverse is less log may maybe might mil minus mod
modulo more multiplied nd negative ninth no not on or other otherwise over pair par percent permille plus positive
power prime quarter raised rd reciprocal root score seventh should sin sixth some squared st tan ten tenth th than
then third thousandth times to triple tripled twelfth twice under unless was when where with without wrong yes zero
"""
NO_NOUNS = frozenset(_NO_NOUNS.split())
# Those of them that are nouns in the plural, or stand before a noun: 7 primes, 3 real roots, 4 positive integers.
_NOUNS_IN_PLURAL = frozenset(
    ["zero", "pair", "prime", "root", "triple", "double", "power", "positive", "negative", "other"]
)
_IRREGULAR_PLURALS = frozenset(
    ["people", "children", "men", "women", "fish", "sheep", "feet", "mice", "dice", "teeth"]
)
_MONTHS = frozenset(["month", "moth", "bath", "path", "tooth", "cloth", "youth", "myth", "booth"])
# Words that say only that something is counted.
_COUNTS = """
unit way time point solution total square cubic sq cu each altogether in individual item different distinct possible
value number integer arrangement outcome old
"""
COUNTS = frozenset(_COUNTS.split())
MULTIPLES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "lakh": 10**5, "crore": 10**7, "百": 100, "千": 1000, "万": 10**4, "亿": 10**8,
}  # fmt: skip
PERCENT_WORDS = frozenset(["percent", "percents", "pct", "percentage"])


def singular(word: str) -> str:
    """A noun without its plural ending."""
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def lookup(word: str) -> Unit | None:
    """The unit that one word names, in any number and, for words of four letters or more, in any case."""
    for form in (word, singular(word), *((singular(word.lower()),) if len(word) > 3 else ())):
        if form in UNITS:
            return UNITS[form]
    return None


def _noun(word: str, last: bool) -> Unit:
    """The unit of a counted noun, which is in the plural if it is the last word and does not change the number."""
    noun, plural = singular(word.casefold()), word.casefold().endswith("s") or word.casefold() in _IRREGULAR_PLURALS
    known = noun in NO_NOUNS and not (noun in _NOUNS_IN_PLURAL and (plural or not last))
    part = noun.endswith(("th", "illion", "illionth")) and noun not in _MONTHS
    if word.isascii() and (known or part or len(noun) < 2 or word in NAMES or (last and not plural)):
        raise Unreadable(f"{word!r} is not a unit")
    return Unit((("noun " + noun, 1),))


def read_unit(tokens: list[Token]) -> Unit:
    """
    The unit that tokens such as `m / s ^ 2`, `square centimeters` or `apples` stand for.

    Raises:
        `Unreadable`: They stand for no unit.
    """
    of = next((i for i, token in enumerate(tokens) if token.text == "of"), len(tokens))
    if all(token.kind == "letters" and singular(token.text.lower()) not in NO_NOUNS for token in tokens[of + 1 :]):
        tokens = tokens[:of] if of or len(tokens) > 2 else tokens  # values of n, or cups of flour
    words = [token for token in tokens if token.kind in ("letters", "symbol")]
    powers: dict[str, int] = {}
    factor, sign, power, last, i = Fraction(1), 1, 1, None, 0
    while i < len(tokens):
        token = tokens[i]
        word = token.text
        i += 1
        if token.kind == "op" and word in ("/", "*", "."):
            sign = -1 if word == "/" else sign
        elif token.kind == "op" and word == "^" and last is not None:
            exponent, i = _read_exponent(tokens, i)
            factor *= last.factor ** (sign * (exponent - 1))
            for base, times in last.dimensions:
                powers[base] = powers.get(base, 0) + sign * times * (exponent - 1)
        elif token.kind in ("letters", "symbol") or word == "°":
            if word.lower() == "per":
                sign = -1
            elif word.lower() in ("square", "sq", "cubic", "cu"):
                power = 2 if word.lower() in ("square", "sq") else 3
            elif word.lower() in ("squared", "cubed") and last is not None:
                times = 1 if word.lower() == "squared" else 2
                factor *= last.factor ** (sign * times)
                for base, count in last.dimensions:
                    powers[base] = powers.get(base, 0) + sign * times * count
            else:
                if word == "mu" and i < len(tokens) and tokens[i].kind == "letters":
                    word, i = word + tokens[i].text, i + 1
                if word == "°" and i < len(tokens) and tokens[i].text in ("C", "F"):
                    word, i = word + tokens[i].text, i + 1
                counts = singular(word.lower()) in COUNTS and lookup(word) is None
                last = Unit() if counts else lookup(word) or _noun(word, token is words[-1])
                factor *= last.factor ** (sign * power)
                for base, times in last.dimensions:
                    powers[base] = powers.get(base, 0) + sign * times * power
                power = 1
        elif word in ("(", ")", "{", "}", ","):
            continue
        else:
            raise Unreadable(f"{word!r} in a unit")
    return Unit(tuple(sorted((base, times) for base, times in powers.items() if times)), factor)


def _read_exponent(tokens: list[Token], i: int) -> tuple[int, int]:
    digits = ""
    braced = i < len(tokens) and tokens[i].text == "{"
    i += braced
    while i < len(tokens) and (tokens[i].kind == "number" or tokens[i].text == "-"):
        digits += tokens[i].text
        i += 1
    i += braced
    if digits.lstrip("-") not in ("1", "2", "3", "4"):
        raise Unreadable("an exponent of a unit")
    return int(digits), i
