"""The command line: options, commands and exit codes."""
