"""Runs first in every process that a test starts: bitsandbytes, which none of them uses, takes a second to import."""

import sys


sys.modules["bitsandbytes"] = None  # as if it were not installed
