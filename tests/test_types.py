"""What a type checker says about public calls: documented ones pass, mistaken ones are reported."""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
DOCUMENTED = ROOT / "tests" / "scripts" / "documented_calls.py"

IMPORTS = """\
from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.advantages import AGRAE, PassAtK, RolloutGroups, Scheduled
from rlvr_trl.data import load_math, make_maze_dataset
from rlvr_trl.rewards import maze_reward
from rlvr_trl.rollouts import DARS, hardness_weighted
def listed(groups: RolloutGroups) -> list[float]: return groups.rewards.tolist()
"""

# last line of a file -> the kind of error that it is, and what the message must name
MISTAKES = {
    "from rlvr_trl import RLVRTrainr": ("missing-module-attribute", "RLVRTrainr"),
    "from rlvr_trl.data import load_maths": ("missing-module-attribute", "load_maths"),
    "from rlvr_trl.advantages import PassAtk": ("missing-module-attribute", "PassAtk"),
    "PassAtK(8).K": ("missing-attribute", "K"),
    "PassAtK(k='8')": ("bad-argument-type", "`k`"),
    "PassAtK(0.5)": ("bad-argument-type", "`k`"),
    "PassAtK()": ("missing-argument", "`k`"),
    "PassAtK(8, methd='bootstrap')": ("unexpected-keyword", "methd"),
    "DARS('hardness_weighted', max_generation=32)": ("unexpected-keyword", "max_generation"),
    "DARS(max_generations='32')": ("bad-argument-type", "max_generations"),
    "hardness_weighted(0, 8, 32).clamp(min=0)": ("missing-attribute", "clamp"),
    "Scheduled([(0, 8)])": ("bad-argument-type", "stages"),
    "AGRAE(PassAtK)": ("bad-argument-type", "base"),
    "AGRAE('pass_at_k')": ("bad-argument-type", "base"),
    "load_math(tempate='plain')": ("unexpected-keyword", "tempate"),
    "make_maze_dataset('200')": ("bad-argument-type", "num_mazes"),
    "RLVRConfig('out', num_generation=8)": ("unexpected-keyword", "num_generation"),
    "RLVRTrainer('model', maze_reward, advantages=listed)": ("bad-argument-type", "advantages"),
    "RLVRTrainer('model', maze_reward, advantages='pass_at_k')": ("bad-argument-type", "advantages"),
    "RLVRTrainer('model', maze_reward, rollout=DARS())": ("unexpected-keyword", "rollout"),
    "RLVRTrainer('model', maze_reward, rollouts=PassAtK(8))": ("bad-argument-type", "rollouts"),
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """What the checker reports in a user's project: the name of a file -> its errors."""
    project = tmp_path_factory.mktemp("project")
    (project / "pyrefly.toml").touch()  # the defaults of a project; without it fewer checks are made
    (project / "documented.py").write_text(DOCUMENTED.read_text(encoding="utf-8"), encoding="utf-8")
    for i, mistake in enumerate(MISTAKES):
        (project / f"mistake_{i}.py").write_text(f"{IMPORTS}{mistake}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pyrefly", "check", "--output-format", "json", "--search-path", str(ROOT)]
    command += ["--python-interpreter-path", sys.executable]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    by_file = defaultdict(list)
    for error in json.loads(done.stdout)["errors"]:
        by_file[Path(error["path"]).name].append(error)
    return by_file


def test_documented_calls_pass(findings):
    assert [(error["line"], error["description"]) for error in findings["documented.py"]] == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_reported(findings, mistake):
    kind, name = MISTAKES[mistake]
    (error,) = findings[f"mistake_{list(MISTAKES).index(mistake)}.py"]
    assert (error["line"], error["name"]) == (IMPORTS.count("\n") + 1, kind)
    assert name in error["description"]
