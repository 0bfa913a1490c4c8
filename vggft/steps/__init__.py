"""What each command does, one module a command: `run(…)` returns the object that `--json` prints."""
