"""What happens around training steps: progress, scores and pictures, saving."""
