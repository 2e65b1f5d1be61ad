"""Scored traces into SFT data: which traces, why the others not, and in the form that a student is trained on.

`settings` says what is asked, `run` reads the pool twice and writes the output, `choose` ranks and cuts in between.
"""
