"""Readers: one module per format, and what delimited text and folders of images are made of."""
