"""The paper's reward design: terms of every step, the trajectory's reward by template, and how they are combined."""
