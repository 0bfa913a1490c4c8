"""Trained models of a workspace, and predicting with them."""
