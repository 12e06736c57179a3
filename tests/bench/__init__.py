"""Benchmarks: l4lb beside its peers, in turns within one run. See docs/benchmarks.md."""
