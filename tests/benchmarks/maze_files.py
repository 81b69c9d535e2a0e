"""Writes files of cells of the maze table, for tests that need no training."""

from dataclasses import asdict

from maze_plan import SCALES, write


def write_cell(folder, cell, value):
    about = {"cell": asdict(cell), "scale": asdict(SCALES[cell.scale]), "seconds": 1.0}
    write(cell.path(folder), about | value)
