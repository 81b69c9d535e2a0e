"""The commands and characters of LaTeX that are read: a closed set."""

_GREEK = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon phi chi psi
omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar nabla partial aleph
"""
GREEK = tuple(_GREEK.split())
FUNCTIONS = (
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech csch arcsinh arccosh "
    "arctanh log ln lg exp gcd lcm max min det Re Im arg"
)
# Names of functions in plain text, as in sqrt(2) and asin(x).
NAMES = {name: name for name in f"{FUNCTIONS} sqrt cbrt abs floor ceil".split()} | {
    other: name
    for name, others in {
        "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh arsinh", "arccosh": "acosh arcosh",
        "arctanh": "atanh artanh", "tan": "tg", "cot": "ctg", "csc": "cosec", "ceil": "ceiling",
        "log": "Log", "ln": "Ln",
    }.items()
    for other in others.split()
}  # fmt: skip
# Kind and text of the token for a command. The parser of expressions reads the arguments of kind `command`.
_TABLE = {
    ("command", "frac"): "frac dfrac tfrac cfrac nicefrac sfrac",
    ("command", "binom"): "binom dbinom tbinom",
    ("command", "sqrt"): "sqrt",
    ("command", "pmod"): "pmod",
    ("symbol", "epsilon"): "varepsilon",
    ("symbol", "theta"): "vartheta",
    ("symbol", "phi"): "varphi",
    ("symbol", "rho"): "varrho",
    ("symbol", "sigma"): "varsigma",
    ("symbol", "pi"): "pi",
    ("symbol", "infty"): "infty infinity",
    ("symbol", "emptyset"): "emptyset varnothing",
    ("name", "tan"): "tg",
    ("name", "cot"): "ctg",
    ("name", "csc"): "cosec",
    ("op", "*"): "cdot ast cdotp bullet",
    ("op", "/"): "div slash",
    ("op", "±"): "pm",
    ("op", "∓"): "mp",
    ("op", "'"): "prime",
    ("op", "°"): "circ degree",
    ("op", "%"): "percent",
    ("op", ":"): "colon ratio",
    ("op", "<="): "le leq leqslant leqq",
    ("op", ">="): "ge geq geqslant geqq",
    ("op", "<"): "lt",
    ("op", ">"): "gt",
    ("op", "!="): "ne neq",
    ("op", "in"): "in",
    ("op", "≈"): "approx simeq thickapprox doteq",
    ("op", "≡"): "equiv",
    ("op", "cup"): "cup bigcup",
    ("op", "cap"): "cap",
    ("op", "setminus"): "setminus backslash smallsetminus",
    ("op", "..."): "ldots dots cdots dotsc dotsb",
    ("op", "to"): "to rightarrow mapsto therefore",
    ("op", "implies"): "Rightarrow implies",
    ("op", "iff"): "iff Leftrightarrow",
    ("op", "×"): "times",
    ("op", "|"): "vert lvert rvert mid",
    ("op", "‖"): "Vert lVert rVert parallel",
    ("open", "\\{"): "lbrace",
    ("close", "\\}"): "rbrace",
    ("open", "["): "lbrack",
    ("close", "]"): "rbrack",
    ("open", "("): "lparen",
    ("close", ")"): "rparen",
    ("open", "<"): "langle",
    ("close", ">"): "rangle",
    ("open", "⌊"): "lfloor",
    ("close", "⌋"): "rfloor",
    ("open", "⌈"): "lceil",
    ("close", "⌉"): "rceil",
    ("currency", "$"): "dollar textdollar",
    ("currency", "£"): "pounds textsterling",
    ("currency", "€"): "euro texteuro",
    ("currency", "¥"): "yen",
}
_AS_THEY_ARE = {  # commands whose token has the same text
    "symbol": " ".join(GREEK) + " imath jmath odot triangle angle",
    "name": FUNCTIONS,
    "big": "sum prod int iint oint lim limsup liminf bigcap",
    "op": "forall exists land lor lnot neg perp because sim wedge vee subset subseteq otimes oplus propto bmod mod "
    "cong star not over choose",
}
COMMANDS = {name: (kind, name) for kind, names in _AS_THEY_ARE.items() for name in names.split()} | {
    name: token for token, names in _TABLE.items() for name in names.split()
}
# What a command that is not a token does: nothing, a space, a font, an accent on a name, or hiding its argument.
_ACTIONS = {
    "drop": "displaystyle textstyle scriptstyle limits nolimits Large LARGE large normalsize small huge Huge tiny "
    "footnotesize mathstrut strut checkmark qed square blacksquare hfill noindent nonumber bf rm it sf tt bfseries "
    "boldmath centering normalfont nobreak relax null left right middle big Big bigg Bigg bigl Bigl biggl Biggl bigr "
    "Bigr biggr Biggr bigm Bigm biggm Biggm",
    "space": "quad qquad enspace enskip thinspace medspace thickspace negthinspace newline par",
    "font text": "text textit textrm textnormal textsf texttt textup textbf textsc mbox hbox emph fbox framebox",
    "font rm": "mathrm operatorname mathsf mathtt",
    "font bf": "mathbf boldsymbol bm pmb",
    "font": "mathit mathnormal underline boxed ensuremath cancel",
    "accent bar": "bar overline",
    "accent vec": "vec overrightarrow",
    "accent hat": "hat widehat",
    "accent tilde": "tilde widetilde",
    "accent dot": "dot",
    "accent ddot": "ddot",
    "accent cal": "mathcal mathscr mathfrak",
    "accent mathbb": "mathbb Bbb",
    "argument": "color textcolor phantom hphantom vphantom hspace vspace label tag",
}
ACTION_OF = {name: action for action, names in _ACTIONS.items() for name in names.split()}
_MATRICES = "matrix pmatrix bmatrix vmatrix Bmatrix Vmatrix smallmatrix psmallmatrix array cases"
MATRICES = frozenset(_MATRICES.split())
ESCAPES = {
    "{": ("open", "\\{"), "}": ("close", "\\}"), "%": ("op", "%"), "$": ("currency", "$"), "|": ("op", "‖"),
    "_": ("op", "_"), "&": ("op", ","),
}  # fmt: skip
OTHERS = (
    {c: ("op", c) for c in "+-*/^_=,;:!|%'&?@≡."}
    | {"<": ("op", "<"), ">": ("op", ">"), "(": ("open", "("), "[": ("open", "["), "{": ("open", "{")}
    | {")": ("close", ")"), "]": ("close", "]"), "}": ("close", "}")}
    | {c: ("currency", c) for c in "¥€£"}
)
