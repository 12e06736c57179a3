"""The processes of the proxy: master, steward and workers, and what goes between them."""
