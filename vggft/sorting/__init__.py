"""Putting predicted files into class folders, and undoing it."""
