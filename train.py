"""Train a model and everything it needs first: `python train.py --help`."""

from diffusion.cli import train

if __name__ == "__main__":
    train()
