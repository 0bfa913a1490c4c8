"""Comparing models on the same images: evidence, statistics, verdict, report."""
