"""Captions to conditioning: the CLIP towers of `transformers`, pretrained or trained here from scratch."""
