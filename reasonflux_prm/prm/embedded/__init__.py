"""The PRM that needs no model hub: its base from a Python package, its adapter from this one."""
