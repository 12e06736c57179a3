"""l7lb: tier 2 of the balancer, an HTTP proxy. docs/design/proxy.md is its tour."""
