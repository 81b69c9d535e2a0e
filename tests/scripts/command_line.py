"""`rlvr-trl` on as many processes as it is launched with; what each writes shows how many there were."""

import sys

from rlvr_trl.cli import main


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
