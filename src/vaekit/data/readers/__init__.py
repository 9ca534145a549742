"""Readers: one module per format, and the parts of the readers of delimited text and of folders of images."""
