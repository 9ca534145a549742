"""Training: one step, the loop, its cost on this machine, and `fit`, which writes a run directory."""
