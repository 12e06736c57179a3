"""The command line, and the daemon that it starts: the one place where everything is wired together."""
