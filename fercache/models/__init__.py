"""The networks, their preprocessing, and the files their weights come in."""
