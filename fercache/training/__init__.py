"""Training: losses, the epoch loop, checkpoints. It does not know which stage calls."""
