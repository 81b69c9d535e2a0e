"""Files of cells of the maze table, for tests that need no training."""

from dataclasses import asdict

import maze_cell as cells


def write_cell(folder, cell, value):
    about = {"cell": asdict(cell), "scale": asdict(cells.SCALES[cell.scale]), "seconds": 1.0}
    cells.write(cell.path(folder), about | value)
