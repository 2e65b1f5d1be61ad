"""One PRM behind HTTP, and its client."""
