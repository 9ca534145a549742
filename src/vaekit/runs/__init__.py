"""Runs: the directories that training writes, and the trained models in them."""
