#!/usr/bin/env bash
# The default experiment, as a new user runs it.
set -euo pipefail
python train.py experiment=latent_shapes
