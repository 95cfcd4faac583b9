"""Running compiled tasks on as many threads as torch uses.

The compiled loops release the interpreter lock, so plain threads serve. numba's own thread layers are not
used: their workers do not survive a fork and one of them may not be entered from two threads at once.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch

_pool: dict[tuple[int, int], ThreadPoolExecutor] = {}

# More pieces than threads even out tasks of unequal length.
PIECES_PER_THREAD = 4


def run_tasks(work: Callable[[int, int], None], n_tasks: int, pieces: int | None = None) -> None:
    """Call work(start, stop) over consecutive ranges that cover 0 .. n_tasks.

    Parameters
    ----------
    work : releases the interpreter lock and writes only what its own tasks own, so that order does not matter
    n_tasks : int
    pieces : number of ranges; by default a few per thread
    """
    n_threads = torch.get_num_threads()
    pieces = min(n_tasks, pieces or PIECES_PER_THREAD * n_threads)
    if n_threads == 1 or pieces <= 1:
        if n_tasks:
            work(0, n_tasks)
        return
    edge = [n_tasks * i // pieces for i in range(pieces + 1)]
    for done in [_executor(n_threads).submit(work, a, b) for a, b in pairwise(edge)]:
        done.result()


def _executor(n_threads: int) -> ThreadPoolExecutor:
    """One pool per process and size: threads do not survive a fork."""
    key = (os.getpid(), n_threads)
    if key not in _pool:
        _pool[key] = ThreadPoolExecutor(n_threads, thread_name_prefix="bayesref")
    return _pool[key]
