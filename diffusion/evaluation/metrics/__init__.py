"""Metrics: pure functions of feature matrices. Each returns a number with its 95 % interval.

In float64, and without a draw from any global generator: where a set is split in groups, the split is fixed.
"""
