"""Putting files into class folders, and undoing it."""
