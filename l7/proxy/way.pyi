from l7.proxy.upstream import Upstream
from l7.routing.compiled import CompiledRoute

class Way:
    """Compiles what a CompiledRoute says for the path."""

    route: CompiledRoute
    name: bytes
    columns: int

    def __init__(self, route: CompiledRoute, columns: int, upstreams: dict[str, Upstream]) -> None: ...
