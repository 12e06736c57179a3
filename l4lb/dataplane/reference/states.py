"""The TCP states of a flow (docs/design/decision.md, section 8).

The names, transitions and timers are those of IPVS (net/netfilter/ipvs/ip_vs_proto_tcp.c in Linux). The
balancer follows a connection from outside and only to know how long to remember it: nothing is dropped
for being out of state.
"""

from __future__ import annotations

from collections.abc import Mapping

from l4lb.dataplane.decision import State
from l4lb.model import Protocol

FIN = 0x01
SYN = 0x02
RST = 0x04
ACK = 0x10

SR = State.SYN_RECV
ES = State.ESTABLISHED
FW = State.FIN_WAIT
TW = State.TIME_WAIT
CL = State.CLOSE
CW = State.CLOSE_WAIT

_FROM = (SR, ES, FW, TW, CL, CW)
_CLOSING = (FW, TW, CL, CW)
_PRECEDENCE = (RST, SYN, FIN, ACK)

_CLIENT = {
    # from SR  ES  FW  TW  CL  CW
    SYN: (SR, ES, FW, TW, CL, CW),
    FIN: (TW, CW, TW, TW, CL, CW),
    ACK: (ES, ES, FW, TW, CL, CW),
    RST: (SR, CL, CL, CL, CL, CL),
}

# Without the answers, a FIN of the client may be the first or the second of the two.
_CLIENT_ALONE = _CLIENT | {FIN: (TW, FW, FW, TW, CL, CW)}

_BACKEND = {
    # from SR  ES  FW  TW  CL  CW
    SYN: (SR, ES, FW, TW, CL, CW),
    FIN: (TW, FW, FW, TW, CL, TW),
    ACK: (ES, ES, FW, TW, CL, CW),
    RST: (CL, CL, CL, TW, CL, CL),
}

_FIRST = {SYN: SR, ACK: SR, FIN: CL, 0: SR}


def first_state(protocol: int, flags: int) -> State:
    """The state of a flow that begins with a packet of these TCP flags (no RST among them)."""
    return State.UDP if protocol == Protocol.UDP else _FIRST[_class_of(flags)]


def after_client(state: State, flags: int, *, replies_seen: bool) -> State:
    """The state after a packet from the client; `replies_seen`: those of the backend are followed, too."""
    return _follow(_CLIENT if replies_seen else _CLIENT_ALONE, state, flags)


def after_backend(state: State, flags: int) -> State:
    """The state after a packet from the backend."""
    return _follow(_BACKEND, state, flags)


def begins(flags: int) -> bool:
    """Whether a TCP packet may begin a flow. One without SYN may: the balancer may have restarted."""
    return not flags & RST and flags & (SYN | ACK) != SYN | ACK


def opens(flags: int) -> bool:
    """Whether a TCP packet has SYN alone."""
    return flags & (SYN | ACK | RST | FIN) == SYN


def can_be_reset(protocol: int, flags: int) -> bool:
    """Whether a packet of a connection that is over is answered with a reset. A SYN begins another one, and a
    reset is never answered (RFC 9293, section 3.5.2)."""
    return protocol == Protocol.TCP and not flags & (SYN | RST)


def is_open(state: State) -> bool:
    """Whether a flow may still carry something: neither end, as far as is seen, has closed it."""
    return state not in _CLOSING


def reuses_port(state: State, flags: int) -> bool:
    """Whether the client opens a new connection from the port of a closing one."""
    return state in _CLOSING and opens(flags)


def _follow(table: Mapping[int, tuple[State, ...]], state: State, flags: int) -> State:
    kind = _class_of(flags)
    if state is State.UDP or kind == 0:
        return state
    return table[kind][_FROM.index(state)]


def _class_of(flags: int) -> int:
    """The flag that decides, or 0 where none of them is set."""
    return next((flag for flag in _PRECEDENCE if flags & flag), 0)
