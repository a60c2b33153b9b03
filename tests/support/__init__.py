"""What several tests need, each once."""
