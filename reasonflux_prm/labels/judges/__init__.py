"""Judges of step quality.

A policy that reviews (`llm`), rollouts from prefixes (`rollout`, `rollout_search`), claims that can be checked
(`rules`), two judges that must agree (`consensus`), and labels that came with the record (`recorded`).
"""
