"""Decides, packet by packet. Pure: bytes and time come in, decisions come out."""
