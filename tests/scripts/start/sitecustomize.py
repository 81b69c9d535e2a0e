"""Runs first in every process that a test starts, and saves two of the seconds that it takes to get going."""

import functools
import importlib.metadata
import sys


sys.modules["bitsandbytes"] = None  # as if it were not installed; none uses it, and it takes a second to import
importlib.metadata.metadata = functools.cache(importlib.metadata.metadata)  # as in conftest.py
