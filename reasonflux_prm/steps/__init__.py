"""Cut a trace into steps without losing a character."""
