"""Hostile input: generators of damaged and odd input by kind, and kills of a run at each change of its folder.

    python tests/soak.py                         10,000 cases and 100 kills: hours on one core
    python tests/soak.py --cases 300 --kinds tables images --kills 0
    python tests/soak.py --kinds flags --seed 17 --cases 1 --keep        one case again, with its folder

Each case must end in an answer, or in one sentence that names the place. It gets 20 seconds and 2 GiB. It may write
into its output folder alone, and run no program. `soak.py` prints the faults, each with a command that repeats it.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Torch and Matplotlib read these when they are loaded. Nothing may ask the network.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
