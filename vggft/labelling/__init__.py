"""Sorting pictures into classes by hand, in a browser, with suggestions."""
