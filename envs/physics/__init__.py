"""Physics engines with one interface: C MuJoCo, MJX-JAX and MJX-Warp."""
