"""The front door: command line, workspace, comparison, prediction."""
