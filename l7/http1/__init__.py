"""HTTP/1.0 and 1.1: heads and bodies, parsed and built. Pure; the code is native (`ext/l7/http1`)."""
