"""Is it any good: final answers, and the metrics of steps and of selection."""
