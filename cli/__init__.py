"""The command line: configuration, progress, commands."""
