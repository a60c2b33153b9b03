"""The configs that travel with fercache; `-c NAME` takes one by its name."""
