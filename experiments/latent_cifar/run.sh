#!/usr/bin/env bash
# Text-to-image on CIFAR-10: from the hub, or from a folder named by DIFFUSION_CIFAR10.
set -euo pipefail
# This page's recipe is the one before experiments/recipe_search.
python train.py experiment=latent_cifar parameterization=v time_sampler=uniform optimizer=adamw batch=64 steps=4500
