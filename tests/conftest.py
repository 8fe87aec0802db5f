import gc
import os
import sys
from pathlib import Path

# Test processes on two cores should not fight over them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import warm


def pytest_configure(config):
    started = warm.server()
    started.__enter__()
    config.add_cleanup(lambda: started.__exit__(None, None, None))


def pytest_collection_finish():
    """Keep what was imported out of garbage collections: MMEngine asks for a whole one with each data set."""
    gc.collect()
    gc.freeze()
