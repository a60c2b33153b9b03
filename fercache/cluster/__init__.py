"""The pipeline as a graph of SLURM's jobs: what it would take, its submission, and how it goes."""
