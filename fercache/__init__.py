"""fercache: frame-wise facial expression recognition in video, with cached embeddings."""

__version__ = "0.1.0"
