"""Scores put to work: the best of N candidates."""
