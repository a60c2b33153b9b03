"""What predictions are worth: aligned with labels, scored, the ensemble's file, and all of it in words."""
