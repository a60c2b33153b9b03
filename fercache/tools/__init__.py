"""What `fercache cache`, `weights` and `doctor` do."""
