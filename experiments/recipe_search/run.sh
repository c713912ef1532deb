#!/usr/bin/env bash
# Recipes of latent_cifar at about five minutes of two CPU cores each, on one autoencoder and one CLIP.
set -euo pipefail

recipe() {
    python train.py '+parents.autoencoder.overrides=["steps=800"]' '+parents.text_encoder.overrides=["steps=300"]' \
        compile=false sample_every=null sampling_steps=20 evaluation.samples=600 "$@"
}
cosine="experiment=latent_cifar" flow="experiment=flow_cifar"

recipe $cosine parameterization=v time_sampler=uniform optimizer=adamw batch=64 steps=600
recipe $cosine parameterization=v optimizer=adamw batch=64 steps=600
recipe $flow optimizer=adamw batch=64 steps=600
recipe $flow optimizer=adamw steps=1150
recipe $flow optimizer=adamw steps=1150 learning_rate=2e-3
recipe $cosine optimizer=adamw steps=1150
recipe $flow batch=64 steps=600
recipe $flow steps=900
