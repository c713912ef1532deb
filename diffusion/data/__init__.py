"""Captioned image sets. A set is a plain object that hands out splits in memory (`captioned.py`); nothing
here trains.

shapes   procedural pictures of one or two shapes, with held-out compositions; needs nothing
cifar10  ten classes of photographs, captions from templates
folder   your own pictures, with a metadata.jsonl or one folder per class
"""
