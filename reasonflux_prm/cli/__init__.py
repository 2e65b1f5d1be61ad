"""The command line: one module a command, nothing but flags and calls downwards."""
