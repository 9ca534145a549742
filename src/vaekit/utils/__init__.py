"""Helpers that every layer may import and that know nothing of models: files, types, messages, progress."""
