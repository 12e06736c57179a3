"""Connections: everything between an accepted connection and its line in the log. The path itself is in
ext/l7/proxy."""
