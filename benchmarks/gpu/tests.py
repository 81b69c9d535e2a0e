"""The tests that need a GPU, by pytest."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree


ROOT = Path(__file__).resolve().parents[2]


def run(size: str, device: str, seconds: float, save: Callable) -> None:
    """In one process, as starting others can take longer than the tests; on a CPU all of them are skipped."""
    tests = ["-n", "0", "tests/test_estimators.py", "tests/test_cuda.py", "-k", "cuda"]
    found = by_pytest(tests, time.monotonic() + seconds)
    save("pieces", found)
    if found["exit_code"] is None:
        raise TimeoutError(f"pytest did not end within {seconds:.0f} s")


def by_pytest(arguments: list[str], end: float) -> dict:
    """Counts, and the failures with their messages."""
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "results.xml"
        options = ["-q", "-p", "no:cacheprovider", "--junitxml", str(xml)]
        command = [sys.executable, "-m", "pytest", *options, *arguments]
        began = time.monotonic()
        try:
            exit_code = subprocess.run(command, cwd=ROOT, timeout=max(end - began, 1)).returncode
        except subprocess.TimeoutExpired:
            exit_code = None
        cases = list(ElementTree.parse(xml).iter("testcase")) if xml.exists() else []
    failures = {}
    for case in cases:
        for kind in ("failure", "error"):
            if (found := case.find(kind)) is not None:
                failures[case.get("name")] = (found.get("message") or "")[:500]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - skipped - len(failures),
        "skipped": skipped,
        "failed": failures,
        "exit_code": exit_code,  # None: out of time
        "seconds": round(time.monotonic() - began, 1),
    }
