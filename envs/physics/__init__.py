"""Physics engines behind one protocol: C MuJoCo, MJX-JAX and MJX-Warp."""
