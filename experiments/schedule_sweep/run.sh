#!/usr/bin/env bash
# Schedule x parameterization at equal budget. Each line is one sweep, whose autoencoder, CLIP and judge are trained once.
set -euo pipefail
before=(time_sampler=uniform optimizer=adamw)  # what the recipes were
shapes=(experiment=latent_shapes "${before[@]}" steps=500 batch=32 sampling_steps=20 evaluation.samples=400)
python train.py -m "${shapes[@]}" schedule=linear,cosine parameterization=eps,x0,v
python train.py -m "${shapes[@]}" schedule=rectified_flow parameterization=v,velocity
cifar=(experiment=latent_cifar "${before[@]}" batch=64 steps=500 guidance=classifier_free sampling_steps=20 evaluation.samples=400
    compile=false)
python train.py -m "${cifar[@]}" schedule=linear,cosine parameterization=eps,x0,v
python train.py -m "${cifar[@]}" schedule=rectified_flow parameterization=v,velocity
