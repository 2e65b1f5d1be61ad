"""Programs that a model wrote, run where they can harm nothing: `reasonflux_prm.sandbox.sandbox.Sandbox`."""
