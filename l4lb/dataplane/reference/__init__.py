"""The packet path in readable Python: the specification that the native core is held to.

`docs/design/decision.md` states the rules, these modules carry them out one section each, and the
same test rows and random sequences run over them and over `l4lb.dataplane.balancer`. Read in this
order: `packet` (section 1), `states` (8), `flowtable` (6), `sources` (10), `ports` (11), `hashing` (7),
`schedulers` (4), `carry` with `rewrite`, `tunnel` and `answer` (9), and `balancer` (2, 3, 5), which reads as
the pipeline. Nothing here is fast, and nothing needs to be.
"""
