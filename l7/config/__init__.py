"""The `l7` section of the configuration file: YAML → `l7.model`. docs/proxy.md is its manual."""
