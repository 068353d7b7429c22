"""The lab: causal maps in a browser. `microtome.frontends.lab.server` is where it starts."""
