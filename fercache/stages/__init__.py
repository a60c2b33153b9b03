"""The stages: one file, one function each, which returns the path of what it wrote. They know nothing of each other."""
