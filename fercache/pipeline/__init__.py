"""The graph of steps: which command makes what from what."""
