"""`rlvr-trl` with the arguments it gets, but cells of a tiny size: see test_bench.py."""

import sys
from functools import partial

from rlvr_trl.cli import main
from rlvr_trl.testbed import bench
from rlvr_trl.testbed.cells import Size


TINY = Size(batches=1, test_problems=6, samples=8, validation_problems=4, validation_samples=4, warmup_problems=20)

if __name__ == "__main__":
    bench.run_bench = partial(bench.run_bench, size=TINY)
    sys.exit(main(sys.argv[1:]))
