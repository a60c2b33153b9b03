"""Scores and the search of ensemble weights: numpy and scikit-learn alone."""
