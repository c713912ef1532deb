"""One table of finished sweeps: python experiments/schedule_sweep/collect.py runs/sweeps/TIME ... > results.json"""

import json
import sys
from pathlib import Path

COLUMNS = ("prompts_right_seen", "prompts_right_heldout", "class_agreement", "frechet", "frechet_reconstruction",
           "frechet_real", "frechet_clip", "loss_ema", "stage_minutes")
found = {}
for file in sorted(path for folder in sys.argv[1:] for path in Path(folder).glob("*.json")):
    results = json.loads(file.read_text())
    chosen = dict(part.split("=", 1) for part in file.stem.split(",") if "=" in part)
    name = ", ".join([results["experiment"], chosen["schedule"], chosen["parameterization"]])
    found[name] = {column: round(results[column], 4) for column in COLUMNS if column in results}
json.dump(found, sys.stdout, indent=1)
print()
