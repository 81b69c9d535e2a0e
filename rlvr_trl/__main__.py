"""`python -m rlvr_trl` and `accelerate launch -m rlvr_trl` are the `rlvr-trl` command."""

import sys

from .cli import main


if __name__ == "__main__":
    sys.exit(main())
