"""Manifest, Aff-Wild2 layout, frames, windows, datasets and the synthetic faces."""
