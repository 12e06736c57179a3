"""TLS on both sides of the proxy: certificates, contexts by SNI, the names in a ClientHello."""
