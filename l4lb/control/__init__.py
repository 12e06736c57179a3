"""Decides what the host and the packet path should look like. No effects."""
