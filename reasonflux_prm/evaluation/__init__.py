"""Is it any good: the metrics of steps and of selection, with intervals."""
