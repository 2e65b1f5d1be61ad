"""A PRM over many traces: packing, windows, sessions, aggregation, resumable runs."""
