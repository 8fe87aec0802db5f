import os
import sys
from pathlib import Path

# Two test processes on two cores should not fight over them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))
