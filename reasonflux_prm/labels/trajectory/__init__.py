"""Raters of whole traces: by a template of their strategy, by their final answer, or by a policy's judgement."""
