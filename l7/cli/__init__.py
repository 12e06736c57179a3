"""The command line of `l7lb`."""
