"""The door to TRL's private parts: it names whatever is renamed, before a model loads, and nothing goes past it."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
import types
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from transformers import Trainer
from trl import GRPOTrainer
from trl.experimental.async_grpo import AsyncGRPOTrainer

import rlvr_trl
from rlvr_trl import RLVRConfig, RLVRTrainer, trl_compat
from rlvr_trl.trainer import batch_layout
from rlvr_trl.trl_compat import (
    GRPO,
    PRIVATE_PARTS,
    TRAINER,
    Attribute,
    Function,
    borrow,
    check_attributes,
    check_private_parts,
)


LIBRARIES = ("trl", "transformers", "accelerate", "torch")
INSTALLED = [part for part in PRIVATE_PARTS if part.library in LIBRARIES and part.is_expected]
PACKAGE = Path(rlvr_trl.__file__).parent


def ids(part) -> str:
    return part.path


def rename(part, monkeypatch) -> None:
    """The library with another name for the part, as a release might bring it."""
    owner = part.find_owner()
    if isinstance(part, Attribute):
        for base in inspect.getmro(owner):
            method = inspect.unwrap(vars(base).get(part.set_in, object.__init__))
            if code := getattr(method, "__code__", None):
                names = tuple(f"{name}_renamed" if name == part.name else name for name in code.co_names)
                monkeypatch.setattr(method, "__code__", code.replace(co_names=names))
    else:
        if hasattr(owner, "_class_to_module"):  # a module of transformers that loads its parts on first use
            monkeypatch.delitem(owner._class_to_module, part.name)
        for place in trl_compat._own_bases(owner, part.library) if isinstance(owner, type) else [owner]:
            if part.name in vars(place):
                monkeypatch.setattr(place, f"{part.name}_renamed", vars(place)[part.name], raising=False)
                monkeypatch.delattr(place, part.name)


def check_everything() -> None:
    check_private_parts(*LIBRARIES)
    check_private_parts("trl", asynchronous=True)


def test_everything_is_as_the_table_says():
    check_everything()


def test_the_asynchronous_trainer_breaks_alone(monkeypatch):
    """TRL changes it with nearly every release."""
    for part in [part for part in INSTALLED if part.name == "_score_group"]:
        rename(part, monkeypatch)
    check_private_parts(*LIBRARIES)
    with pytest.raises(ImportError, match="_score_group`, which does not exist in trl"):
        check_private_parts("trl", asynchronous=True)


bytecode = pytest.mark.skipif(not trl_compat.BYTECODE_IS_KNOWN, reason="reads the bytecode of Python 3.11 to 3.13")


@bytecode
@pytest.mark.parametrize("part", INSTALLED, ids=ids)
def test_a_renamed_part_is_an_error_that_names_it(part, monkeypatch):
    rename(part, monkeypatch)
    installed = re.escape(f"{part.library} {version(part.library)}")
    with pytest.raises(ImportError, match=rf"`{part.path}`, which .* in {installed} .*pip install .*'{part.library}"):
        check_everything()


FUNCTIONS = [part for part in INSTALLED if isinstance(part, Function)]


@pytest.mark.parametrize("part", [part for part in FUNCTIONS if part.leading or part.named], ids=ids)
def test_other_parameters_are_an_error_that_names_them(part, monkeypatch):
    def renamed(self, something_else): ...

    renamed.__module__ = part.library  # what others have put in its place is their own affair
    monkeypatch.setattr(part.find_owner(), part.name, renamed)
    first = (*part.leading, *part.named)[0]
    with pytest.raises(ImportError, match=rf"{part.path}`.*{first}"):
        check_everything()


@bytecode
@pytest.mark.parametrize("part", [part for part in FUNCTIONS if part.returns], ids=ids)
def test_another_number_of_returned_values_is_an_error_that_names_it(part, monkeypatch):
    names = ", ".join(["self", *part.leading, *(f"{name}=None" for name in part.named)])
    values = ", ".join(["self"] * (part.returns + 1))
    scope = {}
    exec(f"def longer({names}):\n    return {values}", scope)
    scope["longer"].__module__ = part.library
    monkeypatch.setattr(part.find_owner(), part.name, scope["longer"])
    message = rf"{part.path}`, which returns tuples of \[{part.returns + 1}\] values and not of {part.returns} "
    with pytest.raises(ImportError, match=message):
        check_private_parts(*LIBRARIES)


@bytecode
@pytest.mark.parametrize("field", [field for part in FUNCTIONS for field in part.fields])
def test_a_renamed_field_of_the_batch_is_an_error_that_names_it(field, monkeypatch):
    def without(constant):
        if isinstance(constant, tuple):
            return tuple(map(without, constant))
        return f"{constant}_renamed" if constant == field else constant

    method = inspect.unwrap(GRPOTrainer._generate_and_score_completions)
    monkeypatch.setattr(method, "__code__", method.__code__.replace(co_consts=without(method.__code__.co_consts)))
    with pytest.raises(
        ImportError, match=f"_generate_and_score_completions`, which does not return the field '{field}'"
    ):
        check_private_parts(*LIBRARIES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("del trl.trainer.utils.shuffle_sequence_dict", "trl.trainer.utils.shuffle_sequence_dict"),
        ("del trl.GRPOTrainer._generate", "trl.GRPOTrainer._generate"),
    ],
)
def test_the_check_comes_before_any_other_import(change, named):
    ran = subprocess.run(
        [sys.executable, "-c", f"import trl\ntrl.GRPOTrainer\n{change}\nfrom rlvr_trl import RLVRTrainer"],
        capture_output=True,
        text=True,
    )
    last = ran.stderr.strip().splitlines()[-1]
    assert ran.returncode == 1 and last.startswith(
        f"ImportError: rlvr_trl relies on `{named}`, which does not exist"
    ), last


def test_an_untested_version_warns(monkeypatch):
    monkeypatch.setattr(trl_compat, "version", lambda library: "9.9.0" if library == "trl" else version(library))
    with pytest.warns(UserWarning, match=r"tested with TRL 1\.16, but TRL 9\.9\.0 is installed"):
        check_private_parts("trl")


def test_the_versions_in_its_advice_are_those_of_the_project():
    root = PACKAGE.parent
    ranges = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (root / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    assert trl_compat.TESTED["transformers"] in ranges
    for library in LIBRARIES:
        allowed = next(range_ for range_ in map(Requirement, ranges) if range_.name == library).specifier
        advised = Requirement(trl_compat.TESTED[library]).specifier
        assert pinned[library] in advised and pinned[library] in allowed
    assert pinned["trl"].startswith(f"{trl_compat.TESTED_TRL[-1]}.")


# --- what only a trainer can show ---

OF_A_TRAINER = [
    part
    for part in INSTALLED
    if isinstance(part, Attribute)
    and part.owner in (GRPO, TRAINER)
    and part.set_in == "__init__"
    and not part.only_with
]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory, mazes):
    from rlvr_trl.testbed import build_model, build_tokenizer

    tokenizer = build_tokenizer()
    settings = {"bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": "none"}
    args = RLVRConfig(
        str(tmp_path_factory.mktemp("run")), per_device_train_batch_size=8, num_generations=4, **settings
    )

    def reward(completions, **kwargs):
        return [0.0] * len(completions)

    return RLVRTrainer(build_model(tokenizer, seed=0), reward, args, mazes, processing_class=tokenizer)


@pytest.mark.parametrize("part", OF_A_TRAINER, ids=ids)
def test_an_attribute_that_the_constructor_did_not_set_is_an_error_that_names_it(part, trainer):
    value = vars(trainer).pop(part.name)
    try:
        with pytest.raises(ImportError, match=f"{part.path}`, which is not set"):
            check_attributes(trainer)
        if part.kind is not object:
            setattr(trainer, part.name, None)
            with pytest.raises(ImportError, match=f"{part.path}`, which is of type NoneType"):
                check_attributes(trainer)
        if part.keys:
            setattr(trainer, part.name, {key: value[key] for key in part.keys[1:]})
            with pytest.raises(ImportError, match=f"{part.path}`, which has no key '{part.keys[0]}'"):
                check_attributes(trainer)
    finally:
        setattr(trainer, part.name, value)
    check_attributes(trainer)


def test_attributes_are_looked_at_when_a_trainer_is_built(monkeypatch, trainer, mazes):
    constructor = GRPOTrainer.__init__

    def without_step(self, *args, **kwargs):
        constructor(self, *args, **kwargs)
        del self._step

    monkeypatch.setattr(GRPOTrainer, "__init__", without_step)
    with pytest.raises(ImportError, match=r"trl\.GRPOTrainer\._step`, which is not set"):
        RLVRTrainer(
            trainer.model, trainer.reward_funcs, trainer.args, mazes, processing_class=trainer.processing_class
        )


# --- nothing goes past the door ---

SOURCES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "trl_compat.py"
}
TABLE = {part.name for part in PRIVATE_PARTS}
# What transformers documents of its Trainer, by https://huggingface.co/docs/transformers/main_classes/trainer and the
# guides on subclassing and callbacks
DOCUMENTED = {
    *("accelerator", "args", "callback_handler", "control", "eval_dataset", "hub_model_id", "is_fsdp_enabled"),
    *("is_in_train", "is_world_process_zero", "log", "model", "processing_class", "state", "train", "train_dataset"),
    *("__init__", "add_callback", "remove_callback", "evaluate", "save_model", "is_deepspeed_enabled"),
}


# Classes of TRL and transformers that classes here extend, so that their methods override those
TRL_CLASSES = ("GRPOTrainer", "AsyncGRPOTrainer", "AsyncRolloutWorker", "_AsyncRolloutLoop", "Trainer")


def foreign_names() -> set[str]:
    """Methods and attributes of TRL's trainers, of the worker of the asynchronous one, and of their bases."""
    classes = (GRPOTrainer, AsyncGRPOTrainer, trl_compat.AsyncRolloutWorker, trl_compat._AsyncRolloutLoop)
    names = {name for each in classes for name in dir(each)}
    for base in {base for each in classes for base in inspect.getmro(each)}:
        for method in vars(base).values():
            if isinstance(method := inspect.unwrap(method) if callable(method) else method, types.FunctionType):
                names |= trl_compat._attributes_set(method)
    return names - set(dir(object)) - {"__module__", "__dict__", "__weakref__"}


def without_configurations(node: ast.AST):
    """All nodes but those of classes that are a configuration: their `self` is no trainer."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.ClassDef) and child.name.endswith("Config")):
            yield from without_configurations(child)


def test_what_is_used_of_the_trainer_is_in_the_table_or_documented():
    foreign, found = foreign_names(), set()
    for path, tree in SOURCES.items():
        if not path.startswith(("trainer/", "async_trainer/", "hub/")):
            continue
        for node in without_configurations(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Name, ast.Call, ast.Attribute)):
                base = node.value
                of_trainer = (
                    isinstance(base, ast.Name) and base.id in ("self", "trainer")
                    or isinstance(base, ast.Attribute) and base.attr == "trainer"
                    or isinstance(base, ast.Call) and isinstance(base.func, ast.Name) and base.func.id == "super"
                )  # fmt: skip
                if of_trainer:
                    found.add(node.attr)
            if isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id in TRL_CLASSES for base in node.bases
            ):
                found |= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
    used = (found & foreign) - DOCUMENTED
    assert len(used) > 50 and used <= TABLE, sorted(used - TABLE)


def test_functions_of_undocumented_modules_come_through_the_door():
    """An import from a submodule that no documentation names, or of a private name, of one of the five libraries."""
    documented = {
        *("trl", "transformers", "accelerate", "accelerate.utils", "torch", "torch.nn", "torch.nn.functional", "vllm"),
        *(
            "torch.func",
            "torch.nn.attention",
            "torch.optim.lr_scheduler",
            "torch.utils.data",
            "transformers.utils",
            "trl.rewards",
            "trl.experimental.async_grpo",
        ),
        "vllm.lora.request",
    }
    trackers = ("TensorBoard", "Trackio", "Wandb")  # the page of transformers on callbacks names them
    callbacks = {("transformers.integrations", f"{tracker}Callback") for tracker in trackers}
    past = [
        (path, node.module, name.name)
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 0
        for name in node.names
        if node.module.split(".")[0] in (*LIBRARIES, "vllm")
        and (node.module not in documented or name.name.startswith("_"))
        and (node.module, name.name) not in callbacks
    ]
    assert past == []


def test_private_names_of_others_are_in_the_table():
    """`x._name` where no class or module of this package defines `_name`."""
    own, used = set(), {}
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                if isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self":
                    own.add(node.attr)
                used.setdefault(node.attr, path)
    foreign = {name: path for name, path in used.items() if name not in own}
    allowed = {
        "_asdict",  # of named tuples, documented by Python
        *("_exit", "_current_frames"),  # of `os` and `sys`, documented by Python
        *("_actions", "_option_string_actions"),  # of argparse, since Python 2.7; TRL's own parser reads the first
        "_build",  # of SymPy, disarmed by the sandbox of the verifier
    }
    assert {name: path for name, path in foreign.items() if name not in TABLE | allowed} == {}


def test_no_row_is_left_over():
    """Every name is an attribute, a method, an import, a keyword or a string somewhere in the package."""
    kinds = {
        ast.Attribute: "attr",
        ast.FunctionDef: "name",
        ast.alias: "name",
        ast.keyword: "arg",
        ast.Name: "id",
        ast.Constant: "value",
    }
    nodes = [node for tree in SOURCES.values() for node in ast.walk(tree)]
    words = {getattr(node, kinds[type(node)]) for node in nodes if type(node) in kinds}
    assert [part.path for part in PRIVATE_PARTS if part.name not in words] == []


def test_every_row_says_why_and_until_when():
    assert all(part.why and part.until for part in PRIVATE_PARTS)
    paths = [part.path for part in PRIVATE_PARTS]
    assert len(paths) == len(set(paths))


# --- borrowed settings ---


def test_borrowed_settings_are_put_back_whatever_happens():
    thing, table = types.SimpleNamespace(a=1, b=2), {"train": [1], "eval": [2]}
    with pytest.raises(RuntimeError), borrow(thing, a=5, b=6), borrow(table, train=[]):
        assert (thing.a, thing.b, table["train"]) == (5, 6, [])
        table["train"].append(3)
        raise RuntimeError
    assert (thing.a, thing.b) == (1, 2) and table == {"train": [1], "eval": [2]}


def test_only_what_is_there_can_be_borrowed():
    with pytest.raises(AttributeError, match="missing"), borrow(types.SimpleNamespace(), missing=1):
        pass
    with pytest.raises(KeyError, match="missing"), borrow({}, missing=1):
        pass


# --- the parts of the trainer ---


def test_no_method_is_overridden_in_two_parts_of_the_trainer():
    parts = [base for base in inspect.getmro(RLVRTrainer) if issubclass(base, GRPOTrainer)]
    parts = parts[1 : parts.index(GRPOTrainer)]
    assert len(parts) == 4
    methods = [name for part in parts for name, value in vars(part).items() if callable(value)]
    assert len(methods) == len(set(methods)) > 20


def test_what_a_part_needs_is_there(trainer):
    parts = [base for base in inspect.getmro(RLVRTrainer) if issubclass(base, GRPOTrainer)]
    needs = {name for part in parts[1 : parts.index(GRPOTrainer)] for name in vars(part).get("__annotations__", {})}
    assert {"rollouts", "_in_passes", "_plan", "_writing_to"} <= needs
    assert [name for name in needs if not hasattr(trainer, name)] == []
    assert issubclass(RLVRTrainer, Trainer)


def test_every_field_whose_layout_is_known_is_one_that_trl_returns():
    (row,) = [part for part in FUNCTIONS if part.fields]
    known = {*batch_layout.PROMPT_FIELDS, *batch_layout.COMPLETION_FIELDS, *batch_layout.IMAGE_FIELDS}
    known |= {"advantages", "num_items_in_batch"}
    assert known == set(row.fields) and set(batch_layout.SEQUENCE_FIELDS) < known


# --- what the rows see, and what is none of their business ---


@bytecode
def test_only_keys_of_the_returned_dict_count():
    def generate(self, other):
        self.logs["logged"] = 1
        other["another"] = 2
        output = {"display": 3, "second": 4}
        output["later"] = self.logs["read"]
        return output

    keys = trl_compat._returned_keys(generate.__code__)
    assert keys == {"display", "second", "later"}


@bytecode
def test_a_setting_that_is_no_longer_read_is_an_error_that_names_it(monkeypatch):
    """It would be set for a call, and the call would go by another."""

    def of_args(self, prompts):
        count = self.args.num_generations if self.model.training else self.num_generations_eval
        return count, 2, 3, 4, 5, 6, 7, 8

    of_args.__module__ = "trl"
    monkeypatch.setattr(GRPOTrainer, "_generate", of_args)
    with pytest.raises(ImportError, match=r"_generate`, which does not read `self\.num_generations` in trl"):
        check_private_parts("trl")


def test_all_problems_are_named_at_once(monkeypatch):
    rename(PRIVATE_PARTS[1], monkeypatch)
    rename(next(part for part in INSTALLED if part.library == "torch"), monkeypatch)
    with pytest.raises(
        ImportError, match=r"_generate_and_score_completions.*; on .*_get_default_store.*'trl==.*'torch=="
    ):
        check_private_parts(*LIBRARIES)


def test_what_others_have_patched_is_their_affair(monkeypatch):
    class Patched(GRPOTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    usual = GRPOTrainer._generate
    monkeypatch.setattr("trl.GRPOTrainer", Patched)
    monkeypatch.setattr(GRPOTrainer, "_generate", lambda *args, **kwargs: usual(*args, **kwargs))
    constructor = Trainer.__init__
    monkeypatch.setattr(Trainer, "__init__", lambda self, *args, **kwargs: constructor(self, *args, **kwargs))
    check_private_parts(*LIBRARIES)


def test_a_method_that_moves_to_a_base_of_the_library_is_found(monkeypatch):
    method = GRPOTrainer.get_train_dataloader
    monkeypatch.delattr(GRPOTrainer, "get_train_dataloader")
    monkeypatch.setattr(inspect.getmro(GRPOTrainer)[1], "get_train_dataloader", method, raising=False)
    check_private_parts("trl")


@pytest.mark.parametrize(
    ("batch", "rewards", "message"),
    [
        ({"prompt_ids": 1}, torch.zeros(4, 1), "returned a batch without 'prompt_mask'"),
        (
            dict.fromkeys(trl_compat.REQUIRED_FIELDS),
            (torch.zeros(4, 1), None),
            r"no tensor of shape \(completions, 1\)",
        ),
        (dict.fromkeys(trl_compat.REQUIRED_FIELDS), torch.zeros(4), r"no tensor of shape \(completions, 1\)"),
    ],
)
def test_what_trl_generated_is_looked_at(batch, rewards, message):
    with pytest.raises(ImportError, match=message):
        trl_compat.check_generated(batch, rewards, 1)


def test_numbers_of_numpy_are_settings_too(tmp_path, mazes, trainer):
    numbers = {"num_generations": np.int64(4), "num_iterations": np.int64(1), "beta": np.float32(0)}
    on_cpu = {"bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": "none"}
    args = RLVRConfig(str(tmp_path), per_device_train_batch_size=8, **numbers, **on_cpu)
    rewards = trainer.reward_funcs
    RLVRTrainer(trainer.model, rewards, args, mazes, processing_class=trainer.processing_class)


def test_the_version_of_a_library_under_another_name_is_found(monkeypatch):
    def not_found(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(trl_compat, "version", not_found)
    assert trl_compat.installed_version("trl") == version("trl")
