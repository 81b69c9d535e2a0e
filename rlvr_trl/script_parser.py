"""The parser of training scripts: TRL's, for settings in YAML files, on the command line, or by name."""

import json
import os
import sys
from argparse import Action
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from trl import TrlParser

from .plain_yaml import read_yaml, read_yaml_file
from .registry import did_you_mean
from .trl_compat import is_tensorboard_available


class ScriptParser(TrlParser):
    """
    [`~trl.TrlParser`] for scripts that run recipes.

    Settings are read as YAML 1.2, a single value stands for a list of one, lists on the command line may be YAML, and
    what is unknown or wrong is a `ValueError` that says what was meant. `script` in a file of settings is the name of
    the script that they belong to. `report_to` has another default than in transformers, which logs to nothing:
    TensorBoard, where it is installed.

    Args:
        dataclass_types (iterable of `type`):
            As TrlParser takes them.
        script (`str`, *optional*):
            Name of this script, such as `"train_math"`. The settings of another one are refused.
    """

    def __init__(self, dataclass_types: Iterable[type], script: str | None = None):
        super().__init__(dataclass_types)
        self.script = script
        if any(action.dest == "report_to" for action in self._actions):
            self.set_defaults(report_to=["tensorboard"] if is_tensorboard_available() else ["none"])

    def parse_args_and_config(self, args: Iterable[str] | None = None) -> tuple:  # pyrefly: ignore[bad-override]
        """The dataclasses of the arguments, by default those of the command line; `--config FILE` gives defaults."""
        config, arguments = _without_config(sys.argv[1:] if args is None else args)
        return self.parse_settings({} if config is None else read_yaml_file(config, "--config"), arguments)

    def parse_settings(self, settings: Mapping[str, Any], arguments: Sequence[str] = ()) -> tuple:
        """
        The dataclasses of settings by name, which arguments of the command line override.

        Raises:
            `ValueError`: A setting or argument is unknown, has a wrong value, or belongs to another script.
        """
        settings = dict(settings)
        script = settings.pop("script", None) or self.script
        if self.script is not None and script != self.script:
            raise ValueError(
                f"These settings are for the script {script!r}, and this is {self.script!r}. Run examples/{script}.py "
                f"with them, or `rlvr-trl train`, which finds the script itself."
            )
        for name, value in (settings.pop("env", None) or {}).items():  # as in TrlParser
            os.environ[name] = str(value)
        actions = {action.dest: action for action in self._actions}
        for name in settings:
            if name not in actions:
                raise ValueError(f"Unknown setting {name!r}.{did_you_mean(name, actions)}")
        self.set_defaults_with_config(**{name: _plain(value, actions[name]) for name, value in settings.items()})
        *parsed, unknown = self.parse_args_into_dataclasses(self._expanded(arguments), return_remaining_strings=True)
        for argument in unknown:
            options = [option for action in self._actions for option in action.option_strings]
            raise ValueError(f"Unknown argument {argument!r}.{did_you_mean(argument.split('=')[0], options)}")
        return tuple(parsed)

    def _expanded(self, arguments: Sequence[str]) -> list[str]:
        """The arguments, with the items of a list in YAML, `--sizes '[5, 7]'`, as arguments of their own."""
        lists = {option for action in self._actions if action.nargs == "+" for option in action.option_strings}
        expanded, in_list = [], False
        for argument in arguments:
            if argument.startswith("--"):
                in_list = argument in lists
            if in_list and argument.startswith("["):
                items = read_yaml(argument, f"The list {argument}")
                expanded += [item if isinstance(item, str) else json.dumps(item) for item in items]
            else:
                expanded.append(argument)
        return expanded

    def error(self, message: str) -> NoReturn:
        raise ValueError(message[:1].upper() + message[1:])


def _without_config(arguments: Iterable[str]) -> tuple[str | None, list[str]]:
    """The file of `--config FILE` or `--config=FILE`, if there is one, and the other arguments."""
    arguments = [part for one in arguments for part in (one.split("=", 1) if one.startswith("--config=") else [one])]
    if "--config" not in arguments:
        return None, arguments
    at = arguments.index("--config")
    if at + 1 == len(arguments):
        raise ValueError("--config needs the path of a YAML file.")
    return arguments[at + 1], arguments[:at] + arguments[at + 2 :]


def _plain(value: Any, action: Action) -> Any:
    """A setting of a file as the command line would give it: numbers as text, which argparse converts, and lists."""
    if action.nargs == "+" and value is not None:
        convert = action.type if callable(action.type) else str
        values = value if isinstance(value, list) else [value]
        return [one if isinstance(one, dict | list) else convert(one) for one in values]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
