"""Touches the world: queues, rules, addresses, sockets, files."""
