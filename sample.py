"""Draw pictures from a model file: `python sample.py --help`."""

from diffusion.cli import sample

if __name__ == "__main__":
    sample()
