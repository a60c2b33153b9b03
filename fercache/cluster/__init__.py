"""The pipeline as a graph of jobs on a cluster: its plan, its submission and its status."""
