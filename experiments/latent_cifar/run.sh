#!/usr/bin/env bash
# Text-to-image on CIFAR-10: from the hub, or from a folder named by DIFFUSION_CIFAR10.
set -euo pipefail
python train.py experiment=latent_cifar
