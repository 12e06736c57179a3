"""What stands on the wire around HTTP: who a client is, PROXY headers, forwarding headers. Pure."""
