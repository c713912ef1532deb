"""The networks: pure torch and einops, no training, no files."""
