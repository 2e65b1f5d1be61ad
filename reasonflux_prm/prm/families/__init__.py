"""Released PRMs, one file a family."""
