"""l4lb: a packet-level layer 4 load balancer for a Linux gateway."""

__version__ = "0.1.0"
