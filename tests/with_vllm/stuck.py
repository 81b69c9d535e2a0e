"""Rank 0 waits for rank 1, which sleeps: a hang, for the test that it is told."""

import sys
import time

import torch
from bounded import answer_with_stacks


def sleeps_for_ever():
    time.sleep(600)


def waits_for_the_other():
    torch.distributed.barrier()


if __name__ == "__main__":
    answer_with_stacks(sys.argv[1])
    torch.distributed.init_process_group("gloo")
    if torch.distributed.get_rank() == 1:
        sleeps_for_ever()
    waits_for_the_other()
