"""What looks into files and machines: caches, weights, and what a computer has."""
