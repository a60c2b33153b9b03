"""The only user of h5py: the embedding cache and the predictions files."""
