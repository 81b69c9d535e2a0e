"""A run of 3 steps that waits in its second step until there is a file `go` beside its folder."""

import argparse
import os
import time
from pathlib import Path

from train_dars import make_trainer

from rlvr_trl import DARSTrainer


class Waits(DARSTrainer):
    def training_step(self, *args, **kwargs):
        if self.state.global_step == 1:
            folder = Path(self.args.output_dir).parent
            (folder / f"waits-{self.accelerator.process_index}").write_text(str(os.getpid()))
            while not (folder / "go").exists():
                time.sleep(0.05)
        return super().training_step(*args, **kwargs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir")
    make_trainer(parser.parse_args().output_dir, Waits, max_steps=3).train()


if __name__ == "__main__":
    main()
