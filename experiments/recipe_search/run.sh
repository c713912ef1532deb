#!/usr/bin/env bash
# Recipes of latent_cifar at about five minutes of two CPU cores each, on one autoencoder and one CLIP.
set -euo pipefail

recipe() {
    python train.py '+parents.autoencoder.overrides=["steps=800"]' '+parents.text_encoder.overrides=["steps=300"]' \
        compile=false sample_every=null guidance=classifier_free sampling_steps=20 evaluation.samples=600 "$@"
}
cosine="experiment=latent_cifar learning_rate=1e-3" flow="experiment=flow_cifar"

recipe $cosine parameterization=v time_sampler=uniform optimizer=adamw batch=64 steps=600
recipe $cosine parameterization=v optimizer=adamw batch=64 steps=600
recipe $flow optimizer=adamw batch=64 steps=600
recipe $flow optimizer=adamw steps=1150
recipe $flow optimizer=adamw steps=1150 learning_rate=2e-3
recipe $cosine optimizer=adamw steps=1150
recipe $flow batch=64 steps=600
recipe $flow steps=900

# what came of it (cosine, straight, logit-normal, Muon, 32), and one change of it each
changed() { recipe $cosine evaluation.samples=1000 "$@"; }
changed steps=900
changed steps=900 learning_rate=2e-3
changed steps=900 learning_rate=4e-3
changed steps=1440 batch=16
changed steps=900 ema=power
changed steps=800 'backbone.widths=[64,128,128]' 'backbone.self_attention=[false,true,true]' \
    'backbone.cross_attention=[false,true,true]'
changed steps=1180 autoencoder=kl_f4 backbone=unet_tiny
