"""Runs: what training leaves in a directory, and everything one does with it."""
