#!/usr/bin/env bash
# On one NVIDIA H200: from nothing to the grid in 10.6 minutes; then the judge, trained before.
set -e
python train.py experiment=cifar_judge
before=(parameterization=v time_sampler=uniform optimizer=adamw)  # the recipe before experiments/recipe_search
python train.py experiment=latent_cifar "${before[@]}" backbone=unet_base batch=256 learning_rate=4e-4 sample_every=10000 \
    budget=10min
